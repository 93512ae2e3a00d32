//! The keys of an answer.
//!
//! What is in memory is shared with the keyspace. Values that are not, an answer may ask for without
//! end: only few of them are read when it is made. The others are read one by one when it is
//! encoded, from the state of the database that was pinned for it.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use retcd_proto::mvccpb::KeyValue;

use super::record::Attributes;
use super::values::{Lookup, Pinned};
use super::{Record, StorageError};

/// Keys with what they held, in the order of the answer.
#[derive(Clone, Default)]
pub struct Kvs {
    /// Those whose values are to be read have only their attributes here.
    records: Vec<Record>,
    /// Where values are read from; `None` if all are here.
    values: Option<Arc<Pinned>>,
}

impl Kvs {
    /// Keys of which some have only their attributes; the values of these are in `values`, or never
    /// asked for.
    pub(super) fn new(records: Vec<Record>, values: Option<Arc<Pinned>>) -> Kvs {
        Kvs { records, values }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Whether all values are in memory; if not, [`Kvs::iter`] may have to wait for a disk.
    pub fn is_in_memory(&self) -> bool {
        self.values.is_none()
    }

    /// What there is to know of each without its value.
    pub fn attributes(&self) -> impl ExactSizeIterator<Item = &Attributes> {
        self.records.iter().map(|record| &**record)
    }

    /// The same of the key at place `at`, of which there is one.
    pub fn attributes_of(&self, at: usize) -> &Attributes {
        &self.records[at]
    }

    /// The first one, decoded, for those who are not in a hurry.
    ///
    /// # Errors
    /// The value is not in memory, and the database cannot be read.
    pub fn first(&self) -> Result<Option<KeyValue>, StorageError> {
        let first = self.iter().next().transpose()?;
        Ok(first.map(|record| record.to_key_value()))
    }

    /// All of them with their values, one after the other.
    ///
    /// # Errors
    /// As [`Kvs::first`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<Cow<'_, Record>, StorageError>> {
        self.within(0..self.len())
    }

    /// The same of those at `places`, of which there is one each.
    ///
    /// # Errors
    /// As [`Kvs::first`].
    pub fn within(
        &self,
        places: Range<usize>,
    ) -> impl ExactSizeIterator<Item = Result<Cow<'_, Record>, StorageError>> {
        let mut lookup = self.values.as_deref().map(Pinned::lookup);
        let records = self.records[places].iter();
        records.map(move |record| match &mut lookup {
            None => Ok(Cow::Borrowed(record)),
            Some(lookup) => whole(record, lookup),
        })
    }

    /// Length in bytes of each as a message, value included if the request asks for it.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> {
        let reads = self.values.is_some();
        self.records.iter().map(move |record| match reads {
            true => record.record_len(),
            false => record.own_len(),
        })
    }

    /// Takes the first `len` out.
    pub(super) fn take_first(&mut self, len: usize) -> Kvs {
        Kvs {
            records: self.records.drain(..len).collect(),
            values: self.values.clone(),
        }
    }
}

/// A record, which may have to be looked up by its attributes.
fn whole<'a>(record: &'a Record, lookup: &mut Lookup<'_>) -> Result<Cow<'a, Record>, StorageError> {
    let Some(place) = record.place() else {
        return Ok(Cow::Borrowed(record));
    };
    let whole = lookup.record(record.key(), place.revision)?;
    // The answer was measured with its length.
    match whole.own_len() == place.len {
        true => Ok(Cow::Owned(whole)),
        false => Err(StorageError::Misplaced(place.revision)),
    }
}

impl From<Vec<Record>> for Kvs {
    fn from(records: Vec<Record>) -> Kvs {
        Kvs::new(records, None)
    }
}

/// Wherever the values are.
impl PartialEq for Kvs {
    fn eq(&self, other: &Kvs) -> bool {
        let mut pairs = self.iter().zip(other.iter());
        self.len() == other.len() && pairs.all(|pair| matches!(pair, (Ok(a), Ok(b)) if a == b))
    }
}

impl Eq for Kvs {}

impl fmt::Debug for Kvs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

#[cfg(test)]
mod tests {
    use retcd_proto::etcdserverpb::RangeRequest;
    use retcd_storage::backend::{Backend, WriteBatch};

    use super::*;
    use crate::Jobs;
    use crate::mvcc::snapshot::Found;
    use crate::mvcc::values::Values;
    use crate::mvcc::{Fields, Interval, Keyspace, Loaded};

    const KEYS: usize = 40;
    const VALUE_BYTES: usize = 100_000;

