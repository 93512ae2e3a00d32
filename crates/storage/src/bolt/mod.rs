//! A storage engine for bbolt's file format.
//!
//! The file is a sequence of pages. Pages 0 and 1 are meta pages, of which the newer valid one
//! names the top of a B+ tree of buckets; each bucket is a B+ tree of keys and values, or, if it is
//! small, a single leaf inside of its element in the tree of buckets. Which pages are free is not
//! stored but found at open, as etcd has it.
//!
//! ```text
//! | meta 0 | meta 1 | page 2 | page 3 | ...                      | high-water mark ...
//!   └─ newest ─┘
//!        └──▶ tree of buckets ──▶ "key" ──▶ branch ──▶ leaf, leaf, leaf
//!                             └─▶ "meta" (inline: a leaf within the element)
//! ```
//!
//! The room, from the outside in:
//! - `db`: opening, creating, locking; [`Db`] joins one writer with any number of readers.
//! - `root`, `range`: a committed state, pinned by a [`ReadTx`]; looking up and walking.
//! - `writer`: a commit, from sorted changes to a durable meta page; `node` merges changes into
//!   trees, `split` decides on the size of nodes, `spill` encodes them, `space` gives them pages;
//!   `shrink` moves nodes to the front of a file that is mostly free.
//! - `check`, `walk`: every page, and every branch. `copy`: the file as a stream. `defrag`, `diff`:
//!   the file anew, while it is in use.
//! - `page`, `meta`: the bytes. `pager`: pages of a file, cached; `headers`: only what they begin with.
//!
//! Invariants: no page that a root leads to is written while the root is pinned or the newest on
//! disk; a failed commit is the last one; what is read from the file is checked before it is relied
//! upon and gives a [`Damage`], never a panic.
//!
//! Deliberately absent: mmap; buckets within buckets and deleting a bucket, which etcd does not do;
//! write transactions that read their own writes; storing the freelist (one that is stored is
//! ignored, then dropped).

mod bitmap;
mod check;
mod copy;
mod db;
mod defrag;
mod diff;
mod error;
mod headers;
mod meta;
mod node;
mod page;
mod pager;
mod range;
mod root;
mod shrink;
mod space;
mod spill;
mod split;
mod walk;
mod writer;

pub use copy::FileCopy;
pub use db::{Access, Db, Options};
pub use defrag::DefragStats;
pub use error::{BoltError, Damage, Reason};
pub use node::Change;
pub use range::{Cached, Entry, Lookup, Range};
pub use root::ReadTx;
pub(crate) use writer::KEY_BYTES_MAX;
pub use writer::{CommitStats, Run};
