//! Documents: those of etcd come back as they are; of others some are read, and the rest refused.

use std::path::Path;

use fastrand::Rng;
use retcd_state::v2::{Counter, DEPTH_MAX, DocumentError, Store, Timestamp, Watch};
use retcd_storage::disk::OsDisk;
use retcd_storage::snap;

use super::{NOW, apply, poll};

/// Snapshots of real members, most with keys, lifetimes, hidden and in-order nodes; the last one
/// with refreshed lifetimes and control characters.
const SAMPLES: [&str; 4] = ["3.3.25", "3.4.23", "3.5.30", "3.3.25-refresh"];

fn sample(name: &str) -> Vec<u8> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/v2");
    let snapshot = snap::read(&OsDisk, &dir.join(format!("{name}.snap")));
    snapshot.expect("a sample").data().to_vec()
}

fn text(document: &[u8]) -> &str {
    std::str::from_utf8(document).expect("JSON")
}

#[test]
fn documents_of_etcd_are_written_as_they_were() {
    for name in SAMPLES {
        let document = sample(name);
        let store = Store::from_document(&document).expect(name);
        assert_eq!(text(&store.to_document()), text(&document), "{name}");
    }
}

#[test]
fn a_store_goes_on_where_etcd_stopped() {
    let mut store = Store::from_document(&sample("3.3.25")).expect("a sample");
    let reader = store.reader();
    assert_eq!(reader.statistics().count(Counter::SetsSuccess), 15);
    let deep = reader.get("/1/dir/b", true, Timestamp(NOW)).expect("there");
    assert_eq!(
        deep.to_json("/1"),
        r#"{"action":"get","node":{"key":"/dir/b","dir":true,"nodes":[{"key":"/dir/b/c","dir":true,"nodes":[{"key":"/dir/b/c/d","value":"deep","modifiedIndex":8,"createdIndex":8}],"modifiedIndex":8,"createdIndex":8}],"modifiedIndex":8,"createdIndex":8}}"#
    );
    let past = reader.watch(&Watch {
        path: "/1/gdir/x",
        recursive: false,
        stream: false,
        since: 25,
    });
    assert_eq!(
        poll(&mut past.expect("history")),
        r#"{"action":"delete","node":{"key":"/1/gdir","dir":true,"modifiedIndex":25,"createdIndex":24},"prevNode":{"key":"/1/gdir","dir":true,"modifiedIndex":24,"createdIndex":24}}"#
    );
    let first = store.next_expiration().expect("some nodes expire");
    assert_eq!(first.to_string(), "2054-04-08T12:09:57.967439759Z");
    let (_, seconds) = (NOW, (first.0 - NOW) / 1_000_000_000 + 2);
    assert_eq!(
        apply(&mut store, &format!("SYNC / time={seconds}")),
        "expired 2"
    );
    assert_eq!((store.next_expiration(), store.index()), (None, 28));
}

#[test]
fn the_history_is_a_ring() {
    let mut store = Store::new();
    for i in 0..2345 {
        apply(&mut store, &format!("PUT /1/a value={i}"));
    }
    let document = store.to_document();
    let numbers = r#""Size":1000,"Front":345,"Back":345,"Capacity":1000},"StartIndex":1346,"LastIndex":2345}},"CurrentIndex":2345,"#;
    assert!(text(&document).contains(numbers));
    let first = r#""Queue":{"Events":[{"action":"set","node":{"key":"/1/a","value":"2000""#;
    assert!(text(&document).contains(first));
    let mut read = Store::from_document(&document).expect("what was written");
    assert_eq!(text(&read.to_document()), text(&document));
    for store in [&mut store, &mut read] {
        apply(store, "DELETE /1/a");
    }
    assert_eq!(text(&read.to_document()), text(&store.to_document()));
}

const NODE: &str = r#""CreatedIndex":0,"ModifiedIndex":0,"Value":"""#;

