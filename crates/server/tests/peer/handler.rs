//! What the peer listener answers, status by status and word by word, to members of all kinds.

use std::io::{Read, Write};
use std::net::TcpStream;

use http::StatusCode;
use prost::Message as _;
use retcd_proto::raftpb::{Message, MessageType};

use crate::member::{CLUSTER, Member, Setup, message, start};
use crate::recorded::{VERSIONS, recording};

#[derive(Debug)]
pub struct Answer {
    pub status: StatusCode,
    pub head: String,
    pub body: String,
}

/// Sends a request on a connection of its own and reads all of the answer.
fn ask(member: &Member, line: &str, headers: &str, body: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(member.address).unwrap();
    let head = format!(
        "{line} HTTP/1.1\r\nhost: b\r\nconnection: close\r\ncontent-length: {}\r\n{headers}\r\n",
        body.len()
    );
    stream.write_all(head.as_bytes()).unwrap();
    stream.write_all(body).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    Answer {
        status: head.split(' ').nth(1).unwrap().parse().unwrap(),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// The headers of a member of the cluster, with others in place of some.
fn headers(other: &[(&str, &str)]) -> String {
    let cluster = format!("{CLUSTER:x}");
    let mut all = vec![
        ("x-server-from", "a"),
        ("x-server-version", "3.5.30"),
        ("x-min-cluster-version", "3.0.0"),
        ("x-etcd-cluster-id", &cluster),
        ("x-raft-to", "b"),
    ];
    all.retain(|(name, _)| other.iter().all(|(replaced, _)| replaced != name));
    all.extend(other.iter().filter(|(_, value)| !value.is_empty()));
    all.iter()
        .map(|(name, value)| format!("{name}: {value}\r\n"))
        .collect()
}

pub fn post_message(member: &Member, message: &Message) -> Answer {
    ask(
        member,
        "POST /raft",
        &headers(&[]),
        &message.encode_to_vec(),
    )
}

#[test]
fn refusals_have_etcds_status_and_words() {
    let b = start(Setup::new(0xb));
    b.transport
        .add_peer(0xa, &["http://127.0.0.1:1".to_owned()]);
    b.removed.lock().unwrap().insert(0xdead);
    let ours = headers(&[]);
    let foreign = headers(&[("x-etcd-cluster-id", "0c1")]);
    let ancient = headers(&[("x-server-version", "2.3.8"), ("x-etcd-cluster-id", "bad")]);
    let without_version = headers(&[("x-server-version", "")]);
    let future = headers(&[("x-min-cluster-version", "9.0.0")]);
    let for_another = headers(&[("x-raft-to", "0b")]);
    let heartbeat = message(MessageType::MsgHeartbeat, 0xa, 0xb, 1).encode_to_vec();
    let framed = [&(heartbeat.len() as u64).to_be_bytes()[..], &heartbeat].concat();
    let misdirected = message(MessageType::MsgHeartbeat, 0xa, 0xc, 1).encode_to_vec();
    let from_removed = message(MessageType::MsgHeartbeat, 0xdead, 0xb, 1).encode_to_vec();
    let local = message(MessageType::MsgHup, 0xa, 0xb, 1).encode_to_vec();
    let unknown_type = Message {
        r#type: Some(77),
        ..message(MessageType::MsgHup, 0xa, 0xb, 1)
    }
    .encode_to_vec();
    let empty_proposal = message(MessageType::MsgProp, 0xa, 0xb, 1).encode_to_vec();
    let gap = Message {
        entries: vec![crate::member::entry(3, 9, "".into())],
        ..message(MessageType::MsgApp, 0xa, 0xb, 1)
    }
    .encode_to_vec();
    for (line, headers, body, status, text) in [
        ("GET /raft", &ours, &[][..], 405, "Method Not Allowed\n"),
        (
            "GET /raft/snapshot",
            &ours,
            &[],
            405,
            "Method Not Allowed\n",
        ),
        (
            "POST /raft/stream/message/a",
            &ours,
            &[],
            405,
            "Method Not Allowed\n",
        ),
        (
            "POST /raft",
            &ancient,
            &heartbeat,
            412,
            "incompatible version\n",
        ),
        (
            "POST /raft",
            &without_version,
            &heartbeat,
            412,
            "incompatible version\n",
        ),
        (
            "POST /raft",
            &future,
            &heartbeat,
            412,
            "incompatible version\n",
        ),
        (
            "POST /raft",
            &foreign,
            &heartbeat,
            412,
            "cluster ID mismatch\n",
        ),
        (
            "POST /raft/snapshot",
            &foreign,
            &[],
            412,
            "cluster ID mismatch\n",
        ),
        (
            "GET /raft/stream/message/a",
            &foreign,
            &[],
            412,
            "cluster ID mismatch\n",
        ),
        (
            "GET /raft/stream/message/a",
            &ancient,
            &[],
            412,
            "incompatible version\n",
        ),
        (
            "POST /raft",
            &ours,
            &[0xff; 9],
            400,
            "error unmarshalling raft message\n",
        ),
        (
            "POST /raft",
            &ours,
            &misdirected,
            500,
            "error processing raft message\n",
        ),
        (
            "POST /raft",
            &ours,
            &from_removed,
            500,
            "error processing raft message\n",
        ),
        (
            "POST /raft",
            &ours,
            &local,
            500,
            "error processing raft message\n",
        ),
        (
            "POST /raft",
            &ours,
            &unknown_type,
            500,
            "error processing raft message\n",
        ),
        (
            "POST /raft",
            &ours,
            &empty_proposal,
            500,
            "error processing raft message\n",
        ),
        (
            "POST /raft",
            &ours,
            &gap,
            500,
            "error processing raft message\n",
        ),
        (
            "POST /raft/snapshot",
            &ours,
            &framed,
            400,
            "wrong raft message type\n",
        ),
        (
            "GET /raft/stream/other/a",
            &ours,
            &[],
            404,
            "invalid path\n",
        ),
        (
            "GET /raft/stream/message/a/b",
            &ours,
            &[],
            404,
            "invalid path\n",
        ),
        (
            "GET /raft/stream/message/xyz",
            &ours,
            &[],
            404,
            "invalid from\n",
        ),
        (
            "GET /raft/stream/message/",
            &ours,
            &[],
            404,
            "invalid from\n",
        ),
        (
            "GET /raft/stream/message/dead",
            &ours,
            &[],
            410,
            "removed member\n",
        ),
        (
            "GET /raft/stream/msgapp/f00",
            &ours,
            &[],
            404,
            "error sender not found\n",
        ),
        (
            "GET /raft/stream/msgapp/a",
            &for_another,
            &[],
            412,
            "to field mismatch\n",
        ),
        (
            "POST /raft/snapshot",
            &ours,
            &[],
            400,
            "failed to decode raft message (EOF)\n",
        ),
        (
            "POST /raft/snapshot",
            &ours,
            &[0, 0, 0],
            400,
            "failed to decode raft message (unexpected EOF)\n",
        ),
        (
            "POST /raft/snapshot",
            &ours,
            &[0, 0, 0, 0, 0, 0, 0, 32],
            400,
            "failed to decode raft message (EOF)\n",
        ),
        // Not ours to answer.
        ("GET /raft/", &ours, &[], 418, ""),
        ("GET /raft/stream", &ours, &[], 418, ""),
        ("GET /members", &ours, &[], 418, ""),
    ] {
        let answer = ask(&b, line, headers, body);
        assert_eq!(
            (answer.status.as_u16(), answer.body.as_str()),
            (status, text),
            "{line}"
        );
        let named = answer
            .head
            .contains(&format!("x-etcd-cluster-id: {CLUSTER:x}"));
        assert_eq!(named, !matches!(status, 405 | 418), "{line}: {answer:?}");
        let is_stream = line.contains("GET /raft/stream/");
        assert_eq!(
            answer.head.contains("x-server-version: 3."),
            is_stream,
            "{line}: {answer:?}"
        );
    }
    assert!(b.inputs.try_recv().is_err(), "nothing came through");
    let allowed = ask(&b, "GET /raft", &ours, &[]).head;
    assert!(allowed.contains("allow: post"), "{allowed}");
}

#[test]
fn what_is_right_is_taken() {
    let b = start(Setup::new(0xb));
    let answer = post_message(&b, &message(MessageType::MsgVote, 0xa, 0xb, 5));
    assert_eq!(
        (answer.status, answer.body.as_str()),
        (StatusCode::NO_CONTENT, "")
    );
    assert!(
        answer.head.contains("x-etcd-cluster-id: c1"),
        "{}",
        answer.head
    );
    assert_eq!(b.next_message().index(), 5);

    let answer = ask(&b, "GET /raft/probing", "", &[]);
    assert_eq!(answer.status, StatusCode::OK);
    assert!(
        answer
            .head
            .contains("content-type: text/plain; charset=utf-8")
    );
    let body: serde_json::Value = serde_json::from_str(&answer.body).unwrap();
    assert_eq!(body["OK"], true);
    assert!(answer.body.ends_with("Z\"}\n"), "{}", answer.body);
}

#[test]
fn recorded_requests_are_understood() {
    for version in VERSIONS {
        let recording = recording(version);
        let cluster_id = recording.manifest["cluster_id"].as_str().unwrap();
        for capture in recording.manifest["captures"].as_array().unwrap() {
            if capture["request_line"] != "POST /raft HTTP/1.1" {
                continue;
            }
            let member = start(Setup {
                cluster_id: u64::from_str_radix(cluster_id, 16).unwrap(),
                ..Setup::new(recording.members[capture["server"].as_str().unwrap()])
            });
            let mut stream = TcpStream::connect(member.address).unwrap();
            let request = recording.bytes(capture["files"]["request_raw"].as_str().unwrap());
            stream.write_all(&request).unwrap();
            let mut start = [0; 12];
            stream.read_exact(&mut start).unwrap();
            assert_eq!(&start, b"HTTP/1.1 204");
            recording.check(&member.next_message(), &capture["decoded"]);
        }
    }
}

#[test]
fn an_unknown_member_that_tells_its_urls_can_be_answered() {
    let (b, stranger) = (start(Setup::new(0xb)), start(Setup::new(0xa)));
    let reply = || message(MessageType::MsgHeartbeatResp, 0xb, 0xa, 4);
    b.send([reply()]);
    let urls = [(
        "x-peerurls",
        format!("http://127.0.0.1:1,{}", stranger.url()),
    )];
    let urls = [(urls[0].0, urls[0].1.as_str())];
    let answer = ask(&b, "GET /raft/stream/message/a", &headers(&urls), &[]);
    assert_eq!(answer.body, "error sender not found\n");
    // The first URL does not answer, so one or more get lost.
    for _ in 0..100 {
        b.send([reply()]);
        if stranger.has_message_within(std::time::Duration::from_millis(100)) {
            break;
        }
    }
    assert_eq!(stranger.next_message().index(), 4);

    // Nonsense adds nobody.
    for urls in ["", "nonsense", "http://", ",,,"] {
        let headers = headers(&[("x-server-from", "bad"), ("x-peerurls", urls)]);
        let heartbeat = message(MessageType::MsgHeartbeat, 0xbad, 0xb, 1).encode_to_vec();
        let answer = ask(&b, "POST /raft", &headers, &heartbeat);
        assert_eq!(answer.status, StatusCode::NO_CONTENT, "{urls}");
    }
    assert_eq!(b.transport.active_peers(), 0);
}

#[test]
fn a_body_that_breaks_off_is_no_message() {
    let b = start(Setup::new(0xb));
    let mut stream = TcpStream::connect(b.address).unwrap();
    let head = headers(&[]);
    write!(
        stream,
        "POST /raft HTTP/1.1\r\nhost: b\r\ncontent-length: 100\r\n{head}\r\nabc"
    )
    .unwrap();
    stream.shutdown(std::net::Shutdown::Write).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(b.inputs.try_recv().is_err());
    // The member is none the worse for it.
    post_message(&b, &message(MessageType::MsgVote, 0xa, 0xb, 6));
    assert_eq!(b.next_message().index(), 6);
}

#[test]
fn senders_that_nobody_knows_are_counted_as_one() {
    let b = start(Setup::new(0xb));
    b.transport
        .add_peer(0xa, &["http://127.0.0.1:1".to_owned()]);
    for from in ["a", "bad1", "bad2", ""] {
        let headers = headers(&[("x-server-from", from)]);
        ask(&b, "POST /raft", &headers, &[0xff; 9]);
    }
    for from in [0xa, 0xbad1, 0xbad2] {
        let heartbeat = message(MessageType::MsgHeartbeat, from, 0xb, 1).encode_to_vec();
        let framed = [&(heartbeat.len() as u64).to_be_bytes()[..], &heartbeat].concat();
        ask(&b, "POST /raft/snapshot", &headers(&[]), &framed);
    }
    let refused = |family: &str, from: &str| b.metric(&format!("{family}{{From=\"{from}\"}}"));
    let messages = "etcd_network_peer_received_failures_total";
    let snapshots = "etcd_network_snapshot_receive_failures";
    for (family, unknown, times) in [
        (messages, "UNKNOWN_SENDER", 3.0),
        (snapshots, "UNKNOWN_SNAPSHOT_SENDER", 2.0),
    ] {
        assert_eq!(refused(family, "a"), Some(1.0));
        assert_eq!(refused(family, unknown), Some(times));
        assert_eq!(refused(family, "bad1"), None);
    }
}
