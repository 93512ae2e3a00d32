//! `migrate-v2`: keys of API v2 become keys of API v3, each once, and nothing is lost on the way.

mod harness;

use harness::{Done, Member, etcdctl, run};

fn member() -> Member {
    Member::start_with(&["--enable-v2=true"])
}

/// A command of API version 2, which must succeed.
fn v2(member: &Member, args: &[&str]) -> Done {
    let endpoint = format!("--endpoints=http://{}", member.client);
    let mut command = etcdctl(&[&[endpoint.as_str()], args].concat());
    command.env("ETCDCTL_API", "2");
    let done = run(command, "");
    assert!(done.status.success(), "{args:?}: {done:?}");
    done
}

/// The keys of API v3 and their values, a line each.
fn keys(member: &Member) -> Vec<String> {
    let printed = member.run(&["get", "--prefix", ""], "").stdout;
    let lines: Vec<&str> = printed.lines().collect();
    lines.chunks(2).map(|pair| pair.join("=")).collect()
}

/// The revision of API v3, which every write counts up.
fn revision(member: &Member) -> String {
    let printed = member.run(&["get", "none", "-w", "json"], "").stdout;
    let (_, rest) = printed.split_once("\"revision\":").expect("a header");
    rest.chars().take_while(char::is_ascii_digit).collect()
}

/// A migration that must succeed and report these lines.
fn migrates(member: &Member, args: &[&str], lines: &[&str]) -> Done {
    let done = member.run(&[&["migrate-v2"], args].concat(), "");
    assert!(done.status.success(), "{args:?}: {done:?}");
    has_lines(&done, lines);
    done
}

fn has_lines(done: &Done, lines: &[&str]) {
    for line in lines {
        assert!(
            done.stdout.lines().any(|shown| shown == *line),
            "{line:?}: {done:?}"
        );
    }
}

/// A migration that must fail with this error line.
fn fails(member: &Member, args: &[&str], error: &str) {
    let done = member.run(&[&["migrate-v2"], args].concat(), "");
    assert!(
        done.errors().starts_with(&format!("Error: {error}\n")),
        "{args:?}: {done:?}"
    );
    assert_eq!(done.status.code(), Some(1), "{args:?}");
}

#[test]
fn keys_are_written_once() {
    let member = member();
    v2(&member, &["set", "/app/url", "http://a b"]);
    v2(&member, &["set", "/app/db/name", "x"]);
    v2(&member, &["set", "/top", ""]);
    v2(&member, &["mkdir", "/app/empty"]);
    v2(&member, &["set", "/app/_hidden/k", "h"]);

    let dry = [
        "put\t/app/db/name",
        "put\t/app/url",
        "put\t/top",
        "keys to be written: 3",
    ];
    migrates(&member, &["--dry-run"], &dry);
    assert_eq!(keys(&member), [""; 0]);

    let counts = [
        "keys written: 3",
        "empty directories left out: 1",
        "bytes: 35",
    ];
    migrates(&member, &["--batch=2"], &counts);
    assert_eq!(
        keys(&member),
        ["/app/db/name=x", "/app/url=http://a b", "/top="]
    );

    let before = revision(&member);
    migrates(
        &member,
        &[],
        &["keys written: 0", "keys present already: 3"],
    );
    assert_eq!(revision(&member), before);

    let more = ["/app", "--also=/app/_hidden", "--dirs"];
    migrates(
        &member,
        &more,
        &["keys written: 2", "keys present already: 2"],
    );
    let all = [
        "/app/_hidden/k=h",
        "/app/db/name=x",
        "/app/empty=",
        "/app/url=http://a b",
        "/top=",
    ];
    assert_eq!(keys(&member), all);
}

#[test]
fn other_values_stay_unless_they_may_be_replaced() {
    let member = member();
    v2(&member, &["set", "/a", "2"]);
    v2(&member, &["set", "/b", "2"]);
    member.run(&["put", "/a", "3"], "");
    fails(
        &member,
        &["--dry-run"],
        "keys that have another value in API v3: 1",
    );
    let done = member.run(&["migrate-v2"], "");
    has_lines(
        &done,
        &["keys written: 1", "keys with another value: 1", "  /a"],
    );
    assert_eq!(done.status.code(), Some(1));
    assert_eq!(keys(&member), ["/a=3", "/b=2"]);
    migrates(
        &member,
        &["--overwrite"],
        &["keys overwritten: 1", "keys present already: 1"],
    );
    assert_eq!(keys(&member), ["/a=2", "/b=2"]);
}

