//! What is guarded: that we read what Go's etcd writes and write what it reads, in whatever pieces
//! bytes come, and that foreign bytes do nothing worse than end their connection.

use bytes::{Bytes, BytesMut};
use prost::Message as _;
use retcd_proto::raftpb::{ConfState, Entry, Message, MessageType, Snapshot, SnapshotMetadata};
use retcd_server::peer::codec::{
    CodecError, Decoder, Encoder, MessageDecoder, StreamKind, decode_message, encode_frame,
    make_explicit,
};

use crate::recorded::{Recording, STREAMS, VERSIONS, check_entries, recording};

/// What etcd up to 3.5 writes for the snapshot of a message that has none.
const EMPTY_SNAPSHOT: [u8; 12] = [
    0x4a, 0x0a, 0x12, 0x08, 0x0a, 0x02, 0x28, 0x00, 0x10, 0x00, 0x18, 0x00,
];

/// Reads a stream that arrives in pieces of the given lengths.
fn read(
    mut decoder: Decoder,
    bytes: &[u8],
    mut piece: impl FnMut() -> usize,
) -> Result<Vec<Message>, CodecError> {
    let (mut messages, mut rest) = (Vec::new(), bytes);
    while !rest.is_empty() {
        let (now, later) = rest.split_at(piece().clamp(1, rest.len()));
        decoder.push(now);
        while let Some(message) = decoder.next_message()? {
            messages.push(message);
        }
        rest = later;
    }
    Ok(messages)
}

fn decoder(recording: &Recording, kind: StreamKind, from: &str, to: &str) -> Decoder {
    Decoder::new(kind, recording.members[to], recording.members[from])
}

/// A message of `bytes`, without the snapshot that only old versions write.
fn without_empty_snapshot(bytes: &[u8]) -> Vec<u8> {
    let at = bytes
        .windows(EMPTY_SNAPSHOT.len())
        .position(|window| window == EMPTY_SNAPSHOT)
        .expect("3.5 writes it into every message");
    [&bytes[..at], &bytes[at + EMPTY_SNAPSHOT.len()..]].concat()
}

