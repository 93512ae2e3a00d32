//! The keys of an answer.
//!
//! What is in memory is shared with the keyspace. Values that are not, an answer may ask for without
//! end: only few of them are read when it is made. The others are read one by one when it is
//! encoded, from the state of the database that was pinned for it.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use retcd_proto::mvccpb::KeyValue;
use retcd_storage::backend;

use super::record::Attributes;
use super::snapshot::record_of;
use super::{Record, StorageError};

/// Keys with what they held, in the order of the answer.
#[derive(Clone, Default)]
pub struct Kvs {
    /// Those whose values are to be read have only their attributes here.
    records: Vec<Record>,
    /// Where values are read from; `None` if all are here.
    values: Option<Arc<backend::Reader>>,
}

impl Kvs {
    /// Keys of which some have only their attributes; the values of these are in `values`, or never
    /// asked for.
    pub(super) fn new(records: Vec<Record>, values: Option<Arc<backend::Reader>>) -> Kvs {
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

    /// Whether all values are in memory; if not, [`Kvs::get`] may have to wait for a disk.
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

    /// The key at place `at`, of which there is one, with its value.
    ///
    /// # Errors
    /// The value is not in memory, and the database cannot be read.
    pub fn get(&self, at: usize) -> Result<Cow<'_, Record>, StorageError> {
        self.whole(&self.records[at])
    }

    /// The first one, decoded, for those who are not in a hurry.
    ///
    /// # Errors
    /// As [`Kvs::get`].
    pub fn first(&self) -> Result<Option<KeyValue>, StorageError> {
        let first = self.iter().next().transpose()?;
        Ok(first.map(|record| record.to_key_value()))
    }

    /// All of them, one after the other.
    ///
    /// # Errors
    /// As [`Kvs::get`].
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Result<Cow<'_, Record>, StorageError>> {
        self.records.iter().map(|record| self.whole(record))
    }

    fn whole<'a>(&'a self, record: &'a Record) -> Result<Cow<'a, Record>, StorageError> {
        match &self.values {
            None => Ok(Cow::Borrowed(record)),
            Some(values) => match record.stored() {
                None => Ok(Cow::Borrowed(record)),
                Some(stored) => record_of(values, stored.revision).map(Cow::Owned),
            },
        }
    }

    /// Length in bytes of each as a message, value included if the request asks for it.
    pub fn lengths(&self) -> impl ExactSizeIterator<Item = usize> {
        let reads = self.values.is_some();
        self.records.iter().map(move |record| match reads {
            true => record.record_len(),
            false => record.own_len(),
        })
    }

    /// Keeps those that `keep` is true of.
    pub(super) fn retain(&mut self, mut keep: impl FnMut(&Attributes) -> bool) {
        self.records.retain(|record| keep(record));
    }

    /// The records, some of which may have only their attributes, to be put in order.
    pub(super) fn records_mut(&mut self) -> &mut [Record] {
        &mut self.records
    }

    /// Cuts off what is behind the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.records.truncate(len);
    }

    /// Takes the first `len` out.
    pub(super) fn take_first(&mut self, len: usize) -> Kvs {
        Kvs {
            records: self.records.drain(..len).collect(),
            values: self.values.clone(),
        }
    }
}

impl From<Vec<Record>> for Kvs {
    fn from(records: Vec<Record>) -> Kvs {
        Kvs::new(records, None)
    }
}

impl From<Option<Record>> for Kvs {
    fn from(record: Option<Record>) -> Kvs {
        Vec::from_iter(record).into()
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
