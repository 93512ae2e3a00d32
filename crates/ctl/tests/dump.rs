//! What `export` writes, `import` brings back: once, and without writing over anything.

mod harness;

use std::fmt::Write;

use serde_json::Value;

use harness::{Done, Member, etcdctl, run};

/// A member with keys: 150 plain ones, a binary one, and one with a lease.
fn source() -> Member {
    let member = Member::start();
    for start in [0, 75] {
        let mut lines = String::from("\n");
        for index in start..start + 75 {
            writeln!(lines, "put /app/k{index:03} value-{index}").expect("room");
        }
        assert!(
            member
                .run(&["txn"], format!("{lines}\n\n"))
                .stdout
                .starts_with("SUCCESS")
        );
    }
    member.run(&["put", "/app/binary"], b"\xff\0\xfe");
    let granted = member.run(&["lease", "grant", "1000"], "").stdout;
    let id = granted.split(' ').nth(1).expect("lease ID granted ...");
    member.run(
        &["put", "/app/session", "alive", &format!("--lease={id}")],
        "",
    );
    member.run(&["put", "/beside", "not exported"], "");
    member
}

/// The keys with a prefix: key, value and lease, as JSON has them.
fn keys(member: &Member, prefix: &str) -> Vec<(Value, Value, Value)> {
    let done = member.run(&["get", "--prefix", prefix, "-w", "json"], "");
    let json: Value = serde_json::from_str(&done.stdout).expect("JSON");
    let kvs = json["kvs"].as_array().cloned().unwrap_or_default();
    kvs.into_iter()
        .map(|mut kv| (kv["key"].take(), kv["value"].take(), kv["lease"].take()))
        .collect()
}

fn count(done: &Done, what: &str) -> u64 {
    let line = done
        .stdout
        .lines()
        .find_map(|line| line.strip_prefix(what)?.strip_prefix(": "));
    line.unwrap_or_else(|| panic!("{what}: {done:?}"))
        .parse()
        .expect("a number")
}

#[test]
fn an_import_brings_back_what_was_exported() {
    let source = source();
    let export = source.run(&["export", "/app/"], "");
    assert!(
        export.status.success() && export.errors().is_empty(),
        "{export:?}"
    );
    let lines: Vec<&str> = export.stdout.lines().collect();
    assert_eq!(lines.len(), 155, "head, 152 keys, a lease, end");
    assert!(lines[1].contains(r#""valueBase64":"/wD+""#), "{}", lines[1]);
    assert_eq!(lines[154], r#"{"end":true,"keys":152,"leases":1}"#);

    let target = Member::start();
    let dry = target.run(&["import", "--dry-run"], &export.stdout);
    assert_eq!(
        (count(&dry, "keys to be written"), keys(&target, "/").len()),
        (152, 0)
    );
    // The first half of it, as if the rest was lost on the way.
    let half = lines[..80].join("\n");
    let done = target.run(&["import"], &half);
    assert_eq!(
        done.errors(),
        "Error: the export is incomplete: its last line is missing\nExport again, and import the new file.\n\
         79 keys are done; the same command goes on with the others."
    );
    assert_eq!(done.status.code(), Some(3));
    let done = target.run(&["import", "--rate=100000"], &export.stdout);
    assert_eq!(
        (
            count(&done, "keys written"),
            count(&done, "keys present already")
        ),
        (73, 79),
        "{done:?}"
    );
    assert_eq!(count(&done, "leases granted"), 1);
    assert_eq!(keys(&target, "/"), keys(&source, "/app/"));
    let done = target.run(&["import", "-w", "json"], &export.stdout);
    let report: Value = serde_json::from_str(&done.stdout).expect("JSON");
    assert_eq!(
        (&report["written"], &report["present"], &report["leases"]),
        (&0.into(), &152.into(), &0.into())
    );
}

#[test]
fn nothing_is_written_over_unasked() {
    let source = source();
    let file = source.directory.path().join("app.jsonl");
    std::fs::write(&file, source.run(&["export", "/app/"], "").stdout).expect("room");
    let file = file.to_str().expect("text");
    source.run(&["put", "/app/k001", "newer"], "");
    let done = source.run(&["import", file], "");
    assert!(
        done.stdout
            .contains("keys with another value or lease: 1\n  /app/k001\n"),
        "{done:?}"
    );
    assert!(
        done.errors().starts_with(
            "Error: keys that are there with another value or lease: 1\nCompare them;"
        ),
        "{done:?}"
    );
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(
        source.run(&["get", "/app/k001"], "").stdout,
        "/app/k001\nnewer\n"
    );
    let done = source.run(&["import", file, "--overwrite"], "");
    assert_eq!(
        (
            count(&done, "keys overwritten"),
            count(&done, "keys written")
        ),
        (1, 0)
    );
    assert_eq!(
        source.run(&["get", "/app/k001"], "").stdout,
        "/app/k001\nvalue-1\n"
    );

    let copy = [
        "import",
        file,
        "--prefix=/app/k00",
        "--strip-prefix=/app/",
        "--add-prefix=/copy/",
        "--batch=3",
    ];
    let done = source.run(&copy, "");
    assert_eq!(
        (count(&done, "keys written"), count(&done, "keys left out")),
        (10, 142)
    );
    assert_eq!(
        source.run(&["get", "/copy/k009"], "").stdout,
        "/copy/k009\nvalue-9\n"
    );
}

#[test]
fn errors_name_the_line_and_the_next_step() {
    let member = Member::start();
    let check = |input: &str, error: &str| {
        let done = member.run(&["import"], input);
        let text = done.errors();
        assert!(
            text.starts_with(&format!("Error: {error}\n0 keys are done")),
            "{done:?}"
        );
        assert_eq!(done.status.code(), Some(3));
    };
    let head = r#"{"format":"etcdctl-export/1","prefix":"","revision":1}"#;
    check(
        "{\"key\":\"a\",\"value\":\"b\"}\n",
        "line 1: this is no export of etcdctl: the head is missing",
    );
    check(
        &format!("{head}\n{{\"key\":\"a\"}}\n"),
        "line 2: there is neither value nor valueBase64",
    );
    check(
        &format!("{head}\n\n{head}\n"),
        "line 3: a second head; import one export at a time",
    );
    check(
        &format!("{head}\n{{\"key\":\"a\",\"value\":\"b\",\"lease\":\"1\"}}\n"),
        "line 2: the key's lease does not stand before it",
    );
    let refused = |args: &[&str], error: &str, code| {
        let done = run(etcdctl(args), "");
        assert_eq!(
            (done.errors(), done.status.code()),
            (format!("Error: {error}"), Some(code))
        );
    };
    refused(
        &["import", "/nothing"],
        "open /nothing: no such file or directory",
        3,
    );
    refused(
        &["import", "a", "b"],
        "import takes one file, or reads stdin",
        128,
    );
    refused(&["import", "--batch=0"], "--batch must be at least 1", 128);
    refused(
        &["export", "a", "b"],
        "export takes one prefix; run it once for each",
        128,
    );
    refused(
        &["export", "-w", "table"],
        "table not supported as output format",
        4,
    );
}
