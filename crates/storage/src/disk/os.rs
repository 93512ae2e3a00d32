//! The operating system's files (Linux).
//!
//! Files are opened close-on-exec. Interrupted calls are repeated; a failed sync never is. An error
//! says what was tried and where: it may be all that somebody learns before the process ends.

use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::AsFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;
use retcd_log::go_io_error;
use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::{Errno, ReadWriteFlags};

use super::{Disk, File, Lock, OpenMode, Volume};

/// How many buffers `pwritev` takes in one call (`IOV_MAX`).
const SLICES_MAX: usize = 1024;

/// The machine's file system.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::Write => options.write(true),
            OpenMode::CreateNew { mode } => options.write(true).create_new(true).mode(mode),
            OpenMode::Create { mode } => options.write(true).create(true).mode(mode),
        };
        let file = options.open(path).map_err(failed("open", path))?;
        Ok(Arc::new(OsFile(file, path.to_owned())))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(|error| match error.kind() {
                // There is something else.
                io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
                _ => error,
            })
            .map_err(failed("mkdir", path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut entries: Vec<PathBuf> = fs::read_dir(path)
            .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
            .map_err(failed("open", path))?;
        entries.sort_unstable();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to).map_err(failed("rename", from))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path).map_err(failed("remove", path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path).map_err(failed("remove", path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists().map_err(failed("stat", path))
    }

    fn volume(&self, path: &Path) -> io::Result<Volume> {
        let volume = rustix::fs::statvfs(path)?;
        Ok(Volume {
            bytes: volume.f_blocks.saturating_mul(volume.f_frsize),
            free_bytes: volume.f_bavail.saturating_mul(volume.f_frsize),
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)
            .and_then(|directory| directory.sync_all())
            .map_err(failed("fsync", path))
    }
}

/// An error of the operating system with what was tried and where, in the words of Go's
/// `PathError`.
#[derive(Debug, thiserror::Error)]
#[error("{operation} {}: {}", path.display(), go_io_error(source))]
struct Failed {
    operation: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |source| {
        let path = path.to_owned();
        let failed = Failed {
            operation,
            path,
            source,
        };
        io::Error::new(failed.source.kind(), failed)
    }
}

/// A file and its path.
struct OsFile(fs::File, PathBuf);

impl File for OsFile {
    fn len(&self) -> io::Result<u64> {
        let metadata = self.0.metadata().map_err(self.failed("stat"))?;
        Ok(metadata.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut filled = 0;
        while filled < buf.len() {
            match self.0.read_at(&mut buf[filled..], offset + filled as u64) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed("read")(error)),
            }
        }
        Ok(filled)
    }

    fn try_read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<bool> {
        let len = buf.len();
        let mut bufs = [IoSliceMut::new(buf)];
        match rustix::io::preadv2(&self.0, &mut bufs, offset, ReadWriteFlags::NOWAIT) {
            // At the first page that is not in memory it ends, as it does at the end of the file.
            Ok(read) => Ok(read == len),
            // Not in memory; or there are no such reads, by the system, the file system or a filter of
            // system calls. What is really wrong shows when the file is read.
            Err(_) => Ok(false),
        }
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut rest = bufs;
        // Bytes of `rest[0]` that an earlier, short write already took.
        let mut taken = 0;
        loop {
            while let Some(first) = rest.first()
                && taken >= first.len()
            {
                taken -= first.len();
                rest = &rest[1..];
            }
            if rest.is_empty() {
                return Ok(());
            }
            let written = if taken == 0 {
                rustix::io::pwritev(&self.0, &rest[..rest.len().min(SLICES_MAX)], offset)
            } else {
                rustix::io::pwrite(&self.0, &rest[0][taken..], offset)
            };
            match written {
                Ok(0) => return Err(self.failed("write")(io::ErrorKind::WriteZero.into())),
                Ok(n) => {
                    taken += n;
                    offset += n as u64;
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed("write")(error.into())),
            }
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        rustix::fs::fdatasync(&self.0).map_err(|error| self.failed("fdatasync")(error.into()))
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len).map_err(self.failed("truncate"))
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), 0, len) {
                Err(Errno::INTR) => {}
                // A file system that cannot reserve space still gets the length.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => {
                    return if self.len()? < len {
                        self.set_len(len)
                    } else {
                        Ok(())
                    };
                }
                Ok(()) => return Ok(()),
                Err(error) => return Err(self.failed("fallocate")(error.into())),
            }
        }
    }

    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        match lock {
            Lock::FlockExclusive => self.flock(FlockOperation::NonBlockingLockExclusive),
            Lock::FlockShared => self.flock(FlockOperation::NonBlockingLockShared),
            Lock::OfdExclusive => self.lock_description(),
        }
    }
}

