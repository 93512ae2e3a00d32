//! Files and directories created by a command, removed again unless it succeeds, so that a failed
//! command can be repeated without cleaning up.
//!
//! A termination signal counts as a failure. It is checked between steps, so that nothing is
//! created after the removal.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::emulate_default_handler;

use super::io_text;
use crate::cli::Exit;

/// Files and directories to remove on drop, unless kept.
pub(crate) struct CreatedFiles {
    paths: Vec<PathBuf>,
    /// The termination signal received; 0 for none.
    signal: Arc<AtomicUsize>,
}

impl CreatedFiles {
    /// Creates an empty set. From now on signals are only noticed by
    /// [`CreatedFiles::check_signals`].
    ///
    /// # Errors
    /// The signal handlers could not be installed.
    pub(crate) fn new() -> io::Result<CreatedFiles> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGHUP, SIGINT, SIGTERM] {
            let value = usize::try_from(number).expect("signals have positive numbers");
            signal_hook::flag::register_usize(number, Arc::clone(&signal), value)?;
        }
        Ok(CreatedFiles {
            paths: Vec::new(),
            signal,
        })
    }

    /// Creates a directory and its missing parents.
    ///
    /// # Errors
    /// An I/O error.
    pub(crate) fn create_dir(&mut self, path: &Path) -> Result<(), Exit> {
        self.expect(path);
        let created = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        created.map_err(|error| Exit::error(io_text("mkdir", path, &error)))
    }

    /// Registers `path`, which does not exist yet, for removal.
    pub(crate) fn expect(&mut self, path: &Path) {
        let missing = path.ancestors().take_while(|above| {
            !above.as_os_str().is_empty() && fs::symlink_metadata(above).is_err()
        });
        self.paths.extend(missing.last().map(Path::to_owned));
    }

    /// Checks for a termination signal.
    ///
    /// # Errors
    /// One was received.
    pub(crate) fn check_signals(&self) -> Result<(), Exit> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(Exit::silent(1)),
        }
    }

    /// Keeps everything and syncs the directories.
    ///
    /// # Errors
    /// An I/O error; nothing is kept then.
    pub(crate) fn keep(mut self) -> Result<(), Exit> {
        for path in &self.paths {
            let above = match path.parent() {
                Some(above) if !above.as_os_str().is_empty() => above,
                _ => Path::new("."),
            };
            sync_dirs(path)
                .and_then(|()| File::open(above)?.sync_all())
                .map_err(|error| Exit::error(io_text("fsync", path, &error)))?;
        }
        self.check_signals()?;
        self.paths.clear();
        Ok(())
    }
}

/// Syncs a directory and its descendants.
fn sync_dirs(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

impl Drop for CreatedFiles {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            // Parts may not exist. The error that led here is the one to report.
            let _ = fs::remove_dir_all(path);
        }
        if let Ok(signal @ 1..) = i32::try_from(self.signal.load(Ordering::Relaxed)) {
            let _ = emulate_default_handler(signal);
        }
    }
}
