//! `lock` and `elect`, terminated while they wait and while they hold.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod harness;

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;

use harness::{Member, Running, etcdctl};

/// The keys with a prefix, as a watch tells them.
struct Keys {
    watch: Running,
    present: BTreeSet<String>,
}

impl Keys {
    fn follow(member: &Member, prefix: &str) -> Keys {
        Keys {
            watch: member.begin(&["watch", prefix, "--prefix", "--rev=1"]),
            present: BTreeSet::new(),
        }
    }

    /// Waits until there are `count` keys. No change is missed, and none is looked at twice.
    fn wait_for(&mut self, count: usize) {
        while self.present.len() != count {
            let line = |_| self.watch.next_line("a change of the keys");
            let [change, key, _value] = std::array::from_fn(line);
            match change.as_str() {
                "PUT" => self.present.insert(key),
                "DELETE" => self.present.remove(&key),
                other => panic!("{other:?} is no change"),
            };
        }
    }
}

fn leases(member: &Member) -> String {
    member.run(&["lease", "list"], "").stdout
}

/// Terminates a waiting command: it has printed nothing, leaves the queue, and revokes its lease.
fn gives_up(keys: &mut Keys, tool: Running, left: usize) {
    tool.terminate();
    let done = tool.end();
    assert_eq!(
        (done.stdout.as_str(), done.stderr.as_str()),
        ("", "Error: context canceled\n")
    );
    assert_eq!(done.status.code(), Some(1));
    keys.wait_for(left);
}

#[test]
fn waiting_for_a_lock_can_be_interrupted() {
    let member = Member::start();
    let mut keys = Keys::follow(&member, "l/");
    assert!(member.run(&["put", "l/1", ""], "").status.success());
    let tool = member.begin(&["lock", "l"]);
    keys.wait_for(2);
    gives_up(&mut keys, tool, 1);
    assert_eq!(leases(&member), "found 0 leases\n");
}

#[test]
fn without_an_answer_a_signal_ends_lock_and_elect() {
    for args in [&["lock", "l"][..], &["elect", "e", "me"]] {
        let silent = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = silent.local_addr().unwrap().to_string();
        let tool = Running::start(etcdctl(&[&["--endpoints", &address], args].concat()));
        // Who connects is past the start.
        let _connection = silent.accept().unwrap();
        tool.terminate();
        let done = tool.end();
        assert_eq!(done.status.signal(), Some(15), "{args:?}: {done:?}");
    }
}

#[test]
fn campaigning_can_be_interrupted() {
    let member = Member::start();
    let mut keys = Keys::follow(&member, "e/");
    assert!(member.run(&["put", "e/1", "somebody"], "").status.success());
    let tool = member.begin(&["elect", "e", "me"]);
    keys.wait_for(2);
    gives_up(&mut keys, tool, 1);
    assert_eq!(leases(&member), "found 0 leases\n");
}

#[test]
fn the_lock_is_released_when_its_command_exits() {
    let member = Member::start();
    let mut keys = Keys::follow(&member, "l/");
    let first = member.begin(&["lock", "l", "--", "sh", "-c", "cat; exit 3"]);
    // Commands have no input.
    let done = first.end();
    assert_eq!(done.status.code(), Some(3));
    keys.wait_for(1);
    keys.wait_for(0);
    let mut holder = member.begin(&["lock", "l"]);
    keys.wait_for(1);
    let next = member.begin(&["lock", "l", "echo", "mine"]);
    keys.wait_for(2);
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
    keys.wait_for(0);
}

#[test]
fn revoking_the_lease_loses_the_lock() {
    let member = Member::start();
    let mut keys = Keys::follow(&member, "l/");
    let tool = member.begin(&["lock", "l", "--ttl=3"]);
    keys.wait_for(1);
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
    let mut keys = Keys::follow(&member, "e/");
    let mut follower = member.begin(&["elect", "-l", "e"]);
    let mut leader = member.begin(&["elect", "e", "first"]);
    keys.wait_for(1);
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
