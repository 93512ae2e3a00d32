//! `check perf` and `check datascale`: what they print, and that they leave no keys.

mod harness;

use std::os::unix::process::ExitStatusExt;

use harness::{Member, Running};

fn count(member: &Member) -> String {
    let args = ["get", "", "--prefix", "--count-only", "-w", "fields"];
    let fields = member.run(&args, "").stdout;
    let line = fields.lines().find(|line| line.contains("Count"));
    line.expect("a count").to_owned()
}

/// Waits until the check has begun to write.
fn first_key(member: &Member, prefix: &str) -> Running {
    let mut watch = member.begin(&["watch", prefix, "--prefix", "--rev=1"]);
    watch.expect_lines(&["PUT"]);
    watch
}

#[test]
fn a_check_of_writes_that_is_stopped_early_judges_what_there_was() {
    let member = Member::start();
    let running = member.begin(&["check", "perf", "--auto-compact", "--auto-defrag"]);
    let watch = first_key(&member, "/etcdctl-check-perf/");
    running.terminate();
    let done = running.end();
    drop(watch);
    let lines: Vec<&str> = done.stdout.lines().collect();
    // What was deleted was all there was, so that the revision is the last one.
    assert!(
        lines[0].starts_with("Compacting with revision "),
        "{lines:?}"
    );
    assert_eq!(lines[1], lines[0].replace("Compacting", "Compacted"));
    let endpoint = &member.client;
    assert_eq!(lines[2], format!("Defragmenting {endpoint:?}"));
    assert_eq!(lines[3], format!("Defragmented {endpoint:?}"));
    // How fast it was is this machine's business.
    assert!(lines[4].contains("Throughput"), "{lines:?}");
    assert!(lines[5].contains("lowest request took"), "{lines:?}");
    assert!(lines[6].contains("Stddev"), "{lines:?}");
    let verdict = match done.status.code() {
        Some(0) => "PASS",
        Some(1) => "FAIL",
        other => panic!("{other:?}: {done:?}"),
    };
    assert_eq!(lines[7..], [verdict]);
    assert_eq!(done.stderr, "");
    assert_eq!(count(&member), "\"Count\" : 0");
}

#[test]
fn a_check_of_memory_tells_how_much_keys_take() {
    let member = Member::start();
    let done = member.run(&["check", "datascale", "--prefix=/x/"], "");
    let lines: Vec<&str> = done.stdout.lines().collect();
    let start = "Start data scale check for work load [10000 key-value pairs, 1024 bytes per key-value, \
                 50 concurrent clients].";
    assert_eq!((lines.len(), lines[0]), (2, start));
    let used = lines[1]
        .strip_prefix("PASS: Approximate system memory used : ")
        .and_then(|rest| rest.strip_suffix(" MB."));
    let used: f64 = used.expect(lines[1]).parse().expect("a number");
    assert!(used > 1.0, "{used} MB for 10 MB of keys and values");
    assert_eq!((done.stderr.as_str(), done.status.code()), ("", Some(0)));
    assert_eq!(count(&member), "\"Count\" : 0");
}

#[test]
fn a_check_of_memory_that_is_stopped_deletes_its_keys() {
    let member = Member::start();
    let running = member.begin(&["check", "datascale", "--load=xLarge"]);
    let watch = first_key(&member, "/etcdctl-check-datascale/");
    running.terminate();
    let done = running.end();
    drop(watch);
    assert_eq!(done.status.signal(), Some(15), "{done:?}");
    assert_eq!(count(&member), "\"Count\" : 0");
}
