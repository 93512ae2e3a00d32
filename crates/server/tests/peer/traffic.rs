//! Members that talk to each other: what arrives, in which order, and what happens to the rest when
//! one of them is slow, gone or not wanted.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::StatusCode;
use prost::Message as _;
use retcd_node::Input;
use retcd_proto::raftpb::{Message, MessageType};
use retcd_server::peer::codec::make_explicit;

use crate::member::{CLUSTER, Member, PATIENCE, Setup, append, entry, message, pair, start};

fn explicit(mut message: Message) -> Message {
    make_explicit(&mut message);
    message
}

/// A message of each type that travels, from `a` to `b`.
fn one_of_each(a: u64, b: u64) -> Vec<Message> {
    let plain = |kind| message(kind, a, b, 7);
    let with_entry = |kind| Message {
        entries: vec![entry(0, 0, Bytes::from_static(b"payload"))],
        ..message(kind, a, b, 0)
    };
    vec![
        with_entry(MessageType::MsgProp),
        append(a, b, 7, Bytes::from_static(b"entry")),
        plain(MessageType::MsgAppResp),
        Message {
            reject: Some(true),
            reject_hint: Some(5),
            log_term: Some(2),
            ..plain(MessageType::MsgAppResp)
        },
        Message {
            context: Some(Bytes::from_static(b"CampaignTransfer")),
            ..plain(MessageType::MsgVote)
        },
        plain(MessageType::MsgVoteResp),
        plain(MessageType::MsgPreVote),
        plain(MessageType::MsgPreVoteResp),
        Message {
            commit: Some(6),
            context: Some(Bytes::from_static(b"01234567")),
            ..plain(MessageType::MsgHeartbeat)
        },
        plain(MessageType::MsgHeartbeatResp),
        plain(MessageType::MsgTransferLeader),
        plain(MessageType::MsgTimeoutNow),
        with_entry(MessageType::MsgReadIndex),
        with_entry(MessageType::MsgReadIndexResp),
    ]
}

#[test]
fn every_type_of_message_arrives_as_it_was_sent() {
    let (a, b) = pair();
    let sent = one_of_each(a.id, b.id);
    a.send(sent.clone());
    let mut received: Vec<Message> = sent.iter().map(|_| explicit(b.next_message())).collect();
    // There are two streams, which may overtake one another.
    let at = received
        .iter()
        .position(|message| message.r#type() == MessageType::MsgApp)
        .expect("the entries");
    let entries = received.remove(at);
    let mut expected: Vec<Message> = sent.into_iter().map(explicit).collect();
    assert_eq!(entries, expected.remove(1));
    assert_eq!(received, expected);
}

#[test]
fn streams_keep_their_order_and_lose_nothing() {
    let (a, b) = pair();
    let mut random = fastrand::Rng::with_seed(5);
    let (mut appended, mut beaten, mut index) = (0, 0, 1);
    for _ in 0..60 {
        let batch = random.u64(1..60);
        for _ in 0..batch {
            let data = Bytes::from(vec![index as u8; random.usize(0..20_000)]);
            a.send([
                append(a.id, b.id, index, data),
                message(MessageType::MsgHeartbeat, a.id, b.id, index),
            ]);
            index += 1;
        }
        for _ in 0..batch * 2 {
            let found = b.next_message();
            if found.r#type() == MessageType::MsgApp {
                appended += 1;
                assert_eq!(found.index(), appended);
                let entry = &found.entries[0];
                assert_eq!(entry.index(), appended + 1);
                assert!(entry.data().iter().all(|byte| *byte == appended as u8));
            } else {
                beaten += 1;
                assert_eq!(
                    (found.r#type(), found.index()),
                    (MessageType::MsgHeartbeat, beaten)
                );
            }
        }
    }
    assert_eq!((appended, beaten), (index - 1, index - 1));
}

#[test]
fn three_members_hear_each_other() {
    let members = [1, 2, 3].map(|id| start(Setup::new(id)));
    for one in &members {
        for other in members.iter().filter(|other| other.id != one.id) {
            one.knows(other);
        }
    }
    for one in &members {
        let others = members.iter().filter(|other| other.id != one.id);
        // Before the streams are there the pipeline carries it.
        let heartbeat = |to| message(MessageType::MsgHeartbeat, one.id, to, 1);
        one.send(others.map(|other| heartbeat(other.id)));
    }
    for one in &members {
        let mut from: Vec<u64> = (0..2).map(|_| one.next_message().from()).collect();
        from.sort_unstable();
        let others = members
            .iter()
            .map(|other| other.id)
            .filter(|id| *id != one.id);
        assert!(others.eq(from), "at {}", one.id);
    }
    // The answer to a message may still be under way when the message is there.
    eventually(|| members[0].transport.active_peers() == 2);
    assert!(members[0].transport.active_since(2).is_some());
    assert!(members[0].transport.active_since(9).is_none());
    assert_eq!(
        members[0].metric("etcd_network_active_peers{Local=\"1\",Remote=\"2\"}"),
        Some(1.0)
    );
}

/// Waits for what no message tells.
fn eventually(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited too long");
        std::thread::yield_now();
    }
}

