//! Members come, get a vote, move, and go.

use retcd_proto::etcdserverpb as pb;
use rustix::process::Signal;
use tonic::{Code, Status};

use super::members::{Cluster, Member, free_port, until};

/// Without the five seconds that connections have to hold before members may change.
const AT_ONCE: &str = "--strict-reconfig-check=false";
const EXISTING: &str = "--initial-cluster-state=existing";

async fn add(
    asked: &Member,
    new: &Member,
    is_learner: bool,
) -> Result<pb::MemberAddResponse, Status> {
    let request = pb::MemberAddRequest {
        peer_ur_ls: vec![new.peer_url()],
        is_learner,
    };
    Ok(asked
        .cluster()
        .await
        .member_add(request)
        .await?
        .into_inner())
}

async fn remove(asked: &Member, id: u64) -> Result<Vec<pb::Member>, Status> {
    let request = pb::MemberRemoveRequest { id };
    Ok(asked
        .cluster()
        .await
        .member_remove(request)
        .await?
        .into_inner()
        .members)
}

async fn promote(asked: &Member, id: u64) -> Result<Vec<pb::Member>, Status> {
    let request = pb::MemberPromoteRequest { id };
    Ok(asked
        .cluster()
        .await
        .member_promote(request)
        .await?
        .into_inner()
        .members)
}

#[track_caller]
fn assert_refused<T: std::fmt::Debug>(result: Result<T, Status>, code: Code, text: &str) {
    let status = result.expect_err("it is refused");
    assert_eq!((status.code(), status.message()), (code, text));
}

#[tokio::test]
async fn a_learner_joins_votes_and_leaves() {
    let mut cluster = Cluster::found(1, &[AT_ONCE]);
    for i in 0..50 {
        cluster.members[0].put(&format!("k{i}"), "v").await;
    }
    let new = cluster.plan();
    let [first, second] = &cluster.members[..] else {
        unreachable!()
    };
    let added = add(first, second, true).await.unwrap();
    let member = added.member.unwrap();
    assert!(member.is_learner && member.name.is_empty());
    assert_eq!(added.members.len(), 2);
    // The id comes from the address and the second: within the same one it is the id that exists.
    let again = add(first, second, false).await.expect_err("it is refused");
    assert_eq!(again.code(), Code::FailedPrecondition);
    let texts = [
        "etcdserver: Peer URLs already exists",
        "etcdserver: member ID already exist",
    ];
    assert!(texts.contains(&again.message()), "{again}");
    assert_refused(
        promote(first, member.id).await,
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member which is in sync with leader",
    );
    assert_refused(
        promote(first, 1).await,
        Code::NotFound,
        "etcdserver: member not found",
    );
    cluster.start(new, &[EXISTING, AT_ONCE]);
    let [first, second] = &cluster.members[..] else {
        unreachable!()
    };

    assert!(second.status().await.unwrap().is_learner);
    until("the data to arrive", async || {
        second.range("k49", true).await.unwrap().is_some()
    })
    .await;
    let not_for_learner = "etcdserver: rpc not supported for learner";
    assert_refused(
        second.range("k49", false).await,
        Code::FailedPrecondition,
        not_for_learner,
    );
    let list = pb::MemberListRequest::default();
    assert_refused(
        second.cluster().await.member_list(list).await,
        Code::FailedPrecondition,
        not_for_learner,
    );

    until("the promotion", async || {
        promote(first, member.id).await.is_ok()
    })
    .await;
    until("the vote", async || {
        !second.status().await.unwrap().is_learner
    })
    .await;
    assert_refused(
        promote(second, member.id).await,
        Code::FailedPrecondition,
        "etcdserver: can only promote a learner member",
    );
    assert_eq!(second.get("k49").await.as_deref(), Some("v"));
    second.put("k", "both are needed").await;
    let revision = first.status().await.unwrap().header.unwrap().revision;
    assert_eq!(
        first.hash_kv(revision).await.hash,
        second.hash_kv(revision).await.hash
    );

    let left = remove(first, member.id).await.unwrap();
    assert_eq!(left.len(), 1);
    let ended = cluster.members[new].wait_for_end();
    ended.assert(
        0,
        "the member has been permanently removed from the cluster",
    );
    ended.assert(0, "data-dir used by this member must be removed");
    cluster.members[0].put("k", "one is enough").await;
    assert_refused(
        remove(&cluster.members[0], member.id).await,
        Code::NotFound,
        "etcdserver: member not found",
    );
    // It is told so again, by its own data or by the others.
    let ended = cluster.run_to_end(new, &[AT_ONCE]);
    ended.assert(
        0,
        "the member has been permanently removed from the cluster",
    );
}

/// Whom a client asks next need not be who has answered it last.
#[tokio::test]
async fn a_member_that_was_just_added_is_known_to_all() {
    let mut cluster = Cluster::found(3, &[AT_ONCE]);
    for round in 0..10 {
        // Another address each time, for the id comes from it.
        let new = cluster.plan();
        let [adds, promotes, updates, removes] =
            [0, 1, 2, 1].map(|next| &cluster.members[(round + next) % 3]);
        let added = add(adds, &cluster.members[new], true).await.unwrap();
        let id = added.member.unwrap().id;
        assert_refused(
            promote(promotes, id).await,
            Code::FailedPrecondition,
            "etcdserver: can only promote a learner member which is in sync with leader",
        );
        let update = pb::MemberUpdateRequest {
            id,
            peer_ur_ls: vec![format!("http://127.0.0.1:{}", 1 + round)],
        };
        let updated = updates.cluster().await.member_update(update).await;
        assert_eq!(updated.unwrap().into_inner().members.len(), 4);
        assert_eq!(remove(removes, id).await.unwrap().len(), 3);
        assert_eq!(promotes.list().await.len(), 3);
    }
}

