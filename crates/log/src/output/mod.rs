//! Where lines go.
//!
//! A file is appended to; each line is one `write`, so that several processes may share it, unless
//! it is rotated. `/dev/null` among the outputs discards everything, as in etcd.

mod journal;
mod rotate;

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::RwLock;

pub use rotate::Rotation;

use crate::Record;
use journal::Journal;
use rotate::RotatedFile;

/// One target of `--log-outputs`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Standard error; also called `default`.
    Stderr,
    /// Standard output.
    Stdout,
    /// systemd's journal.
    Journal,
    /// A file, created when absent.
    File(PathBuf),
}

/// An output of `--log-outputs` that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file.
    #[error("open sink {path:?}: open {}: {}", path.display(), go_io_error(source))]
    File {
        /// Where it should be.
        path: PathBuf,
        /// Why it is not.
        source: io::Error,
    },
    /// There is no journal.
    #[error("can't find journal (dial unixgram {}: connect: {})", journal::SOCKET, go_io_error(.0))]
    Journal(io::Error),
}

pub(super) enum Sink {
    Stderr,
    Stdout,
    Journal(Journal),
    File(PathBuf, RwLock<File>),
    RotatedFile(RotatedFile),
}

/// Opens each output once.
pub(super) fn open(
    outputs: &[Output],
    rotation: Option<&Rotation>,
) -> Result<Vec<Sink>, OpenError> {
    if outputs.contains(&Output::File("/dev/null".into())) {
        return Ok(Vec::new());
    }
    let mut outputs = outputs.to_vec();
    outputs.sort();
    outputs.dedup();
    let open = |output| Sink::open(output, rotation);
    outputs.into_iter().map(open).collect()
}

impl Sink {
    fn open(output: Output, rotation: Option<&Rotation>) -> Result<Sink, OpenError> {
        let path = match output {
            Output::Stderr => return Ok(Sink::Stderr),
            Output::Stdout => return Ok(Sink::Stdout),
            Output::Journal => {
                let journal = Journal::open(Path::new(journal::SOCKET));
                return journal.map(Sink::Journal).map_err(OpenError::Journal);
            }
            Output::File(path) => path,
        };
        let opened = match rotation {
            Some(rotation) => RotatedFile::open(&path, rotation).map(Sink::RotatedFile),
            None => append(&path).map(|file| Sink::File(path.clone(), RwLock::new(file))),
        };
        opened.map_err(|source| OpenError::File { path, source })
    }

    pub(super) fn is_file(&self) -> bool {
        matches!(self, Sink::File(..) | Sink::RotatedFile(_))
    }

    /// Opens a file anew, whose name may stand for another one by now.
    pub(super) fn reopen(&self) -> io::Result<()> {
        match self {
            Sink::File(path, file) => {
                let opened = append(path)?;
                *file.write() = opened;
                Ok(())
            }
            Sink::RotatedFile(file) => file.reopen(),
            Sink::Stderr | Sink::Stdout | Sink::Journal(_) => Ok(()),
        }
    }

    /// Whether who has started the process sees what is written.
    pub(super) fn is_seen(&self) -> bool {
        matches!(self, Sink::Stderr | Sink::Stdout)
    }

    /// Writes `record`, which is laid out as `line`.
    pub(super) fn write(&self, record: &Record, line: &[u8]) {
        // A log that cannot be written has nobody to tell.
        let _ = match self {
            Sink::Stderr => io::stderr().lock().write_all(line),
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line).and_then(|()| out.flush())
            }
            Sink::Journal(journal) => match journal.write(record, line) {
                Ok(()) => Ok(()),
                Err(_) => io::stderr().lock().write_all(line),
            },
            Sink::File(_, file) => (&*file.read()).write_all(line),
            Sink::RotatedFile(file) => file.write(line),
        };
    }
}

/// The text that Go has for an error of the operating system: without number and capital letter.
/// Other errors keep theirs.
pub fn go_io_error(error: &io::Error) -> String {
    if error.raw_os_error().is_none() {
        return error.to_string();
    }
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

fn append(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Level;

    fn record() -> Record {
        Record::new(Level::Info, None, ("log/src/lib.rs", 1), "new")
    }

    #[test]
    fn a_file_is_appended_to_and_opened_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("etcd.log");
        std::fs::write(&path, "old\n").expect("writable");
        let outputs = [Output::File(path.clone()), Output::File(path.clone())];
        let sinks = open(&outputs, None).expect("opens");
        for sink in &sinks {
            sink.write(&record(), b"new\n");
        }
        assert_eq!(
            std::fs::read_to_string(&path).expect("readable"),
            "old\nnew\n"
        );
    }

    #[test]
    fn dev_null_discards_the_others() {
        assert!(
            open(&[Output::Stderr, Output::File("/dev/null".into())], None)
                .expect("opens")
                .is_empty()
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let refused = open(&[Output::File("/nonexist/x.log".into())], None)
            .err()
            .expect("there is no such directory");
        assert_eq!(
            refused.to_string(),
            "open sink \"/nonexist/x.log\": open /nonexist/x.log: no such file or directory"
        );
    }

    #[test]
    fn a_file_that_was_moved_away_is_opened_anew() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("etcd.log");
        let sinks = open(&[Output::File(path.clone())], None).expect("opens");
        sinks[0].write(&record(), b"before\n");
        std::fs::rename(&path, dir.path().join("etcd.log.1")).expect("renames");
        sinks[0].write(&record(), b"still there\n");
        sinks[0].reopen().expect("opens");
        sinks[0].write(&record(), b"after\n");
        assert_eq!(std::fs::read_to_string(&path).expect("readable"), "after\n");
    }
}
