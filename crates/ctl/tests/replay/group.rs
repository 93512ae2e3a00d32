//! Replays a group of entries against a new server.
//!
//! Commands that do not exit by themselves get SIGTERM once they have printed what the transcript
//! contains. The original was interrupted with SIGINT, but shells start background jobs with SIGINT
//! ignored, and children inherit that. Version 2 gets SIGINT, for which it has a handler.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::RecvTimeoutError;
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use retcd_client::{Client, Config};
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::{AlarmRequest, AlarmType, StatusRequest};
use rustix::process::{Pid, Signal, kill_process};

use super::entry::{Entry, Event, Page, Step};
use super::placeholders::Bindings;
use super::protobuf;
use crate::harness;

/// Timeout of a server start.
const START_MAX: Duration = Duration::from_secs(30);
/// What a server logs when it is ready, in any order, as etcd has since 3.5.
const READY: [&str; 2] = ["set initial cluster version", "serving client traffic"];
/// Attempts to start a server.
const START_ATTEMPTS: usize = 5;
/// Timeout of a command that should exit by itself.
const COMMAND_MAX: Duration = Duration::from_secs(20);
/// How long a command may print more than expected before it is terminated.
const GRACE: Duration = Duration::from_millis(150);
/// The recorded exit code of interrupted commands.
const WAS_ENDED: i64 = 130;

/// The result of a group.
pub struct Outcome {
    /// The number of entries compared.
    pub compared: usize,
    /// Descriptions of the differences.
    pub differences: Vec<String>,
}

/// The server to test.
pub struct Tested {
    /// The program.
    pub path: PathBuf,
    /// The version of the API.
    pub api: Api,
    /// Flags that the program needs, before those of a group.
    pub flags: &'static [&'static str],
}

/// The API that transcripts are about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Api {
    V2,
    V3,
}

impl Tested {
    /// The program at the path in `variable`, or the workspace's.
    ///
    /// # Panics
    /// It does not exist.
    pub fn new(variable: &str, api: Api, flags: &'static [&'static str]) -> Tested {
        let path = match std::env::var_os(variable) {
            Some(path) => PathBuf::from(path),
            None => Path::new(env!("CARGO_BIN_EXE_etcdctl")).with_file_name("etcd"),
        };
        assert!(
            path.is_file(),
            "no server at {}: build the workspace or set {variable}",
            path.display()
        );
        Tested { path, api, flags }
    }
}

/// Runs the entries of a group in order; without a server only those that contact none.
pub fn replay(server: Option<&Tested>, name: &str, entries: &[Entry]) -> Outcome {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let server = server.filter(|_| entries.iter().any(|entry| entry.needs_server));
    let flags = entries
        .iter()
        .map(|entry| entry.flags.as_slice())
        .find(|flags| !flags.is_empty())
        .unwrap_or_default();
    let mut group = Group {
        directory: directory.path().to_owned(),
        bindings: Bindings::default(),
        encrypted: entries.iter().any(|entry| entry.encrypted),
        api: server.map_or(Api::V3, |server| server.api),
        servers: Vec::new(),
        proxies: Vec::new(),
        proxies_watches: 0,
    };
    let version = env!("CARGO_PKG_VERSION");
    let (api, _) = version.rsplit_once('.').expect("three numbers");
    group.bindings.set("VERSION", version.to_owned());
    group.bindings.set("API", api.to_owned());
    if let Some(server) = server {
        let members = entries.iter().map(|entry| entry.members).max();
        group.servers = group.start_servers(server, flags, members.unwrap_or(1));
        for proxy in entries.iter().flat_map(|entry| &entry.proxies) {
            group.proxies_watches += u64::from(proxy[0] == "grpc-proxy");
            let proxy = group.start_proxy(server, proxy);
            group.proxies.push(proxy);
        }
    }
    let mut outcome = Outcome {
        compared: 0,
        differences: Vec::new(),
    };
    let contacts_nobody = |entry: &&Entry| entry.offline || !entry.needs_server;
    let all = server.is_some();
    for entry in entries.iter().filter(|entry| all || contacts_nobody(entry)) {
        entry.setup.iter().for_each(|step| {
            group.run(step, Lines::default());
        });
        if let Some(asked) = &entry.page {
            outcome.compared += 1;
            if let Some(difference) = group.compare_page(asked) {
                let (id, path) = (&entry.id, &asked.path);
                let difference = format!("{id} ({name}): {path}\n{difference}");
                outcome.differences.push(difference);
            }
            continue;
        }
        let Some(command) = &entry.command else {
            continue;
        };
        let result = group.run(command, Lines::of(entry, command));
        outcome.compared += 1;
        if let Some(difference) = group.compare(entry, &result) {
            outcome.differences.push(format!(
                "{} ({name}): {:?}\n{difference}",
                entry.id, command.args
            ));
        }
    }
    outcome
}

