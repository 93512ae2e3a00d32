//! New clusters, restarts, and configurations that contradict themselves or the cluster.

use retcd_state::identity::{cluster_id, member_id};
use rustix::process::Signal;

use super::members::{Cluster, until};

#[tokio::test]
async fn three_members_found_a_cluster() {
    let mut cluster = Cluster::found(3, &["--initial-cluster-token=t"]);
    let ids: Vec<u64> = cluster
        .members
        .iter()
        .map(|member| member_id(&[member.peer_url()], "t"))
        .collect();
    cluster.members[0].put("k", "v").await;
    for (member, id) in cluster.members.iter().zip(&ids) {
        assert_eq!(member.get("k").await.as_deref(), Some("v"));
        let status = member.status().await.unwrap();
        let header = status.header.unwrap();
        assert_eq!(
            (header.cluster_id, header.member_id),
            (cluster_id(&ids), *id)
        );
        assert!(!status.is_learner);
        let list = member.list().await;
        assert!(list.is_sorted_by_key(|member| member.id));
        assert_eq!(list.len(), 3);
        for (member, id) in cluster.members.iter().zip(&ids) {
            let told = list.iter().find(|told| told.id == *id).unwrap();
            assert_eq!(told.name, member.name);
            assert_eq!(told.peer_ur_ls, [member.peer_url()]);
            assert_eq!(told.client_ur_ls, [member.client_url()]);
        }
    }
    // Its data decides who it is, whatever the flags say.
    cluster.members[1].end_with(Signal::TERM);
    cluster.members[0].put("k", "w").await;
    let other = "--initial-cluster=x=http://127.0.0.1:1";
    cluster.start(
        1,
        &[
            other,
            "--initial-cluster-token=u",
            "--initial-cluster-state=existing",
        ],
    );
    assert_eq!(cluster.members[1].get("k").await.as_deref(), Some("w"));
    assert_eq!(cluster.members[1].id().await, ids[1]);
}

#[tokio::test]
async fn members_find_each_other_by_a_token() {
    let service = Cluster::found(1, &[]);
    let registry = |key: &str| format!("/_etcd/registry/T/{key}");
    let by_token = [
        "--initial-cluster=".to_owned(),
        "--discovery-token=T".to_owned(),
        format!("--discovery-endpoints={}", service.members[0].client_url()),
    ];
    let by_token = by_token.each_ref().map(String::as_str);
    let mut cluster = Cluster::planned(4);
    let refused = cluster.run_to_end(0, &by_token);
    refused.assert(
        1,
        "failed to join discovery cluster (discovery: size key not found)",
    );
    refused.assert(1, "do not reuse discovery token");
    service.members[0]
        .put(&registry("_config/size"), "three")
        .await;
    cluster
        .run_to_end(0, &by_token)
        .assert(1, "discovery: size key is bad");
    service.members[0].put(&registry("_config/size"), "3").await;
    cluster.launch(0, &by_token);
    cluster.members[0].wait_for("waiting for peers from discovery service");
    for number in [1, 2] {
        cluster.launch(number, &by_token);
    }
    for member in &cluster.members[..3] {
        member.wait_until_serving();
    }
    let ids: Vec<u64> = cluster.members[..3]
        .iter()
        .map(|member| member_id(&[member.peer_url()], "T"))
        .collect();
    let header = cluster.members[2].status().await.unwrap().header.unwrap();
    assert_eq!(header.cluster_id, cluster_id(&ids));
    assert_eq!(cluster.members[1].list().await.len(), 3);
    let entry = service.members[0]
        .get(&registry(&format!("members/{:016x}", ids[0])))
        .await;
    assert_eq!(entry, Some(format!("m1={}", cluster.members[0].peer_url())));
    cluster.run_to_end(3, &by_token).assert(
        1,
        "failed to join discovery cluster (discovery: cluster is full)",
    );
    cluster.members[2].end_with(Signal::TERM);
    cluster.start(2, &by_token);
    cluster.members[2].wait_for("discovery token is ignored");
}

#[tokio::test]
async fn one_more_than_half_is_enough_to_start() {
    let mut cluster = Cluster::planned(3);
    for number in [0, 2] {
        cluster.launch(number, &[]);
    }
    for number in [0, 2] {
        cluster.members[number].wait_until_serving();
    }
    cluster.members[2].put("k", "v").await;
    assert_eq!(cluster.members[0].get("k").await.as_deref(), Some("v"));
    // A member that cannot be asked holds the version down.
    let version = "cluster-version\":\"3.0";
    until("a version to be decided", async || {
        [0, 2]
            .iter()
            .any(|n| cluster.members[*n].log().contains(version))
    })
    .await;
    cluster.start(1, &[]);
    for member in &cluster.members {
        member.wait_for("updated cluster version");
        assert_eq!(member.get("k").await.as_deref(), Some("v"));
    }
}

#[test]
fn a_member_that_was_there_already_does_not_found_again() {
    let mut cluster = Cluster::found(3, &[]);
    let ended = cluster.members[0].end_with(Signal::TERM);
    assert!(ended.log.contains("closed etcd server"), "{}", ended.log);
    std::fs::remove_dir_all(cluster.members[0].db().ancestors().nth(3).unwrap()).unwrap();
    let id = member_id(&[cluster.members[0].peer_url()], "etcd-cluster");
    let text = format!("member {id:x} has already been bootstrapped");
    cluster.run_to_end(0, &[]).assert(1, &text);
}

#[test]
fn joining_what_is_not_there_or_another_cluster_is_refused() {
    let mut nobody = Cluster::planned(2);
    nobody.run_to_end(0, &["--initial-cluster-state=existing"]).assert(
        1,
        "cannot fetch cluster info from peer urls: could not retrieve cluster information from the given URLs",
    );
    let mut cluster = Cluster::found(1, &[]);
    let second = cluster.plan();
    cluster
        .run_to_end(second, &["--initial-cluster-state=existing"])
        .assert(1, "member count is unequal");
    let founding = format!(
        "--initial-cluster=m2={}",
        cluster.members[second].peer_url()
    );
    cluster
        .run_to_end(second, &[&founding, "--name=m1"])
        .assert(
            1,
            "couldn't find local name \\\"m1\\\" in the initial cluster configuration",
        );
}
