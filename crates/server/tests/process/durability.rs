//! What was acknowledged is there after any end; what is damaged is refused and left as it is.

use rustix::process::Signal;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use retcd_proto::etcdserverpb::lease_client::LeaseClient;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::{
    DefragmentRequest, LeaseGrantRequest, LeaseTimeToLiveRequest, RangeRequest,
};
use tonic::Code;

use super::place::{Kv, Place, Server, until};

/// Puts `name`0, `name`1, … until the server is gone; the number that it acknowledged.
async fn put_until_the_end(
    mut kv: Kv,
    name: &'static str,
    acknowledged: tokio::sync::mpsc::UnboundedSender<()>,
) -> (&'static str, usize) {
    for i in 0.. {
        if kv
            .put(format!("{name}{i}"), format!("value {i}"))
            .await
            .is_err()
        {
            return (name, i);
        }
        // The test stops listening when it has seen enough.
        let _ = acknowledged.send(());
    }
    unreachable!("the server was ended")
}

/// What a server that was ended under load has acknowledged, and how long it took to end.
struct Ended {
    /// The number of puts by writer.
    written: Vec<(&'static str, usize)>,
    took: Duration,
}

/// Ends a server with `signal` when it has acknowledged `puts`.
async fn end_under_load(server: Server, signal: Signal, puts: usize) -> Ended {
    let (sender, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let mut writers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        writers.push(tokio::spawn(put_until_the_end(
            server.kv().await,
            name,
            sender.clone(),
        )));
    }
    drop(sender);
    for _ in 0..puts {
        acknowledged.recv().await.expect("the writers write");
    }
    let signalled = Instant::now();
    server.signal(signal);
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.expect("a writer ends with its server"));
    }
    server.wait();
    Ended {
        written,
        took: signalled.elapsed(),
    }
}

async fn assert_written(server: &Server, written: &[(&'static str, usize)]) {
    let mut kv = server.kv().await;
    for &(name, count) in written {
        for i in 0..count {
            let value = kv.get(format!("{name}{i}")).await;
            assert_eq!(
                value,
                Some(format!("value {i}").into_bytes()),
                "{name}{i} of {count}"
            );
        }
    }
}

#[tokio::test]
async fn a_kill_under_load_loses_no_acknowledged_put() {
    let place = Place::new();
    for puts in [50, 500, 900] {
        let Ended { written, .. } = end_under_load(place.start(&[]), Signal::KILL, puts).await;
        assert!(written.iter().map(|(_, count)| count).sum::<usize>() >= puts);
        let server = place.start(&[]);
        server.assert_well();
        assert_written(&server, &written).await;
        server.kv().await.clear().await;
        drop(server);
    }
}

#[tokio::test]
async fn a_stop_under_load_loses_no_acknowledged_put() {
    let place = Place::new();
    // Requests time out after 65 seconds: those in flight are answered, not given up.
    let server = place.start(&["--election-timeout=30000"]);
    let Ended { written, took } = end_under_load(server, Signal::TERM, 300).await;
    assert!(took < Duration::from_secs(30), "{took:?}");
    let server = place.start(&[]);
    assert_written(&server, &written).await;
    server.assert_well();
}

/// What a lease has left, and its keys.
async fn time_to_live(server: &Server, id: i64) -> (i64, Vec<bytes::Bytes>) {
    let mut lease = LeaseClient::new(server.channel().await);
    let response = lease
        .lease_time_to_live(LeaseTimeToLiveRequest { id, keys: true })
        .await
        .unwrap()
        .into_inner();
    (response.ttl, response.keys)
}

#[tokio::test]
async fn leases_survive_and_keep_their_keys() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut lease = LeaseClient::new(server.channel().await);
    lease
        .lease_grant(LeaseGrantRequest { ttl: 600, id: 77 })
        .await
        .unwrap();
    server.kv().await.put_with_lease("leased", 77).await;
    server.end_with(Signal::KILL);
    for _ in 0..2 {
        let server = place.start(&[]);
        let (ttl, keys) = time_to_live(&server, 77).await;
        assert!((500..=600).contains(&ttl), "{ttl}");
        assert_eq!(keys, ["leased"]);
        server.end_with(Signal::TERM);
    }
}

#[tokio::test]
async fn a_lease_takes_its_keys_along_even_over_a_restart() {
    // Elections of 100 ms allow leases of a second.
    const FLAGS: &[&str] = &["--heartbeat-interval=10", "--election-timeout=100"];
    let place = Place::new();
    let server = place.start(FLAGS);
    let mut lease = LeaseClient::new(server.channel().await);
    let granted = lease
        .lease_grant(LeaseGrantRequest { ttl: 1, id: 5 })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(granted.ttl, 1);
    lease
        .lease_grant(LeaseGrantRequest { ttl: 2, id: 6 })
        .await
        .unwrap();
    let mut kv = server.kv().await;
    kv.put_with_lease("early", 5).await;
    kv.put_with_lease("late", 6).await;
    kv.put("kept", "").await.unwrap();
    until("the first lease to expire", async || {
        kv.get("early").await.is_none()
    })
    .await;
    assert_eq!(time_to_live(&server, 5).await, (-1, vec![]));
    drop(server);
    let server = place.start(FLAGS);
    let mut kv = server.kv().await;
    until("the second lease to expire", async || {
        kv.get("late").await.is_none()
    })
    .await;
    assert_eq!(kv.get("early").await, None);
    assert_eq!(kv.get("kept").await, Some(vec![]));
}

#[tokio::test]
async fn compaction_and_defragmentation_go_on_under_writes() {
    let place = Place::new();
    let server = place.start(&[]);
    let (sender, mut acknowledged) = tokio::sync::mpsc::unbounded_channel();
    let mut writers = Vec::new();
    for name in ["a", "b"] {
        writers.push(tokio::spawn(put_until_the_end(
            server.kv().await,
            name,
            sender.clone(),
        )));
    }
    drop(sender);
    let mut kv = server.kv().await;
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    for round in 0..5 {
        for _ in 0..50 {
            acknowledged.recv().await.expect("the writers write");
        }
        let revision = kv.put("changing", format!("{round}")).await.unwrap();
        kv.compact(revision).await.unwrap();
        maintenance.defragment(DefragmentRequest {}).await.unwrap();
        let old = RangeRequest {
            key: "changing".into(),
            revision: revision - 1,
            ..Default::default()
        };
        let refused = kv.0.range(old).await.unwrap_err();
        assert_eq!(refused.code(), Code::OutOfRange);
        assert_eq!(
            refused.message(),
            "etcdserver: mvcc: required revision has been compacted"
        );
    }
    server.assert_well();
    server.signal(Signal::KILL);
    let mut written = Vec::new();
    for writer in writers {
        written.push(writer.await.unwrap());
    }
    drop(server);
    let server = place.start(&[]);
    assert_written(&server, &written).await;
    assert_eq!(
        server.kv().await.get("changing").await.as_deref(),
        Some(&b"4"[..])
    );
}

/// A place with a few keys, stopped in order.
async fn stopped() -> Place {
    let place = Place::new();
    let server = place.start(&[]);
    let mut kv = server.kv().await;
    for i in 0..50 {
        kv.put(format!("k{i}"), "a value").await.unwrap();
    }
    server
        .end_with(Signal::TERM)
        .assert(143, "closed etcd server");
    place
}

/// Turns all bits of `length` bytes of a file.
fn damage(path: &Path, offset: u64, length: usize) {
    let file = std::fs::File::options()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, offset).unwrap();
    for byte in &mut bytes {
        *byte = !*byte;
    }
    file.write_all_at(&bytes, offset).unwrap();
}

