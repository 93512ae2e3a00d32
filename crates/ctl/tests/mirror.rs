//! `make-mirror`: what arrives at the destination, and how a mirror goes on after it was stopped or
//! lost its destination.

mod harness;

use std::os::unix::process::ExitStatusExt;

use harness::{Member, Running};

/// The changes at a mirror's destination, in their order.
struct Changes(Running);

impl Changes {
    fn follow(destination: &Member) -> Changes {
        Changes(destination.begin(&["watch", "", "--prefix", "--rev=1"]))
    }

    fn expect_put(&mut self, key: &str, value: &str) {
        self.0.expect_lines(&["PUT", key, value]);
    }

    /// What comes next but for `repeated`: a write whose answer was lost is made again.
    fn expect_put_behind(&mut self, repeated: (&str, &str), key: &str, value: &str) {
        let mut next = || ["PUT", "key", "value"].map(|wanted| self.0.next_line(wanted));
        let mut change = next();
        while change == ["PUT", repeated.0, repeated.1] {
            change = next();
        }
        assert_eq!(change, ["PUT", key, value]);
    }

    fn expect_delete(&mut self, key: &str) {
        self.0.expect_lines(&["DELETE", key, ""]);
    }
}

fn put(member: &Member, key: &str, value: &str) {
    assert_eq!(member.run(&["put", key, value], "").stdout, "OK\n");
}

fn revision(member: &Member) -> i64 {
    let fields = member.run(&["get", "none", "-w", "fields"], "").stdout;
    let line = fields.lines().find(|line| line.contains("Revision"));
    let line = line.expect("answers have a revision");
    let (_, revision) = line.split_once(" : ").expect("a name and a value");
    revision.parse().expect("a number")
}

fn mirror(source: &Member, destination: &Member, flags: &[&str]) -> Running {
    let mut args = vec!["make-mirror", destination.client.as_str()];
    args.extend(flags);
    source.begin(&args)
}

/// A mirror that is stopped has printed nothing and ends by the signal.
fn stop(mirror: Running) {
    mirror.terminate();
    let done = mirror.end();
    assert_eq!((done.stdout.as_str(), done.errors().as_str()), ("", ""));
    assert_eq!(done.status.signal(), Some(15));
}

#[test]
fn a_cluster_is_not_mirrored_into_itself_for_ever() {
    let member = Member::start();
    put(&member, "a/1", "one");
    for flags in [
        &[][..],
        &["--prefix=a/", "--dest-prefix=a/copy/"],
        &["--rev=2"],
    ] {
        let done = mirror(&member, &member, flags).end();
        let told = (done.errors(), done.status.code());
        let refusal = "Error: the destination is the source, where every copy would be copied again; \
                       name another place with --dest-prefix";
        assert_eq!(told, (refusal.to_owned(), Some(128)), "{flags:?}");
    }
    assert!(revision(&member) < 9);
}

#[test]
fn keys_are_copied_and_then_every_change() {
    let (source, destination) = (Member::start(), Member::start());
    put(&source, "a/1", "one");
    put(&source, "a/2", "two");
    put(&source, "b", "elsewhere");
    let mut changes = Changes::follow(&destination);
    let running = mirror(
        &source,
        &destination,
        &["--prefix=a/", "--dest-prefix=m/a/"],
    );
    changes.expect_put("m/a/1", "one");
    changes.expect_put("m/a/2", "two");
    put(&source, "a/1", "uno");
    changes.expect_put("m/a/1", "uno");
    put(&source, "b", "still elsewhere");
    source.run(&["del", "a/2"], "");
    changes.expect_delete("m/a/2");
    stop(running);
}

