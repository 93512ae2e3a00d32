//! Tokens that become too old while a command runs: it logs in again, and nobody notices.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Output, Stdio};

use tempfile::TempDir;

/// Attempts to start a server before the test gives up: somebody else may take its ports.
const START_ATTEMPTS: usize = 5;

/// A member in which user `u` with password `pw` may read and write key `k`, and `root` with password `pw` everything.
struct Member {
    directory: TempDir,
    client: String,
    peer: String,
    server: Child,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

fn start(directory: &Path, client: &str, peer: &str) -> Child {
    let server = Path::new(env!("CARGO_BIN_EXE_etcdctl")).with_file_name("etcd");
    Command::new(server)
        .args(["--name=m1", "--data-dir=m1.etcd", "--bcrypt-cost=4"])
        .arg(format!("--listen-client-urls=http://{client}"))
        .arg(format!("--advertise-client-urls=http://{client}"))
        .arg(format!("--listen-peer-urls=http://{peer}"))
        .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
        .arg(format!("--initial-cluster=m1=http://{peer}"))
        .current_dir(directory)
        .env_clear()
        .stderr(Stdio::null())
        .spawn()
        .expect("the server lies beside the tool: build the workspace")
}

impl Member {
    fn start() -> Member {
        for _ in 0..START_ATTEMPTS {
            let (client, peer) = (free_address(), free_address());
            let directory = tempfile::tempdir().unwrap();
            let server = start(directory.path(), &client, &peer);
            let mut member = Member {
                directory,
                client,
                peer,
                server,
            };
            if member.is_ready() {
                return member;
            }
        }
        panic!("the server ended {START_ATTEMPTS} times");
    }

    /// Waits until it answers; whether it does, or has ended.
    fn is_ready(&mut self) -> bool {
        loop {
            let health = self.run(&["--user=root:pw", "endpoint", "health"], "");
            if health.status.success() {
                return true;
            }
            if self.server.try_wait().unwrap().is_some() {
                return false;
            }
        }
    }

    fn lock() -> Member {
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

    fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    fn restart(&mut self) {
        self.kill();
        self.server = start(self.directory.path(), &self.client, &self.peer);
        assert!(self.is_ready());
    }

    /// The tokens that `u` has are worth nothing from now on, but its password is the same.
    fn log_out(&self) {
        let passwd = ["--user=root:pw", "user", "passwd", "u"];
        let passwd = [&passwd[..], &["--interactive=false"]].concat();
        assert!(self.run(&passwd, "pw\n").status.success());
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcdctl"));
        command
            .env_clear()
            .args(["--endpoints", &self.client])
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// A command that runs on, and what it prints.
    fn begin(&self, args: &[&str]) -> (Child, BufReader<ChildStdout>) {
        let mut tool = self.command(args).spawn().unwrap();
        let stdout = BufReader::new(tool.stdout.take().unwrap());
        (tool, stdout)
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut tool = self.command(args).spawn().unwrap();
        let mut stdin = tool.stdin.take().unwrap();
        stdin.write_all(input.as_bytes()).unwrap();
        drop(stdin);
        tool.wait_with_output().unwrap()
    }

    fn run_as_root(&self, args: &[&str]) {
        let args = [&["--user=root:pw"], args].concat();
        let done = self.run(&args, "");
        assert!(done.status.success(), "{args:?}: {done:?}");
    }
}

fn read_lines(stdout: &mut BufReader<ChildStdout>, wanted: &[&str]) {
    for wanted in wanted {
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        assert_eq!(line.trim_end(), *wanted);
    }
}

#[test]
fn a_transaction_may_take_long_to_type() {
    let member = Member::lock();
    let (mut tool, mut stdout) = member.begin(&["--user=u:pw", "txn", "-i"]);
    read_lines(&mut stdout, &["compares:"]);
    // The tool has logged in, and waits for what is typed.
    member.log_out();
    let mut stdin = tool.stdin.take().unwrap();
    stdin.write_all(b"\nput k v\n\n\n").unwrap();
    drop(stdin);
    let mut rest = String::new();
    stdout.read_to_string(&mut rest).unwrap();
    assert!(rest.ends_with("SUCCESS\n\nOK\n"), "{rest}");
    assert!(tool.wait().unwrap().success());
}

#[test]
fn a_watch_goes_on_at_a_member_that_does_not_know_its_token() {
    let mut member = Member::lock();
    member.run_as_root(&["put", "k", "1"]);
    let watch = ["--user=u:pw", "watch", "k", "--rev=1"];
    let (mut tool, mut stdout) = member.begin(&watch);
    read_lines(&mut stdout, &["PUT", "k", "1"]);
    member.log_out();
    member.restart();
    member.run_as_root(&["put", "k", "2"]);
    read_lines(&mut stdout, &["PUT", "k", "2"]);
    tool.kill().unwrap();
    tool.wait().unwrap();
}

#[test]
fn a_lease_is_kept_alive_at_a_member_that_does_not_know_the_token() {
    let mut member = Member::lock();
    let granted = member.run(&["--user=u:pw", "lease", "grant", "12"], "");
    let granted = String::from_utf8(granted.stdout).unwrap();
    let id = granted.split(' ').nth(1).unwrap();
    let attach = format!("--lease={id}");
    member.run_as_root(&["put", "k", "1", &attach]);
    let keep_alive = ["--user=u:pw", "lease", "keep-alive", id];
    let (mut tool, mut stdout) = member.begin(&keep_alive);
    let renewed = format!("lease {id} keepalived with TTL(12)");
    read_lines(&mut stdout, &[&renewed]);
    member.log_out();
    member.restart();
    read_lines(&mut stdout, &[&renewed]);
    tool.kill().unwrap();
    tool.wait().unwrap();
}

#[test]
fn a_password_that_is_wrong_by_now_is_said_to_be() {
    let member = Member::lock();
    let (mut tool, mut stdout) = member.begin(&["--user=u:pw", "txn", "-i"]);
    read_lines(&mut stdout, &["compares:"]);
    let passwd = ["user", "passwd", "u", "--interactive=false"];
    let passwd = [&["--user=root:pw"], &passwd[..]].concat();
    assert!(member.run(&passwd, "other\n").status.success());
    tool.stdin
        .take()
        .unwrap()
        .write_all(b"\nput k v\n\n\n")
        .unwrap();
    let mut errors = String::new();
    let mut stderr = tool.stderr.take().unwrap();
    stderr.read_to_string(&mut errors).unwrap();
    let refused = "etcdserver: authentication failed, invalid user ID or password";
    assert_eq!(errors, format!("Error: {refused}\n"));
    assert_eq!(tool.wait().unwrap().code(), Some(1));
}
