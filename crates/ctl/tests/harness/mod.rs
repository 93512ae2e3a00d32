//! Tools and a member for tests. Every wait has a deadline, and its failure names what was
//! expected.
//!
//! Tools are terminated with SIGTERM or SIGKILL, and with SIGINT only where they handle it: shells
//! start background jobs with SIGINT ignored, and children inherit that.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

pub mod terminal;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use tempfile::TempDir;

/// Upper bound of every wait.
pub const TIMEOUT: Duration = Duration::from_secs(40);
/// Attempts to start a server: its ports may have been taken meanwhile.
const START_ATTEMPTS: usize = 5;

/// The tool, with an empty environment.
pub fn etcdctl(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_etcdctl"));
    command.env_clear().args(args);
    command
}

/// A running command, killed on drop.
pub struct Running {
    what: String,
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<String>>,
}

/// The result of a command.
#[derive(Debug)]
pub struct Done {
    /// The output that has not been read.
    pub stdout: String,
    pub stderr: String,
    pub status: ExitStatus,
}

impl Done {
    /// The lines of stderr that are not log lines.
    pub fn errors(&self) -> String {
        let lines = self.stderr.lines().filter(|line| !line.starts_with('{'));
        lines.collect::<Vec<_>>().join("\n")
    }
}

impl Running {
    pub fn start(mut command: Command) -> Running {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let mut line = Vec::new();
            while stdout
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                let text = String::from_utf8_lossy(&line).into_owned();
                if sender.send(text).is_err() {
                    return;
                }
                line.clear();
            }
        });
        let mut stderr = child.stderr.take().unwrap();
        let stderr = thread::spawn(move || {
            let mut text = Vec::new();
            // Keep what was read before an error.
            let _ = stderr.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        Running {
            what: format!("{command:?}"),
            stdin: child.stdin.take(),
            child,
            lines,
            stderr: Some(stderr),
        }
    }

    /// Writes to standard input and keeps it open.
    pub fn write(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("it was not closed");
        stdin.write_all(text.as_bytes()).unwrap();
    }

    /// Reads a line from standard output; `wanted` describes it should it not come.
    pub fn next_line(&mut self, wanted: &str) -> String {
        match self.lines.recv_timeout(TIMEOUT) {
            Ok(line) => line.trim_end().to_owned(),
            Err(error) => panic!("{}: {wanted:?} does not come: {error}", self.what),
        }
    }

    /// Reads lines from standard output, and compares them.
    pub fn expect_lines(&mut self, wanted: &[&str]) {
        for wanted in wanted {
            assert_eq!(self.next_line(wanted), *wanted, "{}", self.what);
        }
    }

    /// Sends SIGTERM.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it has not been waited for");
    }

    /// Closes standard input and waits for the exit.
    pub fn end(mut self) -> Done {
        self.stdin = None;
        let deadline = Instant::now() + TIMEOUT;
        let mut stdout = String::new();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.lines.recv_timeout(left) {
                Ok(line) => stdout.push_str(&line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    panic!("{} does not end; it has printed {stdout:?}", self.what)
                }
            }
        }
        let status = wait(&mut self.child, &self.what);
        let stderr = self.stderr.take().expect("only the end takes it");
        Done {
            stdout,
            stderr: stderr.join().unwrap(),
            status,
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has usually exited by now.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits for a process to exit.
pub fn wait(child: &mut Child, what: &str) -> ExitStatus {
    wait_until(child, Instant::now() + TIMEOUT).unwrap_or_else(|| {
        let _ = child.kill();
        panic!("{what} does not end")
    })
}

/// Waits for a process to exit; `None` if it has not at the deadline.
pub fn wait_until(child: &mut Child, deadline: Instant) -> Option<ExitStatus> {
    // The id of a process that has been waited for may be another's by now.
    if let Some(status) = child.try_wait().unwrap() {
        return Some(status);
    }
    let id = WaitId::Pid(Pid::from_child(child));
    let (sender, exit) = mpsc::channel();
    thread::spawn(move || {
        // The status is left to the owner of the process.
        let exited = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        if retry_on_intr(|| waitid(id.clone(), exited)).is_ok() {
            let _ = sender.send(());
        }
    });
    let left = deadline.saturating_duration_since(Instant::now());
    exit.recv_timeout(left).ok()?;
    Some(child.wait().unwrap())
}

/// Runs a command to completion.
pub fn run(command: Command, input: impl AsRef<[u8]>) -> Done {
    let mut running = Running::start(command);
    let mut stdin = running.stdin.take().unwrap();
    // A command that has exited does not read its input.
    let _ = stdin.write_all(input.as_ref());
    drop(stdin);
    running.end()
}

pub fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// A single-member cluster, run by this workspace's server.
pub struct Member {
    pub directory: TempDir,
    /// Its client address: `host:port`.
    pub client: String,
    addresses: Addresses,
    flags: Vec<String>,
    server: Child,
}

/// The URLs of a member.
#[derive(Clone)]
struct Addresses {
    client: String,
    peer: String,
}

impl Member {
    pub fn start() -> Member {
        Member::start_with(&[])
    }

    /// With further flags of the server.
    pub fn start_with(flags: &[&str]) -> Member {
        Member::start_at("http", flags)
    }

    /// With TLS, and a certificate that nobody can verify.
    pub fn start_with_tls() -> Member {
        Member::start_at("https", &["--auto-tls"])
    }

    fn start_at(scheme: &str, flags: &[&str]) -> Member {
        let flags: Vec<String> = flags.iter().map(|flag| (*flag).to_owned()).collect();
        for _ in 0..START_ATTEMPTS {
            let client = free_address();
            let addresses = Addresses {
                client: format!("{scheme}://{client}"),
                peer: format!("http://{}", free_address()),
            };
            let directory = tempfile::tempdir().unwrap();
            let server = start_server(directory.path(), &addresses, &flags);
            let mut member = Member {
                directory,
                client,
                addresses,
                flags: flags.clone(),
                server,
            };
            if member.is_ready() {
                return member;
            }
        }
        panic!("the server ended {START_ATTEMPTS} times");
    }

    /// Waits until it serves; `false` if the process exited.
    pub fn is_ready(&mut self) -> bool {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            let health = self.run(&["--user=root:pw", "endpoint", "health"], "");
            if health.status.success() {
                return true;
            }
            if self.server.try_wait().unwrap().is_some() {
                return false;
            }
            let client = &self.client;
            assert!(
                Instant::now() < deadline,
                "{client} does not answer: {health:?}"
            );
        }
    }

    pub fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    pub fn restart(&mut self) {
        self.kill();
        self.server = start_server(self.directory.path(), &self.addresses, &self.flags);
        assert!(self.is_ready());
    }

    /// An etcdctl command for this member.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = match self.addresses.client.starts_with("https:") {
            true => etcdctl(&[
                "--insecure-skip-tls-verify",
                "--endpoints",
                &self.addresses.client,
            ]),
            false => etcdctl(&["--endpoints", &self.client]),
        };
        command.args(args);
        command
    }

    pub fn begin(&self, args: &[&str]) -> Running {
        Running::start(self.command(args))
    }

    pub fn run(&self, args: &[&str], input: impl AsRef<[u8]>) -> Done {
        run(self.command(args), input)
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_server(directory: &Path, addresses: &Addresses, flags: &[String]) -> Child {
    let Addresses { client, peer } = addresses;
    let server = Path::new(env!("CARGO_BIN_EXE_etcdctl")).with_file_name("etcd");
    Command::new(server)
        .args(["--name=m1", "--data-dir=m1.etcd", "--bcrypt-cost=4"])
        .arg(format!("--listen-client-urls={client}"))
        .arg(format!("--advertise-client-urls={client}"))
        .arg(format!("--listen-peer-urls={peer}"))
        .arg(format!("--initial-advertise-peer-urls={peer}"))
        .arg(format!("--initial-cluster=m1={peer}"))
        .args(flags)
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server lies beside the tool: build the workspace")
}
