//! A group of entries against a fresh server.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use super::entry::{Bound, Entry, Step};
use super::placeholders::Bindings;

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(30);
/// How often a server that ends while it starts is started again.
const START_ATTEMPTS: usize = 5;
/// How long a command may take that should end by itself.
const COMMAND_MAX: Duration = Duration::from_secs(20);
/// Commands that show nothing are ended after this time, even if the original was given longer.
const SILENCE_MAX: Duration = Duration::from_millis(1200);
/// How long a watch gets to begin before commands run that it shall see, and between the lines of its input.
const SETTLE: Duration = Duration::from_millis(250);

/// What came of a group.
pub struct Outcome {
    /// Entries that were compared.
    pub compared: usize,
    /// What differs, for people.
    pub differences: Vec<String>,
}

/// The server to test against.
///
/// # Panics
/// There is none.
pub fn server_path() -> PathBuf {
    let path = match std::env::var_os("RETCD_GOLDEN_SERVER") {
        Some(path) => PathBuf::from(path),
        None => Path::new(env!("CARGO_BIN_EXE_etcdctl")).with_file_name("etcd"),
    };
    assert!(
        path.is_file(),
        "no server at {}: build the workspace or set RETCD_GOLDEN_SERVER",
        path.display()
    );
    path
}

/// Runs a group's entries one after the other.
pub fn replay(server: &Path, name: &str, entries: &[Entry]) -> Outcome {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let needs_server = entries.iter().any(|entry| entry.needs_server);
    let flags = entries
        .iter()
        .map(|entry| entry.flags.as_slice())
        .find(|flags| !flags.is_empty())
        .unwrap_or_default();
    let mut group = Group {
        directory: directory.path().to_owned(),
        bindings: Bindings::default(),
        encrypted: entries.iter().any(|entry| entry.encrypted),
    };
    let _server = needs_server.then(|| group.start_server(server, flags));
    let mut outcome = Outcome {
        compared: 0,
        differences: Vec::new(),
    };
    for entry in entries {
        entry.setup.iter().for_each(|step| {
            group.run(step);
        });
        let Some(command) = &entry.command else {
            continue;
        };
        let result = group.run(command);
        outcome.compared += 1;
        if let Some(difference) = group.compare(entry, &result) {
            outcome.differences.push(format!(
                "{} ({name}): etcdctl {:?}\n{difference}",
                entry.id, command.args
            ));
        }
    }
    outcome
}

struct Group {
    directory: PathBuf,
    bindings: Bindings,
    /// Whether clients are served over TLS.
    encrypted: bool,
}

/// A server that ends with the group.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself, which the comparisons have shown.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a command did.
struct Done {
    stdout: Vec<u8>,
    stderr: String,
    exit: i64,
}

impl Group {
    /// Starts a server. Another process may take one of its ports first; it then gets others.
    fn start_server(&mut self, server: &Path, flags: &[String]) -> Server {
        for _ in 0..START_ATTEMPTS {
            let (client, peer) = free_addresses();
            if let Some(server) = self.try_start(server, flags, &client, &peer) {
                self.bindings.set("HOST", client);
                self.bindings.set("PEER", peer);
                let directory = self.directory.display().to_string();
                self.bindings.set("DIR", directory);
                return server;
            }
        }
        panic!("the server ended {START_ATTEMPTS} times while it started");
    }

