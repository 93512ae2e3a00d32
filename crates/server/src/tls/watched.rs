//! Files that may change while the member runs.
//!
//! Whoever needs what is in them asks at that moment ([`Watched::current`]), which costs a `stat` per file; when one has changed,
//! all are read again. So a new certificate counts from the next connection on, however it came: written over the old one, renamed
//! onto it, or by a symbolic link that now leads elsewhere, as Kubernetes swaps volumes.
//!
//! What cannot be used is logged once and what was there before stays: a pair of which only one half has been
//! written so far heals itself with the other half.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use retcd_tls::FileError;

use crate::log::Text;

/// A file that was changed this recently may change again without getting another time: clocks of file systems tick slowly.
const UNSETTLED: Duration = Duration::from_secs(2);

/// What a set of files held when they were last usable.
pub struct Watched<T> {
    paths: Vec<PathBuf>,
    load: fn(&[PathBuf]) -> Result<T, FileError>,
    state: Mutex<State<T>>,
}

struct State<T> {
    value: Arc<T>,
    seen: Seen,
    /// The reason that was logged last; none once the files are usable again.
    complaint: Option<String>,
}

/// The files as they were when they were read.
#[derive(PartialEq, Eq)]
struct Seen {
    stamps: Vec<Option<Stamp>>,
    settled: bool,
}

/// What changes when a file does.
#[derive(PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl<T> Watched<T> {
    /// Reads the files for the first time.
    ///
    /// # Errors
    /// They cannot be used.
    pub fn open(
        paths: &[&str],
        load: fn(&[PathBuf]) -> Result<T, FileError>,
    ) -> Result<Watched<T>, FileError> {
        let paths: Vec<PathBuf> = paths.iter().map(PathBuf::from).collect();
        // Stamps first: what changes while the files are read is noticed afterwards.
        let seen = Seen::now(&paths);
        let value = Arc::new(load(&paths)?);
        Ok(Watched {
            paths,
            load,
            state: Mutex::new(State {
                value,
                seen,
                complaint: None,
            }),
        })
    }

    /// What is in the files now, or was when they were last usable.
    pub fn current(&self) -> Arc<T> {
        let mut state = self.state.lock();
        let seen = Seen::now(&self.paths);
        if state.seen.settled && state.seen == seen {
            return Arc::clone(&state.value);
        }
        let changed = state.seen.stamps != seen.stamps;
        state.seen = seen;
        match (self.load)(&self.paths) {
            Ok(value) => {
                if changed || state.complaint.is_some() {
                    crate::info!("took up changed TLS files"; "paths" => self.texts());
                }
                state.value = Arc::new(value);
                state.complaint = None;
            }
            Err(error) => {
                let complaint = error.to_string();
                if state.complaint.as_ref() != Some(&complaint) {
                    crate::warn!("cannot use changed TLS files; what was there before stays in use";
                        "paths" => self.texts(), "error" => Text(&error));
                    state.complaint = Some(complaint);
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

impl Seen {
    fn now(paths: &[PathBuf]) -> Seen {
        let stamps: Vec<_> = paths.iter().map(|path| Stamp::of(path)).collect();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        let settled = stamps
            .iter()
            .flatten()
            .all(|stamp| stamp.is_older_than(now));
        Seen { stamps, settled }
    }
}

impl Stamp {
    /// None for a file that is not there.
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
    //! What is guarded: a change is seen at the next question, and nothing unusable ever gets in.
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// Numbers from two files, which must be equal.
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

    fn watched(dir: &Path) -> Watched<u64> {
        let path = |name: &str| dir.join(name).display().to_string();
        Watched::open(&[&path("a"), &path("b")], load).unwrap()
    }

    fn write(dir: &Path, name: &str, text: &str) {
        fs::write(dir.join(name), text).unwrap();
    }

    #[test]
    fn a_changed_pair_is_taken_up_when_it_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a", "1");
        write(dir.path(), "b", "1");
        let watched = watched(dir.path());
        assert_eq!(*watched.current(), 1);
        write(dir.path(), "a", "2");
        assert_eq!(*watched.current(), 1, "half a pair");
        write(dir.path(), "b", "2");
        assert_eq!(*watched.current(), 2);
        // Same size, same inode, and maybe the same tick of the file system's clock.
        for number in 3..9 {
            write(dir.path(), "a", &number.to_string());
            write(dir.path(), "b", &number.to_string());
            assert_eq!(*watched.current(), number);
        }
    }

    #[test]
    fn what_cannot_be_used_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a", "1");
        write(dir.path(), "b", "1");
        let watched = watched(dir.path());
        write(dir.path(), "a", "damaged");
        assert_eq!(*watched.current(), 1);
        fs::remove_file(dir.path().join("a")).unwrap();
        assert_eq!(*watched.current(), 1);
        assert!(watched.state.lock().complaint.is_some());
        write(dir.path(), "a", "1");
        assert_eq!(*watched.current(), 1);
        assert!(watched.state.lock().complaint.is_none());
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
        let watched = watched(dir.path());
        assert_eq!(*watched.current(), 1);
        symlink("2", dir.path().join("..data_tmp")).unwrap();
        fs::rename(dir.path().join("..data_tmp"), dir.path().join("..data")).unwrap();
        assert_eq!(*watched.current(), 2);
    }

    #[test]
    fn settled_files_are_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "a", "1");
        write(dir.path(), "b", "1");
        let watched = watched(dir.path());
        let first = watched.current();
        assert!(
            !Arc::ptr_eq(&first, &watched.current()),
            "files this young are read again"
        );
        let young = Stamp::of(&dir.path().join("a")).unwrap();
        let written = Duration::from_secs(u64::try_from(young.changed.0).unwrap());
        assert!(!young.is_older_than(written + UNSETTLED));
        assert!(young.is_older_than(written + UNSETTLED + Duration::from_nanos(1)));
        watched.state.lock().seen.settled = true;
        let settled = watched.current();
        drop(settled);
    }
}
