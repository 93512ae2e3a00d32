//! A member: its directory, ports, and server process.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::binary::Binary;
use crate::cgroup::{Cgroup, MemoryCap};
use crate::cleanup::ChildGuard;
use crate::error::Error;
use crate::procfs::{self, Memory};

/// Timeout of a server start and of other conditions that a server must reach.
const START_TIMEOUT: Duration = Duration::from_secs(120);
const STOP_PATIENCE: Duration = Duration::from_secs(60);
/// The number of first and last log lines in an error: the first show invalid flags, the last
/// everything else.
const LOG_LINES: [usize; 2] = [3, 10];

/// The directory and ports of a member. Outlives the server processes.
pub(crate) struct MemberLayout {
    binary: Binary,
    directory: PathBuf,
    args: Vec<String>,
    /// The group in which its process runs, if there is a cap on its memory.
    cgroup: Option<Cgroup>,
}

/// The addresses of one member.
#[derive(Debug, Clone)]
pub(crate) struct Addresses {
    /// The member name.
    pub(crate) name: String,
    /// The client address.
    pub(crate) client: SocketAddr,
    /// The peer address.
    pub(crate) peer: SocketAddr,
}

/// A running member.
pub(crate) struct Server<'a> {
    layout: &'a MemberLayout,
    process: ChildGuard,
    started: Instant,
}

impl MemberLayout {
    /// Prepares a new member of `binary` in the cluster that `cluster` founds, with the addresses
    /// `own`. `scheme` is `http` or `https`; `args` follow the usual flags and precede the binary's
    /// own.
    ///
    /// # Errors
    /// [`Error::Io`] if `directory` cannot be created.
    pub(crate) fn new(
        binary: &Binary,
        directory: PathBuf,
        own: &Addresses,
        cluster: &[Addresses],
        scheme: &str,
        args: &[String],
    ) -> Result<Self, Error> {
        let made = fs::create_dir_all(&directory);
        made.map_err(Error::io(format!("cannot make {}", directory.display())))?;
        let founders: Vec<_> = cluster
            .iter()
            .map(|member| format!("{}={scheme}://{}", member.name, member.peer))
            .collect();
        let (client, peer) = (
            format!("{scheme}://{}", own.client),
            format!("{scheme}://{}", own.peer),
        );
        let usual = [
            format!("--name={}", own.name),
            format!("--data-dir={}", directory.join("data").display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster={}", founders.join(",")),
            // Warnings about slow requests would add to the measured load.
            "--log-level=error".into(),
        ];
        Ok(Self {
            binary: binary.clone(),
            directory,
            args: [&usual, args, &binary.args].concat(),
            cgroup: None,
        })
    }

    /// The same member with a cap on the memory of its process.
    ///
    /// # Errors
    /// [`Error::Io`] if its cgroup cannot be made.
    pub(crate) fn with_cap(self, cap: Option<&MemoryCap>) -> Result<Self, Error> {
        Ok(Self {
            cgroup: cap.map(MemoryCap::make).transpose()?,
            ..self
        })
    }

    /// Starts the member without waiting.
    ///
    /// # Errors
    /// [`Error::Io`] if the binary cannot be executed.
    pub(crate) fn exec(&self) -> Result<Server<'_>, Error> {
        let log = File::options()
            .create(true)
            .append(true)
            .open(self.log_path());
        let log = log.map_err(Error::io(self.log_path().display().to_string()))?;
        let log_too = log
            .try_clone()
            .map_err(Error::io("cannot duplicate a descriptor"))?;
        let mut command = match &self.cgroup {
            Some(cgroup) => self.binary.command_in(cgroup),
            None => self.binary.command(),
        };
        command.args(&self.args).stdout(log).stderr(log_too);
        let started = Instant::now();
        let process = ChildGuard::spawn(&mut command).map_err(Error::io(format!(
            "cannot execute {}",
            self.binary.path.display()
        )))?;
        Ok(Server {
            layout: self,
            process,
            started,
        })
    }

    fn log_path(&self) -> PathBuf {
        self.directory.join("log")
    }

    /// Disk space allocated to the files of the member, in bytes.
    pub(crate) fn disk_bytes(&self) -> u64 {
        allocated(&self.directory.join("data"))
    }

    fn describe_end(&self, status: ExitStatus) -> String {
        let kills = self.cgroup.as_ref().map_or(0, Cgroup::oom_kills);
        match status.signal() {
            Some(signal) if signal == Signal::KILL.as_raw() && kills > 0 => {
                "by the OOM killer".into()
            }
            _ => format!("with {status}"),
        }
    }

