//! A member's place (directory and ports) and the processes that run there.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

use retcd_proto::etcdserverpb as pb;
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open, pidfd_send_signal};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};

use stderr::{PATIENCE, Stderr};

#[path = "stderr.rs"]
mod stderr;

/// Far beyond what a whole test takes: a server that still runs is ended, so that whoever waits for
/// it without a deadline of his own hears of it.
const LIFE_MAX: Duration = Duration::from_secs(300);

/// Below the ports that the kernel gives to outgoing connections.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let base = 12_000 + (std::process::id() % 900) as u16 * 20;
    for _ in 0..2_000 {
        let port = base + NEXT.fetch_add(1, Ordering::Relaxed);
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return port;
        }
    }
    panic!("no free port above {base}");
}

/// Where one member lives.
pub struct Place {
    dir: Arc<TempDir>,
    pub client_port: u16,
    peer_port: u16,
}

impl Place {
    pub fn new() -> Place {
        let dir = tempfile::tempdir().expect("a temporary directory");
        Place {
            dir: Arc::new(dir),
            client_port: free_port(),
            peer_port: free_port(),
        }
    }

    /// Other ports for the same directory.
    pub fn beside(&self) -> Place {
        Place {
            dir: Arc::clone(&self.dir),
            client_port: free_port(),
            peer_port: free_port(),
        }
    }

    /// The directory around the data directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn db(&self) -> PathBuf {
        self.data_dir().join("member/snap/db")
    }

    /// The only segment of the log.
    pub fn wal(&self) -> PathBuf {
        let mut segments: Vec<_> = std::fs::read_dir(self.data_dir().join("member/wal"))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "wal"))
            .collect();
        assert_eq!(segments.len(), 1, "{segments:?}");
        segments.remove(0)
    }

    /// Every file of the member.
    pub fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        let mut dirs = vec![self.data_dir()];
        while let Some(dir) = dirs.pop() {
            for entry in std::fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    dirs.push(path);
                } else {
                    let bytes = std::fs::read(&path).unwrap();
                    files.insert(path, bytes);
                }
            }
        }
        files
    }

    /// Where other members reach this one.
    pub fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    /// The arguments of a member at this place.
    pub fn arguments(&self) -> Vec<String> {
        let client = format!("http://127.0.0.1:{}", self.client_port);
        let peer = self.peer_url();
        vec![
            format!("--data-dir={}", self.data_dir().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
        ]
    }

    pub fn command(&self, flags: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(self.arguments()).args(flags);
        command
    }

    /// Starts a member and waits until it serves.
    pub fn start(&self, flags: &[&str]) -> Server {
        let server = self.launch(flags);
        server.wait_until_serving();
        server
    }

    /// Starts a member without waiting.
    pub fn launch(&self, flags: &[&str]) -> Server {
        Server::spawn(self.command(flags), self.client_port)
    }

    /// Starts a member that is expected to end by itself.
    pub fn run_to_end(&self, flags: &[&str]) -> Ended {
        self.launch(flags).wait()
    }
}

pub fn program() -> &'static str {
    env!("CARGO_BIN_EXE_etcd")
}

/// A running process, ended when this is dropped.
pub struct Server {
    child: Child,
    log: Arc<Stderr>,
    client_port: u16,
}

/// How a process ended.
#[derive(Debug)]
pub struct Ended {
    status: ExitStatus,
    pub log: String,
}

impl Ended {
    /// What a shell has in `$?`.
    pub fn shell_status(&self) -> i32 {
        self.status.code().unwrap_or_else(|| {
            128 + self
                .status
                .signal()
                .expect("ended by a signal, if not by itself")
        })
    }

    /// The number of the signal that it died of.
    pub fn signal(&self) -> Option<i32> {
        self.status.signal()
    }

    #[track_caller]
    pub fn assert(&self, status: i32, text: &str) {
        assert_eq!(self.shell_status(), status, "{}", self.log);
        assert!(self.log.contains(text), "no {text:?} in\n{}", self.log);
        // Rust's own form of the system's errors, which names neither operation nor place.
        assert!(!self.log.contains("(os error"), "{}", self.log);
    }
}

impl Server {
    pub fn spawn(mut command: Command, client_port: u16) -> Server {
        let mut child = command
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let log = Stderr::of(child.stderr.take().expect("stderr is a pipe"));
        let lived = Arc::clone(&log);
        let process = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        let process = process.expect("the process is ours");
        std::thread::spawn(move || {
            if !lived.ends_within(LIFE_MAX) {
                let _ = pidfd_send_signal(process, Signal::KILL);
            }
        });
        Server {
            child,
            log,
            client_port,
        }
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str) {
        self.log.line(&[text]);
    }

