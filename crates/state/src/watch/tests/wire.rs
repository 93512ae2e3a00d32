//! The bytes against prost's, and fragments against etcd's rules.

use super::*;
use crate::mvcc::StoreRevision;

/// `decode` compares each response with prost's encoding; here are the extremes of every field.
#[test]
fn every_kind_of_response_is_encoded_as_by_prost() {
    let bodies = [
        Body::Created,
        Body::Refused(Refusal::EmptyRange),
        Body::Refused(Refusal::Unauthorized("")),
        Body::Canceled,
        Body::Compacted {
            compact_revision: i64::MAX,
        },
        Body::Progress,
    ];
    for body in bodies {
        for (watch_id, revision) in [(0, 0), (-1, 1), (i64::MIN, i64::MAX), (127, 128)] {
            let response = Response {
                watch_id,
                revision: StoreRevision::new(revision),
                body: body.clone(),
            };
            let message = decode(&response);
            assert_eq!(message.watch_id, watch_id);
            assert_eq!(message.header.unwrap().revision, revision);
            let empty = Origin::default();
            let mut bytes = Vec::new();
            response.encode(&empty, &mut bytes);
            assert_eq!(bytes.len(), response.encoded_len(&empty));
            let message = WatchResponse::decode(&bytes[..]).unwrap();
            assert!(message.header.is_some(), "present though it may be empty");
            assert_eq!(message.encode_to_vec(), bytes);
        }
    }
}

#[test]
fn slices_are_the_tail_of_the_message() {
    let mut world = World::new();
    let stream = world.open();
    world.hub.create(stream, &watch("a", "c"));
    world.read(stream);
    world.txn(&[(b"a", Some(b"1")), (b"c", Some(b"2")), (b"b", Some(b"3"))]);
    let response = world.poll(stream, 1).remove(0);
    let mut bytes = Vec::new();
    response.encode(&ORIGIN, &mut bytes);
    let events = response.events().unwrap();
    assert_eq!((events.count(), events.slices().count()), (2, 2));
    let tail: Vec<u8> = events.slices().flatten().collect();
    assert_eq!(tail.len(), events.bytes());
    assert!(bytes.ends_with(&tail));
}

#[test]
fn watchers_of_a_revision_share_one_encoding() {
    let mut world = World::new();
    let streams = [world.open(), world.open()];
    for stream in streams {
        world.hub.create(stream, &watch("a", ""));
        world.hub.create(stream, &watch("a", "b"));
        world.read(stream);
    }
    world.put("a");
    let addresses: Vec<*const u8> = streams
        .iter()
        .flat_map(|&stream| world.poll(stream, 1 << 20))
        .map(|response| response.events().unwrap().slices().next().unwrap().as_ptr())
        .collect();
    assert_eq!(addresses.len(), 4);
    assert!(addresses.iter().all(|&address| address == addresses[0]));
}

fn fragments(response: &Response, bytes_max: usize) -> Vec<WatchResponse> {
    let mut pieces = Vec::new();
    response.for_each_fragment(&ORIGIN, bytes_max, |piece| pieces.push(decode(piece)));
    pieces
}

/// etcd's own cutting, on prost's messages: server/etcdserver/api/v3rpc/watch.go.
fn etcds_fragments(whole: &WatchResponse, bytes_max: usize) -> Vec<WatchResponse> {
    if whole.encoded_len() < bytes_max || whole.events.len() < 2 {
        return vec![whole.clone()];
    }
    let mut pieces = Vec::new();
    let mut rest = &whole.events[..];
    while !rest.is_empty() {
        let mut piece = WatchResponse {
            events: Vec::new(),
            fragment: true,
            ..whole.clone()
        };
        while let Some((event, tail)) = rest.split_first() {
            piece.events.push(event.clone());
            if piece.events.len() > 1 && piece.encoded_len() >= bytes_max {
                piece.events.pop();
                break;
            }
            rest = tail;
        }
        piece.fragment = !rest.is_empty();
        pieces.push(piece);
    }
    pieces
}

#[test]
fn fragments_are_cut_where_etcd_cuts() {
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..300 {
        let mut world = World::new();
        let stream = world.open();
        for _ in 0..rng.usize(1..6) {
            let values: Vec<(Vec<u8>, Vec<u8>)> = (0..rng.u8(1..12))
                .map(|i| (vec![b'a' + i], vec![b'v'; rng.usize(..200)]))
                .collect();
            let puts: Vec<Change<'_>> =
                values.iter().map(|(k, v)| (&k[..], Some(&v[..]))).collect();
            world.txn(&puts);
        }
        let request = WatchCreateRequest {
            start_revision: 2,
            fragment: true,
            prev_kv: rng.bool(),
            ..watch("b", "h")
        };
        world.hub.create(stream, &request);
        for response in world.poll(stream, usize::MAX) {
            let whole = decode(&response);
            for _ in 0..4 {
                let bytes_max = rng.usize(1..2000);
                let pieces = fragments(&response, bytes_max);
                assert_eq!(pieces, etcds_fragments(&whole, bytes_max));
            }
            let exact = whole.encoded_len();
            for bytes_max in [exact, exact + 1] {
                let pieces = fragments(&response, bytes_max);
                assert_eq!(pieces, etcds_fragments(&whole, bytes_max));
            }
        }
    }
}

#[test]
fn who_did_not_ask_for_fragments_gets_none() {
    let mut world = World::new();
    let stream = world.open();
    world.hub.create(stream, &watch("a", "z"));
    world.read(stream);
    world.txn(&[(b"a", Some(&[0; 500])), (b"b", Some(&[0; 500]))]);
    let response = world.poll(stream, 1).remove(0);
    assert_eq!(fragments(&response, 100).len(), 1);
}
