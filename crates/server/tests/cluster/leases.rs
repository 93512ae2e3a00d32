//! Leases, asked about at members that do not keep their deadlines.

use std::cell::Cell;
use std::cmp::Ordering;

use futures_util::future::join_all;
use retcd_proto::etcdserverpb as pb;
use rustix::process::Signal;
use tonic::transport::Channel;

use super::members::{Cluster, Member, until};

type Client = pb::lease_client::LeaseClient<Channel>;

async fn grant(member: &Member, id: i64, ttl: i64) {
    grant_by(member.lease().await, id, ttl).await;
}

async fn grant_by(mut client: Client, id: i64, ttl: i64) {
    let request = pb::LeaseGrantRequest { id, ttl };
    client.lease_grant(request).await.unwrap();
}

async fn keep_alive(member: &Member, id: i64) -> i64 {
    keep_alive_by(member.lease().await, id).await
}

async fn keep_alive_by(mut client: Client, id: i64) -> i64 {
    let requests = tokio_stream::once(pb::LeaseKeepAliveRequest { id });
    let answers = client.lease_keep_alive(requests).await.unwrap();
    let answer = answers.into_inner().message().await.unwrap().unwrap();
    assert_eq!(answer.id, id);
    answer.ttl
}

async fn time_to_live(member: &Member, id: i64) -> pb::LeaseTimeToLiveResponse {
    let request = pb::LeaseTimeToLiveRequest { id, keys: true };
    member
        .lease()
        .await
        .lease_time_to_live(request)
        .await
        .unwrap()
        .into_inner()
}

#[tokio::test]
async fn any_member_renews_and_tells_about_leases() {
    let cluster = Cluster::found(3, &[]);
    let leader = cluster.leader().await;
    grant(&cluster.members[leader], 7, 60).await;
    let put = pb::PutRequest {
        key: "k".into(),
        lease: 7,
        ..Default::default()
    };
    cluster.members[leader].kv().await.put(put).await.unwrap();
    for member in &cluster.members {
        assert_eq!(keep_alive(member, 7).await, 60);
        assert_eq!(keep_alive(member, 8).await, 0);
        let told = time_to_live(member, 7).await;
        assert_eq!((told.granted_ttl, told.keys), (60, vec!["k".into()]));
        assert!((50..=60).contains(&told.ttl), "{}", told.ttl);
        assert_eq!(told.header.unwrap().member_id, member.id().await);
        assert_eq!(time_to_live(member, 8).await.ttl, -1);
    }
}

/// The leader looks, and the member that was asked answers: by its own name, and as of the revision
/// at which the leader has looked.
#[tokio::test]
async fn what_a_follower_passes_on_is_of_the_revision_in_its_header() {
    const LEASES: i64 = 100;
    let cluster = Cluster::found(3, &[]);
    let leader = &cluster.members[cluster.leader().await];
    let follower = &cluster.members[cluster.follower().await];
    let (follower_id, leases) = (follower.id().await, follower.lease().await);
    let newest = Cell::new(0);
    // Lease N has a key from revision 2 N on, and is revoked with it at the next.
    let churn = async {
        let (mut kv, mut leases) = (leader.kv().await, leader.lease().await);
        for id in 1..=LEASES {
            grant_by(leases.clone(), id, 60).await;
            newest.set(id);
            let put = pb::PutRequest {
                key: "k".into(),
                lease: id,
                ..Default::default()
            };
            kv.put(put).await.unwrap();
            let revoked = leases.lease_revoke(pb::LeaseRevokeRequest { id }).await;
            let header = revoked.unwrap().into_inner().header.unwrap();
            assert_eq!(header.revision, 2 * id + 1);
        }
    };
    let mut with_key = 0;
    let looks = async {
        while newest.get() < LEASES {
            let id = newest.get();
            let request = pb::LeaseTimeToLiveRequest { id, keys: true };
            let told = leases.clone().lease_time_to_live(request).await;
            let told = told.unwrap().into_inner();
            let header = told.header.as_ref().unwrap();
            assert_eq!(header.member_id, follower_id);
            assert_ne!((header.cluster_id, header.raft_term), (0, 0), "{told:?}");
            match header.revision.cmp(&(2 * id)) {
                Ordering::Less => assert!(told.keys.is_empty(), "{told:?}"),
                Ordering::Equal => {
                    assert_eq!((told.keys.len(), told.ttl > 0), (1, true), "{told:?}");
                    with_key += 1;
                }
                Ordering::Greater => assert_eq!(told.ttl, -1, "{told:?}"),
            }
        }
    };
    tokio::join!(churn, looks);
    assert!(with_key > 0, "no lease was seen with its key");
}

/// Clients take 0 seconds for the loss of their lease, and with it of their locks.
#[tokio::test]
async fn a_lease_that_was_just_granted_is_renewed_through_any_member() {
    const CLIENTS: i64 = 48;
    const ROUNDS: i64 = 20;
    let cluster = Cluster::found(3, &[]);
    cluster.leader().await;
    let connected = join_all(cluster.members.iter().map(Member::lease)).await;
    let client = async |client: i64| {
        for round in 0..ROUNDS {
            let id = client * ROUNDS + round + 1;
            let [by, through] = [round, round + client % 2 + 1]
                .map(|number| connected[number as usize % connected.len()].clone());
            grant_by(by, id, 60).await;
            assert_eq!(keep_alive_by(through, id).await, 60, "lease {id}");
        }
    };
    join_all((0..CLIENTS).map(client)).await;
}

#[tokio::test]
async fn a_lease_expires_on_all_members() {
    let cluster = Cluster::found(3, &[]);
    let follower = &cluster.members[cluster.follower().await];
    grant(follower, 7, 1).await;
    until("the lease to expire", async || {
        time_to_live(follower, 7).await.ttl == -1
    })
    .await;
}

#[tokio::test]
async fn a_new_leader_gives_leases_their_time_again() {
    let mut cluster = Cluster::found(3, &[]);
    let leader = cluster.leader().await;
    grant(&cluster.members[leader], 7, 30).await;
    cluster.members[leader].end_with(Signal::KILL);
    let next = cluster.leader().await;
    let follower = cluster.follower().await;
    until("the new leader to keep deadlines", async || {
        // It says so as long as it does not.
        let request = pb::LeaseTimeToLiveRequest { id: 7, keys: false };
        cluster.members[next]
            .lease()
            .await
            .lease_time_to_live(request)
            .await
            .is_ok()
    })
    .await;
    let told = time_to_live(&cluster.members[follower], 7).await;
    assert!((28..=31).contains(&told.ttl), "{}", told.ttl);
    assert_eq!(keep_alive(&cluster.members[follower], 7).await, 30);
}