/// Sends one message again and again until it arrives.
fn insist(from: &Member, to: &Member, index: u64) {
    for _ in 0..200 {
        from.send([message(MessageType::MsgHeartbeat, from.id, to.id, index)]);
        if to.has_message_within(Duration::from_millis(100)) {
            return;
        }
    }
    panic!("nothing arrives at {:x}", to.id);
}

#[test]
fn a_member_that_comes_back_is_found_again() {
    let (a, mut b) = pair();
    let port = b.address.port();
    for round in 1..4 {
        b.kill();
        while a.transport.active_since(b.id).is_some() {
            // What was sent into the broken connection is lost, and told.
            a.send([message(MessageType::MsgHeartbeat, a.id, b.id, round)]);
            assert!(matches!(a.next_report(), Input::Unreachable { peer: 0xb }));
        }
        b = start(Setup {
            port,
            ..Setup::new(0xb)
        });
        b.knows(&a);
        insist(&a, &b, round);
        insist(&b, &a, round);
        a.await_streams_of(&[&b]);
        b.await_streams_of(&[&a]);
    }
    let lost = "etcd_network_disconnected_peers_total{Local=\"a\",Remote=\"b\"}";
    assert!(a.metric(lost) >= Some(3.0), "{:?}", a.metric(lost));
}

#[test]
fn a_member_that_does_not_read_holds_up_nobody() {
    let (a, b) = pair();
    // It takes connections, and leaves them at that.
    let deaf = TcpListener::bind("127.0.0.1:0").unwrap();
    let deaf_url = format!("http://{}", deaf.local_addr().unwrap());
    let deaf_id = 0xdeaf;
    a.transport.add_peer(deaf_id, &[deaf_url]);
    let mut stream = TcpStream::connect(a.address).unwrap();
    write!(
        stream,
        "GET /raft/stream/msgapp/{deaf_id:x} HTTP/1.1\r\nhost: a\r\nx-server-from: {deaf_id:x}\r\n\
         x-server-version: 3.5.30\r\nx-min-cluster-version: 3.0.0\r\nx-etcd-cluster-id: {CLUSTER:x}\r\n\
         x-raft-to: {:x}\r\n\r\n",
        a.id
    )
    .unwrap();
    assert_eq!(
        a.await_answer(&format!("/raft/stream/msgapp/{deaf_id:x}")),
        StatusCode::OK
    );

    let large = Bytes::from(vec![1; 64 << 10]);
    let mut index = 0;
    let mut dropped = false;
    // More than fits into the queue and into the buffers of the connection.
    while index < 8000 {
        for _ in 0..100 {
            index += 1;
            a.send([
                append(a.id, deaf_id, index, large.clone()),
                message(MessageType::MsgHeartbeat, a.id, b.id, index),
            ]);
        }
        for expected in index - 99..=index {
            assert_eq!(b.next_message().index(), expected);
        }
        while let Ok(report) = a.inputs.try_recv() {
            assert!(
                matches!(report, Input::Unreachable { peer } if peer == deaf_id),
                "{report:?}"
            );
            dropped = true;
        }
    }
    assert!(dropped, "what finds no room is dropped and told");
    drop((deaf, stream));
}

#[test]
fn a_member_that_is_gone_is_reported_and_not_waited_for() {
    let a = start(Setup::new(0xa));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    a.transport.add_peer(0xb, &[url]);
    for index in 0..10 {
        a.send([message(MessageType::MsgHeartbeat, a.id, 0xb, index)]);
    }
    for _ in 0..10 {
        assert!(matches!(a.next_report(), Input::Unreachable { peer: 0xb }));
    }
    assert_eq!(a.transport.active_since(0xb), None);
    assert_eq!(
        a.metric("etcd_network_peer_sent_failures_total{To=\"b\"}"),
        Some(10.0)
    );
}

#[test]
fn the_second_url_is_tried_when_the_first_does_not_answer() {
    let (a, b) = (start(Setup::new(0xa)), start(Setup::new(0xb)));
    let gone = TcpListener::bind("127.0.0.1:0").unwrap();
    let dead = format!("http://{}", gone.local_addr().unwrap());
    drop(gone);
    a.transport.add_peer(b.id, &[dead.clone(), b.url()]);
    insist(&a, &b, 1);

    // Other URLs count from the next connection on.
    let c = start(Setup::new(0xb));
    a.transport.update_peer(b.id, &[c.url()]);
    insist(&a, &c, 2);
}

#[test]
fn a_removed_member_is_told_by_those_who_know() {
    let (a, b) = pair();
    b.removed.lock().unwrap().insert(a.id);
    b.transport.remove_peer(a.id);
    a.removed_by_cluster
        .recv_timeout(PATIENCE)
        .expect("told by status 410");
    while b.await_answer("/raft/stream/") != StatusCode::GONE {}
    assert_eq!(b.transport.active_since(a.id), None);

    // What it sends is not taken, and nothing is sent to it.
    a.send([message(MessageType::MsgVote, a.id, b.id, 1)]);
    b.send([message(MessageType::MsgHeartbeat, b.id, a.id, 1)]);
    while b.await_answer("/raft") != StatusCode::INTERNAL_SERVER_ERROR {
        a.send([message(MessageType::MsgVote, a.id, b.id, 1)]);
    }
    assert!(b.inputs.try_recv().is_err());
    b.transport.remove_peer(a.id);
}

