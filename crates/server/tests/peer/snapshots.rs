//! Databases on their way between members: whole, or not at all.

use std::io::{self, Cursor, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use retcd_node::Input;
use retcd_proto::raftpb::{ConfState, Message, MessageType, SnapshotMetadata};
use retcd_server::peer::{OutgoingSnapshot, remove_unfinished};
use retcd_storage::disk::OsDisk;
use sha2::{Digest, Sha256};

use crate::member::{Member, Setup, message, start};
use crate::recorded::{hex, recording};

/// Of the recorded database.
const INDEX: u64 = 0x2e;

/// A sound database of `bytes` bytes: a small one, and what stands for pages that are free.
fn database(bytes: usize) -> Vec<u8> {
    let (body, expected) = recording("3.5.30").posts("/raft/snapshot").remove(0);
    let db_bytes = expected["db_bytes"].as_u64().unwrap() as usize;
    let mut database = body[body.len() - db_bytes..].to_vec();
    let mut random = fastrand::Rng::with_seed(3);
    database.resize_with(bytes.max(db_bytes), || random.u8(..));
    database
}

fn outgoing(database: impl Read + Send + 'static, size_bytes: usize) -> OutgoingSnapshot {
    OutgoingSnapshot {
        metadata: SnapshotMetadata {
            conf_state: Some(ConfState {
                voters: vec![0xa, 0xb],
                ..ConfState::default()
            }),
            index: Some(INDEX),
            term: Some(3),
        },
        data: Bytes::from_static(b"{}"),
        size_bytes: size_bytes as u64,
        database: Box::new(database),
    }
}

/// A member that sends what `source` makes, and one that may receive it.
fn members(
    source: impl Fn() -> io::Result<OutgoingSnapshot> + Send + Sync + 'static,
) -> (Member, Member) {
    let a = start(Setup {
        snapshot: Box::new(source),
        ..Setup::new(0xa)
    });
    let b = start(Setup::new(0xb));
    a.knows(&b);
    (a, b)
}

/// What raft sends: it knows of an older snapshot than the one that is made.
fn snapshot_message() -> Message {
    Message {
        snapshot: Some(Default::default()),
        ..message(MessageType::MsgSnap, 0xa, 0xb, 0)
    }
}

fn await_snapshot_report(member: &Member) -> bool {
    loop {
        if let Input::SnapshotSent { peer, delivered } = member.next_report() {
            assert_eq!(peer, 0xb);
            return delivered;
        }
    }
}

#[test]
fn a_large_database_arrives_byte_by_byte() {
    let sent = Arc::new(database(20 << 20));
    let source = Arc::clone(&sent);
    let (a, b) = members(move || {
        let copy = Cursor::new(source.to_vec());
        Ok(outgoing(copy, source.len()))
    });
    a.send([snapshot_message()]);
    let received = b.next_message();
    let file = b.dir.path().join("000000000000002e.snap.db");
    assert!(
        std::fs::read(&file).unwrap() == *sent,
        "the node hears of it when it is there"
    );
    assert!(await_snapshot_report(&a));
    assert_eq!(b.files(), ["000000000000002e.snap.db"]);

    assert_eq!(received.r#type(), MessageType::MsgSnap);
    let snapshot = received.snapshot.unwrap();
    assert_eq!(snapshot.data(), &b"{}"[..]);
    let metadata = snapshot.metadata.unwrap();
    assert_eq!((metadata.index(), metadata.term()), (INDEX, 3));
    assert_eq!(metadata.conf_state.unwrap().voters, [0xa, 0xb]);
    assert_eq!(
        a.metric("etcd_network_snapshot_send_success{To=\"b\"}"),
        Some(1.0)
    );
    assert_eq!(
        b.metric("etcd_network_snapshot_receive_success{From=\"a\"}"),
        Some(1.0)
    );
    assert_eq!(
        b.metric("etcd_network_snapshot_receive_inflights_total{From=\"a\"}"),
        Some(0.0)
    );
}

/// Reads a part and then fails.
struct Broken(Cursor<Vec<u8>>);

impl Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0.read(buffer)? {
            0 => Err(io::Error::other("a bad sector")),
            read => Ok(read),
        }
    }
}

