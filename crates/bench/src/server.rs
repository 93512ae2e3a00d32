//! An etcd binary, ours or any other, started as a single member on free loopback ports.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use retcd_proto::etcdserverpb as pb;
use rustix::process::Signal;

use crate::cleanup::Guarded;
use crate::error::Error;
use crate::grpc::Connection;
use crate::keys::KeySpace;
use crate::load;

/// A server that is not healthy by then never will be.
const START_PATIENCE: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// Of a log, in an error: its first lines tell of a wrong flag, its last ones of everything else.
const LOG_LINES: [usize; 2] = [3, 10];

/// An executable, and how it is called in results.
#[derive(Debug, Clone)]
pub struct Binary {
    /// Column head.
    pub name: String,
    /// The executable.
    pub path: PathBuf,
    /// Arguments behind those that every server gets.
    pub args: Vec<String>,
}

impl Binary {
    /// The first line that `--version` prints.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be executed, [`Error::Server`] if it says nothing.
    pub fn version(&self) -> Result<String, Error> {
        let output = self
            .command()
            .arg("--version")
            .output()
            .map_err(Error::io(format!("cannot execute {}", self.path.display())))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        match text.lines().next() {
            Some(line) if output.status.success() => Ok(line.to_owned()),
            _ => Err(Error::Server {
                binary: self.path.clone(),
                reason: format!("--version ended with {}", output.status),
                log: String::from_utf8_lossy(&output.stderr).into_owned(),
            }),
        }
    }

    /// Without the settings that a server would take from the environment, which would hold for one run and not for another.
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.stdin(Stdio::null());
        for (name, _) in std::env::vars_os() {
            if is_setting(&name) {
                command.env_remove(name);
            }
        }
        command
    }
}

fn is_setting(variable: &OsStr) -> bool {
    variable.as_encoded_bytes().starts_with(b"ETCD_")
}

/// Where one member lives: its directory and ports. Outlives the processes that serve it.
pub struct Home {
    binary: Binary,
    directory: PathBuf,
    client: SocketAddr,
    peer: SocketAddr,
}

/// A running member.
pub struct Server<'a> {
    home: &'a Home,
    process: Guarded,
    started: Instant,
}

impl Home {
    /// For a new member of `binary`, in `directory`, which must be empty.
    ///
    /// # Errors
    /// [`Error::Io`] if no ports are free.
    pub fn new(binary: &Binary, directory: &Path) -> Result<Self, Error> {
        let free = || -> std::io::Result<_> {
            // Both are held until both are known, so that they differ.
            let listeners = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
            let [client, peer] =
                listeners.map(|listener| listener.and_then(|listener| listener.local_addr()));
            Ok((client?, peer?))
        };
        let (client, peer) = free().map_err(Error::io("no free port on the loopback address"))?;
        Ok(Self {
            binary: binary.clone(),
            directory: directory.to_owned(),
            client,
            peer,
        })
    }

    /// Starts the member and returns at once.
    ///
    /// # Errors
    /// [`Error::Io`] if the binary cannot be executed.
    pub fn exec(&self) -> Result<Server<'_>, Error> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log = log.map_err(Error::io(self.log_path().display().to_string()))?;
        let log_too = log
            .try_clone()
            .map_err(Error::io("cannot duplicate a descriptor"))?;
        let mut command = self.binary.command();
        command
            .args(self.args())
            .args(&self.binary.args)
            .stdout(log)
            .stderr(log_too);
        let started = Instant::now();
        let process = Guarded::spawn(&mut command).map_err(Error::io(format!(
            "cannot execute {}",
            self.binary.path.display()
        )))?;
        Ok(Server {
            home: self,
            process,
            started,
        })
    }

    /// Starts the member and waits until `/health` says that it serves.
    ///
    /// # Errors
    /// [`Error::Io`] if the binary cannot be executed, [`Error::Server`] with an excerpt of its log if it does not come up.
    pub fn start(&self) -> Result<Server<'_>, Error> {
        let mut server = self.exec()?;
        while !is_healthy(self.client) {
            server.check_start()?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    fn args(&self) -> Vec<String> {
        let (client, peer) = (
            format!("http://{}", self.client),
            format!("http://{}", self.peer),
        );
        vec![
            "--name=bench".into(),
            format!("--data-dir={}", self.data_dir().display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=bench={peer}"),
            // Warnings about slow requests would be part of the measured load.
            "--log-level=error".into(),
        ]
    }

    fn data_dir(&self) -> PathBuf {
        self.directory.join("data")
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Bytes of all files of the member, as allocated on the disk.
    pub fn disk_bytes(&self) -> u64 {
        allocated(&self.data_dir())
    }

    fn failure(&self, reason: String) -> Error {
        Error::Server {
            binary: self.binary.path.clone(),
            reason,
            log: excerpt(&fs::read(self.log_path()).unwrap_or_default(), LOG_LINES),
        }
    }
}

impl Server<'_> {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// `HOST:PORT` for clients.
    pub fn endpoint(&self) -> String {
        self.home.client.to_string()
    }

    /// Waits until a linearizable get brings the last key of `keys`; returns the time since the start of the process.
    ///
    /// # Errors
    /// [`Error::Server`] if that does not happen.
    pub fn first_get(&mut self, keys: &KeySpace) -> Result<Duration, Error> {
        let runtime = load::runtime()?;
        let key = keys.key(keys.count - 1);
        while !runtime.block_on(answers(&self.endpoint(), &key)) {
            self.check_start()?;
            thread::sleep(Duration::from_millis(2));
        }
        Ok(self.started.elapsed())
    }

    /// Ends the process with `signal` and waits for it.
    ///
    /// # Errors
    /// [`Error::Server`] if it does not end; it is killed then.
    pub fn stop(mut self, signal: Signal) -> Result<(), Error> {
        match self.process.end(signal, STOP_PATIENCE) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self
                .home
                .failure(format!("still running {STOP_PATIENCE:?} after {signal:?}"))),
            Err(error) => Err(self.home.failure(format!("cannot be ended: {error}"))),
        }
    }

    fn check_start(&mut self) -> Result<(), Error> {
        match self.process.ended() {
            Ok(Some(status)) => Err(self
                .home
                .failure(format!("ended while starting, with {status}"))),
            Err(error) => Err(self.home.failure(format!("cannot be watched: {error}"))),
            Ok(None) if self.started.elapsed() > START_PATIENCE => Err(self
                .home
                .failure(format!("does not serve {START_PATIENCE:?} after its start"))),
            Ok(None) => Ok(()),
        }
    }
}