    /// Waits until the server is ready; `None` if it ends instead.
    fn try_start(
        &self,
        server: &Path,
        flags: &[String],
        client: &str,
        peer: &str,
    ) -> Option<Server> {
        let data_dir = self.directory.join("m1.etcd");
        if data_dir.exists() {
            std::fs::remove_dir_all(&data_dir).expect("an earlier attempt's directory");
        }
        let log_path = self.directory.join("server.log");
        let log = std::fs::File::create(&log_path).expect("a log file");
        let scheme = if self.encrypted { "https" } else { "http" };
        let child = Command::new(server)
            .args(["--name", "m1", "--data-dir", "m1.etcd"])
            .arg("--initial-cluster-token=golden")
            .arg(format!("--listen-client-urls={scheme}://{client}"))
            .arg(format!("--advertise-client-urls={scheme}://{client}"))
            .arg(format!("--listen-peer-urls=http://{peer}"))
            .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
            .arg(format!("--initial-cluster=m1=http://{peer}"))
            .args(flags)
            .current_dir(&self.directory)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("the server starts");
        let mut server = Server(child);
        let deadline = Instant::now() + START_MAX;
        loop {
            let ended = server.0.try_wait().expect("a child can be waited for");
            if ended.is_some() {
                return None;
            }
            let ready = match self.encrypted {
                true => serves_encrypted(&log_path),
                false => cluster_version_is_known(client),
            };
            if ready {
                return Some(server);
            }
            assert!(
                Instant::now() < deadline,
                "the server at {client} does not get ready"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn command(&self, step: &Step) -> Command {
        let mut command = match &step.shell {
            Some(line) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &self.bindings.fill(line)]);
                shell
            }
            None => {
                let mut tool = Command::new(env!("CARGO_BIN_EXE_etcdctl"));
                tool.args(step.args.iter().map(|arg| self.bindings.fill(arg)));
                tool
            }
        };
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .current_dir(&self.directory);
        match &step.env {
            Some(env) => env.iter().for_each(|(name, value)| {
                command.env(name, self.bindings.fill(value));
            }),
            None => {
                command.env("ETCDCTL_ENDPOINTS", self.bindings.fill("{{HOST}}"));
            }
        }
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn run(&mut self, step: &Step) -> Done {
        let mut child = self.command(step).spawn().expect("the tool starts");
        let stdin = child.stdin.take().expect("stdin is a pipe");
        let (sender, chunks) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        let reader = std::thread::spawn(move || {
            let mut stdout = BufReader::new(stdout);
            let mut line = Vec::new();
            while stdout
                .read_until(b'\n', &mut line)
                .is_ok_and(|read| read > 0)
            {
                if sender.send(std::mem::take(&mut line)).is_err() {
                    return;
                }
            }
        });
        let mut stderr_pipe = child.stderr.take().expect("stderr is a pipe");
        let stderr_reader = std::thread::spawn(move || {
            let mut text = Vec::new();
            // What was read until an error is what there is.
            let _ = stderr_pipe.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });

        let kept_open = feed(stdin, step);
        if !step.during.is_empty() {
            std::thread::sleep(SETTLE);
        }
        for during in &step.during {
            self.run(during);
        }
        let mut stdout = Vec::new();
        let exit = match &step.bound {
            None => wait(&mut child, COMMAND_MAX),
            Some(bound) => {
                collect(&chunks, bound, &mut stdout);
                end(&mut child)
            }
        };
        drop(kept_open);
        reader.join().expect("the reader ends with the pipe");
        stdout.extend(chunks.try_iter().flatten());
        let stderr = stderr_reader.join().expect("the reader ends with the pipe");
        Done {
            stdout,
            stderr,
            exit,
        }
    }

    /// What differs from the transcript, if something does.
    fn compare(&mut self, entry: &Entry, done: &Done) -> Option<String> {
        let mut differences = Vec::new();
        if done.exit != entry.exit {
            differences.push(format!(
                "  exit code {}, expected {}",
                done.exit, entry.exit
            ));
        }
        let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
        let same = if entry.binary {
            true
        } else if entry.truncated {
            stdout.starts_with(&entry.stdout)
        } else {
            let mut templates = std::iter::once(&entry.stdout).chain(&entry.stdout_or);
            templates.any(|template| self.same_text(template, &stdout))
        };
        if !same {
            differences.push(format!(
                "  stdout:\n{stdout}\n  expected:\n{}",
                entry.stdout
            ));
        }
        let stderr = plain_lines(&done.stderr);
        if !self.same_text(&entry.stderr, &stderr) {
            differences.push(format!(
                "  stderr:\n{stderr}\n  expected:\n{}",
                entry.stderr
            ));
        }
        (!differences.is_empty()).then(|| differences.join("\n"))
    }

    /// Compares text, tables by their cells: placeholders are not as wide as what they stand for.
    fn same_text(&mut self, template: &str, actual: &str) -> bool {
        let before = self.bindings.clone();
        let same = self.same_lines(template, actual);
        if !same {
            self.bindings = before;
        }
        same
    }

    fn same_lines(&mut self, template: &str, actual: &str) -> bool {
        if !template.contains('│') {
            return self.bindings.matches(template, actual);
        }
        let (template, actual): (Vec<_>, Vec<_>) =
            (template.lines().collect(), actual.lines().collect());
        template.len() == actual.len()
            && template
                .iter()
                .zip(actual)
                .all(|(template, actual)| self.same_row(template, actual))
    }

    fn same_row(&mut self, template: &str, actual: &str) -> bool {
        if !template.contains('│') {
            let frame = |line: &str| line.chars().filter(|c| *c != '─').collect::<String>();
            return frame(template) == frame(actual);
        }
        let cells = |line: &str| {
            line.split('│')
                .map(|cell| cell.trim().to_owned())
                .collect::<Vec<_>>()
        };
        let (template, actual) = (cells(template), cells(actual));
        template.len() == actual.len()
            && template
                .iter()
                .zip(&actual)
                .all(|(template, actual)| self.bindings.matches(template, actual))
    }
}

/// Two addresses that nobody listens on at this moment and that no other group gets. They lie below the ports that the
/// system gives to outgoing connections.
fn free_addresses() -> (String, String) {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().expect("no thread panics with it");
    let mut address = || loop {
        let port = fastrand::u16(20000..24000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() && given.insert(port) {
            return format!("127.0.0.1:{port}");
        }
    };
    (address(), address())
}

/// Whether the server's log says that it serves clients over TLS.
fn serves_encrypted(log: &Path) -> bool {
    let log = std::fs::read_to_string(log).unwrap_or_default();
    log.contains("serving client traffic securely")
}

/// Whether `/version` shows a cluster version.
fn cluster_version_is_known(address: &str) -> bool {
    let Ok(mut connection) = TcpStream::connect(address) else {
        return false;
    };
    let request = format!("GET /version HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    let mut answer = String::new();
    let asked = connection
        .write_all(request.as_bytes())
        .and_then(|()| connection.read_to_string(&mut answer));
    asked.is_ok() && answer.contains("\"etcdcluster\":\"3")
}

/// Writes standard input; returns it if it has to stay open.
fn feed(mut stdin: ChildStdin, step: &Step) -> Option<ChildStdin> {
    let left_open = step.bound.as_ref().is_some_and(|bound| bound.stdin_open);
    for line in step.stdin.split_inclusive('\n') {
        // A command that has ended does not read its input.
        let _ = stdin
            .write_all(line.as_bytes())
            .and_then(|()| stdin.flush());
        if left_open {
            std::thread::sleep(SETTLE);
        }
    }
    left_open.then_some(stdin)
}

/// Reads lines until there are enough of them, or nothing more comes.
fn collect(chunks: &mpsc::Receiver<Vec<u8>>, bound: &Bound, stdout: &mut Vec<u8>) {
    let limit = Duration::from_secs_f64(bound.timeout_s);
    let mut deadline = Instant::now()
        + if bound.lines.is_some() {
            COMMAND_MAX.min(limit * 4)
        } else {
            limit.min(SILENCE_MAX)
        };
    let mut lines = 0;
    while let Ok(line) = chunks.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        stdout.extend(line);
        lines += 1;
        if bound.lines == Some(lines) {
            // What follows at once belongs to it.
            deadline = Instant::now() + Duration::from_millis(150);
        }
    }
}

/// Ends a command by SIGINT, unless it has ended.
fn end(child: &mut Child) -> i64 {
    if let Ok(Some(status)) = child.try_wait() {
        return code(status);
    }
    let interrupted = Command::new("kill")
        .args(["-INT", &child.id().to_string()])
        .status();
    interrupted.expect("kill exists");
    wait(child, COMMAND_MAX)
}

fn wait(child: &mut Child, limit: Duration) -> i64 {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait().expect("a child can be waited for") {
            return code(status);
        }
        if Instant::now() > deadline {
            let _ = child.kill();
            let _ = child.wait();
            return -1;
        }
        std::thread::sleep(Duration::from_millis(3));
    }
}

fn code(status: ExitStatus) -> i64 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .map_or(-1, i64::from)
}

/// The lines of stderr that scripts may rely on.
fn plain_lines(stderr: &str) -> String {
    let lines = stderr
        .lines()
        .take_while(|line| *line != "Usage:")
        .filter(|line| !line.is_empty() && !line.starts_with('{'));
    lines.map(|line| format!("{line}\n")).collect()
}