/// Checks that sending what `source` makes fails and leaves nothing behind.
fn check_fails(source: impl Fn() -> io::Result<OutgoingSnapshot> + Send + Sync + 'static) {
    let (a, b) = members(source);
    a.send([snapshot_message()]);
    assert!(!await_snapshot_report(&a));
    assert_eq!(
        a.metric("etcd_network_snapshot_send_failures{To=\"b\"}"),
        Some(1.0)
    );
    assert_eq!(
        a.metric("etcd_network_snapshot_send_inflights_total{To=\"b\"}"),
        Some(0.0)
    );
    drop(a);
    // When the member is gone, so are its unfinished files, and nothing was told to its node.
    let mut b = b;
    b.kill();
    assert_eq!(b.files(), [""; 0]);
    assert!(b.inputs.try_recv().is_err());
}

#[test]
fn a_database_that_cannot_be_read_to_its_end_is_no_database() {
    check_fails(|| Err(io::Error::other("no copy")));
    check_fails(|| {
        let database = database(1 << 20);
        let size = database.len() * 2;
        Ok(outgoing(Broken(Cursor::new(database)), size))
    });
    // It ends early, without an error.
    check_fails(|| {
        let database = database(1 << 20);
        let size = database.len() + 1;
        Ok(outgoing(Cursor::new(database), size))
    });
    // All of it is there, but it is shorter than it says itself.
    check_fails(|| {
        Ok(outgoing(
            Cursor::new(database(0)[..12_288].to_vec()),
            12_288,
        ))
    });
    check_fails(|| Ok(outgoing(Cursor::new(vec![7; 50_000]), 50_000)));
    // It is sound, but of another moment than the message.
    check_fails(|| {
        let mut outgoing = outgoing(Cursor::new(database(0)), database(0).len());
        outgoing.metadata.index = Some(INDEX + 1);
        Ok(outgoing)
    });
}

#[test]
fn a_snapshot_for_a_member_that_is_gone_fails() {
    let (a, mut b) = members(|| Ok(outgoing(Cursor::new(database(0)), database(0).len())));
    b.kill();
    a.send([snapshot_message()]);
    assert!(!await_snapshot_report(&a));
}

#[test]
fn only_so_many_are_sent_at_the_same_time() {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let (a, _b) = members(move || {
        let _ = wait.lock().unwrap().recv();
        Err(io::Error::other("released"))
    });
    // Goes before the members do, which otherwise wait for what waits for it.
    let release = release;
    for _ in 0..17 {
        a.send([snapshot_message()]);
    }
    assert!(!await_snapshot_report(&a), "the seventeenth");
    assert!(a.inputs.try_recv().is_err());
    drop(release);
    for _ in 0..16 {
        assert!(!await_snapshot_report(&a));
    }
    a.send([snapshot_message()]);
    assert!(!await_snapshot_report(&a), "there is room again");
    assert_eq!(
        a.metric("etcd_network_snapshot_send_failures{To=\"b\"}"),
        Some(17.0)
    );
}