struct Group {
    directory: PathBuf,
    bindings: Bindings,
    /// Whether clients connect over TLS.
    encrypted: bool,
    /// The API of the commands.
    api: Api,
    /// The servers while they run.
    servers: Vec<Server>,
    /// What stands before them.
    proxies: Vec<Server>,
    /// The watches that these have from the start: each of `grpc-proxy` follows the leader.
    proxies_watches: u64,
}

/// A server that is killed with the group.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // It may have exited, which the comparison has shown.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The number of lines that a command prints before it is terminated.
#[derive(Clone, Copy, Default)]
struct Lines {
    stdout: usize,
    /// Compared lines only.
    stderr: usize,
}

impl Lines {
    fn of(entry: &Entry, step: &Step) -> Lines {
        // Given explicitly where the transcript is truncated.
        let told = step.bound.as_ref().and_then(|bound| bound.lines);
        let told = told.filter(|_| entry.truncated || entry.protobuf);
        Lines {
            stdout: told.unwrap_or_else(|| entry.stdout.lines().count()),
            stderr: entry.stderr.lines().count(),
        }
    }
}

/// A line printed by a command.
enum Line {
    Stdout(Vec<u8>),
    Stderr(Vec<u8>),
}

/// The result of a command.
#[derive(Default)]
struct Done {
    stdout: Vec<u8>,
    stderr: String,
    exit: i64,
}

impl Group {
    /// Starts the servers of a cluster, with other ports if another process takes one first.
    fn start_servers(&mut self, server: &Tested, flags: &[String], members: usize) -> Vec<Server> {
        for _ in 0..START_ATTEMPTS {
            let addresses: Vec<_> = (0..members).map(|_| free_addresses()).collect();
            if let Some(servers) = self.try_start(server, flags, &addresses) {
                for (number, (client, peer)) in (1..).zip(addresses) {
                    self.bindings.set(&of_member("HOST", number), client);
                    self.bindings.set(&of_member("PEER", number), peer);
                }
                let directory = self.directory.display().to_string();
                self.bindings.set("DIR", directory);
                return servers;
            }
        }
        panic!("a server ended {START_ATTEMPTS} times while it started");
    }

    /// Waits until the servers are ready; `None` if one exits.
    fn try_start(
        &self,
        server: &Tested,
        flags: &[String],
        addresses: &[(String, String)],
    ) -> Option<Vec<Server>> {
        let peers: Vec<String> = (1..)
            .zip(addresses)
            .map(|(number, (_, peer))| format!("m{number}=http://{peer}"))
            .collect();
        let initial_cluster = format!("--initial-cluster={}", peers.join(","));
        let scheme = if self.encrypted { "https" } else { "http" };
        let mut started = Vec::new();
        for (number, (client, peer)) in (1..).zip(addresses) {
            let data_dir = format!("m{number}.etcd");
            let path = self.directory.join(&data_dir);
            if path.exists() {
                std::fs::remove_dir_all(&path).expect("an earlier attempt's directory");
            }
            let mut command = Command::new(&server.path);
            command
                .args(["--name", &format!("m{number}"), "--data-dir", &data_dir])
                .args(server.flags)
                .arg("--initial-cluster-token=golden")
                .arg(format!("--listen-client-urls={scheme}://{client}"))
                .arg(format!("--advertise-client-urls={scheme}://{client}"))
                .arg(format!("--listen-peer-urls=http://{peer}"))
                .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
                .arg(&initial_cluster)
                .args(flags);
            started.push(self.spawn(command, &format!("server-{number}.log")));
        }
        let mut servers = Vec::new();
        for (server, lines) in started {
            if !is_ready(&lines, &READY) {
                return None;
            }
            servers.push(server);
        }
        Some(servers)
    }

