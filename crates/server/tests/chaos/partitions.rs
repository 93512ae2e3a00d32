//! Members that run but do not hear each other: frozen, cut off, one-way, slow.

use std::time::Duration;

use retcd_proto::etcdserverpb as pb;
use rustix::process::Signal;

use super::cluster::{Cluster, ELECTION_TIMEOUT, Member};
use super::kills::RESUMES_WITHIN;
use super::load::{self, Load};
use super::place::until;
use super::relay::Network;

fn index(cluster: &Cluster, member: &Member) -> usize {
    let position = cluster.members.iter().position(|m| m.name == member.name);
    position.expect("the member is one of the cluster's")
}

#[test]
fn frozen_members_lose_nothing_and_show_nothing_old() {
    load::run(async {
        let cluster = Cluster::start(&[]).await;
        let load = Load::start(&cluster, 4, 4);
        for frozen_is_leader in [true, false, true] {
            load.more(100).await;
            let leader = cluster.leader().await;
            let frozen = match frozen_is_leader {
                true => leader,
                false => cluster.others(&leader).remove(0),
            };
            // Clients go on asking it: what it answers as soon as it wakes up must not be old.
            frozen.signal(Signal::STOP);
            let took = load.resumed().await;
            println!(
                "writes resume {took:?} after {} was frozen (leader: {frozen_is_leader})",
                frozen.name
            );
            assert!(took < RESUMES_WITHIN, "{took:?}");
            load.more(50).await;
            frozen.signal(Signal::CONT);
            load.more(50).await;
        }
        load.finish(&cluster).await;
    });
}

#[test]
fn a_leader_that_is_cut_off_is_replaced_and_shows_nothing_old() {
    load::run(async {
        let (network, cluster) = Network::start(&[]).await;
        let load = Load::start(&cluster, 4, 4);
        for round in 0..3 {
            load.more(100).await;
            let leader = cluster.leader().await;
            network.isolate(index(&cluster, &leader));
            leader.asked.set(round == 2);
            let took = load.resumed().await;
            println!("writes resume {took:?} after {} was cut off", leader.name);
            assert!(took < RESUMES_WITHIN, "{took:?}");
            load.more(50).await;
            // Nobody answered it for an election timeout: it does not call itself leader any more.
            until("the old leader to step down", async || {
                leader
                    .status()
                    .await
                    .is_some_and(|status| status.leader == 0)
            })
            .await;
            network.mend();
            leader.asked.set(true);
            cluster.leader().await;
        }
        load.finish(&cluster).await;
    });
}

#[test]
fn a_follower_that_is_cut_off_disturbs_nobody() {
    load::run(async {
        let (network, cluster) = Network::start(&[]).await;
        let load = Load::start(&cluster, 4, 2);
        load.more(50).await;
        let leader = cluster.leader().await;
        let term = leader.status().await.expect("the leader answers").raft_term;
        let follower = cluster.others(&leader).remove(0);
        follower.asked.set(false);
        network.isolate(index(&cluster, &follower));
        until("the follower to miss its leader", async || {
            follower
                .status()
                .await
                .is_some_and(|status| status.leader == 0)
        })
        .await;
        // It asks for votes in vain, and does not raise the term meanwhile.
        load.more(200).await;
        let took = load.resumed().await;
        network.mend();
        follower.asked.set(true);
        assert_eq!(cluster.leader().await.name, leader.name);
        let status = leader.status().await.expect("the leader answers");
        assert_eq!(status.raft_term, term);
        println!("writes beside a follower that is cut off take {took:?}");
        load.finish(&cluster).await;
    });
}

#[test]
fn messages_that_go_one_way_only_do_no_harm() {
    load::run(async {
        let (network, cluster) = Network::start(&[]).await;
        let load = Load::start(&cluster, 4, 2);
        for outgoing in [true, false] {
            load.more(50).await;
            let leader = cluster.leader().await;
            let cut = index(&cluster, &leader);
            for other in (0..3).filter(|other| *other != cut) {
                match outgoing {
                    true => network.cut(cut, other),
                    false => network.cut(other, cut),
                }
            }
            let took = load.resumed().await;
            println!(
                "writes resume {took:?} after {} lost its way out ({outgoing}) or in",
                leader.name
            );
            assert!(took < RESUMES_WITHIN, "{took:?}");
            network.mend();
            load.more(50).await;
        }
        load.finish(&cluster).await;
    });
}

#[test]
fn a_slow_network_slows_writes_and_nothing_else() {
    load::run(async {
        let (network, cluster) = Network::start(&[]).await;
        let load = Load::start(&cluster, 8, 4);
        load.more(50).await;
        let leader = cluster.leader().await;
        network.delay(ELECTION_TIMEOUT / 20);
        load.more(200).await;
        assert_eq!(cluster.leader().await.name, leader.name);
        network.delay(Duration::ZERO);
        load.finish(&cluster).await;
    });
}

#[test]
fn a_member_joins_although_one_does_not_know_of_it() {
    load::run(async {
        let (network, cluster) = Network::start(&["--strict-reconfig-check=false"]).await;
        let load = Load::start(&cluster, 2, 1);
        load.more(20).await;
        // Members that join ask in the order of the URLs, this one first.
        let behind = &cluster.members[0];
        network.isolate(0);
        behind.asked.set(false);
        load.resumed().await;
        let joining = cluster.joining();
        let request = pb::MemberAddRequest {
            peer_ur_ls: vec![joining.peer_url()],
            is_learner: true,
        };
        until("the member to be added", async || {
            let leader = cluster.leader().await;
            leader.cluster().member_add(request.clone()).await.is_ok()
        })
        .await;
        joining.launch();
        joining.serving().await;
        network.mend();
        behind.asked.set(true);
        load.finish(&cluster).await;
    });
}
