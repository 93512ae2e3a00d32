//! The database as a file, as clients take it for a backup: piece by piece, then its SHA-256.

use std::io::Read;

use bytes::Bytes;
use retcd_state::mvcc::StorageError;
use retcd_state::version::{self, Version};
use retcd_storage::backend::{Backend, BackendError};
use retcd_storage::bolt::FileCopy;
use sha2::{Digest, Sha256};

use crate::Error;
use crate::workers::Workers;

/// A copy of the database's file as of one moment.
///
/// While it is open, no page that it shows is written again, so that the file grows.
pub struct DatabaseStream {
    workers: Workers,
    /// `None` behind the end, or when a read has failed.
    open: Option<Open>,
    version: Option<Version>,
}

struct Open {
    file: FileCopy,
    digest: Sha256,
}

/// A piece of a [`DatabaseStream`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DatabasePiece {
    /// Bytes of the file, with how many are left behind them.
    File {
        /// The bytes.
        chunk: Bytes,
        /// Bytes of the file that are left.
        remaining_bytes: u64,
    },
    /// The SHA-256 of the file: the last piece.
    Digest(Bytes),
}

impl DatabaseStream {
    pub(crate) async fn open(
        workers: &Workers,
        backend: &Backend,
    ) -> Result<DatabaseStream, Error> {
        let backend = backend.clone();
        let open = move || {
            let reader = backend.committed_reader()?;
            let file = reader.committed().clone().copy();
            // Some databases tell no version, or one that is not known.
            Ok::<_, BackendError>((file, version::detect(&reader).ok().flatten()))
        };
        let (file, version) = workers.run(open).await?.map_err(StorageError::from)?;
        let digest = Sha256::new();
        Ok(DatabaseStream {
            workers: workers.clone(),
            open: Some(Open { file, digest }),
            version,
        })
    }

    /// The version of the database's schema, if it is known.
    pub fn version(&self) -> Option<Version> {
        self.version
    }

    /// The next pieces: chunks of `chunk_bytes` until there are `bytes` of them, read by the
    /// workers in one turn, or the last one. Nothing behind that.
    ///
    /// # Errors
    /// The database cannot be read; the member stops.
    pub async fn next(
        &mut self,
        bytes: usize,
        chunk_bytes: usize,
    ) -> Result<Vec<DatabasePiece>, Error> {
        let Some(mut open) = self.open.take() else {
            return Ok(Vec::new());
        };
        if open.file.remaining_bytes() == 0 {
            let digest = open.digest.finalize();
            return Ok(vec![DatabasePiece::Digest(Bytes::copy_from_slice(&digest))]);
        }
        let read = move || {
            let pieces = open.read(bytes, chunk_bytes);
            (open, pieces)
        };
        let (open, pieces) = self.workers.run(read).await?;
        let pieces = pieces.map_err(StorageError::from)?;
        self.open = Some(open);
        Ok(pieces)
    }
}

impl Open {
    fn read(
        &mut self,
        bytes: usize,
        chunk_bytes: usize,
    ) -> Result<Vec<DatabasePiece>, BackendError> {
        let mut pieces = Vec::with_capacity(bytes.div_ceil(chunk_bytes));
        let mut read = 0;
        while read < bytes && self.file.remaining_bytes() > 0 {
            let left = usize::try_from(self.file.remaining_bytes()).unwrap_or(usize::MAX);
            let mut chunk = vec![0; left.min(chunk_bytes)];
            self.file.read_exact(&mut chunk)?;
            self.digest.update(&chunk);
            read += chunk.len();
            pieces.push(DatabasePiece::File {
                chunk: chunk.into(),
                remaining_bytes: self.file.remaining_bytes(),
            });
        }
        Ok(pieces)
    }
}