impl OsFile {
    fn failed(&self, operation: &'static str) -> impl FnOnce(io::Error) -> io::Error {
        failed(operation, &self.1)
    }

    fn flock(&self, operation: FlockOperation) -> io::Result<bool> {
        loop {
            match rustix::fs::flock(&self.0, operation) {
                Ok(()) => return Ok(true),
                Err(Errno::WOULDBLOCK) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(self.failed("flock")(error.into())),
            }
        }
    }

    /// A write lock on the whole file that belongs to the open file description, or `flock` where
    /// the kernel has no such locks (etcd v3.7: client/pkg/fileutil/lock_linux.go).
    fn lock_description(&self) -> io::Result<bool> {
        let whole_file = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: 0,
            l_len: 0,
            l_pid: 0,
        };
        loop {
            match fcntl(self.0.as_fd(), FcntlArg::F_OFD_SETLK(&whole_file)) {
                Ok(_) => return Ok(true),
                Err(nix::Error::EAGAIN | nix::Error::EACCES) => return Ok(false),
                Err(nix::Error::EINVAL) => {
                    return self.flock(FlockOperation::NonBlockingLockExclusive);
                }
                Err(nix::Error::EINTR) => {}
                Err(error) => return Err(self.failed("lock")(error.into())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_file(dir: &Path) -> Arc<dyn File> {
        OsDisk
            .open(&dir.join("file"), OpenMode::CreateNew { mode: 0o600 })
            .unwrap()
    }

    #[test]
    fn vectored_writes_land_in_order_whatever_their_number() {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(dir.path());
        let chunks: Vec<Vec<u8>> = (0..3000).map(|i| vec![i as u8; i % 5]).collect();
        let slices: Vec<IoSlice<'_>> = chunks.iter().map(|chunk| IoSlice::new(chunk)).collect();
        file.write_all_at(&slices, 7).unwrap();
        file.sync_data().unwrap();

        let expected = [vec![0; 7], chunks.concat()].concat();
        let mut found = vec![1; expected.len() + 10];
        assert_eq!(file.read_at(&mut found, 0).unwrap(), expected.len());
        assert_eq!(found[..expected.len()], expected);
    }

    #[test]
    fn allocation_extends_with_zeros_and_never_cuts() {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(dir.path());
        file.write_all_at(&[IoSlice::new(b"abc")], 0).unwrap();
        file.allocate(1000).unwrap();
        assert_eq!(file.len().unwrap(), 1000);
        file.allocate(10).unwrap();
        assert_eq!(file.len().unwrap(), 1000);
        let mut buf = [1; 5];
        file.read_exact_at(&mut buf, 0).unwrap();
        assert_eq!(&buf, b"abc\0\0");
        assert!(file.read_exact_at(&mut buf, 998).is_err());
    }

    /// What was just written is in memory, in all file systems that tell; a file's end is not.
    #[test]
    fn what_is_read_without_waiting_is_what_the_file_has() {
        let dir = tempfile::tempdir().unwrap();
        let file = new_file(dir.path());
        file.write_all_at(&[IoSlice::new(&[7; 10_000])], 0).unwrap();
        let mut buf = [0; 5000];
        if file.try_read_exact_at(&mut buf, 5000).unwrap() {
            assert_eq!(buf, [7; 5000]);
        }
        assert!(!file.try_read_exact_at(&mut buf, 5001).unwrap());
    }

    #[test]
    fn a_volume_has_room() {
        let dir = tempfile::tempdir().unwrap();
        let volume = OsDisk.volume(dir.path()).unwrap();
        assert!(0 < volume.free_bytes && volume.free_bytes <= volume.bytes);
        let error = OsDisk.volume(&dir.path().join("none")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn locks_exclude_other_handles_until_the_file_is_closed() {
        let dir = tempfile::tempdir().unwrap();
        let first = new_file(dir.path());
        let second = OsDisk
            .open(&dir.path().join("file"), OpenMode::Write)
            .unwrap();
        for lock in [Lock::FlockExclusive, Lock::OfdExclusive] {
            assert!(first.try_lock(lock).unwrap(), "{lock:?}");
            assert!(!second.try_lock(lock).unwrap(), "{lock:?}");
        }
        assert!(!second.try_lock(Lock::FlockShared).unwrap());
        drop(first);
        for lock in [Lock::FlockShared, Lock::FlockExclusive, Lock::OfdExclusive] {
            assert!(second.try_lock(lock).unwrap(), "{lock:?}");
        }
    }

    /// Whoever is woken by the end of a process has nothing but this text.
    #[test]
    fn errors_say_what_was_tried_and_where() {
        let dir = tempfile::tempdir().unwrap();
        drop(new_file(dir.path()));
        let file = dir.path().join("file");
        let below = file.join("below");
        let none = dir.path().join("none");
        let text = |error: Option<io::Error>| {
            let error = error.expect("it cannot work");
            let text = error.to_string();
            assert!(!text.contains("os error"), "{text}");
            (
                error.kind(),
                text.replace(&*dir.path().to_string_lossy(), "D"),
            )
        };
        let open = |path, mode| text(OsDisk.open(path, mode).err());
        use io::ErrorKind::{AlreadyExists, NotADirectory, NotFound};
        let expect = |kind, text: &str| (kind, text.to_owned());
        assert_eq!(
            open(&none, OpenMode::Write),
            expect(NotFound, "open D/none: no such file or directory")
        );
        assert_eq!(
            open(&file, OpenMode::CreateNew { mode: 0o600 }),
            expect(AlreadyExists, "open D/file: file exists")
        );
        assert_eq!(
            text(OsDisk.create_dir_all(&file).err()),
            expect(NotADirectory, "mkdir D/file: not a directory")
        );
        assert_eq!(
            text(OsDisk.create_dir_all(&below).err()),
            expect(NotADirectory, "mkdir D/file/below: not a directory")
        );
        assert_eq!(
            text(OsDisk.read_dir(&none).err()),
            expect(NotFound, "open D/none: no such file or directory")
        );
        assert_eq!(
            text(OsDisk.rename(&none, &file).err()),
            expect(NotFound, "rename D/none: no such file or directory")
        );
        let read_only = OsDisk.open(&file, OpenMode::Read).unwrap();
        let (_, written) = text(read_only.write_all_at(&[IoSlice::new(b"x")], 0).err());
        assert_eq!(written, "write D/file: bad file descriptor");
    }

    #[test]
    fn directories_are_private_and_files_have_the_mode_asked_for() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        OsDisk.create_dir_all(&deep).unwrap();
        OsDisk.create_dir_all(&deep).unwrap();
        new_file(&deep);
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&deep), 0o700);
        assert_eq!(mode(&deep.join("file")), 0o600);
        assert_eq!(OsDisk.read_dir(&deep).unwrap(), [deep.join("file")]);
        OsDisk.sync_dir(&deep).unwrap();
    }
}
