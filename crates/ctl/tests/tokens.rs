//! Tokens that expire while a command runs: it authenticates again, transparently.

mod harness;

use harness::Member;

/// A member whose user `u` may read and write key `k`, and `root` everything; both have the
/// password `pw`.
fn member_with_auth() -> Member {
    let member = Member::start();
    for command in [
        "user add root:pw",
        "user add u:pw",
        "role add r",
        "role grant-permission r readwrite k",
        "user grant-role u r",
        "auth enable",
    ] {
        let words: Vec<_> = command.split(' ').collect();
        assert!(member.run(&words, "").status.success(), "{command}");
    }
    member
}

fn run_as_root(member: &Member, args: &[&str], input: &str) {
    let args = [&["--user=root:pw"], args].concat();
    let done = member.run(&args, input);
    assert!(done.status.success(), "{args:?}: {done:?}");
}

fn set_password(member: &Member, password: &str) {
    let passwd = ["user", "passwd", "u", "--interactive=false"];
    run_as_root(member, &passwd, &format!("{password}\n"));
}

/// Invalidates the tokens of `u` without changing its password.
fn invalidate_tokens(member: &Member) {
    set_password(member, "pw");
}

#[test]
fn a_token_may_expire_while_a_transaction_is_typed() {
    let member = member_with_auth();
    let mut tool = member.begin(&["--user=u:pw", "txn", "-i"]);
    tool.expect_lines(&["compares:"]);
    // The tool is authenticated and waits for input.
    invalidate_tokens(&member);
    tool.write("\nput k v\n\n\n");
    let done = tool.end();
    assert!(done.stdout.ends_with("SUCCESS\n\nOK\n"), "{done:?}");
    assert!(done.status.success());
}

#[test]
fn a_watch_resumes_at_a_member_without_its_token() {
    let mut member = member_with_auth();
    run_as_root(&member, &["put", "k", "1"], "");
    let mut tool = member.begin(&["--user=u:pw", "watch", "k", "--rev=1"]);
    tool.expect_lines(&["PUT", "k", "1"]);
    invalidate_tokens(&member);
    member.restart();
    run_as_root(&member, &["put", "k", "2"], "");
    tool.expect_lines(&["PUT", "k", "2"]);
}

#[test]
fn a_lease_is_kept_alive_at_a_member_without_the_token() {
    let mut member = member_with_auth();
    let granted = member.run(&["--user=u:pw", "lease", "grant", "12"], "");
    let id = granted
        .stdout
        .split(' ')
        .nth(1)
        .expect("lease ID granted ...");
    let attach = format!("--lease={id}");
    run_as_root(&member, &["put", "k", "1", &attach], "");
    let mut tool = member.begin(&["--user=u:pw", "lease", "keep-alive", id]);
    let renewed = format!("lease {id} keepalived with TTL(12)");
    tool.expect_lines(&[&renewed]);
    invalidate_tokens(&member);
    member.restart();
    tool.expect_lines(&[&renewed]);
}

#[test]
fn a_changed_password_is_reported() {
    let member = member_with_auth();
    let mut tool = member.begin(&["--user=u:pw", "txn", "-i"]);
    tool.expect_lines(&["compares:"]);
    set_password(&member, "other");
    tool.write("\nput k v\n\n\n");
    let done = tool.end();
    let refused = "etcdserver: authentication failed, invalid user ID or password";
    assert_eq!(done.stderr, format!("Error: {refused}\n"));
    assert_eq!(done.status.code(), Some(1));
}
