//! Records that are not in memory: where they are read from, and how they come back.

use std::sync::Arc;

use retcd_proto::etcdserverpb::RangeRequest;
use retcd_storage::backend::{self, Bucket, Cached, Value};

use super::keyspace::Shared;
use super::{Record, Revision, StorageError};

/// How somebody asked for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    /// By its key.
    Get,
    /// Among others.
    List,
}

impl Asked {
    /// How `request` does.
    pub(super) fn by(request: &RangeRequest) -> Asked {
        match request.range_end.is_empty() {
            true => Asked::Get,
            false => Asked::List,
        }
    }
}

/// Where records come from that are not in the index.
pub(super) enum Values<'a> {
    /// From the newest state of the backend, while the index is locked.
    Newest(&'a Arc<Shared>),
    /// From a state that was pinned together with the index.
    Pinned(&'a Pinned),
}

impl Values<'_> {
    /// What they are in, to be read from later.
    pub(super) fn pin(&self) -> Pinned {
        match self {
            Values::Newest(shared) => Pinned::now(shared),
            Values::Pinned(pinned) => (*pinned).clone(),
        }
    }

    /// The put of `key` at `revision`.
    pub(super) fn record(&self, key: &[u8], revision: Revision) -> Result<Record, StorageError> {
        match self {
            Values::Newest(shared) => record_of(&shared.backend.reader(), key, revision),
            Values::Pinned(pinned) => record_of(&pinned.reader, key, revision),
        }
    }

    /// The same, if that takes no wait for the disk.
    pub(super) fn record_in_memory(
        &self,
        key: &[u8],
        revision: Revision,
    ) -> Result<Option<Record>, StorageError> {
        match self {
            Values::Newest(shared) => record_in_memory(&shared.backend.reader(), key, revision),
            Values::Pinned(pinned) => record_in_memory(&pinned.reader, key, revision),
        }
    }

    /// Tells the keyspace which records an answer has read; if the index is locked, they are given
    /// back.
    pub(super) fn show(&self, records: Vec<Record>, asked: Asked) -> Vec<Record> {
        match self {
            Values::Newest(_) => records,
            Values::Pinned(pinned) => {
                pinned.shared.show(&records, asked);
                Vec::new()
            }
        }
    }
}

/// The database as it was when a view of the keyspace was taken.
#[derive(Clone)]
pub(super) struct Pinned {
    pub(super) reader: backend::Reader,
    /// The keyspace, to which records come back that are asked for again.
    shared: Arc<Shared>,
}

impl Pinned {
    /// The database as it is now.
    pub(super) fn now(shared: &Arc<Shared>) -> Pinned {
        Pinned {
            reader: shared.backend.reader(),
            shared: Arc::clone(shared),
        }
    }

    /// For the records of a list that is being encoded.
    pub(super) fn lookup(&self) -> Lookup<'_> {
        Lookup(self.reader.lookup(Bucket::Key))
    }
}

/// Looks up one record after the other: those of keys next to each other were often put one after
/// the other, too.
pub(super) struct Lookup<'a>(backend::Lookup<'a>);

impl Lookup<'_> {
    /// The put of `key` at `revision`.
    pub(super) fn record(
        &mut self,
        key: &[u8],
        revision: Revision,
    ) -> Result<Record, StorageError> {
        check(self.0.get(&revision.to_key())?, key, revision)
    }
}

fn record_of(
    reader: &backend::Reader,
    key: &[u8],
    revision: Revision,
) -> Result<Record, StorageError> {
    let value = reader.get(Bucket::Key, &revision.to_key())?;
    check(value, key, revision)
}

fn record_in_memory(
    reader: &backend::Reader,
    key: &[u8],
    revision: Revision,
) -> Result<Option<Record>, StorageError> {
    match reader.get_cached(Bucket::Key, &revision.to_key())? {
        Cached::Known(value) => check(value, key, revision).map(Some),
        Cached::Unknown => Ok(None),
    }
}

/// The record of a row. The file has no checksums: what was damaged since the start must not be
/// shown as another key, or as the key at another revision.
fn check(value: Option<Value>, key: &[u8], revision: Revision) -> Result<Record, StorageError> {
    let value = value.ok_or(StorageError::Missing(revision))?;
    let record = Record::from_value(value).map_err(|damaged| damaged.at(revision))?;
    match record.key() == key && record.mod_revision() == revision.main {
        true => Ok(record),
        false => Err(StorageError::Misplaced(revision)),
    }
}

#[cfg(test)]
mod tests {
    use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
    use retcd_storage::backend::{Backend, WriteBatch};

    use super::*;
    use crate::Jobs;
    use crate::mvcc::{Begun, Fields, Keyspace, Kvs, Loaded, Reader};

    const KEYS: usize = 60;
    const LEN: usize = 50_000;

    /// A keyspace after a start, which has left all values where they are, larger than what is read
    /// for an answer before it is encoded.
    fn started(value_bytes_max: usize) -> Keyspace {
        let backend = Backend::default();
        let loaded = Loaded::read(&backend.reader(), 0, Jobs::default()).unwrap();
        let mut keyspace = Keyspace::new(backend.clone(), loaded, 0);
        let mut batch = WriteBatch::default();
        let mut changes = keyspace.begin(&mut batch);
        for key in 0..KEYS {
            changes.put(format!("k{key:02}").as_bytes(), &vec![key as u8; LEN], 0);
        }
        changes.finish();
        backend.write(batch);
        backend.commit().unwrap();
        let loaded = Loaded::read(&backend.reader(), value_bytes_max, Jobs::default()).unwrap();
        Keyspace::new(backend, loaded, 1)
    }