    /// Waits for a line with all of `texts`: what a member has done may be seen before its line.
    #[track_caller]
    pub fn line(&self, texts: &[&str]) -> String {
        self.log.line(texts)
    }

    #[track_caller]
    pub fn wait_until_serving(&self) {
        self.wait_for("serving client traffic insecurely");
    }

    pub fn log(&self) -> String {
        self.log.text()
    }

    pub fn has_ended(&mut self) -> bool {
        let status = self.child.try_wait();
        status.expect("the child is ours").is_some()
    }

    pub fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("the process is ours");
    }

    /// Sends `signal` and waits for the end.
    #[track_caller]
    pub fn end_with(self, signal: Signal) -> Ended {
        self.signal(signal);
        self.wait()
    }

    /// Waits for the end.
    #[track_caller]
    pub fn wait(mut self) -> Ended {
        self.log.end();
        let status = self.child.wait().expect("the child was not waited for yet");
        Ended {
            status,
            log: self.log.text(),
        }
    }

    pub fn port(&self) -> u16 {
        self.client_port
    }

    pub async fn channel(&self) -> Channel {
        channel_to(self.client_port).await
    }

    pub async fn kv(&self) -> Kv {
        Kv(pb::kv_client::KvClient::new(self.channel().await))
    }

    /// A connection that speaks whatever the test says.
    pub fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, self.client_port))
            .expect("the server accepts");
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket.set_write_timeout(Some(PATIENCE)).unwrap();
        socket
    }

    /// Everything that comes back for `bytes` until the server closes; nothing, if it resets.
    pub fn exchange(&self, bytes: &[u8]) -> Vec<u8> {
        let mut socket = self.socket();
        // The server may have closed before it was told everything.
        let _ = socket.write_all(bytes);
        let mut answer = Vec::new();
        let _ = socket.read_to_end(&mut answer);
        answer
    }

    /// The body of a page.
    pub fn page(&self, path: &str) -> String {
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        String::from_utf8(self.exchange(request.as_bytes())).expect("a page is text")
    }

    /// The server answers new connections, and nothing in it panicked.
    #[track_caller]
    pub fn assert_well(&self) {
        let page = self.page("/health");
        assert!(
            page.contains(r#"{"health":"true","reason":""}"#),
            "{page}\n{}",
            self.log()
        );
        assert!(!self.log().contains("panic"), "{}", self.log());
    }
}

/// A connection to the server at `port` on this machine.
pub async fn channel_to(port: u16) -> Channel {
    let url = format!("http://127.0.0.1:{port}");
    let endpoint = Endpoint::from_shared(url).expect("a URL");
    endpoint.connect().await.expect("the server accepts")
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended, or been waited for, already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Resolves when `condition` holds, asking again and again.
pub async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let started = Instant::now();
    while !condition().await {
        assert!(started.elapsed() < PATIENCE, "waited for {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The service `KV` in short.
#[derive(Clone)]
pub struct Kv(pub pb::kv_client::KvClient<Channel>);

impl Kv {
    /// The revision of the put.
    pub async fn put(
        &mut self,
        key: impl Into<String>,
        value: impl Into<Vec<u8>>,
    ) -> Result<i64, tonic::Status> {
        let request = pb::PutRequest {
            key: key.into().into(),
            value: value.into().into(),
            ..Default::default()
        };
        let response = self.0.put(request).await?.into_inner();
        Ok(response.header.expect("responses have a header").revision)
    }

    pub async fn put_with_lease(&mut self, key: &'static str, lease: i64) {
        let request = pb::PutRequest {
            key: key.into(),
            lease,
            ..Default::default()
        };
        self.0.put(request).await.unwrap();
    }

    pub async fn get(&mut self, key: impl Into<String>) -> Option<Vec<u8>> {
        let request = pb::RangeRequest {
            key: key.into().into(),
            ..Default::default()
        };
        let response = self.0.range(request).await.unwrap().into_inner();
        response.kvs.first().map(|kv| kv.value.to_vec())
    }

    /// Deletes all keys.
    pub async fn clear(&mut self) -> i64 {
        let request = pb::DeleteRangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            ..Default::default()
        };
        let response = self.0.delete_range(request).await.unwrap().into_inner();
        response.header.expect("responses have a header").revision
    }

    pub async fn compact(&mut self, revision: i64) -> Result<(), tonic::Status> {
        self.0
            .compact(pb::CompactionRequest {
                revision,
                physical: true,
            })
            .await
            .map(drop)
    }
}