#[test]
fn nothing_comes_after_stop() {
    let (a, b) = pair();
    a.transport.stop();
    a.send([message(MessageType::MsgHeartbeat, a.id, b.id, 1)]);
    assert_eq!(a.transport.active_peers(), 0);
    assert_eq!(a.transport.active_since(b.id), None);
}

#[test]
fn what_the_node_has_no_room_for_is_dropped_and_counted() {
    let a = start(Setup::new(0xa));
    let b = start(Setup {
        queue: 1,
        ..Setup::new(0xb)
    });
    a.knows(&b);
    b.knows(&a);
    a.await_streams_of(&[&b]);
    let failures = || b.metric("etcd_network_peer_received_failures_total{From=\"a\"}");
    let mut index = 0;
    while failures().is_none_or(|failures| failures == 0.0) {
        index += 1;
        a.send([message(MessageType::MsgHeartbeat, a.id, b.id, index)]);
        std::thread::yield_now();
    }
    assert!(b.next_message().index() >= 1);
    insist(&a, &b, index + 1);
}

/// A peer that answers every request for a stream with these bytes and closes.
fn answers_with(answers: Vec<Vec<u8>>) -> (String, Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (asked, requests) = channel();
    std::thread::spawn(move || {
        for answer in answers.into_iter().cycle() {
            let Ok((mut stream, _)) = listener.accept() else {
                return;
            };
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                match stream.read(&mut byte) {
                    Ok(1) => request.push(byte[0]),
                    _ => break,
                }
            }
            let _ = stream.write_all(&answer);
            if asked.send(String::from_utf8(request).unwrap()).is_err() {
                return;
            }
        }
    });
    (url, requests)
}

#[test]
fn a_peer_that_talks_nonsense_is_asked_again_and_does_no_harm() {
    let stream = |body: &[u8]| {
        let head = "HTTP/1.1 200 OK\r\nx-server-version: 3.5.30\r\nconnection: close\r\n\r\n";
        [head.as_bytes(), body].concat()
    };
    let refusal = |status: &str, body: &str| {
        let length = body.len();
        let head = format!("HTTP/1.1 {status}\r\nx-server-version: 3.5.30\r\n");
        format!("{head}content-length: {length}\r\n\r\n{body}").into_bytes()
    };
    let framed = |message: &Message| {
        let bytes = message.encode_to_vec();
        [&(bytes.len() as u64).to_be_bytes()[..], &bytes].concat()
    };
    let foreign = message(MessageType::MsgHeartbeat, 0xb, 0xc, 1);
    let local = message(MessageType::MsgHup, 0xb, 0xa, 1);
    let whole = Message {
        snapshot: Some(Default::default()),
        ..message(MessageType::MsgSnap, 0xb, 0xa, 1)
    };
    let nonsense = vec![
        b"220 smtp ready\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\n\r\n".to_vec(),
        stream(&[0xff; 100]),
        stream(&[2, 0, 0, 0, 0, 0, 0, 0, 9, 1]),
        stream(&framed(&foreign)),
        stream(&framed(&local)),
        stream(&framed(&whole)),
        refusal("412 Precondition Failed", "incompatible version\n"),
        refusal("412 Precondition Failed", "cluster ID mismatch\n"),
        refusal("412 Precondition Failed", "something else\n"),
        refusal("404 Not Found", "error sender not found\n"),
        refusal("500 Internal Server Error", ""),
        Vec::new(),
    ];
    let rounds = nonsense.len() * 2;
    let (url, requests) = answers_with(nonsense);
    let a = start(Setup::new(0xa));
    a.transport.add_peer(0xb, &[url]);
    for _ in 0..rounds {
        let request = requests
            .recv_timeout(PATIENCE)
            .unwrap()
            .to_ascii_lowercase();
        let (line, headers) = request.split_once("\r\n").unwrap();
        if line.starts_with("get /raft/probing ") {
            continue;
        }
        let streams = ["message", "msgapp"];
        let streams = streams.map(|kind| format!("get /raft/stream/{kind}/a http/1.1"));
        assert!(streams.contains(&line.to_owned()), "{line}");
        for header in ["x-raft-to: b", "x-server-from: a", "x-etcd-cluster-id: c1"] {
            assert!(headers.contains(header), "{headers}");
        }
    }
    assert!(a.inputs.try_recv().is_err(), "nothing of it came through");
    assert!(a.removed_by_cluster.try_recv().is_err());

    // It still hears those who make sense.
    let b = start(Setup::new(0xb));
    a.transport.update_peer(b.id, &[b.url()]);
    b.knows(&a);
    insist(&b, &a, 1);
}
