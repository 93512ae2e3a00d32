//! What a command has made so far, which is removed again unless the command succeeds: whoever corrects a mistyped
//! command must not first clean up after the last one.
//!
//! A signal that ends the command counts as a failure. It is looked for between the steps, so that nothing is made behind
//! the removal's back.

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

/// Files and directories that are removed when this is dropped, unless they are kept.
pub struct Made {
    paths: Vec<PathBuf>,
    /// The signal that shall end the command; 0 for none.
    signal: Arc<AtomicUsize>,
}

impl Made {
    /// Nothing yet. From now on signals are looked for by [`Made::check_signals`].
    ///
    /// # Errors
    /// Signals cannot be waited for.
    pub fn new() -> io::Result<Made> {
        let signal = Arc::new(AtomicUsize::new(0));
        for number in [SIGHUP, SIGINT, SIGTERM] {
            let value = usize::try_from(number).expect("signals have positive numbers");
            signal_hook::flag::register_usize(number, Arc::clone(&signal), value)?;
        }
        Ok(Made {
            paths: Vec::new(),
            signal,
        })
    }

    /// Makes a directory and those above it.
    ///
    /// # Errors
    /// The file system's.
    pub fn create_dir(&mut self, path: &Path) -> Result<(), Exit> {
        self.expect(path);
        let created = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path);
        created.map_err(|error| Exit::error(io_text("mkdir", path, &error)))
    }

    /// Announces that something will be made at `path`, where nothing is.
    pub fn expect(&mut self, path: &Path) {
        let missing = path.ancestors().take_while(|above| {
            !above.as_os_str().is_empty() && fs::symlink_metadata(above).is_err()
        });
        self.paths.extend(missing.last().map(Path::to_owned));
    }

    /// # Errors
    /// The command shall end.
    pub fn check_signals(&self) -> Result<(), Exit> {
        match self.signal.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err(Exit::silent(1)),
        }
    }

    /// Keeps everything, and makes its names durable.
    ///
    /// # Errors
    /// The file system's; nothing is kept then.
    pub fn keep(mut self) -> Result<(), Exit> {
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

/// Makes the names in a directory and in those below it durable.
fn sync_dirs(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_dirs(&entry.path())?;
        }
    }
    File::open(dir)?.sync_all()
}

impl Drop for Made {
    fn drop(&mut self) {
        for path in self.paths.iter().rev() {
            // Some of it may not have been made. The error that led here is what matters.
            let _ = fs::remove_dir_all(path);
        }
        if let Ok(signal @ 1..) = i32::try_from(self.signal.load(Ordering::Relaxed)) {
            let _ = emulate_default_handler(signal);
        }
    }
}