/// Any failure means "not yet": the port is closed, or open and not served, or served without a leader.
async fn answers(endpoint: &str, key: &[u8]) -> bool {
    let get = async {
        let mut range = Connection::open(endpoint)
            .await
            .ok()?
            .method("/etcdserverpb.KV/Range")
            .ok()?;
        let request = pb::RangeRequest {
            key: key.to_vec().into(),
            ..pb::RangeRequest::default()
        };
        let reply: pb::RangeResponse = range.call(&request).await.ok()?;
        Some(reply.kvs.len() == 1)
    };
    // A connection made while the server starts may be dropped without a word.
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, get)
        .await
        .ok()
        .flatten()
        .unwrap_or(false)
}

/// Asks `/health` over HTTP/1.1, as a probe does.
fn is_healthy(address: SocketAddr) -> bool {
    let limit = Duration::from_secs(2);
    let ask = || -> std::io::Result<String> {
        let mut socket = TcpStream::connect_timeout(&address, limit)?;
        socket.set_read_timeout(Some(limit))?;
        write!(
            socket,
            "GET /health HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n"
        )?;
        let mut reply = String::new();
        socket.take(64 << 10).read_to_string(&mut reply)?;
        Ok(reply)
    };
    ask().is_ok_and(|reply| says_healthy(&reply))
}

fn says_healthy(reply: &str) -> bool {
    reply.starts_with("HTTP/1.1 200 ") && reply.contains(r#""health":"true""#)
}

/// The first and last lines of `log`, without the blank ones.
fn excerpt(log: &[u8], [first, last]: [usize; 2]) -> String {
    let text = String::from_utf8_lossy(log);
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    if lines.len() <= first + last {
        return lines.join("\n");
    }
    let (begin, end) = (&lines[..first], &lines[lines.len() - last..]);
    format!("{}\n…\n{}", begin.join("\n"), end.join("\n"))
}

/// What cannot be read any more counts nothing: a server may remove files while they are counted.
fn allocated(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let Ok(metadata) = fs::symlink_metadata(path) else {
        return 0;
    };
    let own = metadata.blocks() * 512;
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    own + entries.map(|entry| allocated(&entry.path())).sum::<u64>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_what_etcd_answers() {
        let reply = |status: &str, health: &str| {
            format!(
                "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n\r\n{{\"health\":\"{health}\",\"reason\":\"\"}}"
            )
        };
        assert!(says_healthy(&reply("200 OK", "true")));
        assert!(!says_healthy(&reply("200 OK", "false")));
        assert!(!says_healthy(&reply("503 Service Unavailable", "true")));
        assert!(!says_healthy(""));
    }

    #[test]
    fn an_excerpt_has_both_ends_of_a_log() {
        assert_eq!(excerpt(b"a\n\nb\nc\nd\ne\n", [1, 2]), "a\n…\nd\ne");
        assert_eq!(excerpt(b"a\nb\nc", [1, 2]), "a\nb\nc");
        assert_eq!(excerpt(b"", [1, 2]), "");
    }

    #[test]
    fn settings_of_the_environment_are_known_by_their_prefix() {
        assert!(is_setting(OsStr::new("ETCD_NAME")));
        assert!(!is_setting(OsStr::new("PATH")) && !is_setting(OsStr::new("XETCD_")));
    }

    #[test]
    fn a_binary_that_ends_at_once_is_an_error_with_its_log() {
        let directory = tempfile::tempdir().unwrap();
        let binary = Binary {
            name: "false".into(),
            path: "/bin/sh".into(),
            args: vec![],
        };
        // A shell refuses `--name=bench` and says so.
        let home = Home::new(&binary, directory.path()).unwrap();
        let error = home.start().map(drop).unwrap_err().to_string();
        assert!(
            error.contains("ended while starting") && error.contains("its log:"),
            "{error}"
        );
    }
}
