//! systemd's journal, in its native protocol: a datagram for each line.
//!
//! ```text
//! PRIORITY=6\n  PACKAGE=server\n  SYSLOG_IDENTIFIER=etcd\n
//! MESSAGE\n  length, 8 bytes, little endian  the line with its end  \n
//! ```

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};

use crate::{Level, Record};

/// Where the journal listens.
pub(super) const SOCKET: &str = "/run/systemd/journal/socket";

/// A way to the journal.
pub(crate) struct Journal {
    /// Not connected, so that lines arrive again once the journal was started anew; not blocking,
    /// since a journal that takes nothing must hold up nobody.
    socket: UnixDatagram,
    path: PathBuf,
    /// What the journal shows as the program.
    identifier: String,
}

impl Journal {
    /// Finds the journal at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Journal> {
        // Tells whether anybody listens there.
        UnixDatagram::unbound()?.connect(path)?;
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Journal {
            socket,
            path: path.to_owned(),
            identifier: program(),
        })
    }

    /// Sends a line; fails also if it is too large for a datagram, or if the journal does not keep
    /// up.
    pub(super) fn write(&self, record: &Record, line: &[u8]) -> io::Result<()> {
        let priority = priority(record.level());
        let (package, identifier) = (record.package(), &self.identifier);
        let mut datagram = format!(
            "PRIORITY={priority}\nPACKAGE={package}\nSYSLOG_IDENTIFIER={identifier}\nMESSAGE\n"
        )
        .into_bytes();
        datagram.extend_from_slice(&(line.len() as u64).to_le_bytes());
        datagram.extend_from_slice(line);
        datagram.push(b'\n');
        self.socket.send_to(&datagram, &self.path).map(drop)
    }
}

/// The name by which the process was started, without folders.
fn program() -> String {
    let path = std::env::args_os().next().unwrap_or_default();
    let name = Path::new(&path).file_name().unwrap_or_default();
    // A field ends with its line.
    name.to_string_lossy().replace('\n', " ")
}

/// syslog's.
fn priority(level: Level) -> u8 {
    match level {
        Level::Debug => 7,
        Level::Info => 6,
        Level::Warn => 4,
        Level::Error => 3,
        Level::DPanic | Level::Panic | Level::Fatal => 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning() -> Record {
        let source = ("crates/member/src/lease/mod.rs", 7);
        Record::new(Level::Warn, None, source, "x")
    }

    #[test]
    fn lines_arrive_after_the_journal_was_started_anew_and_wait_for_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        assert!(Journal::open(&path).is_err(), "nobody listens");
        let first = UnixDatagram::bind(&path).unwrap();
        let journal = Journal::open(&path).unwrap();
        drop(first);
        assert!(journal.write(&warning(), b"lost\n").is_err());
        std::fs::remove_file(&path).unwrap();
        let second = UnixDatagram::bind(&path).unwrap();
        journal.write(&warning(), b"arrives\n").unwrap();
        assert!(second.recv(&mut [0; 256]).unwrap() > 0);
        let full = (0..100_000).find_map(|_| journal.write(&warning(), b"unread\n").err());
        assert_eq!(full.unwrap().kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_line_is_a_datagram_in_the_journals_form() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let listening = UnixDatagram::bind(&path).unwrap();
        let mut journal = Journal::open(&path).unwrap();
        journal.identifier = "etcd".to_owned();
        journal.write(&warning(), b"{}\n").unwrap();
        let mut received = [0; 256];
        let len = listening.recv(&mut received).unwrap();
        let expected =
            b"PRIORITY=4\nPACKAGE=lease\nSYSLOG_IDENTIFIER=etcd\nMESSAGE\n\x03\0\0\0\0\0\0\0{}\n\n";
        assert_eq!(received[..len], expected[..]);
    }
}