    /// Starts a program that writes its log to standard error.
    fn spawn(&self, mut command: Command, log: &str) -> (Server, mpsc::Receiver<String>) {
        let log = File::create(self.directory.join(log)).expect("a log file");
        let child = command
            .current_dir(&self.directory)
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut server = Server(child);
        let lines = read_log(server.0.stderr.take().expect("stderr is a pipe"), log);
        (server, lines)
    }

    /// Starts the next proxy, with other ports if another process takes one first.
    fn start_proxy(&mut self, server: &Tested, args: &[String]) -> Server {
        let number = self.proxies.len() + 1;
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("a host name");
        self.bindings.set("HOSTNAME", host.trim_end().to_owned());
        let program = server.path.display().to_string();
        self.bindings.set("PROGRAM", program);
        for _ in 0..START_ATTEMPTS {
            let (own, metrics) = free_addresses();
            self.bindings.set(&of_member("PROXY", number), own);
            self.bindings.set(&of_member("METRICS", number), metrics);
            self.bindings.set("DEAD", free_addresses().0);
            let mut command = Command::new(&server.path);
            command.args(args.iter().map(|arg| self.bindings.fill(arg)));
            let (proxy, lines) = self.spawn(command, &format!("proxy-{number}.log"));
            let ready = match args[0].as_str() {
                "gateway" => "ready to proxy client requests",
                _ => "started gRPC proxy",
            };
            if is_ready(&lines, &[ready]) {
                return proxy;
            }
        }
        panic!("the proxy ended {START_ATTEMPTS} times while it started");
    }