    /// The size of the database file in bytes; zero if there is none.
    pub(crate) fn database_bytes(&self) -> u64 {
        let path = self.directory.join("data/member/snap/db");
        fs::metadata(path).map_or(0, |file| file.len())
    }

    /// An error of this member, with an excerpt of its log.
    pub(crate) fn failure(&self, reason: String) -> Error {
        Error::Server {
            binary: self.binary.path.clone(),
            reason,
            log: excerpt(&fs::read(self.log_path()).unwrap_or_default(), LOG_LINES),
        }
    }
}

impl Server<'_> {
    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The directory and ports of the member.
    pub(crate) fn layout(&self) -> &MemberLayout {
        self.layout
    }

    /// The time since its start.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// CPU time used so far.
    ///
    /// # Errors
    /// [`Error::Io`] if it has exited.
    pub(crate) fn cpu_time(&self) -> Result<Duration, Error> {
        procfs::cpu_time(self.pid())
    }

    /// Resident memory.
    ///
    /// # Errors
    /// [`Error::Io`] if it has exited.
    pub(crate) fn memory(&self) -> Result<Memory, Error> {
        procfs::memory(self.pid())
    }

    /// Polls `done` every `pause` until it returns true; returns the time since the start of the
    /// process.
    ///
    /// # Errors
    /// [`Error::Server`] with an excerpt of its log if the process exits first, or on timeout.
    pub(crate) fn wait_until(
        &mut self,
        pause: Duration,
        mut done: impl FnMut() -> bool,
    ) -> Result<Duration, Error> {
        while !done() {
            self.check()?;
            thread::sleep(pause);
        }
        Ok(self.age())
    }

    /// Sends `signal` to the process and waits for it to exit.
    ///
    /// # Errors
    /// [`Error::Server`] if it does not exit; it is then killed.
    pub(crate) fn stop(mut self, signal: Signal) -> Result<(), Error> {
        match self.process.end(signal, STOP_PATIENCE) {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(self
                .layout
                .failure(format!("still running {STOP_PATIENCE:?} after {signal:?}"))),
            Err(error) => Err(self.layout.failure(format!("cannot be ended: {error}"))),
        }
    }

    /// How the process has ended, if it has.
    pub(crate) fn ended(&mut self) -> Option<String> {
        match self.process.ended() {
            Ok(Some(status)) => Some(format!("ended {}", self.layout.describe_end(status))),
            _ => None,
        }
    }

    fn check(&mut self) -> Result<(), Error> {
        match self.process.ended() {
            Ok(Some(status)) => Err(self.layout.failure(format!(
                "ended too early, {}",
                self.layout.describe_end(status)
            ))),
            Err(error) => Err(self.layout.failure(format!("cannot be watched: {error}"))),
            Ok(None) if self.started.elapsed() > START_TIMEOUT => Err(self
                .layout
                .failure(format!("not ready {START_TIMEOUT:?} after its start"))),
            Ok(None) => Ok(()),
        }
    }
}

/// The first and last lines of `log`, without blank ones.
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

/// Unreadable files count as zero: a server may remove files meanwhile.
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
    fn an_excerpt_has_both_ends_of_a_log() {
        assert_eq!(excerpt(b"a\n\nb\nc\nd\ne\n", [1, 2]), "a\n…\nd\ne");
        assert_eq!(excerpt(b"a\nb\nc", [1, 2]), "a\nb\nc");
        assert_eq!(excerpt(b"", [1, 2]), "");
    }

    #[test]
    fn a_kill_is_the_kernels_if_its_cgroup_counts_it() {
        let parent = tempfile::tempdir().unwrap();
        fs::write(parent.path().join("memory.limit_in_bytes"), "").unwrap();
        let cap = MemoryCap::find(Some(parent.path()), 1 << 30).unwrap();
        let layout = MemberLayout {
            binary: Binary {
                name: "sh".into(),
                path: "/bin/sh".into(),
                args: vec![],
            },
            directory: PathBuf::new(),
            args: vec![],
            cgroup: None,
        };
        let layout = layout.with_cap(Some(&cap)).unwrap();
        let killed = || layout.describe_end(ExitStatus::from_raw(Signal::KILL.as_raw()));
        assert_eq!(killed(), "with signal: 9 (SIGKILL)");
        let made = fs::read_dir(parent.path()).unwrap().flatten();
        let mut groups = made.filter(|entry| entry.path().is_dir());
        let group = groups.next().unwrap().path();
        fs::write(
            group.join("memory.oom_control"),
            "under_oom 0\noom_kill 1\n",
        )
        .unwrap();
        assert_eq!(killed(), "by the OOM killer");
        let failed = layout.describe_end(ExitStatus::from_raw(1 << 8));
        assert_eq!(failed, "with exit status: 1");
    }
}