    fn all() -> RangeRequest {
        RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            ..RangeRequest::default()
        }
    }

    /// What a client gets that takes its time.
    fn answered(reader: &Reader, request: &RangeRequest) -> Kvs {
        match reader.begin_range(request).unwrap() {
            Begun::Done(reply) => reply.kvs,
            Begun::Long(mut long) => loop {
                if let Some(reply) = long.step() {
                    break reply.unwrap().kvs;
                }
            },
        }
    }

    /// All keys.
    fn ranged(reader: &Reader) -> Kvs {
        let kvs = answered(reader, &all());
        assert_eq!(kvs.len(), KEYS);
        kvs
    }

    /// Lists and compares them.
    fn list(reader: &Reader) {
        for (key, record) in ranged(reader).iter().enumerate() {
            assert_eq!(record.unwrap().value(), vec![key as u8; LEN]);
        }
    }

    /// The file has no checksums.
    #[test]
    fn a_row_that_became_another_is_not_shown() {
        let keyspace = started(2 * KEYS * LEN);
        let reader = keyspace.reader();
        let revision = keyspace.revision();
        let fields = |key, mod_revision| Fields {
            key,
            create_revision: mod_revision,
            mod_revision,
            version: 1,
            value: &[1; LEN],
            lease: 0,
        };
        let damaged = [
            (33, Record::encode(fields(b"k34", revision)).to_value()),
            (40, Record::encode(fields(b"k40", revision + 1)).to_value()),
            (50, Value::from(&b"\xff\xff"[..])),
        ];
        let mut batch = WriteBatch::default();
        for (sub, value) in damaged {
            let row = Revision {
                main: revision,
                sub,
            };
            batch.put(Bucket::Key, &row.to_key(), value);
        }
        keyspace.shared.backend.write(batch);
        let get = |number| {
            let request = RangeRequest {
                key: format!("k{number}").into(),
                ..RangeRequest::default()
            };
            reader.range(&request).map(|reply| reply.kvs.len())
        };
        let refused = |number| get(number).unwrap_err().to_string();
        let another = |sub| format!("the record at revision 2.{sub} in bucket key is another one");
        assert_eq!(refused(33), another(33));
        assert_eq!(refused(40), another(40));
        let torn = "damaged record of 2 bytes at revision 2.50 in bucket key";
        assert_eq!(refused(50), torn);
        assert_eq!(get(34).unwrap(), 1);
        let shown = ranged(&reader);
        let shown = shown.iter().enumerate();
        let refused = shown.filter_map(|(at, record)| record.is_err().then_some(at));
        assert_eq!(refused.collect::<Vec<_>>(), [33, 40, 50]);
    }

    fn bytes_in_memory(reader: &Reader) -> usize {
        reader.values_in_memory().0
    }

    /// A megabyte at a time: lists of everything, many at once, must not fill the memory.
    #[test]
    fn what_is_listed_again_and_again_comes_to_memory() {
        let keyspace = started(2 * KEYS * LEN);
        let reader = keyspace.reader();
        let keys_in_memory = [0, 21, 21, 42, 42, KEYS, KEYS];
        for keys in keys_in_memory {
            list(&reader);
            assert_eq!(bytes_in_memory(&reader), keys * LEN);
        }
    }

    #[test]
    fn what_is_streamed_again_and_again_comes_to_memory() {
        let keyspace = started(2 * KEYS * LEN);
        let reader = keyspace.reader();
        let mut in_memory = Vec::new();
        for _ in 0..7 {
            let mut stream = reader.range_stream(all(), LEN).unwrap();
            while stream.next_chunk().unwrap().is_some() {}
            in_memory.push(bytes_in_memory(&reader) / LEN);
        }
        assert_eq!(in_memory, [0, 21, 21, 42, 42, KEYS, KEYS]);
    }

    #[test]
    fn a_search_brings_back_only_what_it_finds() {
        let keyspace = started(2 * KEYS * LEN);
        let reader = keyspace.reader();
        let newest = RangeRequest {
            limit: 1,
            sort_order: SortOrder::Descend.into(),
            sort_target: SortTarget::Mod.into(),
            ..all()
        };
        let none = RangeRequest {
            min_mod_revision: 1 << 40,
            ..all()
        };
        let by_value = RangeRequest {
            sort_target: SortTarget::Value.into(),
            ..newest.clone()
        };
        for (request, found, keys_in_memory) in [(none, 0, 0), (by_value, 1, 0), (newest, 1, 1)] {
            for _ in 0..3 {
                let kvs = answered(&reader, &request);
                assert_eq!(kvs.len(), found, "{request:?}");
                assert!(kvs.is_in_memory(), "{request:?}");
            }
            assert_eq!(bytes_in_memory(&reader), keys_in_memory * LEN);
        }
    }

    #[test]
    fn a_list_takes_only_the_room_that_is_left() {
        let keyspace = started(10 * LEN);
        let reader = keyspace.reader();
        let get = RangeRequest {
            key: "k33".into(),
            ..RangeRequest::default()
        };
        if let Begun::Long(mut get) = reader.begin_range(&get).unwrap() {
            get.step().expect("a key is one piece").unwrap();
        }
        assert_eq!(
            bytes_in_memory(&reader),
            LEN,
            "who gets a key does so again"
        );
        for _ in 0..3 {
            list(&reader);
        }
        assert_eq!(bytes_in_memory(&reader), 10 * LEN);
        let in_memory = reader.range(&get).unwrap().kvs;
        assert!(in_memory.is_in_memory());
        let state = reader.shared().state.read();
        let entry = state.index.get(b"k33").unwrap();
        assert_eq!(entry.value_bytes(), LEN, "and is not pushed out by lists");
    }
}
