//! Records that are not in memory: where they are read from, and how they come back.

use std::sync::Arc;

use retcd_storage::backend::{self, Bucket, Cached};

use super::keyspace::Shared;
use super::{Record, Revision, StorageError};

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

    /// The put at `revision`.
    pub(super) fn record(&self, revision: Revision) -> Result<Record, StorageError> {
        match self {
            Values::Newest(shared) => record_of(&shared.backend.reader(), revision),
            Values::Pinned(pinned) => record_of(&pinned.reader, revision),
        }
    }

    /// The same, if it takes no look at the file.
    pub(super) fn record_in_memory(
        &self,
        revision: Revision,
    ) -> Result<Option<Record>, StorageError> {
        match self {
            Values::Newest(shared) => record_in_memory(&shared.backend.reader(), revision),
            Values::Pinned(pinned) => record_in_memory(&pinned.reader, revision),
        }
    }

    /// Tells the keyspace which records an answer has read; if the index is locked, they are given
    /// back.
    pub(super) fn show(&self, records: Vec<Record>) -> Vec<Record> {
        match self {
            Values::Newest(_) => records,
            Values::Pinned(pinned) => {
                pinned.shared.show(&records);
                Vec::new()
            }
        }
    }
}

/// The database as it was when a view of the keyspace was taken.
#[derive(Clone)]
pub(super) struct Pinned {
    pub(super) reader: backend::Reader,
    /// The keyspace, to which records come back that are shown more than once.
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

    /// The put at `revision`, for somebody who asked for it.
    pub(super) fn record(&self, revision: Revision) -> Result<Record, StorageError> {
        let record = record_of(&self.reader, revision)?;
        self.shared.show(std::slice::from_ref(&record));
        Ok(record)
    }
}

fn record_of(reader: &backend::Reader, revision: Revision) -> Result<Record, StorageError> {
    let value = reader
        .get(Bucket::Key, &revision.to_key())?
        .ok_or(StorageError::Missing(revision))?;
    Ok(Record::from_value(value)?)
}

fn record_in_memory(
    reader: &backend::Reader,
    revision: Revision,
) -> Result<Option<Record>, StorageError> {
    match reader.get_cached(Bucket::Key, &revision.to_key())? {
        Cached::Known(Some(value)) => Ok(Some(Record::from_value(value)?)),
        Cached::Known(None) => Err(StorageError::Missing(revision)),
        Cached::Unknown => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use retcd_proto::etcdserverpb::RangeRequest;
    use retcd_storage::backend::{Backend, WriteBatch};

    use crate::Jobs;
    use crate::mvcc::{Begun, Keyspace, Loaded, Reader};

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

    /// Lists all keys as a client does that takes its time, and compares them.
    fn list(reader: &Reader) {
        let request = RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            ..RangeRequest::default()
        };
        let reply = match reader.begin_range(&request).unwrap() {
            Begun::Done(reply) => reply,
            Begun::Long(mut long) => loop {
                if let Some(reply) = long.step() {
                    break reply.unwrap();
                }
            },
        };
        assert_eq!(reply.kvs.len(), KEYS);
        for (key, record) in reply.kvs.iter().enumerate() {
            assert_eq!(record.unwrap().value(), vec![key as u8; LEN]);
        }
    }

    fn bytes_in_memory(reader: &Reader) -> usize {
        reader.values_in_memory().0
    }

    #[test]
    fn what_is_listed_twice_comes_to_memory() {
        let keyspace = started(2 * KEYS * LEN);
        let reader = keyspace.reader();
        list(&reader);
        assert_eq!(bytes_in_memory(&reader), 0);
        list(&reader);
        assert_eq!(bytes_in_memory(&reader), KEYS * LEN);
        list(&reader);
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
