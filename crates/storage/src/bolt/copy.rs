//! A consistent copy of the file, as a stream of bytes.
//!
//! The copy has meta pages of its own, as Go's `Tx.WriteTo` writes them: page 0 with the
//! transaction, page 1 with the one before, both with the same root. What follows are the file's
//! pages as they are. Those that are free may change while they are copied or lie behind a cut of
//! the file; their content means nothing.

use std::io::{self, Read};

use super::meta::{Meta, NO_FREELIST};
use super::root::ReadTx;

/// The file with the state of one read transaction, which stays open until the copy is dropped.
pub struct FileCopy {
    tx: ReadTx,
    /// Both meta pages.
    head: Vec<u8>,
    position: u64,
}

impl FileCopy {
    pub(crate) fn new(tx: ReadTx) -> FileCopy {
        let page_size = tx.page_size();
        let mut head = vec![0; page_size * 2];
        let meta = Meta {
            freelist: NO_FREELIST,
            ..tx.root.meta
        };
        meta.write(&mut head, 0);
        // A file that never saw a commit has no earlier transaction to name.
        Meta {
            txid: meta.txid.saturating_sub(1),
            ..meta
        }
        .write(&mut head[page_size..], 1);
        FileCopy {
            tx,
            head,
            position: 0,
        }
    }

    /// Bytes of the whole copy.
    pub fn len(&self) -> u64 {
        self.tx.size_bytes()
    }

    /// Whether the copy has no bytes, which is never the case.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes that are still to be read.
    pub fn remaining_bytes(&self) -> u64 {
        self.len() - self.position
    }
}

impl Read for FileCopy {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let len = (buf.len() as u64).min(self.remaining_bytes()) as usize;
        let head = self.head.get(self.position as usize..).unwrap_or_default();
        let done = match head.is_empty() {
            false => {
                let len = len.min(head.len());
                buf[..len].copy_from_slice(&head[..len]);
                len
            }
            true => {
                let found = self
                    .tx
                    .root
                    .pager
                    .file()
                    .read_at(&mut buf[..len], self.position)?;
                buf[found..len].fill(0);
                len
            }
        };
        self.position += done as u64;
        let (position, len) = (self.position, self.len());
        assert!(position <= len, "{position} bytes of {len} were copied");
        Ok(done)
    }
}