/// Offset of the first record in the second half of a segment, and its length in bytes without its
/// frame (`| padding: u8 << 56 + length | record | padding |`, little endian).
fn middle_record(segment: &[u8]) -> (u64, u64) {
    let used = segment
        .iter()
        .rposition(|byte| *byte != 0)
        .expect("a segment has records");
    let mut offset = 0;
    loop {
        let frame = u64::from_le_bytes(segment[offset..offset + 8].try_into().expect("8 bytes"));
        let length = frame & ((1 << 56) - 1);
        if offset > used / 2 {
            return (offset as u64, length);
        }
        offset += 8 + length.next_multiple_of(8) as usize;
    }
}

#[tokio::test]
async fn a_log_damaged_in_the_middle_is_refused_and_left_alone() {
    let place = stopped().await;
    let wal = place.wal();
    let (frame, length) = middle_record(&std::fs::read(&wal).unwrap());
    // The length, the checksum or the data, and the last byte; padding is nobody's.
    for offset in [frame, frame + 8 + length / 2, frame + 8 + length - 1] {
        damage(&wal, offset, 1);
        let before = place.files();
        let ended = place.run_to_end(&[]);
        ended.assert(1, wal.file_name().unwrap().to_str().unwrap());
        ended.assert(1, "at position: ");
        assert!(!ended.log.contains("panic"), "{}", ended.log);
        assert!(
            place.files() == before,
            "damaged at {offset}, a file was changed"
        );
        damage(&wal, offset, 1);
    }
    place.start(&[]).assert_well();
}

#[tokio::test]
async fn a_database_without_a_valid_meta_page_is_refused_and_left_alone() {
    let place = stopped().await;
    // Both meta pages, behind their page headers of 16 bytes.
    const META: [u64; 2] = [16, 4096 + 16];
    for offset in META {
        damage(&place.db(), offset, 64);
    }
    let before = place.files();
    let ended = place.run_to_end(&[]);
    ended.assert(1, "failed to open database");
    ended.assert(1, place.db().to_str().unwrap());
    assert!(!ended.log.contains("panic"), "{}", ended.log);
    assert!(place.files() == before, "a file was changed");
    // One of them is enough.
    damage(&place.db(), META[0], 64);
    place.start(&[]).assert_well();
}

#[tokio::test]
async fn a_database_that_is_missing_is_not_founded_anew() {
    let place = stopped().await;
    std::fs::remove_file(place.db()).unwrap();
    let text = format!(
        "database file ({}) of the backend is missing",
        place.db().display()
    );
    place.run_to_end(&[]).assert(1, &text);
    assert!(!place.db().exists());
}

#[tokio::test]
async fn a_member_that_was_killed_before_its_first_commit_starts_again() {
    let place = Place::new();
    // The database is never committed: its members are in the log alone.
    let server = place.start(&["--backend-batch-interval=1h"]);
    let mut kv = server.kv().await;
    kv.put("k", "v").await.unwrap();
    drop(kv);
    drop(server);
    let server = place.start(&[]);
    assert_eq!(server.kv().await.get("k").await, Some(b"v".to_vec()));
    server.assert_well();
}