/// Posts a recorded snapshot to the member that it was meant for, after `change` had its way with
/// the bytes that follow the head of the request.
fn post_recorded(
    version: &str,
    head: &str,
    change: impl FnOnce(Vec<u8>) -> Vec<u8>,
) -> (Member, String, serde_json::Value) {
    let recording = recording(version);
    let (body, expected) = recording.posts("/raft/snapshot").remove(0);
    let cluster_id = recording.manifest["cluster_id"].as_str().unwrap();
    let member = start(Setup {
        cluster_id: u64::from_str_radix(cluster_id, 16).unwrap(),
        ..Setup::new(recording.members["m2"])
    });
    let mut stream = TcpStream::connect(member.address).unwrap();
    let request = format!(
        "POST /raft/snapshot HTTP/1.1\r\nhost: m2\r\nx-server-from: {:x}\r\nx-server-version: {version}\r\n\
         x-min-cluster-version: 3.0.0\r\nx-etcd-cluster-id: {cluster_id}\r\nconnection: close\r\n{head}\r\n",
        recording.members["m1"]
    );
    stream.write_all(request.as_bytes()).unwrap();
    let body = change(body);
    stream.write_all(&body).unwrap();
    if !body.ends_with(LAST_CHUNK) {
        stream.shutdown(std::net::Shutdown::Write).unwrap();
    }
    let mut response = String::new();
    let _ = stream.read_to_string(&mut response);
    (member, response, expected)
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

const LAST_CHUNK: &[u8] = b"0\r\n\r\n";
const CHUNKED: &str = "transfer-encoding: chunked\r\n";

#[test]
fn recorded_snapshots_are_taken() {
    for version in ["3.5.30", "3.7.1"] {
        let (member, response, expected) = post_recorded(version, CHUNKED, |body| {
            let pieces: Vec<Vec<u8>> = body.chunks(1000).map(chunk).collect();
            [&pieces.concat(), LAST_CHUNK].concat()
        });
        assert!(response.starts_with("HTTP/1.1 204"), "{response}");
        let index = expected["message"]["snapshot"]["index"].as_u64().unwrap();
        let name = format!("{index:016x}.snap.db");
        assert_eq!(member.files(), [name.as_str()]);
        let stored = std::fs::read(member.dir.path().join(name)).unwrap();
        assert_eq!(
            hex(&Sha256::digest(stored)),
            expected["db_sha256"].as_str().unwrap()
        );
        let recording = recording(version);
        recording.check(&member.next_message(), &expected["message"]);
    }
}

#[test]
fn a_body_that_is_cut_leaves_nothing() {
    let check = |head: &str, change: &dyn Fn(Vec<u8>) -> Vec<u8>, answer: &str| {
        let (mut member, response, _) = post_recorded("3.5.30", head, change);
        let (status, text) = (response.lines().next(), response.lines().last());
        let answered = format!(
            "{} {}",
            status.unwrap_or_default(),
            text.unwrap_or_default()
        );
        assert!(answered.contains(answer), "{answered}");
        member.kill();
        assert_eq!(member.files(), [""; 0], "{answer}");
        assert!(member.inputs.try_recv().is_err());
    };
    // The connection ends, in the database or in the message before it.
    check(CHUNKED, &|body| chunk(&body), "");
    check(CHUNKED, &|body| chunk(&body)[..20_000].to_vec(), "");
    check(
        "content-length: 32265\r\n",
        &|body| body[..30_000].to_vec(),
        "",
    );
    check(CHUNKED, &|body| chunk(&body)[..100].to_vec(), "");
    // The body ends as HTTP wants it, but too early.
    let end = |bytes: &[u8]| [&chunk(bytes), LAST_CHUNK].concat();
    check(
        CHUNKED,
        &|body| end(&body[..body.len() - 4096]),
        "failed to save KV snapshot (",
    );
    check(
        CHUNKED,
        &|body| end(&body[..100]),
        "400 Bad Request failed to decode raft message (unexpected EOF)",
    );
    check(
        CHUNKED,
        &|_| end(&[0xff; 100]),
        "400 Bad Request failed to decode raft message (rafthttp: error limit exceeded)",
    );
    check(
        CHUNKED,
        &|_| LAST_CHUNK.to_vec(),
        "400 Bad Request failed to decode raft message (EOF)",
    );
}

#[test]
fn what_an_interrupted_transfer_left_is_removed_at_the_start() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["tmp000000000", "tmp123", "db", "0000000000000001.snap.db"] {
        std::fs::write(dir.path().join(name), b"x").unwrap();
    }
    remove_unfinished(&OsDisk, dir.path()).unwrap();
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["0000000000000001.snap.db", "db"]);
}

#[test]
fn a_snapshot_is_not_taken_over_the_pipeline() {
    let b = start(Setup::new(0xb));
    let answer = crate::handler::post_message(&b, &snapshot_message());
    assert_eq!(answer.status, StatusCode::INTERNAL_SERVER_ERROR);
    assert!(b.inputs.try_recv().is_err());
}
