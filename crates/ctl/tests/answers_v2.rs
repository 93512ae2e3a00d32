//! What `etcdctl` of version 2 makes of answers that no member of this project gives, of options that
//! are wrong, and of signals. Expected is what etcd 3.3.25's tool prints and returns.

mod harness;

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;

use harness::{Running, etcdctl, run};
use rustix::process::Signal;

/// A member that gives one answer to everything, but for the list of its members.
struct Fake {
    url: String,
}

impl Fake {
    fn answering(status: u16, body: &'static str) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let url = format!("http://{address}");
        let members = format!(
            r#"{{"members":[{{"id":"a1","name":"m","peerURLs":["http://h:1"],"clientURLs":["{url}"]}}]}}"#
        );
        // It ends with the test.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let line = read_request(&mut BufReader::new(&stream));
                let (status, body) = match line.starts_with("get /v2/members ") {
                    true => (200, members.as_str()),
                    false => (status, body),
                };
                let answer = format!(
                    "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let _ = (&stream).write_all(answer.as_bytes());
            }
        });
        Fake { url }
    }

    fn command(&self, line: &str) -> std::process::Command {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut command = etcdctl(&words);
        command.env("ETCDCTL_API", "2");
        command.env("ETCDCTL_ENDPOINTS", &self.url);
        command
    }

    /// Runs a line and compares; the URL stands as `U`.
    #[track_caller]
    fn check(&self, line: &str, code: i32, stdout: &str, stderr: &str) {
        let done = run(self.command(line), "");
        let plain = |text: &str| text.replace(&self.url, "U");
        assert_eq!(plain(&done.stderr), stderr, "{line}");
        assert_eq!(plain(&done.stdout), stdout, "{line}");
        assert_eq!(done.status.code(), Some(code), "{line}");
    }
}

/// Reads a request to its end, since what is left would reset the connection; returns its first line.
fn read_request(from: &mut impl BufRead) -> String {
    let (mut first, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        let read = from.read_line(&mut line).unwrap_or_default();
        let line = line.trim_end().to_lowercase();
        if first.is_empty() {
            first.clone_from(&line);
        }
        if let Some(bytes) = line.strip_prefix("content-length: ") {
            length = bytes.parse().expect("a number");
        }
        if read == 0 || line.is_empty() {
            break;
        }
    }
    let mut body = vec![0; length];
    let _ = from.read_exact(&mut body);
    first
}

#[test]
fn what_is_no_json_is_told_as_go_tells_it() {
    let lost = Fake::answering(404, "404 page not found\n");
    let text = "invalid character 'p' after top-level value\n";
    for line in [
        "user get u",
        "user list",
        "role get r",
        "role remove r",
        "auth enable",
    ] {
        lost.check(line, 1, "", text);
    }
    lost.check("role list", 1, "", "unexpected status code 404\n");
    let member = "Received an error trying to remove member a1: unexpected status code 404";
    lost.check("member remove a1", 1, "", member);
    let failed = "failed to check the health of member a1 on U: ";
    let summary = "member a1 is unreachable: [U] are all unreachable\ncluster is unavailable\n";
    lost.check("cluster-health", 5, &format!("{failed}{text}{summary}"), "");

    let refusal = Fake::answering(401, r#"{"message":"Insufficient credentials"}"#);
    refusal.check("role list", 1, "", "unexpected status code 401\n");
    refusal.check("user list", 1, "", "Insufficient credentials\n");

    let odd = Fake::answering(200, r#"{"id":1,"role":1}"#);
    let mismatch = "json: cannot unmarshal number into Go struct field";
    odd.check(
        "role get r",
        1,
        "",
        &format!("{mismatch} Role.role of type string\n"),
    );
    let leader = format!("Failed to get leader:  {mismatch} Member.id of type string\n");
    odd.check("member list", 1, "", &leader);
}

#[test]
fn what_is_missing_in_an_answer_is_empty() {
    let empty = Fake::answering(200, "{}");
    empty.check("role get r", 0, "Role: \nKV Read:\nKV Write:\n", "");
    empty.check("user get u", 0, "User: \nRoles: \n", "");
    let created = Fake::answering(201, "{}");
    created.check("role remove r", 0, "Role r removed\n", "");
    created.check("auth disable", 0, "Authentication Disabled\n", "");
}

#[test]
fn endpoints_may_have_a_query_and_are_named_twice_to_who_debugs() {
    let list = Fake::answering(200, r#"{"roles":[{"role":"r"}]}"#);
    let line = format!(
        "--debug --no-sync --endpoints {}/?a=b#f role list",
        list.url
    );
    let told = "Cluster-Endpoints: U/?a=b#f\n";
    let curl = "cURL Command: curl -X GET U/v2/auth/roles?a=b#f\n";
    list.check(&line, 0, "r\n", &format!("{told}{told}{curl}"));
}

#[test]
fn wrong_certificates_and_no_time_are_told() {
    let member = Fake::answering(200, r#"{"health":"true"}"#);
    let missing = "KeyFile and CertFile must both be present[key: , cert: /nope]\n";
    let with_prefix = format!("Error:  {missing}");
    member.check("--cert-file /nope cluster-health", 4, "", &with_prefix);
    member.check("--cert-file /nope member list", 1, "", missing);
    let line = "--total-timeout 1ns get k";
    member.check(line, 2, "", "Error:  context deadline exceeded\n");
    let late = "client: etcd cluster is unavailable or misconfigured; error #0: client: endpoint U \
                exceeded header timeout\n\n";
    member.check("--no-sync --timeout 1ns member list", 1, "", late);
    let address = member.url.trim_start_matches("http://");
    let late = format!("error #0: dial tcp {address}: i/o timeout\n\n");
    let told =
        format!("Error:  client: etcd cluster is unavailable or misconfigured; {late}{late}");
    let failed = "cluster may be unhealthy: failed to list members\n";
    member.check("--total-timeout 1ns cluster-health", 4, failed, &told);
    member.check("--total-timeout -1s cluster-health", 4, failed, &told);
    let healthy = "member a1 is healthy: got healthy result from U\ncluster is healthy\n";
    member.check("--total-timeout 0 cluster-health", 0, healthy, "");
    member.check("--timeout -1s cluster-health", 0, healthy, "");
}

#[test]
fn only_an_interrupt_ends_a_command_well() {
    let member = Fake::answering(200, r#"{"health":"true"}"#);
    for (signal, code) in [(Signal::INT, Some(0)), (Signal::TERM, None)] {
        let mut command = Running::start(member.command("cluster-health -f"));
        let healthy = format!(
            "member a1 is healthy: got healthy result from {}",
            member.url
        );
        command.expect_lines(&[&healthy, "cluster is healthy"]);
        command.signal(signal);
        let status = command.end().status;
        assert_eq!(status.code(), code, "{signal:?}");
    }
}