#[test]
fn recorded_streams_are_read_as_they_were_meant() {
    for version in VERSIONS {
        let recording = recording(version);
        for (name, kind, from, to) in STREAMS {
            let bytes = recording.bytes(&format!("{name}.body.bin"));
            let decoder = decoder(&recording, kind, from, to);
            let messages = read(decoder, &bytes, || usize::MAX).unwrap();
            let frames = recording.frames(name);
            let expected: Vec<_> = frames
                .iter()
                .filter(|frame| frame["link_heartbeat"].is_null() && frame["frame_type"] != 0)
                .collect();
            assert_eq!(messages.len(), expected.len(), "{version} {name}");
            for (message, frame) in messages.iter().zip(expected) {
                if frame["frame_type"] == 1 {
                    check_entries(message, frame);
                    assert_eq!(message.r#type(), MessageType::MsgApp);
                    assert_eq!(message.from(), recording.members[from]);
                    assert_eq!(message.to(), recording.members[to]);
                    assert_eq!(message.term(), frame["implied_term"].as_u64().unwrap());
                    assert_eq!(message.log_term(), message.term());
                    assert_eq!(
                        message.index(),
                        frame["implied_prev_index"].as_u64().unwrap()
                    );
                    assert_eq!(message.commit(), frame["commit"].as_u64().unwrap());
                } else {
                    recording.check(message, frame);
                }
            }
        }
    }
}

#[test]
fn the_pieces_in_which_bytes_arrive_do_not_matter() {
    let mut random = fastrand::Rng::with_seed(7);
    for version in VERSIONS {
        let recording = recording(version);
        for (name, kind, from, to) in STREAMS {
            let bytes = recording.bytes(&format!("{name}.body.bin"));
            let decoder = || decoder(&recording, kind, from, to);
            let expected = read(decoder(), &bytes, || usize::MAX).unwrap();
            assert_eq!(read(decoder(), &bytes, || 1).unwrap(), expected);
            for _ in 0..20 {
                let messages = read(decoder(), &bytes, || random.usize(1..200)).unwrap();
                assert_eq!(messages, expected, "{version} {name}");
            }
        }
    }
}

#[test]
fn what_3_5_sent_is_written_with_the_same_bytes() {
    let recording = recording("3.5.30");
    for (name, kind, from, to) in STREAMS {
        let bytes = recording.bytes(&format!("{name}.body.bin"));
        let messages = read(decoder(&recording, kind, from, to), &bytes, || usize::MAX).unwrap();
        let mut messages = messages.into_iter();
        let mut encoder = Encoder::new(kind);
        for frame in recording.frames(name) {
            let at = frame["offset"].as_u64().unwrap() as usize;
            let length = frame["length"].as_u64().unwrap_or_default() as usize;
            let mut written = BytesMut::new();
            let heartbeat = frame["link_heartbeat"] == true || frame["frame_type"] == 0;
            if heartbeat {
                encoder.encode_heartbeat(&mut written);
            } else {
                let mut message = messages.next().unwrap();
                make_explicit(&mut message);
                encoder.encode(&message, &mut written);
            }
            let expected = match (kind, frame["frame_type"].as_u64()) {
                (StreamKind::MsgApp, Some(0)) => vec![0],
                (StreamKind::MsgApp, Some(1)) => bytes[at..][..written.len()].to_vec(),
                (_, type_byte) => {
                    let start = at + usize::from(type_byte.is_some());
                    let message = without_empty_snapshot(&bytes[start + 8..][..length]);
                    let head = type_byte.map(|byte| byte as u8);
                    let length = (message.len() as u64).to_be_bytes();
                    head.into_iter().chain(length).chain(message).collect()
                }
            };
            assert_eq!(written, expected, "{name} at {at}");
        }
        assert_eq!(messages.next(), None);
    }
}

#[test]
fn recorded_posts_are_read_and_written() {
    for version in VERSIONS {
        let recording = recording(version);
        let posts = recording.posts("/raft");
        assert!(posts.len() >= 8, "{version}");
        for (body, expected) in posts {
            let mut message = decode_message(Bytes::from(body.clone())).unwrap();
            recording.check(&message, &expected);
            make_explicit(&mut message);
            match version {
                "3.5.30" => assert_eq!(message.encode_to_vec(), without_empty_snapshot(&body)),
                _ => assert_eq!(
                    decode_message(message.encode_to_vec().into()).unwrap(),
                    message
                ),
            }
        }
    }
}

#[test]
fn recorded_snapshots_are_read_and_written() {
    for version in VERSIONS {
        let recording = recording(version);
        let posts = recording.posts("/raft/snapshot");
        assert_eq!(posts.len(), 2, "{version}");
        for (body, expected) in posts {
            let mut decoder = MessageDecoder::new(1 << 20);
            decoder.push(&body);
            let mut message = decoder.next_message().unwrap().unwrap();
            recording.check(&message, &expected["message"]);
            let db_bytes = expected["db_bytes"].as_u64().unwrap() as usize;
            assert_eq!(decoder.into_rest().len(), db_bytes);

            make_explicit(&mut message);
            let mut written = BytesMut::new();
            encode_frame(&message, &mut written);
            if version == "3.5.30" {
                assert_eq!(written, body[..body.len() - db_bytes]);
            }
        }
    }
}

fn random_message(random: &mut fastrand::Rng, position: (u64, u64)) -> Message {
    let (term, index) = position;
    let count = random.u64(0..4);
    let follows = random.u8(0..4) > 0;
    let message_term = term + u64::from(random.u8(0..8) == 0);
    let start = if follows { index } else { random.u64(0..50) };
    let entry = |i: u64, random: &mut fastrand::Rng| Entry {
        r#type: Some(random.i32(0..2)),
        term: Some(message_term),
        index: Some(start + 1 + i),
        data: random
            .bool()
            .then(|| vec![random.u8(..); random.usize(0..2000)].into()),
    };
    let mut message = Message {
        r#type: Some(MessageType::MsgApp as i32),
        to: Some(2),
        from: Some(1),
        term: Some(message_term),
        log_term: Some(term),
        index: Some(start),
        entries: (0..count).map(|i| entry(i, random)).collect(),
        commit: Some(random.u64(..)),
        ..Message::default()
    };
    make_explicit(&mut message);
    message
}

#[test]
fn the_short_form_says_the_same_as_the_long_one() {
    let mut random = fastrand::Rng::with_seed(11);
    for round in 0..200 {
        let (mut encoder, mut stream) = (Encoder::new(StreamKind::MsgApp), BytesMut::new());
        let (mut messages, mut position) = (Vec::new(), (1, 0));
        let mut short = 0;
        for _ in 0..random.usize(1..40) {
            if random.u8(0..5) == 0 {
                encoder.encode_heartbeat(&mut stream);
            }
            let message = random_message(&mut random, position);
            let start = stream.len();
            encoder.encode(&message, &mut stream);
            short += usize::from(stream[start] == 1);
            assert!(
                !(messages.is_empty() && stream[start] == 1),
                "nothing to continue"
            );
            let last = message.entries.last();
            position = (
                message.term(),
                last.map_or(message.index(), |last| last.index()),
            );
            messages.push(message);
        }
        let decoder = Decoder::new(StreamKind::MsgApp, 2, 1);
        let mut read = read(decoder, &stream, || random.usize(1..5000)).unwrap();
        read.iter_mut().for_each(make_explicit);
        assert_eq!(read, messages, "round {round}");
        assert!(
            short > 0 || messages.len() < 10,
            "round {round}: no short form at all"
        );
    }
}

#[test]
fn all_scalars_are_written_and_nothing_that_stays_at_home() {
    let mut message = Message {
        r#type: Some(MessageType::MsgHeartbeatResp as i32),
        vote: Some(3),
        responses: vec![Message::default()],
        snapshot: Some(Snapshot::default()),
        entries: vec![Entry::default()],
        ..Message::default()
    };
    make_explicit(&mut message);
    let expected: Vec<u8> = [
        &[0x08, 9, 0x10, 0, 0x18, 0, 0x20, 0, 0x28, 0, 0x30, 0][..],
        &[0x3a, 6, 0x08, 0, 0x10, 0, 0x18, 0],
        &[0x40, 0, 0x50, 0, 0x58, 0],
    ]
    .concat();
    assert_eq!(message.encode_to_vec(), expected);

    let mut message = Message {
        r#type: Some(MessageType::MsgSnap as i32),
        ..Message::default()
    };
    make_explicit(&mut message);
    let metadata = message.snapshot.unwrap().metadata.unwrap();
    assert_eq!(metadata.conf_state.unwrap().auto_leave, Some(false));
    assert_eq!((metadata.index, metadata.term), (Some(0), Some(0)));
}

#[test]
fn packed_numbers_and_unknown_fields_are_read() {
    let conf_state = ConfState {
        voters: vec![1, 300],
        ..ConfState::default()
    };
    let message = |conf_state: Vec<u8>| {
        let metadata = [
            vec![0x0a, conf_state.len() as u8],
            conf_state,
            vec![0x10, 7],
        ]
        .concat();
        let snapshot = [vec![0x12, metadata.len() as u8], metadata].concat();
        let field_99 = [0x9a, 0x06, 2, 1, 2];
        let bytes = [
            &[0x08, 7][..],
            &field_99,
            &[0x4a, snapshot.len() as u8],
            &snapshot,
        ]
        .concat();
        decode_message(bytes.into()).unwrap()
    };
    let expected = Message {
        r#type: Some(MessageType::MsgSnap as i32),
        snapshot: Some(Snapshot {
            data: None,
            metadata: Some(SnapshotMetadata {
                conf_state: Some(conf_state.clone()),
                index: Some(7),
                term: None,
            }),
        }),
        ..Message::default()
    };
    assert_eq!(message(conf_state.encode_to_vec()), expected);
    assert_eq!(message(vec![0x0a, 3, 1, 0xac, 0x02]), expected, "packed");
}

#[test]
fn promises_are_not_believed() {
    let check = |kind, bytes: &[u8], expected| {
        let found = read(Decoder::new(kind, 2, 1), bytes, || usize::MAX);
        assert_eq!(found, Err(expected), "{bytes:?}");
    };
    let too_large = CodecError::TooLarge { bytes: u64::MAX };
    check(StreamKind::Message, &[0xff; 8], too_large.clone());
    check(
        StreamKind::MsgApp,
        &[&[2][..], &[0xff; 8]].concat(),
        too_large.clone(),
    );
    check(StreamKind::MsgApp, &[9], CodecError::UnknownType(9));
    let entries = |count: u64| [&[1][..], &count.to_be_bytes()].concat();
    check(
        StreamKind::MsgApp,
        &entries(1),
        CodecError::NothingToContinue,
    );
    let begin = [&[2][..], &2u64.to_be_bytes(), &[0x08, 3]].concat();
    check(
        StreamKind::MsgApp,
        &[begin.clone(), entries(1 << 40)].concat(),
        CodecError::TooManyEntries { entries: 1 << 40 },
    );
    check(
        StreamKind::MsgApp,
        &[begin.clone(), entries(1), vec![0xff; 8]].concat(),
        too_large,
    );

    // The largest that is allowed is waited for, and costs nothing until it comes.
    let announced = [512u64 << 20, (512 << 20) + 1].map(|bytes| {
        let decoder = Decoder::new(StreamKind::Message, 2, 1);
        read(decoder, &bytes.to_be_bytes(), || usize::MAX)
    });
    let bytes = (512 << 20) + 1;
    assert_eq!(announced, [Ok(vec![]), Err(CodecError::TooLarge { bytes })]);

    let mut small = MessageDecoder::new(8);
    small.push(&9u64.to_be_bytes());
    assert_eq!(small.next_message(), Err(CodecError::TooLarge { bytes: 9 }));
}

#[test]
fn damaged_traffic_is_refused_or_read_but_never_panics() {
    let mut random = fastrand::Rng::with_seed(23);
    let mut failures = 0;
    for version in VERSIONS {
        let recording = recording(version);
        for (name, kind, from, to) in STREAMS {
            let recorded = recording.bytes(&format!("{name}.body.bin"));
            for _ in 0..300 {
                let mut bytes = recorded.clone();
                for _ in 0..random.usize(1..6) {
                    let at = random.usize(..bytes.len());
                    match random.u8(0..4) {
                        0 => bytes[at] ^= 1 << random.u8(0..8),
                        1 => bytes[at] = random.u8(..),
                        2 => drop(bytes.remove(at)),
                        _ => bytes.truncate(at.max(1)),
                    }
                }
                let decoder = decoder(&recording, kind, from, to);
                failures += usize::from(read(decoder, &bytes, || random.usize(1..4096)).is_err());
            }
        }
    }
    assert!(
        failures > 100,
        "only {failures} of the damages were noticed"
    );
    for kind in [StreamKind::Message, StreamKind::MsgApp] {
        for _ in 0..2000 {
            let mut bytes: Vec<u8> = (0..random.usize(1..200)).map(|_| random.u8(..)).collect();
            // Small lengths, so that random bytes get to be messages.
            let zeros = usize::from(kind == StreamKind::MsgApp)..bytes.len().min(8);
            bytes
                .get_mut(zeros)
                .into_iter()
                .flatten()
                .for_each(|byte| *byte = 0);
            let _ = read(Decoder::new(kind, 2, 1), &bytes, || random.usize(1..50));
            let _ = decode_message(bytes.into());
        }
    }
}
