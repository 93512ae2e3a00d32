//! Nothing stays behind: started servers are killed and temporary directories removed however this program ends.
//!
//! On the usual way out, also with an error, [`Guarded`] and the directory's owner do it by dropping. A signal or a panic ends the
//! process without that, so what lives is also entered here, and a signal thread and a panic hook clear it. Only processes
//! that were started here are ended, by their id; an id cannot be somebody else's before its process has been waited for,
//! and that happens under the lock of the list.

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
}

static LIVING: Mutex<Living> = Mutex::new(Living {
    processes: Vec::new(),
    directories: Vec::new(),
});

fn living() -> MutexGuard<'static, Living> {
    // The list is whole between its methods' calls, so a panic elsewhere under the lock does not matter.
    LIVING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Clears up when a signal or a panic ends this process.
///
/// # Errors
/// [`Error::Io`] if signals cannot be received.
pub fn install() -> Result<(), Error> {
    let earlier = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        earlier(info);
        drop(clear());
        // One thread's panic would leave the others measuring something else.
        process::exit(101);
    }));
    let runtime = load::runtime()?;
    thread::spawn(move || {
        let number = runtime.block_on(first_signal());
        // Held until the process is gone, so that nothing can be started any more.
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
        // Both fail only if the process has ended already.
        let _ = kill_process(pid, Signal::KILL);
        let _ = waitpid(Some(pid), WaitOptions::empty());
    }
    for directory in living.directories.drain(..) {
        drop(fs::remove_dir_all(directory));
    }
    living
}

/// A directory that is removed with all it holds.
pub struct TempDir(tempfile::TempDir);

impl TempDir {
    /// Makes one in `parent`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be made there.
    pub fn new_in(parent: &Path) -> Result<Self, Error> {
        let what = format!("cannot make a directory in {}", parent.display());
        let mut living = living();
        let made = tempfile::Builder::new()
            .prefix("retcd-bench-")
            .tempdir_in(parent);
        let directory = made.map_err(Error::io(what))?;
        living.directories.push(directory.path().to_owned());
        Ok(Self(directory))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        living().directories.retain(|path| path != self.0.path());
    }
}

/// A started process that is killed and waited for when dropped.
pub struct Guarded {
    child: Child,
    pid: Pid,
}

impl Guarded {
    /// Starts `command`.
    ///
    /// # Errors
    /// What the system says if it cannot be started.
    pub fn spawn(command: &mut Command) -> io::Result<Self> {
        let mut living = living();
        let child = command.spawn()?;
        let pid = Pid::from_child(&child);
        living.processes.push(pid);
        Ok(Self { child, pid })
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// How it ended, if it has.
    ///
    /// # Errors
    /// What the system says if it cannot tell.
    pub fn ended(&mut self) -> io::Result<Option<ExitStatus>> {
        let mut living = living();
        let status = self.child.try_wait()?;
        if status.is_some() {
            living.processes.retain(|pid| *pid != self.pid);
        }
        Ok(status)
    }

    /// Sends `signal` and waits up to `patience` for the end; `None` if it goes on.
    ///
    /// # Errors
    /// What the system says if the signal cannot be sent.
    pub fn end(&mut self, signal: Signal, patience: Duration) -> io::Result<Option<ExitStatus>> {
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

impl Drop for Guarded {
    fn drop(&mut self) {
        // A killed process ends, unless the disk holds it in the kernel; then nobody can end it.
        drop(self.end(Signal::KILL, Duration::from_secs(30)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_process_is_gone() {
        let child = Guarded::spawn(Command::new("sleep").arg("600")).unwrap();
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
