//! etcd's buckets.
//!
//! A write is visible to readers as soon as [`Backend::write`] returns and durable after the next
//! [`Backend::commit`]; the write-ahead log is what makes it safe in between.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

/// A stored value, shared by everyone who holds it.
pub type Value = Arc<[u8]>;

/// A bucket of etcd's database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Bucket {
    /// Active alarms.
    Alarm,
    /// Whether authentication is on, and its revision.
    Auth,
    /// Roles by name.
    AuthRoles,
    /// Users by name.
    AuthUsers,
    /// The cluster's version and downgrade job.
    Cluster,
    /// Revisions of keys.
    Key,
    /// Leases by id.
    Lease,
    /// Members by id.
    Members,
    /// Ids of removed members.
    MembersRemoved,
    /// Applied index, term, compaction, schema version.
    Meta,
}

impl Bucket {
    /// All buckets in the order of their names, which is the order in the file.
    pub const ALL: [Bucket; 10] = [
        Bucket::Alarm,
        Bucket::Auth,
        Bucket::AuthRoles,
        Bucket::AuthUsers,
        Bucket::Cluster,
        Bucket::Key,
        Bucket::Lease,
        Bucket::Members,
        Bucket::MembersRemoved,
        Bucket::Meta,
    ];

    /// The bucket's name in the file.
    pub fn name(self) -> &'static [u8] {
        match self {
            Bucket::Alarm => b"alarm",
            Bucket::Auth => b"auth",
            Bucket::AuthRoles => b"authRoles",
            Bucket::AuthUsers => b"authUsers",
            Bucket::Cluster => b"cluster",
            Bucket::Key => b"key",
            Bucket::Lease => b"lease",
            Bucket::Members => b"members",
            Bucket::MembersRemoved => b"members_removed",
            Bucket::Meta => b"meta",
        }
    }
}

/// Changes that become visible, and later durable, together.
#[derive(Debug, Default)]
pub struct WriteBatch {
    changes: Vec<(Bucket, Box<[u8]>, Option<Value>)>,
}

impl WriteBatch {
    /// Sets `key` in `bucket`.
    pub fn put(&mut self, bucket: Bucket, key: &[u8], value: Value) {
        self.changes.push((bucket, key.into(), Some(value)));
    }

    /// Deletes `key` from `bucket`; an absent key is not an error.
    pub fn delete(&mut self, bucket: Bucket, key: &[u8]) {
        self.changes.push((bucket, key.into(), None));
    }

    /// Whether nothing is to be written.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// What can go wrong below the buckets.
#[derive(Debug, thiserror::Error)]
pub enum BackendError {
    /// The disk failed.
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

type Buckets = BTreeMap<(Bucket, Box<[u8]>), Value>;

/// A handle on the database; clones share it.
#[derive(Clone, Default)]
pub struct Backend {
    shared: Arc<RwLock<Arc<Buckets>>>,
}

impl Backend {
    /// Makes `batch` visible to every reader that is opened from now on.
    pub fn write(&self, batch: WriteBatch) {
        let mut shared = self.shared.write();
        let buckets = Arc::make_mut(&mut shared);
        for (bucket, key, value) in batch.changes {
            match value {
                Some(value) => buckets.insert((bucket, key), value),
                None => buckets.remove(&(bucket, key)),
            };
        }
    }

    /// A consistent view of everything written so far; later writes do not show in it.
    pub fn reader(&self) -> Reader {
        Reader {
            buckets: Arc::clone(&self.shared.read()),
        }
    }
}

/// A consistent view of the database at the time of [`Backend::reader`].
#[derive(Clone)]
pub struct Reader {
    buckets: Arc<Buckets>,
}

impl Reader {
    /// The value of `key`, if there is one.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Value>, BackendError> {
        Ok(self.buckets.get(&(bucket, Box::from(key))).cloned())
    }

    /// The pairs of `bucket` with `start <= key` and, if given, `key < end`, in the order of their keys.
    pub fn range(
        &self,
        bucket: Bucket,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> impl Iterator<Item = Result<(Box<[u8]>, Value), BackendError>> + use<'_> {
        let end: Option<Box<[u8]>> = end.map(Box::from);
        self.buckets
            .range((bucket, Box::from(start))..)
            .take_while(move |((b, key), _)| {
                *b == bucket && end.as_ref().is_none_or(|end| key < end)
            })
            .map(|((_, key), value)| Ok((key.clone(), Arc::clone(value))))
    }
}