    fn command(&self, step: &Step) -> Command {
        let mut command = match &step.shell {
            Some(line) => {
                let mut shell = Command::new("/bin/sh");
                shell.args(["-c", &self.bindings.fill(line)]);
                shell
            }
            None => {
                let mut tool = Command::new(match step.offline_tool {
                    true => env!("CARGO_BIN_EXE_etcdutl"),
                    false => env!("CARGO_BIN_EXE_etcdctl"),
                });
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

    fn run(&mut self, step: &Step, expected: Lines) -> Done {
        if let Some(event) = step.event {
            self.bring_about(event);
            return Done::default();
        }
        if let Some(wanted) = &step.until {
            self.run_until(step, wanted);
            return Done::default();
        }
        let lines_to_await = step.stdin.lines().count() > 1 && step.is_left_open();
        if !step.during.is_empty() || lines_to_await {
            self.wait_for_watchers(step, "no", |watchers| watchers == 0);
        }
        let mut child = self.command(step).spawn().expect("the tool starts");
        let stdin = child.stdin.take().expect("stdin is a pipe");
        let (sender, lines) = mpsc::channel();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        read_lines(stdout, sender.clone(), Line::Stdout);
        let stderr = child.stderr.take().expect("stderr is a pipe");
        read_lines(stderr, sender, Line::Stderr);

        let kept_open = self.feed(stdin, step);
        if !step.during.is_empty() {
            let all = match step.is_left_open() {
                true => step.stdin.lines().count() as u64,
                false => 1,
            };
            self.wait_for_watchers(step, "enough", |watchers| watchers >= all);
        }
        for during in &step.during {
            self.run(during, Lines::default());
        }
        if let Some(until) = step.bound.as_ref().and_then(|bound| bound.until.as_ref()) {
            self.run(until, Lines::default());
        }
        let mut done = Done::default();
        let bound = step.bound.as_ref().map(|_| expected);
        collect(&lines, bound, &mut done);
        let is_over = Instant::now() + COMMAND_MAX;
        done.exit = match &step.bound {
            None => wait(&mut child, is_over),
            Some(_) => end(&mut child, self.api, is_over),
        };
        drop(kept_open);
        // Output after the termination; the readers end when the pipes close.
        collect(&lines, None, &mut done);
        done
    }

    /// Runs a command again and again until it prints what it is to.
    fn run_until(&mut self, step: &Step, wanted: &str) {
        let once = Step {
            until: None,
            ..step.clone()
        };
        let deadline = Instant::now() + COMMAND_MAX;
        loop {
            let done = self.run(&once, Lines::default());
            let stdout = String::from_utf8_lossy(&done.stdout).into_owned();
            if self.same_text(wanted, &stdout) {
                return;
            }
            let args = &step.args;
            assert!(
                Instant::now() < deadline,
                "{args:?} goes on to print {stdout:?}"
            );
        }
    }

    fn bring_about(&mut self, event: Event) {
        match event {
            Event::StopServer => stop(self.servers.remove(0)),
            Event::StopProxy => stop(self.proxies.remove(0)),
            Event::RaiseCorrupt => raise_corrupt(&self.bindings.fill("{{HOST}}")),
        }
    }

    /// The member's number of watchers, but for those that proxies have for themselves.
    fn watchers(&self) -> Option<u64> {
        if self.api == Api::V2 {
            let page = page(&self.bindings.fill("{{HOST}}"), "/v2/stats/store")?;
            let (_, count) = page.split_once("\"watchers\":")?;
            return count.trim_end_matches(['}', '\n']).parse().ok();
        }
        let page = page(&self.bindings.fill("{{HOST}}"), "/metrics")?;
        let mut lines = page.lines();
        let watchers: u64 = lines.find_map(|line| {
            line.strip_prefix("etcd_debugging_mvcc_watcher_total ")?
                .parse()
                .ok()
        })?;
        Some(watchers.saturating_sub(self.proxies_watches))
    }

    /// Waits until the member has enough watchers for a command that runs during another.
    fn wait_for_watchers(&self, step: &Step, how_many: &str, enough: impl Fn(u64) -> bool) {
        let deadline = Instant::now() + COMMAND_MAX;
        while !self.watchers().is_some_and(&enough) {
            assert!(
                Instant::now() < deadline,
                "{:?}: the member does not come to have {how_many} watchers",
                step.args
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Writes standard input; returns it if it must stay open. Each line but the last one starts a watch
    /// then, which the next one finds.
    fn feed(&self, mut stdin: ChildStdin, step: &Step) -> Option<ChildStdin> {
        for (written, line) in step.stdin.split_inclusive('\n').enumerate() {
            if step.is_left_open() && written > 0 {
                self.wait_for_watchers(step, "enough", |watchers| watchers >= written as u64);
            }
            // A command that has exited does not read its input.
            let _ = stdin
                .write_all(line.as_bytes())
                .and_then(|()| stdin.flush());
        }
        step.is_left_open().then_some(stdin)
    }

    /// The difference of a page to the transcript, if there is one.
    fn compare_page(&mut self, asked: &Page) -> Option<String> {
        let (address, path) = (self.bindings.fill(&asked.of), &asked.path);
        let answer = ask(&address, &asked.method, path).expect("an answer");
        let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
        let mut differences = Vec::new();
        let status = head.split(' ').nth(1).expect("a status");
        if status != asked.status {
            differences.push(format!("  status {status}, expected {}", asked.status));
        }
        for (name, wanted) in &asked.headers {
            let value = head.lines().find_map(|line| {
                let (found, value) = line.split_once(": ")?;
                found.eq_ignore_ascii_case(name).then_some(value)
            });
            if value != Some(wanted) {
                differences.push(format!("  {name}: {value:?}, expected {wanted:?}"));
            }
        }
        let body = match path.ends_with("/metrics") {
            true => families(body),
            false => body.to_owned(),
        };
        if !self.same_text(&asked.body, &body) {
            differences.push(format!("  body:\n{body}\n  expected:\n{}", asked.body));
        }
        (!differences.is_empty()).then(|| differences.join("\n"))
    }

    /// The difference to the transcript, if there is one.
    fn compare(&mut self, entry: &Entry, done: &Done) -> Option<String> {
        let mut differences = Vec::new();
        if done.exit != entry.exit {
            differences.push(format!(
                "  exit code {}, expected {}",
                done.exit, entry.exit
            ));
        }
        let stdout = match entry.protobuf {
            true => protobuf::text(&done.stdout),
            false => None,
        };
        let stdout = stdout.unwrap_or_else(|| String::from_utf8_lossy(&done.stdout).into_owned());
        let same = if entry.help {
            self.same_text(&entry.stdout, &skeleton(&stdout))
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

    /// Compares texts; tables cell by cell, because placeholders and values differ in width.
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

/// Raises the alarm CORRUPT of the member at `address`, which no tool does.
fn raise_corrupt(address: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let client = Client::new(Config::new([address])).expect("an address");
        let client = client.with_timeout(COMMAND_MAX);
        let status = client.status(StatusRequest {}).await.expect("a status");
        let raised = client.alarm(AlarmRequest {
            action: AlarmAction::Activate.into(),
            member_id: status.header.expect("a header").member_id,
            alarm: AlarmType::Corrupt.into(),
        });
        raised.await.expect("the alarm is raised");
    });
}

/// Two unused addresses that no other group gets, below the range of ephemeral ports.
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

/// Copies a server's log to a file until it ends, whether or not the lines are received, too: the
/// server must not wait for a full pipe.
fn read_log(stderr: ChildStderr, mut file: File) -> mpsc::Receiver<String> {
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stderr).lines().map_while(Result::ok) {
            // The directory may have been removed.
            let _ = writeln!(file, "{line}");
            let _ = sender.send(line);
        }
    });
    lines
}

/// `HOST` of the first member, `HOST:2` of the second.
fn of_member(what: &str, number: usize) -> String {
    match number {
        1 => what.to_owned(),
        number => format!("{what}:{number}"),
    }
}

/// Waits for all of these texts in a log; `false` if the program exits.
fn is_ready(lines: &mpsc::Receiver<String>, texts: &[&str]) -> bool {
    let deadline = Instant::now() + START_MAX;
    let mut missing = texts.to_vec();
    while !missing.is_empty() {
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => missing.retain(|text| !line.contains(text)),
            Err(RecvTimeoutError::Disconnected) => return false,
            Err(RecvTimeoutError::Timeout) => panic!("nobody logs {missing:?}"),
        }
    }
    true
}

fn stop(mut server: Server) {
    kill_process(Pid::from_child(&server.0), Signal::TERM).expect("it runs");
    harness::wait(&mut server.0, "the server");
}

/// The types of the families on a page of metrics, but for those of Go's runtime.
fn families(page: &str) -> String {
    let types = page.lines().filter(|line| line.starts_with("# TYPE "));
    let mut types: Vec<&str> = types.filter(|line| !line.contains(" go_")).collect();
    types.sort_unstable();
    types.iter().map(|line| format!("{line}\n")).collect()
}

/// Fetches a page of the server.
fn page(address: &str, path: &str) -> Option<String> {
    ask(address, "GET", path)
}

/// The whole answer to a request.
fn ask(address: &str, method: &str, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(address).ok()?;
    connection.set_read_timeout(Some(COMMAND_MAX)).ok()?;
    let request =
        format!("{method} {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// Sends each line of `pipe`, wrapped by `kind`.
fn read_lines(
    pipe: impl Read + Send + 'static,
    lines: mpsc::Sender<Line>,
    kind: fn(Vec<u8>) -> Line,
) {
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = Vec::new();
        // Keep what was read before an error.
        while pipe.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
            if lines.send(kind(std::mem::take(&mut line))).is_err() {
                return;
            }
        }
    });
}

/// Collects lines until the command closes its output, or until the expected number has arrived and
/// no more follow.
fn collect(lines: &mpsc::Receiver<Line>, expected: Option<Lines>, done: &mut Done) {
    let mut deadline = Instant::now() + COMMAND_MAX;
    let mut seen = 0;
    loop {
        if let Some(expected) = expected
            && seen >= expected.stdout
            && plain_lines(&done.stderr).lines().count() >= expected.stderr
        {
            deadline = deadline.min(Instant::now() + GRACE);
        }
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(Line::Stdout(line)) => {
                seen += 1;
                done.stdout.extend(line);
            }
            Ok(Line::Stderr(line)) => done.stderr.push_str(&String::from_utf8_lossy(&line)),
            // The output is closed, or the comparison will report what is missing.
            Err(_) => return,
        }
    }
}

/// Terminates a command, unless it has exited.
fn end(child: &mut Child, api: Api, deadline: Instant) -> i64 {
    if let Ok(Some(status)) = child.try_wait() {
        return code(status);
    }
    let signal = match api {
        Api::V2 => Signal::INT,
        Api::V3 => Signal::TERM,
    };
    kill_process(Pid::from_child(child), signal).expect("it has not been waited for");
    match wait(child, deadline) {
        ended if ended == 128 + i64::from(signal.as_raw()) => WAS_ENDED,
        code => code,
    }
}

fn wait(child: &mut Child, deadline: Instant) -> i64 {
    let status = harness::wait_until(child, deadline);
    if status.is_none() {
        let _ = child.kill();
        let _ = child.wait();
    }
    status.map_or(-1, code)
}

fn code(status: ExitStatus) -> i64 {
    status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal))
        .map_or(-1, i64::from)
}

