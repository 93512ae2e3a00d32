//! Data that differs from the other members' is found.

use retcd_proto::etcdserverpb as pb;
use retcd_storage::backend::{Backend, Bucket, WriteBatch};
use retcd_storage::bolt::{Access, Options};
use retcd_storage::disk::OsDisk;
use rustix::process::Signal;
use std::sync::Arc;

use super::members::{Cluster, Member, until};

/// Changes the newest value of a key behind the member's back.
fn falsify(member: &Member) {
    let options = Options {
        access: Access::Create,
        ..Options::default()
    };
    let backend = Backend::open(Arc::new(OsDisk), &member.db(), options).unwrap();
    let reader = backend.reader();
    let last = reader
        .range(Bucket::Key, b"", None)
        .last()
        .expect("there are keys")
        .unwrap();
    let mut value = last.1.to_vec();
    let at = value
        .windows(5)
        .position(|window| window == b"value")
        .expect("the test's value");
    value[at] = b'V';
    let mut batch = WriteBatch::default();
    batch.put(Bucket::Key, &last.0, value.into());
    backend.write(batch);
    backend.commit().unwrap();
}

/// A cluster of which member 0 does not run and has something else than the others.
async fn with_falsified_member(flags: &[&str]) -> Cluster {
    let mut cluster = Cluster::found(3, flags);
    cluster.members[0].put("k", "value").await;
    for member in &cluster.members {
        assert_eq!(member.get("k").await.as_deref(), Some("value"));
    }
    cluster.members[0].end_with(Signal::TERM);
    falsify(&cluster.members[0]);
    cluster
}

#[tokio::test]
async fn a_member_with_other_data_does_not_start() {
    let mut cluster = with_falsified_member(&[]).await;
    let check = "--feature-gates=InitialCorruptCheck=true";
    cluster
        .run_to_end(0, &[check])
        .assert(1, "found data inconsistency with peers");
    cluster.members[1].end_with(Signal::TERM);
    cluster.launch(1, &[check]);
    cluster.members[1].wait_for("initial corruption checking passed; no corruption");
    cluster.members[1].wait_until_serving();
}

#[tokio::test]
async fn the_leader_raises_an_alarm_for_other_data() {
    let mut cluster = with_falsified_member(&["--corrupt-check-time=500ms"]).await;
    cluster.start(0, &[]);
    let id = cluster.members[0].id().await;
    let asked = &cluster.members[1];
    until("the alarm", async || {
        let request = pb::AlarmRequest::default();
        let alarms = asked.maintenance().await.alarm(request).await.unwrap();
        let alarms = alarms.into_inner().alarms;
        let corrupt = pb::AlarmType::Corrupt as i32;
        alarms
            .iter()
            .any(|alarm| alarm.member_id == id && alarm.alarm == corrupt)
    })
    .await;
    let put = pb::PutRequest {
        key: "k".into(),
        ..Default::default()
    };
    let refused = asked.kv().await.put(put).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: corrupt cluster");
}

#[tokio::test]
async fn equal_compactions_are_found_equal() {
    let flags = [
        "--feature-gates=CompactHashCheck=true",
        "--compact-hash-check-time=300ms",
    ];
    let cluster = Cluster::found(3, &flags);
    for _ in 0..5 {
        cluster.members[0].put("k", "value").await;
    }
    let compaction = pb::CompactionRequest {
        revision: 3,
        physical: true,
    };
    cluster.members[0]
        .kv()
        .await
        .compact(compaction)
        .await
        .unwrap();
    let leader = cluster.leader().await;
    cluster.members[leader].wait_for("successfully checked hash on whole cluster");
}
