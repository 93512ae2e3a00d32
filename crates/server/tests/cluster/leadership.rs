//! Leadership that is handed over.

use std::time::{Duration, Instant};

use retcd_proto::etcdserverpb as pb;
use rustix::process::Signal;
use tonic::Code;

use super::members::{Cluster, Member};

async fn move_leader(asked: &Member, target_id: u64) -> Result<(), (Code, String)> {
    let request = pb::MoveLeaderRequest { target_id };
    let moved = asked.maintenance().await.move_leader(request).await;
    moved
        .map(drop)
        .map_err(|status| (status.code(), status.message().to_owned()))
}

#[tokio::test]
async fn leadership_moves_where_it_is_wanted() {
    let cluster = Cluster::found(3, &[]);
    let (leader, follower) = (cluster.leader().await, cluster.follower().await);
    let id = cluster.members[follower].id().await;
    assert_eq!(
        move_leader(&cluster.members[follower], id).await,
        Err((
            Code::FailedPrecondition,
            "etcdserver: not leader".to_owned()
        ))
    );
    assert_eq!(
        move_leader(&cluster.members[leader], 1).await,
        Err((
            Code::FailedPrecondition,
            "etcdserver: bad leader transferee".to_owned()
        ))
    );
    move_leader(&cluster.members[leader], id).await.unwrap();
    assert_eq!(cluster.leader().await, follower);
    cluster.members[leader].put("k", "v").await;
}

/// The leader must not wait for one to take over that stops, too.
#[test]
fn members_that_are_stopped_together_stop_at_once() {
    let mut cluster = Cluster::found(3, &[]);
    let started = Instant::now();
    for member in &cluster.members {
        member.signal(Signal::TERM);
    }
    let ended = cluster.members.iter_mut().map(Member::wait_for_end);
    let logs: Vec<String> = ended.map(|ended| ended.log).collect();
    let took = started.elapsed();
    assert!(
        took < Duration::from_secs(4),
        "it took {took:?}: {}",
        logs.concat()
    );
}

#[tokio::test]
async fn a_leader_that_stops_hands_over() {
    let mut cluster = Cluster::found(3, &[]);
    let leader = cluster.leader().await;
    let ended = cluster.members[leader].end_with(Signal::TERM);
    assert!(
        ended.log.contains("leadership transfer finished"),
        "{}",
        ended.log
    );
    let next = cluster.leader().await;
    assert_ne!(next, leader);
    cluster.members[next].put("k", "v").await;
    let follower = cluster.follower().await;
    let ended = cluster.members[follower].end_with(Signal::TERM);
    let skipped = "skipped leadership transfer; local server is not leader";
    assert!(ended.log.contains(skipped), "{}", ended.log);
}
