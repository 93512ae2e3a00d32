//! What can go wrong with a bolt file, and whose fault it is.

use std::io;

/// Why an operation on a bolt file failed.
#[derive(Debug, thiserror::Error)]
pub enum BoltError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// There is no room for the file to grow. Nothing has changed, and the commit can be tried
    /// again.
    #[error(transparent)]
    Full(io::Error),
    /// Another process has the file open. Waiting and trying again is the caller's choice.
    #[error("the database is locked by another process")]
    Locked,
    /// The file holds something that no writer of the format writes.
    #[error(transparent)]
    Damaged(#[from] Damage),
    /// An earlier commit failed, so that the file's durable state is unknown; only a restart helps.
    #[error("an earlier commit failed")]
    Poisoned,
    /// The file was opened to be read.
    #[error("the database was opened to be read")]
    ReadOnly,
    /// A key that the format cannot hold: empty or above 32768 bytes.
    #[error("a key of {len} bytes cannot be stored")]
    KeyLength {
        /// The key's length in bytes.
        len: usize,
    },
    /// A value that the format cannot hold: above 2^31 - 2 bytes.
    #[error("a value of {len} bytes cannot be stored")]
    ValueLength {
        /// The value's length in bytes.
        len: usize,
    },
}

/// A page that is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("page {page}: {reason}")]
pub struct Damage {
    /// The page's number; for what is wrong inside of an inline bucket, the page that holds it.
    pub page: u64,
    /// What is wrong with it.
    pub reason: Reason,
}

impl Damage {
    pub(crate) fn new(page: u64, reason: Reason) -> Damage {
        Damage { page, reason }
    }
}

/// What is wrong with a damaged page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// Neither of the two meta pages is valid.
    #[error("no valid meta page")]
    NoMeta,
    /// The meta page names a page size that is no power of two from 1 KiB to 16 MiB.
    #[error("page size {0}")]
    PageSize(u32),
    /// The file ends before the high-water mark.
    #[error("the file ends at byte {len}, but {need} are in use")]
    Truncated {
        /// Bytes that the meta page counts as used.
        need: u64,
        /// Bytes that the file has.
        len: u64,
    },
    /// A reference to a page outside of the used part of the file, or a node that reaches out of
    /// it.
    #[error("outside of the file's used part")]
    OutOfBounds,
    /// The page's header names another page.
    #[error("calls itself page {0}")]
    WrongId(u64),
    /// The page is neither a branch nor a leaf.
    #[error("unexpected flags {0:#x}")]
    Flags(u16),
    /// The page's elements do not fit into it.
    #[error("{0} elements do not fit")]
    Count(u16),
    /// A key or value lies outside of its page.
    #[error("element {0} reaches out of the page")]
    Element(usize),
    /// An element without a key.
    #[error("element {0} has an empty key")]
    EmptyKey(usize),
    /// A key that is not above the one before it.
    #[error("key {0} is out of order")]
    KeyOrder(usize),
    /// A key outside of the range that the pages above promise.
    #[error("key {0} is outside of its parent's range")]
    KeyRange(usize),
    /// A page without elements that is not the root of a bucket.
    #[error("no elements")]
    Empty,
    /// A tree of impossible height, as a cycle makes it.
    #[error("tree too deep")]
    TooDeep,
    /// Leaves at different depths.
    #[error("leaves at different depths")]
    Uneven,
    /// A page that is part of two nodes.
    #[error("referenced more than once")]
    ReferencedTwice,
    /// A bucket's header is cut short or does not hold what it should.
    #[error("bucket {0} has no valid header")]
    BucketHeader(usize),
    /// A plain value where only buckets are expected.
    #[error("element {0} is not a bucket")]
    NotABucket(usize),
    /// A bucket inside of a bucket, which etcd never writes and this engine does not support.
    #[error("element {0} is a nested bucket")]
    NestedBucket(usize),
}