#[tokio::test]
async fn a_learner_that_is_ready_is_promoted_at_once_through_any_member() {
    let mut cluster = Cluster::found(3, &[AT_ONCE]);
    for asked in [cluster.follower().await, cluster.leader().await] {
        let new = cluster.plan();
        let added = add(&cluster.members[0], &cluster.members[new], true).await;
        let id = added.unwrap().member.unwrap().id;
        cluster.start(new, &[EXISTING, AT_ONCE]);
        let members = promote(&cluster.members[asked], id).await.unwrap();
        assert!(members.iter().all(|member| !member.is_learner));
    }
}

#[tokio::test]
async fn a_member_that_was_away_learns_of_its_removal() {
    let mut cluster = Cluster::found(3, &[AT_ONCE]);
    // What is asked of one that does not know yet that its leader is gone is lost with it.
    let (leader, away) = (cluster.leader().await, cluster.follower().await);
    let id = cluster.members[away].id().await;
    cluster.members[away].end_with(Signal::KILL);
    remove(&cluster.members[leader], id).await.unwrap();
    let ended = cluster.run_to_end(away, &[]);
    ended.assert(
        0,
        "the member has been permanently removed from the cluster",
    );
    cluster.members[leader].put("k", "v").await;
}

#[tokio::test]
async fn a_leader_can_be_removed() {
    let mut cluster = Cluster::found(3, &[AT_ONCE]);
    let leader = cluster.leader().await;
    let id = cluster.members[leader].id().await;
    remove(&cluster.members[leader], id).await.unwrap();
    let ended = cluster.members[leader].wait_for_end();
    ended.assert(
        0,
        "the member has been permanently removed from the cluster",
    );
    let next = cluster.leader().await;
    cluster.members[next].put("k", "v").await;
    assert_eq!(cluster.members[next].list().await.len(), 2);
}

#[tokio::test]
async fn a_member_moves_to_another_address() {
    let mut cluster = Cluster::found(3, &[AT_ONCE]);
    let moving = cluster.follower().await;
    let id = cluster.members[moving].id().await;
    cluster.members[moving].end_with(Signal::TERM);
    let asked = cluster.leader().await;
    let update = async |peer_ur_ls| {
        let request = pb::MemberUpdateRequest { id, peer_ur_ls };
        cluster.members[asked]
            .cluster()
            .await
            .member_update(request)
            .await
    };
    let taken = cluster.members[asked].peer_url();
    assert_refused(
        update(vec![taken]).await,
        Code::FailedPrecondition,
        "etcdserver: Peer URLs already exists",
    );
    assert_refused(
        update(vec!["nonsense".to_owned()]).await,
        Code::InvalidArgument,
        "etcdserver: given member URLs are invalid",
    );
    let port = free_port();
    let updated = update(vec![format!("http://127.0.0.1:{port}")])
        .await
        .unwrap();
    assert_eq!(updated.into_inner().members.len(), 3);
    cluster.members[moving].peer_port = port;
    cluster.members[asked].put("k", "v").await;
    cluster.start(moving, &[]);
    assert_eq!(cluster.members[moving].get("k").await.as_deref(), Some("v"));
}

#[tokio::test]
async fn changes_that_could_cost_the_quorum_are_refused() {
    let mut cluster = Cluster::found(3, &[]);
    let new = cluster.plan();
    let asked = &cluster.members[cluster.leader().await];
    let other = cluster.members[cluster.follower().await].id().await;
    // The connections are too young to be relied on.
    let unhealthy = "etcdserver: unhealthy cluster";
    assert_refused(
        add(asked, &cluster.members[new], false).await,
        Code::Unavailable,
        unhealthy,
    );
    assert_refused(remove(asked, other).await, Code::Unavailable, unhealthy);
    until("the connections to be old enough", async || {
        remove(asked, other).await.is_ok()
    })
    .await;
    let added = add(asked, &cluster.members[new], false).await.unwrap();
    // Now there are three of which one has never been started: one more could cost the quorum.
    assert_eq!(added.members.len(), 3);
    let bad = pb::MemberAddRequest {
        peer_ur_ls: vec!["http://127.0.0.1:1".to_owned()],
        is_learner: false,
    };
    assert_refused(
        asked.cluster().await.member_add(bad).await,
        Code::Unknown,
        "etcdserver: re-configuration failed due to not enough started members",
    );
    let none = pb::MemberAddRequest::default();
    assert_refused(
        asked.cluster().await.member_add(none).await,
        Code::InvalidArgument,
        "etcdserver: given member URLs are invalid",
    );
}

#[tokio::test]
async fn one_member_goes_on_when_its_cluster_is_lost() {
    let mut cluster = Cluster::found(3, &[]);
    cluster.members[0].put("k", "v").await;
    for member in &mut cluster.members {
        member.end_with(Signal::KILL);
    }
    cluster.start(1, &["--force-new-cluster"]);
    let alone = &cluster.members[1];
    assert_eq!(alone.get("k").await.as_deref(), Some("v"));
    assert_eq!(alone.list().await.len(), 1);
    alone.put("k", "w").await;
    cluster.members[1].end_with(Signal::TERM);
    cluster.start(1, &[]);
    assert_eq!(cluster.members[1].get("k").await.as_deref(), Some("w"));
}
