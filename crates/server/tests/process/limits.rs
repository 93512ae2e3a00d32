//! Limits of space and history.

use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType, RangeRequest};
use tonic::Code;
use tonic::transport::Channel;

use super::place::{Place, until};

/// All alarms.
async fn alarms(maintenance: &mut MaintenanceClient<Channel>) -> Vec<AlarmMember> {
    maintenance
        .alarm(AlarmRequest::default())
        .await
        .unwrap()
        .into_inner()
        .alarms
}

async fn disarm(maintenance: &mut MaintenanceClient<Channel>, alarm: AlarmMember) {
    let AlarmMember { member_id, alarm } = alarm;
    let request = AlarmRequest {
        action: AlarmAction::Deactivate.into(),
        member_id,
        alarm,
    };
    maintenance.alarm(request).await.unwrap();
}

#[tokio::test]
async fn room_is_made_without_defragmentation() {
    let place = Place::new();
    let server = place.start(&["--quota-backend-bytes=4194304"]);
    let mut kv = server.kv().await;
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    for round in 0..3 {
        let mut puts = 0;
        let refused = loop {
            match kv.put(format!("k{puts}"), vec![7; 100_000]).await {
                Ok(_) => puts += 1,
                Err(refused) => break refused,
            }
            assert!(
                puts < 100,
                "round {round}: {puts} puts of 100 kB fit into 4 MiB"
            );
        };
        assert!(puts >= 20, "round {round} had room for {puts} puts only");
        assert_eq!(refused.code(), Code::ResourceExhausted);
        assert_eq!(
            refused.message(),
            "etcdserver: mvcc: database space exceeded"
        );
        until("the alarm", async || {
            alarms(&mut maintenance)
                .await
                .iter()
                .any(|alarm| alarm.alarm() == AlarmType::Nospace)
        })
        .await;
        let small = kv.put("small", "").await.unwrap_err();
        assert_eq!(small.message(), "etcdserver: mvcc: database space exceeded");
        assert!(server.page("/health").contains(r#""health":"false""#));

        let revision = kv.clear().await;
        kv.compact(revision).await.unwrap();
        for alarm in alarms(&mut maintenance).await {
            disarm(&mut maintenance, alarm).await;
        }
        assert_eq!(alarms(&mut maintenance).await, []);
        kv.put("small", "").await.unwrap();
        server.assert_well();
    }
}

#[tokio::test]
async fn history_is_compacted_by_time() {
    let place = Place::new();
    let server = place.start(&[
        "--auto-compaction-mode=periodic",
        "--auto-compaction-retention=200ms",
    ]);
    let mut kv = server.kv().await;
    let first = kv.put("k", "1").await.unwrap();
    let second = kv.put("k", "2").await.unwrap();
    let third = kv.put("k", "3").await.unwrap();
    let mut at = async |revision| {
        let request = RangeRequest {
            key: "k".into(),
            revision,
            ..Default::default()
        };
        kv.0.range(request)
            .await
            .map(|response| response.into_inner().kvs.len())
    };
    until("the compaction", async || at(second).await.is_err()).await;
    assert_eq!(
        at(first).await.unwrap_err().message(),
        "etcdserver: mvcc: required revision has been compacted"
    );
    assert_eq!(at(third).await.unwrap(), 1);
    server.wait_for("completed auto periodic compaction");
}

#[tokio::test]
async fn slow_requests_and_elections_are_in_the_log() {
    let place = Place::new();
    let server = place.start(&["--warning-unary-request-duration=1ns"]);
    let mut kv = server.kv().await;
    kv.put("k", "v").await.unwrap();
    server.wait_for("became leader at term 2");
    server.wait_for("elected leader");
    server.wait_for("request stats");
    server.assert_well();
}
