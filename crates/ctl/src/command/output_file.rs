//! An output file that appears under its name only when complete.
//!
//! It is written to a temporary file next to it, synced, and renamed. Only regular files are
//! replaced: a symbolic link is followed and its target replaced, devices and FIFOs are written to
//! directly, and anything else is rejected.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use retcd_log::{self as log, go_io_error};

/// Maximum number of symbolic links followed, as in Linux.
const LINKS_MAX: usize = 40;

/// An output file being written.
pub(crate) struct OutputFile {
    file: File,
    /// `None` if the target is written to directly.
    building: Option<Building>,
}

struct Building {
    part: PathBuf,
    path: PathBuf,
}

impl OutputFile {
    /// Starts writing the file `path`.
    ///
    /// # Errors
    /// The text of the reason.
    pub(crate) fn create(path: &Path) -> Result<OutputFile, String> {
        match fs::metadata(path).map(|metadata| metadata.file_type()) {
            Ok(kind) if kind.is_char_device() || kind.is_fifo() => OutputFile::write_into(path),
            Ok(kind) if kind.is_file() => OutputFile::build(path),
            Ok(kind) => {
                let what = if kind.is_dir() {
                    "a directory"
                } else if kind.is_socket() {
                    "a socket"
                } else {
                    "a block device"
                };
                Err(format!("{} is {what}, not a file", path.display()))
            }
            Err(error) if error.kind() == ErrorKind::NotFound => OutputFile::build(path),
            Err(error) => Err(failed("stat", path, &error)),
        }
    }

    fn write_into(path: &Path) -> Result<OutputFile, String> {
        let file = OpenOptions::new().write(true).open(path);
        Ok(OutputFile {
            file: file.map_err(|error| failed("open", path, &error))?,
            building: None,
        })
    }

    fn build(path: &Path) -> Result<OutputFile, String> {
        let path = follow_links(path).map_err(|error| failed("readlink", path, &error))?;
        let mut part = path.clone().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let opened = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&part);
        let file = opened.map_err(|error| failed("open", &part, &error))?;
        log::info!("created temporary db file"; "path" => part);
        Ok(OutputFile {
            file,
            building: Some(Building { part, path }),
        })
    }

    /// The file to write to.
    pub(crate) fn file(&mut self) -> &mut File {
        &mut self.file
    }

    /// Syncs the file and renames it to its final name.
    ///
    /// # Errors
    /// The text of the reason.
    pub(crate) fn finish(mut self) -> Result<(), String> {
        let Some(Building { part, path }) = &self.building else {
            return Ok(());
        };
        let synced = self.file.sync_all();
        synced.map_err(|error| failed("fsync", part, &error))?;
        fs::rename(part, path).map_err(|error| {
            let (part, path) = (part.display(), path.display());
            format!(
                "could not rename {part} to {path} ({})",
                go_io_error(&error)
            )
        })?;
        self.building = None;
        Ok(())
    }
}

impl Drop for OutputFile {
    fn drop(&mut self) {
        if let Some(Building { part, .. }) = &self.building {
            // The error that led here is the one to report.
            let _ = fs::remove_file(part);
        }
    }
}

fn failed(action: &str, path: &Path, error: &io::Error) -> String {
    let path = path.display();
    format!(
        "could not {action} {path} ({action} {path}: {})",
        go_io_error(error)
    )
}

/// Follows symbolic links; the result need not exist.
fn follow_links(path: &Path) -> io::Result<PathBuf> {
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        match fs::read_link(&path) {
            // A relative link is resolved from its own directory.
            Ok(link) => path = path.parent().unwrap_or(Path::new("")).join(link),
            // Not a link, or nonexistent.
            Err(_) => return Ok(path),
        }
    }
    Err(rustix::io::Errno::LOOP.into())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::symlink;

    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};

    use super::*;

    fn make(path: &Path) -> Result<(), String> {
        let mut target = OutputFile::create(path)?;
        target.file().write_all(b"new").unwrap();
        target.finish()
    }

    #[test]
    fn a_file_is_complete_or_absent() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let mut unfinished = OutputFile::create(&path).unwrap();
        unfinished.file().write_all(b"half").unwrap();
        assert!(!path.exists());
        drop(unfinished);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        make(&path).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn symbolic_links_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name| dir.path().join(name);
        fs::create_dir(at("elsewhere")).unwrap();
        fs::write(at("elsewhere/old"), "old").unwrap();
        for (link, to) in [
            ("a", "elsewhere/old"),
            ("b", "elsewhere/absent"),
            ("c", "b"),
        ] {
            symlink(to, at(link)).unwrap();
            make(&at(link)).unwrap();
            assert!(
                fs::symlink_metadata(at(link)).unwrap().is_symlink(),
                "{link}"
            );
            assert_eq!(fs::read(at(link)).unwrap(), b"new", "{link}");
        }
        assert!(
            !fs::symlink_metadata(at("elsewhere/absent"))
                .unwrap()
                .is_symlink()
        );
        symlink("loop", at("loop")).unwrap();
        assert!(
            make(&at("loop"))
                .unwrap_err()
                .contains("too many levels of symbolic links")
        );
    }

    #[test]
    fn special_files_are_written_directly_or_rejected() {
        // A pseudoterminal is a device that the test cannot replace by mistake, even as root: files
        // cannot be renamed onto it.
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY;
        let mut terminal = File::from(openpt(flags).unwrap());
        grantpt(&terminal).unwrap();
        unlockpt(&terminal).unwrap();
        let line = ptsname(&terminal, Vec::new()).unwrap();
        make(Path::new(line.to_str().unwrap())).unwrap();
        let mut shown = [0; 3];
        terminal.read_exact(&mut shown).unwrap();
        assert_eq!(&shown, b"new");

        let dir = tempfile::tempdir().unwrap();
        let refused = format!("{} is a directory, not a file", dir.path().display());
        assert_eq!(make(dir.path()), Err(refused));
        let socket = dir.path().join("s");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let refused = format!("{} is a socket, not a file", socket.display());
        assert_eq!(make(&socket), Err(refused));

        let fifo = dir.path().join("p");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, mode).unwrap();
        std::thread::scope(|scope| {
            let reader = scope.spawn(|| fs::read(&fifo));
            make(&fifo).unwrap();
            assert_eq!(reader.join().unwrap().unwrap(), b"new");
        });
        assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
    }
}