    /// A keyspace that keeps no value in memory, and its backend.
    struct Store {
        keyspace: Keyspace,
        backend: Backend,
        entries: u64,
    }

    impl Store {
        fn new() -> Store {
            let backend = Backend::default();
            let loaded = Loaded::read(&backend.reader(), 0, Jobs::default()).unwrap();
            Store {
                keyspace: Keyspace::new(backend.clone(), loaded, 0),
                backend,
                entries: 0,
            }
        }

        fn change<T>(&mut self, change: impl FnOnce(&mut Keyspace, &mut WriteBatch) -> T) -> T {
            let mut batch = WriteBatch::default();
            let changed = change(&mut self.keyspace, &mut batch);
            self.backend.write(batch);
            self.entries += 1;
            self.keyspace.publish(self.entries);
            changed
        }

        fn put_all(&mut self, value: u8) {
            self.change(|keyspace, batch| {
                let mut changes = keyspace.begin(batch);
                for key in 0..KEYS {
                    let key = format!("k{key:02}");
                    changes.put(key.as_bytes(), &[value; VALUE_BYTES], 0);
                }
                changes.finish();
            });
        }

        fn all(&self, revision: i64) -> Kvs {
            let request = RangeRequest {
                key: "k".into(),
                range_end: "l".into(),
                revision,
                ..RangeRequest::default()
            };
            self.keyspace.reader().range(&request).unwrap().kvs
        }
    }

    #[track_caller]
    fn assert_hold(kvs: &Kvs, value: u8) {
        assert_eq!(kvs.len(), KEYS);
        let held = kvs.records.iter().map(|record| record.own_len());
        let held: usize = held.sum();
        assert!(held < 2 << 20, "{held} bytes are in memory");
        assert!(!kvs.is_in_memory());
        for ((record, len), kv) in kvs.iter().zip(kvs.lengths()).zip(kvs.attributes()) {
            let record = record.unwrap();
            assert_eq!(record.value(), [value; VALUE_BYTES]);
            assert_eq!(record.as_bytes().len(), len);
            assert_eq!(record.key(), kv.key());
        }
    }

    /// An answer is of one moment, and is longer than memory may be: what it shows is read when it
    /// is encoded, whatever has become of it in the keyspace by then.
    #[test]
    fn an_answer_leaves_values_in_the_database_that_are_not_in_memory() {
        let mut store = Store::new();
        store.put_all(b'1');
        let (first, at) = (store.all(0), store.keyspace.revision());
        store.put_all(b'2');
        let past = store.all(at);
        let deleted = store.change(|keyspace, batch| {
            let mut changes = keyspace.begin(batch);
            let mut found = Found::default();
            let deleted = changes.delete_range(Interval::new(b"k", b"l"));
            deleted.into_iter().for_each(|prev| found.push(prev));
            let kvs = changes.kvs(found);
            changes.finish();
            kvs
        });
        let revision = store.keyspace.revision();
        store.change(|keyspace, batch| keyspace.compact(revision, batch).map(drop).unwrap());
        while store.keyspace.is_compacting() {
            store.keyspace.compaction_step(10).unwrap();
        }
        assert!(store.all(0).is_empty());
        assert_hold(&first, b'1');
        assert_hold(&past, b'1');
        assert_hold(&deleted, b'2');
    }

    /// Else a message would not have the length that was announced.
    #[test]
    fn a_record_that_is_not_the_one_that_was_measured_is_refused() {
        let mut store = Store::new();
        store.put_all(b'1');
        let values = Values::Newest(&store.keyspace.shared).pin();
        let all = store.all(0);
        let records = all.iter().flatten().map(Cow::into_owned);
        let stub = |(sub, record): (i64, Record)| match sub {
            0 => record.without_value(sub).as_record(),
            _ => Record::encode(Fields {
                key: record.key(),
                create_revision: record.create_revision(),
                mod_revision: record.mod_revision(),
                version: 1,
                value: b"another",
                lease: 0,
            })
            .without_value(sub)
            .as_record(),
        };
        let records: Vec<Record> = (0..).zip(records).map(stub).collect();
        let kvs = Kvs::new(records, Some(Arc::new(values)));
        let get = |at: usize| {
            kvs.within(at..at + 1)
                .next()
                .expect("there is one")
                .map(drop)
        };
        assert!(get(0).is_ok());
        let refused = get(1);
        assert!(matches!(refused, Err(StorageError::Misplaced(at)) if at.sub == 1));
    }
}
