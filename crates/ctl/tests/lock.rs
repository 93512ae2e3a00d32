//! `lock` and `elect`, terminated while they wait and while they hold.

mod harness;

use std::thread;
use std::time::{Duration, Instant};

use harness::{Member, Running, TIMEOUT};

/// Waits until `count` keys have the prefix.
fn wait_for_keys(member: &Member, prefix: &str, count: usize) {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        let keys = member.run(&["get", prefix, "--prefix", "--print-value-only"], "");
        if keys.stdout.lines().count() == count {
            return;
        }
        assert!(Instant::now() < deadline, "{prefix}: {keys:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

fn leases(member: &Member) -> String {
    member.run(&["lease", "list"], "").stdout
}

/// Terminates a waiting command: it has printed nothing, leaves the queue, and revokes its lease.
fn gives_up(member: &Member, prefix: &str, tool: Running, left: usize) {
    tool.terminate();
    let done = tool.end();
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("", "Error: context canceled\n")
    );
    assert_eq!(done.status.code(), Some(1));
    wait_for_keys(member, prefix, left);
}

#[test]
fn waiting_for_a_lock_can_be_interrupted() {
    let member = Member::start();
    assert!(member.run(&["put", "l/1", ""], "").status.success());
    let tool = member.begin(&["lock", "l"]);
    wait_for_keys(&member, "l/", 2);
    gives_up(&member, "l/", tool, 1);
    assert_eq!(leases(&member), "found 0 leases\n");
}

#[test]
fn campaigning_can_be_interrupted() {
    let member = Member::start();
    assert!(member.run(&["put", "e/1", "somebody"], "").status.success());
    let tool = member.begin(&["elect", "e", "me"]);
    wait_for_keys(&member, "e/", 2);
    gives_up(&member, "e/", tool, 1);
    assert_eq!(leases(&member), "found 0 leases\n");
}

#[test]
fn the_lock_is_released_when_its_command_exits() {
    let member = Member::start();
    let first = member.begin(&["lock", "l", "--", "sh", "-c", "cat; exit 3"]);
    // Commands have no input.
    let done = first.end();
    assert_eq!(done.status.code(), Some(3));
    let mut holder = member.begin(&["lock", "l"]);
    wait_for_keys(&member, "l/", 1);
    let next = member.begin(&["lock", "l", "echo", "mine"]);
    wait_for_keys(&member, "l/", 2);
    let own = member.run(
        &[
            "get",
            "l/",
            "--prefix",
            "--limit=1",
            "--sort-by=CREATE",
            "--keys-only",
        ],
        "",
    );
    let key = own.stdout.lines().next().unwrap_or_default().to_owned();
    holder.expect_lines(&[&key]);
    holder.terminate();
    assert!(holder.end().status.success());
    let done = next.end();
    assert_eq!(
        (done.stdout.as_str(), done.status.code()),
        ("mine\n", Some(0))
    );
    wait_for_keys(&member, "l/", 0);
}

#[test]
fn revoking_the_lease_loses_the_lock() {
    let member = Member::start();
    let tool = member.begin(&["lock", "l", "--ttl=3"]);
    wait_for_keys(&member, "l/", 1);
    let lease = leases(&member)
        .lines()
        .nth(1)
        .unwrap_or_default()
        .to_owned();
    assert!(
        member
            .run(&["lease", "revoke", &lease], "")
            .status
            .success()
    );
    let done = tool.end();
    assert!(done.stdout.starts_with("l/"), "{done:?}");
    assert_eq!(done.stderr, "Error: session expired\n");
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn observing_can_be_interrupted() {
    let member = Member::start();
    let mut follower = member.begin(&["elect", "-l", "e"]);
    let mut leader = member.begin(&["elect", "e", "first"]);
    wait_for_keys(&member, "e/", 1);
    let own = member.run(&["get", "e/", "--prefix", "--keys-only"], "");
    let key = own.stdout.lines().next().unwrap_or_default().to_owned();
    for tool in [&mut follower, &mut leader] {
        tool.expect_lines(&[&key, "first"]);
    }
    leader.terminate();
    assert!(leader.end().status.success());
    follower.terminate();
    let done = follower.end();
    assert_eq!((done.stderr.as_str(), done.status.code()), ("", Some(0)));
}