/// A document with that tree and history, at index 9.
fn document(root: &str, hub: &str) -> String {
    format!("{{\"Root\":{root},\"WatcherHub\":{hub},\"CurrentIndex\":9,\"CurrentVersion\":2}}")
}

fn check(document: &str) -> String {
    match Store::from_document(document.as_bytes()) {
        Ok(store) => {
            let written = store.to_document();
            let read = Store::from_document(&written).expect("what was written");
            assert_eq!(text(&read.to_document()), text(&written));
            let whole = store.reader().get("/", true, Timestamp(NOW));
            whole.expect("a root").to_json("")
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn foreign_documents_are_read_or_refused() {
    let history = |queue: &str| format!("{{\"EventHistory\":{{\"Queue\":{queue}}}}}");
    let queue = |events: &str, size: u64, front: u64| {
        let queue = format!("{{\"Front\":{front},\"Events\":{events},\"Size\":{size}}}");
        document("{\"Children\":{}}", &history(&queue))
    };
    let event = |index: u64| {
        let node = format!("{{\"key\":\"/1/a\",\"modifiedIndex\":{index}}}");
        format!("{{\"action\":\"set\",\"node\":{node}}}")
    };
    let empty = r#"{"action":"get","node":{"key":"/","dir":true,"nodes":[{"key":"/0","dir":true},{"key":"/1","dir":true}]}}"#;
    let wrong = "v2 store document: the history does not fit the index 9";
    for (document, expected) in [
        // As little as etcd takes.
        (r#"{"Root":{"Children":{}}}"#.to_owned(), empty),
        (document("{\"Children\":{}}", "null"), empty),
        // Another order, unknown names, null, other cases, spaces.
        (
            r#" { "x" : [ { } , 1.5e3 ] , "currentindex" : 9 , "ROOT" : { "y":null,"Children" : { } } } "#.to_owned(),
            empty,
        ),
        (
            format!(r#"{{"Root":{{"Children":{{"1":{{"Children":{{"a":{{"Children":null,{NODE},"ExpireTime":null}}}},{NODE}}}}}}}}}"#),
            r#"{"action":"get","node":{"key":"/","dir":true,"nodes":[{"key":"/0","dir":true},{"key":"/1","dir":true,"nodes":[{"key":"/1/a","value":""}]}]}}"#,
        ),
        (queue(&format!("[{},{}]", event(9), event(8)), 2, 1), empty),
        (queue("null", 0, 0), empty),
        (queue("[]", 0, 7), empty),
        // No store.
        ("null".into(), "v2 store document: there is no root directory"),
        ("{}".into(), "v2 store document: there is no root directory"),
        (document("null", "null"), "v2 store document: there is no root directory"),
        (document("{}", "null"), "v2 store document: there is no root directory"),
        ("{\"Root\":[]}".into(), "v2 store document: malformed at byte 9"),
        ("".into(), "v2 store document: malformed at byte 0"),
        ("{\"Root\":{\"Children\":{}}}x".into(), "v2 store document: malformed at byte 24"),
        ("{,\"Root\":{\"Children\":{}}}".into(), "v2 store document: malformed at byte 2"),
        ("{\"CurrentIndex\":-1}".into(), "v2 store document: malformed at byte 18"),
        ("{\"CurrentVersion\":3,\"Root\":{\"Children\":{}}}".into(), "v2 store document: version 3 is not known"),
        // Nodes that cannot be.
        (document(r#"{"Children":{"a/b":{}}}"#, "null"), "v2 store document: \"a/b\" is not the name of a node"),
        (document(r#"{"Children":{"..":{}}}"#, "null"), "v2 store document: \"..\" is not the name of a node"),
        (document(r#"{"Children":{"a":null}}"#, "null"), "v2 store document: malformed at byte 28"),
        (document(r#"{"Children":{"a":{},"a":{}}}"#, "null"), "v2 store document: \"/a\" is not the name of a node"),
        (document(r#"{"Children":{"a":{"ExpireTime":"soon"}}}"#, "null"), "v2 store document: \"soon\" is not a time"),
        // Events that cannot be.
        (queue("[null]", 1, 0), wrong),
        (queue("[]", 1, 0), wrong),
        (queue(&format!("[{}]", event(9)), 1, 1), wrong),
        (queue(&format!("[{}]", event(10)), 1, 0), wrong),
        (queue(&format!("[{}]", event(0)), 1, 0), wrong),
        (queue(&format!("[{},{}]", event(9), event(8)), 2, 0), wrong),
        (queue("[{\"action\":\"jump\"}]", 1, 0), "v2 store document: \"jump\" is not an action"),
        (queue("[{\"action\":\"set\"}]", 1, 0), "v2 store document: malformed at byte 96"),
    ] {
        assert_eq!(check(&document), expected, "{document}");
    }
}

#[test]
fn the_tops_are_always_there() {
    let store = Store::from_document(br#"{"Root":{"Children":{"1":{}}}}"#);
    // A file where users' keys belong; nothing can be put there, and nothing breaks.
    let mut store = store.expect("a store");
    let error = "104: Not a directory (/1) [0]";
    assert_eq!(apply(&mut store, "PUT /1/a value=1"), error);
    assert!(apply(&mut store, "PUT /0/a value=1").contains("\"createdIndex\":1"));
}

#[test]
fn deep_trees_cost_no_stack() {
    let nested = |depth: usize| {
        let open = "{\"Children\":{\"a\":".repeat(depth);
        format!("{{\"Root\":{open}{{}}{}}}", "}}".repeat(depth))
    };
    let mut store = Store::from_document(nested(DEPTH_MAX).as_bytes()).expect("deep enough");
    let path = "/a".repeat(DEPTH_MAX);
    let whole = store.reader().get("/a", true, Timestamp(NOW)).expect("it");
    assert!(whole.to_json("").contains(&path));
    let written = store.to_document();
    let read = Store::from_document(&written).expect("what was written");
    assert_eq!(read.to_document(), written);
    assert!(apply(&mut store, "DELETE /a recursive=true").starts_with("{\"action\":\"delete\""));
    for depth in [DEPTH_MAX + 1, 200_000] {
        let refused = Store::from_document(nested(depth).as_bytes());
        assert!(
            matches!(refused.err(), Some(DocumentError::TooDeep(_))),
            "{depth}"
        );
    }
    let skipped = format!(r#"{{"x":{},"Root":{{"Children":{{}}}}}}"#, nested(200_000));
    Store::from_document(skipped.as_bytes()).expect("nobody looks at it");
}

#[test]
fn damaged_documents_are_no_panic() {
    let document = sample("3.3.25-refresh");
    // Most of a document is nulls; without them each byte says something.
    let document = text(&document).replace("null,", "");
    let mut rng = Rng::with_seed(1);
    for end in 0..document.len() {
        let cut = Store::from_document(&document.as_bytes()[..end]);
        assert!(cut.is_err(), "cut at {end}");
    }
    let mut read = 0;
    for _ in 0..20_000 {
        let mut bytes = document.clone().into_bytes();
        for _ in 0..rng.usize(1..4) {
            let at = rng.usize(..bytes.len());
            match rng.u8(..3) {
                0 => bytes[at] = rng.u8(..),
                1 => bytes[at] = b"{}[],:\"0n"[rng.usize(..9)],
                _ => drop(bytes.remove(at)),
            }
        }
        if let Ok(mut store) = Store::from_document(&bytes) {
            read += 1;
            let written = store.to_document();
            Store::from_document(&written).expect("what was written");
            apply(&mut store, "DELETE /1/d recursive=true");
            apply(&mut store, "PUT /1/foo/x value=1");
            apply(&mut store, "SYNC / time=1000000");
        }
    }
    assert!(read > 1000, "{read} were read");
}
