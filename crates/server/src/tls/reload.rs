//! Files that are reloaded when they change.
//!
//! There is no watcher: [`Reloaded::current`] looks at the files with a `stat` each, and reads all
//! of them again if one has changed. So a new certificate is used from the next connection on,
//! whether it was written over the old one, renamed to its name, or a symbolic link now points to
//! it, as Kubernetes updates volumes.
//!
//! If the files cannot be used, this is logged once and their previous contents stay in use. So a
//! certificate that is written before its key is used when both are there.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use retcd_tls::FileError;

use crate::log::Text;

/// For so long after a change, another one may leave the file with the same timestamps, as clocks
/// of file systems are coarse. Files this young are read every time.
const UNSETTLED: Duration = Duration::from_secs(2);

/// The contents of a set of files as of the last time they could be used.
pub(super) struct Reloaded<T> {
    paths: Vec<PathBuf>,
    load: fn(&[PathBuf]) -> Result<T, FileError>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    seen: Seen,
    /// The error that was logged last; none once the files can be used again.
    logged_error: Option<String>,
}

/// The state of the files when they were read.
#[derive(PartialEq, Eq)]
struct Seen {
    stamps: Vec<Option<Stamp>>,
    settled: bool,
}

/// Metadata that changes when the file changes.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T> Reloaded<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// They cannot be used.
    pub(super) fn open(
        paths: &[&str],
        load: fn(&[PathBuf]) -> Result<T, FileError>,
    ) -> Result<Reloaded<T>, FileError> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        // Before the files are read, so that a change meanwhile is noticed next time.
        let seen = Seen::at(since_epoch(), &paths);
        let value = Arc::new(load(&paths)?);
        Ok(Reloaded {
            paths,
            load,
            state: Mutex::new(State {
                value,
                seen,
                logged_error: None,
            }),
        })
    }

    /// The contents now, or those of the last time that the files could be used.
    pub(super) fn current(&self) -> Arc<T> {
        self.current_at(since_epoch())
    }

    fn current_at(&self, now: Duration) -> Arc<T> {
        let mut state = self.state.lock();
        let seen = Seen::at(now, &self.paths);
        if state.seen.settled && state.seen == seen {
            return Arc::clone(&state.value);
        }
        let changed = state.seen.stamps != seen.stamps;
        state.seen = seen;
        match (self.load)(&self.paths) {
            Ok(value) => {
                if changed || state.logged_error.is_some() {
                    crate::info!("took up changed TLS files"; "paths" => self.texts());
                }
                state.value = Arc::new(value);
                state.logged_error = None;
            }
            Err(error) => {
                let logged_error = error.to_string();
                if state.logged_error.as_ref() != Some(&logged_error) {
                    crate::warn!("cannot use changed TLS files; what was there before stays in use";
                        "paths" => self.texts(), "error" => Text(&error));
                    state.logged_error = Some(logged_error);
                }
            }
        }
        Arc::clone(&state.value)
    }

    fn texts(&self) -> Vec<String> {
        let text = |path: &PathBuf| path.display().to_string();
        self.paths.iter().map(text).collect()
    }
}

fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default()
}

impl Seen {
    /// `now` counts from the epoch.
    fn at(now: Duration, paths: &[PathBuf]) -> Seen {
        let stamps: Vec<_> = paths.iter().map(|path| Stamp::of(path)).collect();
        let settled = stamps
            .iter()
            .flatten()
            .all(|stamp| stamp.is_older_than(now));
        Seen { stamps, settled }
    }
}

impl Stamp {
    /// None for a file that does not exist.
    fn of(path: &Path) -> Option<Stamp> {
        let metadata = std::fs::metadata(path).ok()?;
        Some(Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }

    fn is_older_than(&self, now: Duration) -> bool {
        let changed = u64::try_from(self.changed.0).unwrap_or(0);
        Duration::from_secs(changed) + UNSETTLED < now
    }
}

#[cfg(test)]
mod tests {
    //! What is guarded: a change is seen the next time, and what cannot be used is never used.
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A number that two files must agree on.
    fn load(paths: &[PathBuf]) -> Result<u64, FileError> {
        let read = |path: &PathBuf| {
            let text = fs::read_to_string(path).map_err(|source| FileError::Read {
                path: path.clone(),
                source,
            })?;
            text.parse::<u64>()
                .map_err(|_| FileError::NoKey(path.clone()))
        };
        let (first, second) = (read(&paths[0])?, read(&paths[1])?);
        if first == second {
            Ok(first)
        } else {
            Err(FileError::NoCertificate(paths[0].clone()))
        }
    }

    fn reloaded(dir: &Path) -> Reloaded<u64> {
        let path = |name: &str| dir.join(name).display().to_string();
        Reloaded::open(&[&path("a"), &path("b")], load).unwrap()
    }

    fn write(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn a_changed_pair_is_taken_up_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a", "1");
        write(dir.path(), "b", "1");
        let reloaded = reloaded(dir.path());
        assert_eq!(*reloaded.current(), 1);
        write(dir.path(), "a", "2");
        assert_eq!(*reloaded.current(), 1, "half a pair");
        write(dir.path(), "b", "2");
        assert_eq!(*reloaded.current(), 2);
        // Same size, same inode, and maybe the same tick of the file system's clock.
        for number in 3..9 {
            write(dir.path(), "a", &number.to_string());
            write(dir.path(), "b", &number.to_string());
            assert_eq!(*reloaded.current(), number);
        }
    }

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a", "1");
        write(dir.path(), "b", "1");
        let reloaded = reloaded(dir.path());
        write(dir.path(), "a", "damaged");
        assert_eq!(*reloaded.current(), 1);
        fs::remove_file(dir.path().join("a")).unwrap();
        assert_eq!(*reloaded.current(), 1);
        assert!(reloaded.state.lock().logged_error.is_some());
        write(dir.path(), "a", "1");
        assert_eq!(*reloaded.current(), 1);
        assert!(reloaded.state.lock().logged_error.is_none());
    }

    #[test]
    fn links_that_lead_elsewhere_are_followed() {
        let dir = tempfile::tempdir().unwrap();
        for number in ["1", "2"] {
            fs::create_dir(dir.path().join(number)).unwrap();
            write(dir.path(), &format!("{number}/a"), number);
            write(dir.path(), &format!("{number}/b"), number);
        }
        symlink("1", dir.path().join("..data")).unwrap();
        symlink("..data/a", dir.path().join("a")).unwrap();
        symlink("..data/b", dir.path().join("b")).unwrap();
        let reloaded = reloaded(dir.path());
        assert_eq!(*reloaded.current(), 1);
        symlink("2", dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        assert_eq!(*reloaded.current(), 2);
    }

    #[test]
    fn settled_files_are_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a", "1");
        write(dir.path(), "b", "1");
        let reloaded = reloaded(dir.path());
        let changed = Stamp::of(&dir.path().join("a")).unwrap().changed;
        let young = Duration::from_secs(u64::try_from(changed.0).unwrap()) + UNSETTLED;
        let is_read_again = |now| {
            let before = reloaded.current_at(now);
            !Arc::ptr_eq(&before, &reloaded.current_at(now))
        };
        assert!(is_read_again(young));
        // The files were written within two seconds.
        let old = young + Duration::from_secs(2);
        assert!(!is_read_again(old));
        // Another size, as the time may be the same.
        write(dir.path(), "a", "10");
        write(dir.path(), "b", "10");
        assert_eq!(*reloaded.current_at(old), 10);
    }
}