#[test]
fn keys_that_expire_share_a_lease() {
    let member = member();
    v2(&member, &["mkdir", "/d", "--ttl=1000"]);
    v2(&member, &["set", "/d/a", "1"]);
    v2(&member, &["set", "/d/b", "1", "--ttl=5000"]);
    v2(&member, &["set", "/c", "1", "--ttl=1000000"]);
    // The directory above what is read expires as well.
    let leases = "keys with a time to live: 1 (leases: 1)";
    migrates(&member, &["--prefix=/d/a"], &[leases]);
    let leases = "keys with a time to live: 2 (leases: 2)";
    migrates(&member, &[], &["keys written: 2", leases]);
    let listed = member.run(&["lease", "list"], "").stdout;
    let mut ttls: Vec<String> = Vec::new();
    for id in listed.lines().skip(1) {
        let shown = member
            .run(&["lease", "timetolive", "--keys", id], "")
            .stdout;
        let (_, rest) = shown.split_once("granted with TTL(").expect("a lease");
        let (ttl, rest) = rest.split_once("s)").expect("seconds");
        let ttl: i64 = ttl.parse().expect("a number");
        let (_, keys) = rest.split_once("attached keys(").expect("keys");
        ttls.push(format!("{} {}", (ttl + 100) / 1000, keys.trim_end()));
    }
    ttls.sort();
    assert_eq!(ttls, ["1 [/d/a])", "1 [/d/b])", "1000 [/c])"]);
}

#[test]
fn keys_of_another_cluster_get_other_names() {
    let (source, target) = (member(), Member::start_with(&["--enable-v2=false"]));
    v2(&source, &["set", "/config/a", "1"]);
    v2(&source, &["set", "/configs", "2"]);
    let from = format!("--from={}", source.client);
    let rule = [
        "--strip-prefix=config/",
        "--keep-leading-slash=false",
        "--add-prefix=new:",
    ];
    let args = [&[from.as_str()], &rule[..]].concat();
    migrates(&target, &args, &["keys written: 2"]);
    assert_eq!(keys(&target), ["new:a=1", "new:configs=2"]);
    let json = "{\"dryRun\":false,\"written\":0,\"overwritten\":0,\"present\":2,\"conflicts\":[],\
                \"directoriesLeftOut\":0,\"expired\":0,\"keysWithTTL\":0,\"leases\":[],\"bytes\":0}";
    migrates(&target, &[&args, &["-w", "json"][..]].concat(), &[json]);
    let [_, client] = from
        .split_once('=')
        .map(<[&str; 2]>::from)
        .expect("an endpoint");
    let missing = "API v2 has no key or directory /nosuch";
    fails(&target, &[&from, "/nosuch"], missing);
    let own = &target.client;
    fails(&target, &[], &format!("API v2 is not served by {own}"));
    drop(source);
    let done = target.run(&["migrate-v2", &from], "");
    let error = format!("Error: API v2 cannot be read from {client}: ");
    assert!(done.errors().starts_with(&error), "{done:?}");
}

#[test]
fn users_of_version_2_are_named() {
    let member = member();
    v2(&member, &["set", "/a", "1"]);
    v2(&member, &["user", "add", "root:pw"]);
    v2(&member, &["auth", "enable"]);
    v2(
        &member,
        &[
            "--username=root:pw",
            "role",
            "revoke",
            "guest",
            "--path=/*",
            "--readwrite",
        ],
    );
    fails(
        &member,
        &[],
        "/ may not be read in API v2: Insufficient credentials",
    );
    migrates(&member, &["--v2-username=root:pw"], &["keys written: 1"]);
}

#[test]
fn deep_trees_are_read() {
    let member = member();
    let path = "/d".repeat(500);
    v2(&member, &["set", &path, "deep"]);
    migrates(&member, &[], &["keys written: 1"]);
    assert_eq!(keys(&member), [format!("{path}=deep")]);
    let listed = v2(&member, &["ls", "--recursive"]);
    assert_eq!(listed.stdout.lines().last(), Some(path.as_str()));
}

#[test]
fn command_lines_are_checked_before_anything_is_done() {
    let check = |args: &[&str], error: &str, code| {
        let args = [&["--endpoints=127.0.0.1:1", "migrate-v2"], args].concat();
        let done = run(etcdctl(&args), "");
        assert_eq!(done.errors(), format!("Error: {error}"), "{args:?}");
        assert_eq!(done.status.code(), Some(code), "{args:?}");
    };
    check(
        &["/a", "/b"],
        "migrate-v2 takes one path; name others with --also",
        128,
    );
    check(
        &["/a", "--prefix=/b"],
        "give the path as an argument or as --prefix, not both",
        128,
    );
    check(&["--batch=0"], "--batch must be at least 1", 128);
    check(
        &["-w", "fields"],
        "fields not supported as output format",
        4,
    );
}
