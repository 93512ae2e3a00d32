//! `du` adds up what a server has, page by page and as of one revision.

mod harness;

use std::fmt::Write;

use serde_json::Value;

use harness::{Member, etcdctl, run};

/// Puts keys, in one transaction.
fn put(member: &Member, keys: &[(String, usize)]) {
    let mut lines = String::from("\n");
    for (key, length) in keys {
        writeln!(lines, "put {key} {}", "v".repeat(*length)).expect("room");
    }
    let done = member.run(&["txn"], format!("{lines}\n\n"));
    assert!(done.stdout.starts_with("SUCCESS"), "{done:?}");
}

#[test]
fn keys_are_added_up_in_pages() {
    let member = Member::start();
    let pods = |count| -> Vec<(String, usize)> {
        (0..count)
            .map(|index| (format!("/registry/pods/ns-{}/p{index:03}", index % 2), 100))
            .collect()
    };
    put(&member, &pods(100));
    put(
        &member,
        &[
            ("/registry/namespaces/a".to_owned(), 50),
            ("/other/k".to_owned(), 5000),
        ],
    );
    let json = member.run(&["du"], "").stdout;
    let json: Value = serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"));
    assert_eq!(
        (&json["keys"], &json["revision"]),
        (&102.into(), &3.into()),
        "{json}"
    );
    let pods = &json["resources"][0];
    // A key has 24 bytes.
    assert_eq!(
        (&pods["name"], &pods["bytes"]),
        (&"pods".into(), &12_400.into()),
        "{json}"
    );
    let namespaces: Vec<&str> = pods["namespaces"]
        .as_array()
        .expect("list")
        .iter()
        .filter_map(|row| row["name"].as_str())
        .collect();
    assert_eq!(namespaces, ["ns-0", "ns-1"]);
    assert_eq!(json["largest"][0]["key"], "/other/k");
    assert!(json["database"]["inUse"].as_u64() > Some(0), "{json}");

    let below = member
        .run(&["du", "/other/", "-w", "simple", "--largest=0"], "")
        .stdout;
    assert!(
        below.contains("\n/other/     1   5008   100.0%         1                0\n"),
        "{below}"
    );
    let earlier = member.run(&["du", "--rev=2", "-w", "json"], "").stdout;
    assert!(
        earlier.contains("\"revision\":2,\"keys\":100,"),
        "{earlier}"
    );
    let none = member.run(&["du", "/nothing", "-w", "table"], "");
    assert!(
        none.stdout
            .starts_with("/nothing at revision 3: 0 keys, 0 B;"),
        "{none:?}"
    );
}

#[test]
fn errors_have_a_next_step() {
    let refused = |args: &[&str], error: &str, code| {
        let done = run(etcdctl(args), "");
        assert_eq!(
            (done.errors(), done.status.code()),
            (format!("Error: {error}"), Some(code))
        );
    };
    refused(
        &["du", "a", "b"],
        "du takes one prefix; run it once for each",
        128,
    );
    refused(&["du", "--depth=0"], "--depth must be at least 1", 128);
    refused(
        &["du", "-w", "fields"],
        "fields not supported as output format",
        4,
    );
    let member = Member::start();
    put(&member, &[("a".to_owned(), 1)]);
    put(&member, &[("a".to_owned(), 1)]);
    member.run(&["compaction", "3"], "");
    let done = member.run(&["du", "--rev=2"], "");
    assert!(
        done.errors().contains(
            "required revision has been compacted\nThe revision has been compacted. Without --rev"
        ),
        "{done:?}"
    );
}
