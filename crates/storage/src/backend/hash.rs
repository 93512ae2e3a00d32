//! The hash of a whole database, made in pieces, so that whoever makes it is not busy for as long
//! as all of it takes.

use super::{BackendError, Bucket, Reader};

/// Bytes that are hashed in one piece: some milliseconds of work.
const PIECE_BYTES: usize = 1 << 20;

/// [`Reader::hash`] in the making.
pub struct HashInPieces {
    reader: Reader,
    skip_meta: bool,
    buckets: Vec<Box<[u8]>>,
    /// The number of the bucket at which it is.
    bucket: usize,
    /// The key from which it goes on in that bucket; empty for one that was not begun.
    next: Vec<u8>,
    hash: u32,
}

impl HashInPieces {
    /// A hash of what `reader` shows; see [`Reader::hash`].
    pub fn new(reader: Reader, skip_meta: bool) -> HashInPieces {
        let buckets = reader.committed().buckets().map(Into::into).collect();
        HashInPieces {
            reader,
            skip_meta,
            buckets,
            bucket: 0,
            next: Vec::new(),
            hash: 0,
        }
    }

    /// Does a piece; the hash when that was the last one.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn step(&mut self) -> Option<Result<u32, BackendError>> {
        let Some(name) = self.buckets.get(self.bucket) else {
            return Some(Ok(self.hash));
        };
        if self.next.is_empty() {
            self.hash = crc32c::crc32c_append(self.hash, name);
        }
        let ended = match Bucket::from_name(name) {
            Some(bucket) => self.step_known(bucket),
            None => self.step_unknown(),
        };
        match ended {
            Ok(true) => {
                self.bucket += 1;
                self.next.clear();
                None
            }
            Ok(false) => None,
            Err(error) => Some(Err(error)),
        }
    }

    /// Whether the bucket has come to its end.
    fn step_known(&mut self, bucket: Bucket) -> Result<bool, BackendError> {
        let mut piece = Piece::new(self.hash);
        for row in self.reader.rows(bucket, &self.next, None) {
            let row = row?;
            let (key, value) = (row.key(), row.value());
            let skip = self.skip_meta && bucket == Bucket::Meta && is_of_the_member(key);
            if !skip && piece.add(key, value) {
                self.next = behind(key);
                self.hash = piece.hash;
                return Ok(false);
            }
        }
        self.hash = piece.hash;
        Ok(true)
    }

    /// A bucket that this version does not know counts as well.
    fn step_unknown(&mut self) -> Result<bool, BackendError> {
        let mut piece = Piece::new(self.hash);
        let name = &self.buckets[self.bucket];
        for entry in self.reader.committed().range(name, &self.next, None) {
            let entry = entry?;
            if piece.add(entry.key(), entry.value()) {
                self.next = behind(entry.key());
                self.hash = piece.hash;
                return Ok(false);
            }
        }
        self.hash = piece.hash;
        Ok(true)
    }
}

struct Piece {
    hash: u32,
    bytes: usize,
}

impl Piece {
    fn new(hash: u32) -> Piece {
        Piece { hash, bytes: 0 }
    }

    /// Whether that is enough for one piece.
    fn add(&mut self, key: &[u8], value: &[u8]) -> bool {
        self.hash = crc32c::crc32c_append(crc32c::crc32c_append(self.hash, key), value);
        self.bytes += key.len() + value.len();
        self.bytes >= PIECE_BYTES
    }
}

/// The smallest key behind `key`.
fn behind(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// Keys of bucket `meta` that members with the same data may have different values for.
fn is_of_the_member(key: &[u8]) -> bool {
    matches!(key, b"consistent_index" | b"term" | b"storageVersion")
}
