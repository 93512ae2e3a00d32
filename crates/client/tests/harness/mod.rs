//! A member, and a TCP relay to it whose connections can be broken. Every wait has a deadline.

#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::future::Future;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use retcd_client::{Client, Config, TlsConfig};
use retcd_proto::etcdserverpb::{PutRequest, RangeRequest, RangeResponse};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Upper bound of every wait.
pub const TIMEOUT: Duration = Duration::from_secs(40);
/// Attempts to start a server: its ports may have been taken meanwhile.
const START_ATTEMPTS: usize = 5;

/// Runs a test with a deadline.
pub fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime
        .block_on(async { tokio::time::timeout(TIMEOUT, test).await })
        .expect("the test comes to an end");
}

/// Waits for `work` with a deadline.
pub async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let waited = tokio::time::timeout(TIMEOUT / 2, work).await;
    waited.unwrap_or_else(|_| panic!("{what} does not come"))
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}

/// The server binary of this workspace, next to the test binaries.
fn server_path() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let directory = test.parent().and_then(Path::parent).unwrap();
    directory.join("etcd")
}

/// A single-member cluster.
pub struct Member {
    directory: TempDir,
    /// Its client address: `host:port`.
    pub address: String,
    peer: String,
    /// The client's configuration and the member's flags.
    security: Security,
    server: Child,
}

/// How clients connect to a member.
#[derive(Clone, Default)]
pub struct Security {
    /// The member's flags; TLS if there are any.
    pub flags: Vec<String>,
    pub tls: TlsConfig,
}

impl Member {
    pub async fn start() -> Member {
        Member::start_with(Security::default()).await
    }

    pub async fn start_with(security: Security) -> Member {
        for _ in 0..START_ATTEMPTS {
            let (address, peer) = (free_address(), free_address());
            let directory = tempfile::tempdir().unwrap();
            let server = start_server(directory.path(), &address, &peer, &security.flags);
            let mut member = Member {
                directory,
                address,
                peer,
                security: security.clone(),
                server,
            };
            if member.is_ready().await {
                return member;
            }
        }
        panic!("the server ended {START_ATTEMPTS} times");
    }

    /// Waits until it serves; `false` if the process exited.
    async fn is_ready(&mut self) -> bool {
        let client = self.client();
        loop {
            let limited = client.with_timeout(Duration::from_millis(300));
            match limited.range(key("k")).await {
                // A rejection is also a response.
                Ok(_) | Err(retcd_client::Error::Refused { .. }) => return true,
                Err(_) if self.server.try_wait().unwrap().is_some() => return false,
                Err(_) => {}
            }
        }
    }

    /// Creates a client.
    pub fn client(&self) -> Client {
        self.client_at(&self.address)
    }

    /// Creates a client that connects to `address`.
    pub fn client_at(&self, address: &str) -> Client {
        let config = Config {
            tls: self.security.tls.clone(),
            ..Config::new([address])
        };
        Client::new(config).unwrap()
    }

    pub fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    pub async fn restart(&mut self) {
        self.kill();
        let flags = &self.security.flags;
        self.server = start_server(self.directory.path(), &self.address, &self.peer, flags);
        assert!(self.is_ready().await);
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

fn start_server(directory: &Path, client: &str, peer: &str, flags: &[String]) -> Child {
    let scheme = if flags.is_empty() { "http" } else { "https" };
    Command::new(server_path())
        .args(["--name=m1", "--data-dir=m1.etcd", "--bcrypt-cost=4"])
        .args(flags)
        .arg(format!("--listen-client-urls={scheme}://{client}"))
        .arg(format!("--advertise-client-urls={scheme}://{client}"))
        .arg(format!("--listen-peer-urls=http://{peer}"))
        .arg(format!("--initial-advertise-peer-urls=http://{peer}"))
        .arg(format!("--initial-cluster=m1=http://{peer}"))
        .current_dir(directory)
        .env_clear()
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server lies beside the tests: build the workspace")
}

/// A TCP relay to a server. It lives as long as the runtime.
pub struct Relay {
    pub address: String,
    cuts: watch::Sender<usize>,
    connections: Arc<AtomicUsize>,
}

impl Relay {
    /// Connection `n` breaks after `lives_bytes[n]` bytes from the server; connections past the end
    /// of the slice do not break.
    pub async fn start(target: &str, lives_bytes: &'static [usize]) -> Relay {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let cuts = watch::Sender::new(0);
        let connections = Arc::new(AtomicUsize::new(0));
        let (target, cut, count) = (target.to_owned(), cuts.clone(), Arc::clone(&connections));
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let place = count.fetch_add(1, Ordering::Relaxed);
                let life = lives_bytes.get(place).copied().unwrap_or(usize::MAX);
                tokio::spawn(carry(socket, target.clone(), life, cut.subscribe()));
            }
        });
        Relay {
            address,
            cuts,
            connections,
        }
    }

    /// Breaks all connections.
    pub fn cut(&self) {
        self.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// The number of connections accepted so far.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    pub fn client(&self) -> Client {
        Client::new(Config::new([self.address.as_str()])).unwrap()
    }
}

async fn carry(client: TcpStream, target: String, life: usize, mut cuts: watch::Receiver<usize>) {
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let answers = async {
        let mut left = life;
        let mut buffer = vec![0; 16 << 10];
        while left > 0 {
            let wanted = left.min(buffer.len());
            let read = from_server.read(&mut buffer[..wanted]).await.unwrap_or(0);
            if read == 0 || to_client.write_all(&buffer[..read]).await.is_err() {
                return;
            }
            left -= read;
        }
    };
    let before = *cuts.borrow();
    tokio::select! {
        () = answers => {}
        _ = tokio::io::copy(&mut from_client, &mut to_server) => {}
        _ = cuts.wait_for(|cuts| *cuts != before) => {}
    }
}

/// A read of one key.
pub fn key(key: &str) -> RangeRequest {
    RangeRequest {
        key: key.to_owned().into(),
        ..RangeRequest::default()
    }
}

pub fn put(key: &str, value: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        ..PutRequest::default()
    }
}

/// Each record as `key=value`.
pub fn shown(response: &RangeResponse) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let kvs = response.kvs.iter();
    kvs.map(|kv| format!("{}={}", text(&kv.key), text(&kv.value)))
        .collect()
}