/// The names in a help text: commands, options and how they are used.
fn skeleton(help: &str) -> String {
    let start = help.find("Usage:\n");
    match start.or_else(|| help.find("The following options")) {
        Some(start) => skeleton_of_v3(&help[start..]),
        None => skeleton_of_v2(help),
    }
}

fn skeleton_of_v3(help: &str) -> String {
    let mut section = "";
    let mut names = String::new();
    for line in help.lines().filter(|line| !line.trim().is_empty()) {
        let is_heading = !line.starts_with(' ');
        if is_heading {
            section = line;
        }
        let text = line.trim();
        let lists_commands = section.to_lowercase().contains("commands");
        let name = match section {
            "Examples:" => continue,
            _ if lists_commands && !is_heading => text.split(' ').next(),
            _ => text.split("  ").next(),
        };
        names.push_str(name.unwrap_or_default());
        names.push('\n');
    }
    names
}

fn skeleton_of_v2(help: &str) -> String {
    let mut section = "";
    let mut names = String::new();
    for line in help.lines().filter(|line| !line.trim().is_empty()) {
        let is_heading = line.ends_with(':') && !line.starts_with(' ');
        if is_heading {
            section = line;
        }
        let text = line.trim();
        let name = match section {
            "VERSION:" | "DESCRIPTION:" => continue,
            "" | "USAGE:" => text,
            "NAME:" => text.split(" - ").next().unwrap_or_default(),
            _ => text.split("  ").next().unwrap_or_default(),
        };
        names.push_str(name);
        names.push('\n');
    }
    names
}

/// Whether a line is of the log of etcdctl, in JSON, or of etcdutl, in columns behind a time.
fn is_log(line: &str) -> bool {
    let time = line.split_once('\t').map(|(time, _)| time);
    line.starts_with('{') || time.is_some_and(|time| time.ends_with('Z'))
}

/// The lines of stderr that scripts may rely on.
fn plain_lines(stderr: &str) -> String {
    let lines = stderr
        .lines()
        .take_while(|line| *line != "Usage:")
        .filter(|line| !line.is_empty() && !is_log(line));
    lines.map(|line| format!("{line}\n")).collect()
}
