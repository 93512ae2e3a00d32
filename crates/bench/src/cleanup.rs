//! Kills server processes and removes temporary directories and cgroups, however this program ends.
//!
//! On a normal exit, also after an error, dropping [`ChildGuard`] and the directory's owner does
//! it. A signal or a panic ends the process without drops, so processes and directories are also
//! registered here, and a signal thread and a panic hook clean up. Only processes started here are
//! killed, by id. An id cannot be reused before its process has been waited for, which happens
//! under the lock of the registry.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use std::{fs, io, panic, process, thread};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tokio::signal::unix::{SignalKind, signal};

use crate::error::Error;
use crate::load;

#[derive(Default)]
struct Living {
    processes: Vec<Pid>,
    directories: Vec<PathBuf>,
    cgroups: Vec<PathBuf>,
}

static LIVING: Mutex<Living> = Mutex::new(Living {
    processes: Vec::new(),
    directories: Vec::new(),
    cgroups: Vec::new(),
});

fn living() -> MutexGuard<'static, Living> {
    // The registry is consistent between calls of its methods, so poisoning is harmless.
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Installs cleanup on signals and panics.
///
/// # Errors
/// [`Error::Io`] if signal handlers cannot be installed.
pub(crate) fn install() -> Result<(), Error> {
    let earlier = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        earlier(info);
        drop(clear());
        // A panic of one thread would leave the others measuring something else.
        process::exit(101);
    }));
    let runtime = load::runtime()?;
    thread::spawn(move || {
        let number = runtime.block_on(first_signal());
        // Held until the process exits, so that nothing can be started any more.
        let _held = clear();
        process::exit(128 + number);
    });
    Ok(())
}

async fn first_signal() -> i32 {
    let listen =
        |kind| signal(kind).expect("these signals may be handled, and the runtime has its driver");
    let (mut interrupt, mut terminate, mut hangup) = (
        listen(SignalKind::interrupt()),
        listen(SignalKind::terminate()),
        listen(SignalKind::hangup()),
    );
    tokio::select! {
        _ = interrupt.recv() => SignalKind::interrupt().as_raw_value(),
        _ = terminate.recv() => SignalKind::terminate().as_raw_value(),
        _ = hangup.recv() => SignalKind::hangup().as_raw_value(),
    }
}

fn clear() -> MutexGuard<'static, Living> {
    let mut living = living();
    for pid in living.processes.drain(..) {
        // Both fail only if the process has already exited.
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
    for directory in living.directories.drain(..) {
        drop(fs::remove_dir_all(directory));
    }
    for cgroup in living.cgroups.drain(..) {
        remove_cgroup(&cgroup);
    }
    living
}

/// A directory that is removed with its contents.
pub(crate) struct TempDir(tempfile::TempDir);

impl TempDir {
    /// Creates one in `parent`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub(crate) fn new_in(parent: &Path) -> Result<Self, Error> {
        let what = format!("cannot make a directory in {}", parent.display());
        let mut living = living();
        let made = tempfile::Builder::new()
            .prefix("retcd-bench-")
            .tempdir_in(parent);
        let directory = made.map_err(Error::io(what))?;
        living.directories.push(directory.path().to_owned());
        Ok(Self(directory))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        living().directories.retain(|path| path != self.0.path());
    }
}

/// A directory of a cgroup file system, which is removed when its processes are gone; the files in
/// it are the kernel's.
pub(crate) struct CgroupDir(PathBuf);

impl CgroupDir {
    /// Creates it.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub(crate) fn make(path: PathBuf) -> Result<Self, Error> {
        let mut living = living();
        let made = fs::create_dir(&path);
        made.map_err(Error::io(format!("cannot make {}", path.display())))?;
        living.cgroups.push(path.clone());
        Ok(Self(path))
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for CgroupDir {
    fn drop(&mut self) {
        remove_cgroup(&self.0);
        living().cgroups.retain(|path| *path != self.0);
    }
}

/// Removes the group at `path`, for up to a second: a process that has just ended may still be on
/// its way out of it.
fn remove_cgroup(path: &Path) {
    const TRIES: u32 = 100;
    const PAUSE: Duration = Duration::from_millis(10);
    for _ in 0..TRIES {
        match fs::remove_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => thread::sleep(PAUSE),
            _ => return,
        }
    }
}

/// A process that is killed and waited for on drop.
pub(crate) struct ChildGuard {
    child: Child,
    pid: Pid,
}

impl ChildGuard {
    /// Starts `command`.
    ///
    /// # Errors
    /// The system's error if it cannot be started.
    pub(crate) fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut living = living();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        living.processes.push(pid);
        Ok(Self { child, pid })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The exit status, if it has exited.
    ///
    /// # Errors
    /// The system's error.
    pub(crate) fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let mut living = living();
        let status = self.child.try_wait()?;
        if status.is_some() {
            living.processes.retain(|pid| *pid != self.pid);
        }
        Ok(status)
    }

    /// Sends `signal` and waits up to `patience` for the exit; `None` if it is still running.
    ///
    /// # Errors
    /// The system's error if the signal cannot be sent.
    pub(crate) fn end(
        &mut self,
        signal: Signal,
        patience: Duration,
    ) -> io::Result<Option<ExitStatus>> {
        const POLL: Duration = Duration::from_millis(5);
        if let Some(status) = self.ended()? {
            return Ok(Some(status));
        }
        kill_process(self.pid, signal)?;
        let began = Instant::now();
        while began.elapsed() < patience {
            if let Some(status) = self.ended()? {
                return Ok(Some(status));
            }
            thread::sleep(POLL);
        }
        Ok(None)
    }
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        // A killed process exits, unless it is blocked in the kernel by the disk.
        drop(self.end(Signal::KILL, Duration::from_secs(30)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_gone() {
        let child = ChildGuard::spawn(Command::new("sleep").arg("600")).unwrap();
        let proc = PathBuf::from(format!("/proc/{}", child.id()));
        let pid = child.pid;
        assert!(proc.exists() && living().processes.contains(&pid));
        drop(child);
        assert!(!proc.exists() && !living().processes.contains(&pid));
    }

    #[test]
    fn a_dropped_directory_is_gone() {
        let directory = TempDir::new_in(&std::env::temp_dir()).unwrap();
        let path = directory.path().to_owned();
        fs::write(path.join("file"), "x").unwrap();
        assert!(living().directories.contains(&path));
        drop(directory);
        assert!(!path.exists() && !living().directories.contains(&path));
    }
}
