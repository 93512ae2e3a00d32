//! Single rules that are easier to read here than in the model.

use retcd_state::v2::{Counter, DEPTH_MAX, Store, Timestamp};

use super::{NOW, apply};

/// Applies requests, and compares their answers.
fn check(script: &[(&str, &str)]) {
    let mut store = Store::new();
    for (request, answer) in script {
        assert_eq!(apply(&mut store, request), *answer, "{request}");
    }
}

#[test]
fn a_lifetime_is_shown_and_ends() {
    check(&[
        (
            "PUT /1/a value=x expires=5",
            r#"{"action":"set","node":{"key":"/1/a","value":"x","expiration":"2027-01-15T08:00:05Z","ttl":5,"modifiedIndex":1,"createdIndex":1}}"#,
        ),
        (
            "PUT /1/a exist=true refresh=true expires=9",
            r#"{"action":"update","node":{"key":"/1/a","value":"x","expiration":"2027-01-15T08:00:09Z","ttl":9,"modifiedIndex":2,"createdIndex":1},"prevNode":{"key":"/1/a","value":"x","expiration":"2027-01-15T08:00:05Z","ttl":5,"modifiedIndex":1,"createdIndex":1}}"#,
        ),
        ("SYNC / time=8", "expired 0"),
        ("SYNC / time=9", "expired 1"),
        ("QGET /1/a", "100: Key not found (/1/a) [3]"),
    ]);
}

#[test]
fn nodes_expire_in_the_order_of_their_times() {
    let mut store = Store::new();
    for path in [
        "/1/c expires=1",
        "/1/d/x expires=2",
        "/1/a expires=3",
        "/1/b expires=2",
    ] {
        apply(&mut store, &format!("PUT {path}"));
    }
    apply(&mut store, "PUT /1/d dir=true exist=true expires=1");
    assert_eq!(
        store.next_expiration(),
        Some(Timestamp(NOW + 1_000_000_000))
    );
    // What is in a directory goes with it, and its own time is forgotten.
    assert_eq!(apply(&mut store, "SYNC / time=3"), "expired 4");
    assert_eq!(store.next_expiration(), None);
    let history = String::from_utf8(store.to_document()).expect("JSON");
    let expired = history.split("\"expire\",\"node\":{\"key\":\"").skip(1);
    let expired: Vec<&str> = expired.map(|rest| &rest[..4]).collect();
    assert_eq!(expired, ["/1/c", "/1/d", "/1/b", "/1/a"]);
}

#[test]
fn in_order_nodes_are_named_by_their_index() {
    check(&[
        (
            "POST /1/q value=j",
            r#"{"action":"create","node":{"key":"/1/q/00000000000000000001","value":"j","modifiedIndex":1,"createdIndex":1}}"#,
        ),
        (
            "POST /1/q dir=true",
            r#"{"action":"create","node":{"key":"/1/q/00000000000000000002","dir":true,"modifiedIndex":2,"createdIndex":2}}"#,
        ),
        (
            "POST /1/q/00000000000000000001",
            "104: Not a directory (/1/q/00000000000000000001) [2]",
        ),
    ]);
}

#[test]
fn unknown_methods_and_paths_that_are_too_deep_change_nothing() {
    let mut store = Store::new();
    assert_eq!(apply(&mut store, "PATCH /1/a"), "unknown method");
    let deep = |depth: usize| format!("PUT {} value=x", "/1".repeat(depth));
    let error = "209: Invalid field (path is too deep) [0]";
    assert_eq!(apply(&mut store, &deep(DEPTH_MAX + 1)), error);
    assert_eq!(store.index(), 0);
    assert!(apply(&mut store, &deep(DEPTH_MAX)).starts_with("{\"action\":\"set\""));
}

#[test]
fn successes_and_failures_are_counted() {
    let mut store = Store::new();
    for request in [
        "PUT /1/a value=1",
        "PUT /1/a/b value=1",
        "PUT /1/c exist=false",
        "PUT /1/c exist=false",
        "PUT /1/a/b exist=false",
        "POST /1/a/b",
        "PUT /1/a exist=true value=2",
        "PUT /1/b exist=true value=2",
        "PUT /1/a prev=2 value=3",
        "PUT /1/a prev=2 value=3",
        "QGET /1/a",
        "QGET /1/b",
        "DELETE /1/a prev=3",
        "DELETE /1/a prev=3",
        "DELETE /1/c",
        "DELETE /1/c",
        "PUT /1/a expires=1",
        "SYNC / time=1",
    ] {
        apply(&mut store, request);
    }
    let reader = store.reader();
    reader.get("/1", false, Timestamp(NOW)).expect("there");
    reader
        .get("/3", false, Timestamp(NOW))
        .expect_err("not there");
    let counts: Vec<String> = reader
        .statistics()
        .fields()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    // Two creations that found a file on the way count as failed sets, too.
    let expected = "getsSuccess 2, getsFail 2, setsSuccess 2, setsFail 3, deleteSuccess 1, \
                    deleteFail 1, updateSuccess 1, updateFail 1, createSuccess 1, createFail 3, \
                    compareAndSwapSuccess 1, compareAndSwapFail 1, compareAndDeleteSuccess 1, \
                    compareAndDeleteFail 1, expireCount 1, watchers 0";
    assert_eq!(counts.join(", "), expected);
    assert_eq!(reader.statistics().count(Counter::ExpireCount), 1);
}

#[test]
fn some_refusals_count_as_successes() {
    let mut store = Store::new();
    for request in [
        "PUT /1/d/f value=1",
        "PUT /1 exist=true value=1",
        "PUT /1/d exist=true value=1",
        "PUT /1 prev=1 value=1",
        "PUT /1/d prev=1 value=1",
        "DELETE /1",
        "DELETE /1/d",
        "DELETE /1 prev=1",
        "DELETE /1/d prev=1",
        "DELETE /1/d/f prev=2",
        "PUT /1 value=1",
        "PUT /1 exist=false",
    ] {
        apply(&mut store, request);
    }
    let statistics = store.reader().statistics();
    let counts: Vec<String> = statistics
        .fields()
        .filter(|&(_, count)| count > 0)
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    // As etcd 3.3.25 and 3.4.23 answer to the same requests.
    let expected = "setsSuccess 1, setsFail 1, deleteSuccess 1, deleteFail 1, updateSuccess 2, \
                    createFail 1, compareAndSwapSuccess 1, compareAndSwapFail 1, \
                    compareAndDeleteSuccess 3";
    assert_eq!(counts.join(", "), expected);
}

#[test]
fn a_view_stays_what_it_was() {
    let mut store = Store::new();
    apply(&mut store, "PUT /1/a value=1");
    let view = store.reader().view();
    apply(&mut store, "DELETE /1/a");
    let old = view
        .get("/1/a", false, Timestamp(NOW))
        .expect("still there");
    assert_eq!((old.node.value.as_deref(), view.index()), (Some("1"), 1));
    assert!(
        store
            .reader()
            .view()
            .get("/1/a", false, Timestamp(NOW))
            .is_err()
    );
}
