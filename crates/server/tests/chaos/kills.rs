//! Members end, by SIGKILL or in order, and come back.

use rustix::process::Signal;

use super::cluster::{Cluster, ELECTION_TIMEOUT};
use super::load::{self, Load};

/// What a test may wait for writes after a leader is lost. Two election timeouts on a machine that
/// has nothing else to do; far more on one that runs all the tests at once.
pub const RESUMES_WITHIN: std::time::Duration = ELECTION_TIMEOUT.saturating_mul(12);

#[test]
fn a_leader_killed_again_and_again_loses_nothing() {
    load::run(async {
        let cluster =
            Cluster::start(&["--snapshot-count=500", "--snapshot-catchup-entries=50"]).await;
        let load = Load::start(&cluster, 4, 2);
        for round in 0..5 {
            load.more(100 + fastrand::usize(..100)).await;
            let leader = cluster.leader().await;
            leader.kill();
            let took = load.resumed().await;
            println!(
                "round {round}: writes resume {took:?} after {} was killed",
                leader.name
            );
            assert!(took < RESUMES_WITHIN, "{took:?}");
            // In some rounds far behind, so that it needs a snapshot.
            load.more(if round % 2 == 0 { 50 } else { 700 }).await;
            leader.restart().await;
        }
        load.finish(&cluster).await;
    });
}

#[test]
fn a_rolling_restart_loses_nothing() {
    load::run(async {
        let cluster = Cluster::start(&[]).await;
        let load = Load::start(&cluster, 4, 2);
        for _ in 0..2 {
            for member in &cluster.members {
                load.more(50).await;
                let led = std::rc::Rc::ptr_eq(&cluster.leader().await, member);
                member.asked.set(false);
                member.signal(Signal::TERM);
                let took = load.resumed().await;
                member.ended().await.assert(143, "closed etcd server");
                println!(
                    "writes resume {took:?} after {} (leader: {led}) was stopped",
                    member.name
                );
                assert!(took < RESUMES_WITHIN, "{took:?}");
                member.restart().await;
            }
        }
        load.finish(&cluster).await;
    });
}
