//! A disk that measures what a member waits for: writes and syncs of the log, syncs of snapshot files,
//! everything that is done to the database's file.
//!
//! It stands where the hardware is, since the rooms above it know no clock. Files are told apart by
//! where they are opened; what becomes a segment of the log, or the database, is opened under other
//! names.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use retcd_storage::disk::{Disk, File, Lock, OpenMode, Volume};

use crate::clock::Clock;
use crate::metrics::Metrics;

/// A slower one is logged (etcd v3.7: server/storage/wal).
const SLOW_SYNC: Duration = Duration::from_secs(1);

thread_local! {
    /// How long this thread has been busy with the database's file.
    static DATABASE: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// How long this thread has waited for writes to the database's file, ever.
pub(crate) fn database_time() -> Duration {
    DATABASE.get()
}

/// See the [module](self).
pub(crate) struct MeteredDisk {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) wal_dir: PathBuf,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) clock: Clock,
}

/// What a file is measured as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Log,
    Snapshot,
    Database,
}

impl MeteredDisk {
    fn kind_of(&self, path: &Path) -> Option<Kind> {
        let name = path.file_name()?.to_str()?;
        // A new log is made in another directory.
        if name.ends_with(".wal") || path.parent() == Some(&*self.wal_dir) {
            return Some(Kind::Log);
        }
        // Also one that was defragmented, and one that a leader has sent.
        let is_database = name == "db" || name.starts_with("db.tmp.") || name.ends_with(".snap.db");
        match is_database {
            true => Some(Kind::Database),
            false => name.starts_with("tmp.").then_some(Kind::Snapshot),
        }
    }
}

impl Disk for MeteredDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let file = self.disk.open(path, mode)?;
        Ok(match self.kind_of(path) {
            Some(kind) if mode != OpenMode::Read => Arc::new(MeteredFile {
                file,
                kind,
                metrics: Arc::clone(&self.metrics),
                clock: self.clock,
            }),
            _ => file,
        })
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.disk.read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }

    fn volume(&self, path: &Path) -> io::Result<Volume> {
        self.disk.volume(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
}

struct MeteredFile {
    file: Arc<dyn File>,
    kind: Kind,
    metrics: Arc<Metrics>,
    clock: Clock,
}

impl MeteredFile {
    /// Does something with the file, and how long that took. What failed is of no interest: the
    /// member stops.
    fn timed(&self, act: impl FnOnce(&dyn File) -> io::Result<()>) -> io::Result<Duration> {
        let started = self.clock.now();
        act(&*self.file)?;
        let took = self.clock.now().saturating_sub(started);
        if self.kind == Kind::Database {
            DATABASE.set(DATABASE.get() + took);
        }
        Ok(took)
    }
}

impl File for MeteredFile {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buf, offset)
    }

    fn try_read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        self.file.try_read_exact_at(buf, offset)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let took = self.timed(|file| file.write_all_at(bufs, offset))?;
        if self.kind == Kind::Log {
            self.metrics.wal.write.observe(took.as_secs_f64());
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let took = self.timed(|file| file.sync_data())?;
        match self.kind {
            Kind::Log => {
                self.metrics.wal.fsync.observe(took.as_secs_f64());
                if took > SLOW_SYNC {
                    crate::warn!("slow fdatasync"; "took" => took, "expected-duration" => SLOW_SYNC);
                }
            }
            Kind::Snapshot => self.metrics.snap.fsync.observe(took.as_secs_f64()),
            Kind::Database => {}
        }
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.timed(|file| file.set_len(len)).map(drop)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.timed(|file| file.allocate(len)).map(drop)
    }

    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        self.file.try_lock(lock)
    }
}

#[cfg(test)]
mod tests {
    use retcd_log::captured;
    use retcd_storage::disk::MemDisk;

    use super::*;
    use crate::metrics::Detail;

    /// Writes to a file, each of whose operations takes `takes`, and syncs it; what was measured and
    /// logged meanwhile.
    fn write_and_sync(path: &str, takes: Duration) -> (Arc<Metrics>, Vec<String>) {
        let metrics = Arc::new(Metrics::new(Detail::Basic));
        let disk = MemDisk::new();
        for dir in ["/m/wal", "/m/wal.tmp", "/m/snap"] {
            disk.create_dir_all(Path::new(dir)).unwrap();
        }
        let disk = MeteredDisk {
            disk: Arc::new(disk),
            wal_dir: "/m/wal".into(),
            metrics: Arc::clone(&metrics),
            // Between two looks at it lies what is measured.
            clock: Clock::stepping(takes),
        };
        let file = disk.open(Path::new(path), OpenMode::CreateNew { mode: 0o600 });
        let file = file.unwrap();
        let lines = captured(|| {
            file.write_all_at(&[IoSlice::new(b"abc")], 0).unwrap();
            file.sync_data().unwrap();
        });
        let mut read = [0; 3];
        file.read_exact_at(&mut read, 0).unwrap();
        assert_eq!(&read, b"abc");
        (metrics, lines)
    }

    /// Whoever looks for the reason of slow requests looks for this line.
    #[test]
    fn a_slow_sync_of_the_log_is_told() {
        let (metrics, lines) = write_and_sync("/m/wal/0.tmp", Duration::from_millis(1001));
        assert_eq!(lines.len(), 1, "{lines:?}");
        let line = "\"msg\":\"slow fdatasync\",\"took\":\"1.001s\",\"expected-duration\":\"1s\"";
        assert!(lines[0].contains("\"level\":\"warn\""), "{lines:?}");
        assert!(lines[0].contains(line), "{lines:?}");
        assert_eq!(metrics.wal.fsync.get_sample_sum(), 1.001);
        assert_eq!(metrics.wal.write.get_sample_sum(), 1.001);
    }

    #[test]
    fn a_sync_that_is_quick_enough_is_not() {
        let (metrics, lines) = write_and_sync("/m/wal.tmp/0-0.wal", SLOW_SYNC);
        assert_eq!(lines, [""; 0]);
        assert_eq!(metrics.wal.fsync.get_sample_count(), 1);
        assert_eq!(metrics.wal.fsync.get_sample_sum(), 1.0);
    }

    #[test]
    fn other_files_are_measured_as_what_they_are() {
        let slow = Duration::from_secs(3);
        let before = database_time();
        let (metrics, lines) = write_and_sync("/m/snap/tmp.0001-0002", slow);
        assert_eq!(lines, [""; 0]);
        assert_eq!(metrics.wal.fsync.get_sample_count(), 0);
        assert_eq!(metrics.snap.fsync.get_sample_sum(), 3.0);
        assert_eq!(database_time(), before);
        for path in [
            "/m/snap/db",
            "/m/snap/db.tmp.defrag",
            "/m/snap/0007.snap.db",
        ] {
            let before = database_time();
            let (metrics, lines) = write_and_sync(path, slow);
            assert_eq!(lines, [""; 0], "{path}");
            assert_eq!(database_time() - before, 2 * slow, "{path}");
            assert_eq!(metrics.snap.fsync.get_sample_count(), 0, "{path}");
        }
        let (metrics, _) = write_and_sync("/m/snap/tmp000000001", slow);
        assert_eq!(metrics.snap.fsync.get_sample_count(), 0);
    }
}
