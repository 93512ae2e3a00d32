//! Where lines go.
//!
//! A file is appended to; each line is one `write`, so that several processes may share it.
//! `/dev/null` among the outputs discards everything, as in etcd.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// One target of `--log-outputs`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Output {
    /// Standard error; also called `default`.
    Stderr,
    /// Standard output.
    Stdout,
    /// A file, created when absent.
    File(PathBuf),
}

/// A file of `--log-outputs` that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("open sink {path:?}: open {}: {}", path.display(), go_io_error(source))]
pub struct OpenError {
    path: PathBuf,
    source: io::Error,
}

pub(super) enum Sink {
    Stderr,
    Stdout,
    File(File),
}

/// Opens each output once.
pub(super) fn open(outputs: &[Output]) -> Result<Vec<Sink>, OpenError> {
    if outputs.contains(&Output::File("/dev/null".into())) {
        return Ok(Vec::new());
    }
    let mut outputs = outputs.to_vec();
    outputs.sort();
    outputs.dedup();
    outputs.into_iter().map(Sink::open).collect()
}

impl Sink {
    fn open(output: Output) -> Result<Sink, OpenError> {
        Ok(match output {
            Output::Stderr => Sink::Stderr,
            Output::Stdout => Sink::Stdout,
            Output::File(path) => match append(&path) {
                Ok(file) => Sink::File(file),
                Err(source) => return Err(OpenError { path, source }),
            },
        })
    }

    /// Whether who has started the process sees what is written.
    pub(super) fn is_seen(&self) -> bool {
        matches!(self, Sink::Stderr | Sink::Stdout)
    }

    pub(super) fn write(&self, line: &[u8]) {
        // A log that cannot be written has nobody to tell.
        let _ = match self {
            Sink::Stderr => io::stderr().lock().write_all(line),
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(line).and_then(|()| out.flush())
            }
            Sink::File(file) => (&mut &*file).write_all(line),
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

    #[test]
    fn a_file_is_appended_to_and_opened_once() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("etcd.log");
        std::fs::write(&path, "old\n").expect("writable");
        let sinks = open(&[Output::File(path.clone()), Output::File(path.clone())]).expect("opens");
        for sink in &sinks {
            sink.write(b"new\n");
        }
        assert_eq!(
            std::fs::read_to_string(&path).expect("readable"),
            "old\nnew\n"
        );
    }

    #[test]
    fn dev_null_discards_the_others() {
        assert!(
            open(&[Output::Stderr, Output::File("/dev/null".into())])
                .expect("opens")
                .is_empty()
        );
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let refused = open(&[Output::File("/nonexist/x.log".into())])
            .err()
            .expect("there is no such directory");
        assert_eq!(
            refused.to_string(),
            "open sink \"/nonexist/x.log\": open /nonexist/x.log: no such file or directory"
        );
    }
}