#[test]
fn a_revision_arrives_at_once_unless_it_has_too_many_changes() {
    let (source, destination) = (Member::start(), Member::start());
    let mut changes = Changes::follow(&destination);
    let running = mirror(&source, &destination, &["--max-txn-ops=2"]);
    put(&source, "begun", "");
    changes.expect_put("begun", "");
    let before = revision(&destination);
    source.run(&["txn"], "\nput a 1\nput b 2\nput c 3\n\n\n");
    changes.expect_put("a", "1");
    changes.expect_put("b", "2");
    changes.expect_put("c", "3");
    // Three changes in two transactions.
    assert_eq!(revision(&destination), before + 2);
    stop(running);
}

#[test]
fn a_mirror_goes_on_where_it_stopped() {
    let (source, destination) = (Member::start(), Member::start());
    put(&source, "a/1", "one");
    let mut changes = Changes::follow(&destination);
    let running = mirror(&source, &destination, &["--prefix=a/"]);
    changes.expect_put("a/1", "one");
    stop(running);
    let next = revision(&source) + 1;
    source.run(&["del", "a/1"], "");
    put(&source, "a/2", "two");
    // The names are those that a copy has, unless another prefix is given.
    let rev = format!("--rev={next}");
    let running = mirror(&source, &destination, &["--prefix=a/", &rev]);
    changes.expect_delete("a/1");
    changes.expect_put("a/2", "two");
    stop(running);
    let running = mirror(
        &source,
        &destination,
        &["--prefix=a/", "--no-dest-prefix", &rev],
    );
    // The key that is to be deleted is not there.
    changes.expect_put("2", "two");
    stop(running);
}

#[test]
fn a_mirror_says_what_to_do_about_a_compaction() {
    let (source, destination) = (Member::start(), Member::start());
    for value in ["1", "2", "3"] {
        put(&source, "k", value);
    }
    source.run(&["compaction", "4"], "");
    let done = mirror(&source, &destination, &["--rev=2"]).end();
    let text = "Error: etcdserver: mvcc: required revision has been compacted\n\
                Start again without --rev, which copies all keys first.";
    assert_eq!(
        (done.errors().as_str(), done.status.code()),
        (text, Some(1))
    );
}

#[test]
fn a_destination_that_comes_back_misses_nothing() {
    let (source, mut destination) = (Member::start(), Member::start());
    let mut changes = Changes::follow(&destination);
    let running = mirror(&source, &destination, &[]);
    put(&source, "a", "1");
    changes.expect_put("a", "1");
    drop(changes);
    destination.kill();
    put(&source, "a", "2");
    source.run(&["del", "a"], "");
    put(&source, "b", "3");
    destination.restart();
    let mut changes = Changes::follow(&destination);
    changes.expect_put("a", "1");
    // The destination may have ended between the event and its answer to the mirror.
    changes.expect_put_behind(("a", "1"), "a", "2");
    changes.expect_delete("a");
    changes.expect_put("b", "3");
    stop(running);
}

#[test]
fn a_destination_may_ask_who_writes() {
    let (source, destination) = (Member::start(), Member::start());
    for line in [
        "user add root:pw",
        "user grant-role root root",
        "auth enable",
    ] {
        let args: Vec<&str> = line.split(' ').collect();
        assert!(destination.run(&args, "").status.success(), "{line}");
    }
    put(&source, "a", "1");
    let done = mirror(&source, &destination, &[]).end();
    let text = "Error: etcdserver: user name is empty\n\
                Start again without --rev, which copies all keys first.";
    assert_eq!(
        (done.errors().as_str(), done.status.code()),
        (text, Some(1))
    );
    let done = mirror(&source, &destination, &["--dest-user=root:wrong"]).end();
    let text = "Error: etcdserver: authentication failed, invalid user ID or password";
    assert_eq!(
        (done.errors().as_str(), done.status.code()),
        (text, Some(2))
    );
    let root = ["--user=root:pw", "watch", "", "--prefix", "--rev=1"];
    let mut changes = Changes(destination.begin(&root));
    let flags = ["--dest-user=root", "--dest-password=pw"];
    let running = mirror(&source, &destination, &flags);
    changes.expect_put("a", "1");
    stop(running);
}
