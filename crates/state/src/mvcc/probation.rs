//! Values that nobody has asked for since their keys came.
//!
//! The database's file, which the system caches, has just taken in what was just written, so that a
//! value is in memory twice. Many are never asked for: those that are watched, listed once, or kept
//! for a bad day. So the value of a new key has to be asked for, or written over, before others that
//! come let it go: the first, small queue of 2Q (Johnson and Shasha, 1994) and of S3-FIFO (Yang et
//! al., 2023). Those that pass are in the care of the index's clock.
//!
//! The queue is one ring of bytes, so that a newcomer costs its key and a few bytes, and no
//! allocation.

use std::collections::VecDeque;
use std::io::Read;

use super::index::{Entry, KeyIndex};

/// A shorter value stays: its key and its revisions, which stay anyway, take as much.
const BYTES_MIN: usize = 128;
/// Most bytes of values on probation, and of what the queue says of them. A store whose values all
/// together take less keeps them.
const BYTES_MAX: usize = 32 << 20;
/// Their share of the budget for values, if that is little.
const BUDGET_SHARE: usize = 4;

/// How many bytes may be on probation where all values may take `value_bytes_max`.
pub(super) fn bytes_max(value_bytes_max: usize) -> usize {
    (value_bytes_max / BUDGET_SHARE).min(BYTES_MAX)
}

/// The values on probation, in the order in which they came.
pub(super) struct Probation {
    queue: Queue,
    /// Of the values in the queue, those too that are gone or have passed.
    value_bytes: usize,
    bytes_max: usize,
}

impl Probation {
    /// Nothing yet, of a store that may have `value_bytes_max` bytes of values in memory.
    pub(super) fn new(value_bytes_max: usize) -> Probation {
        Probation {
            queue: Queue::default(),
            value_bytes: 0,
            bytes_max: bytes_max(value_bytes_max),
        }
    }

    /// The values in `index`.
    pub(super) fn of(index: &KeyIndex, value_bytes_max: usize) -> Probation {
        let mut probation = Probation::new(value_bytes_max);
        let mut entries: Vec<&Entry> = index.live_range(b"", None).collect();
        entries.sort_by_key(|entry| entry.revision());
        for entry in entries {
            let mod_revision = entry.revision().main;
            probation.push(entry.key(), mod_revision, entry.value_bytes());
        }
        probation
    }

    /// Puts the value that the new `key` got at `mod_revision` on probation, unless it is short.
    pub(super) fn push(&mut self, key: &[u8], mod_revision: i64, value_bytes: usize) {
        if value_bytes >= BYTES_MIN {
            self.value_bytes += value_bytes;
            self.queue.push(Newcomer {
                key,
                mod_revision,
                value_bytes,
            });
        }
    }

    /// Whether there are more than there may be.
    pub(super) fn is_over(&self) -> bool {
        self.value_bytes + self.queue.len_bytes() > self.bytes_max
    }

    /// Ends the probation of the oldest, at most `looks` of them, while there are more than there may
    /// be: lets go of those that nobody has asked for. Whether there is more to do.
    ///
    /// Only for an index whose records are all in the backend.
    pub(super) fn end(&mut self, index: &mut KeyIndex, looks: usize) -> bool {
        let mut key = Vec::new();
        for _ in 0..looks {
            if !self.is_over() {
                return false;
            }
            let oldest = self.queue.pop(&mut key);
            let oldest = oldest.expect("bytes are counted of what is in the queue");
            self.value_bytes -= oldest.value_bytes;
            index.let_go_unused(oldest.key, oldest.mod_revision);
        }
        self.is_over()
    }
}

/// A key that has got its first value.
struct Newcomer<'a> {
    key: &'a [u8],
    mod_revision: i64,
    value_bytes: usize,
}

/// Newcomers one behind the other: `mod_revision`, `value_bytes`, and the length of the key, each of
/// eight bytes, and the key.
#[derive(Default)]
struct Queue(VecDeque<u8>);

impl Queue {
    fn len_bytes(&self) -> usize {
        self.0.len()
    }

    fn push(&mut self, newcomer: Newcomer<'_>) {
        let numbers = [
            newcomer.mod_revision as u64,
            newcomer.value_bytes as u64,
            newcomer.key.len() as u64,
        ];
        for number in numbers {
            self.0.extend(&number.to_le_bytes());
        }
        self.0.extend(newcomer.key);
    }

    /// The oldest, whose key is put into `key`.
    fn pop<'a>(&mut self, key: &'a mut Vec<u8>) -> Option<Newcomer<'a>> {
        let mod_revision = self.number()? as i64;
        let value_bytes = self.number()? as usize;
        key.resize(self.number()? as usize, 0);
        self.0.read_exact(key).ok()?;
        Some(Newcomer {
            key,
            mod_revision,
            value_bytes,
        })
    }

    fn number(&mut self) -> Option<u64> {
        let mut bytes = [0; 8];
        self.0.read_exact(&mut bytes).ok()?;
        Some(u64::from_le_bytes(bytes))
    }
}

#[cfg(test)]
mod tests {
    use retcd_proto::etcdserverpb::RangeRequest;
    use retcd_storage::backend::{Backend, WriteBatch};

    use super::*;
    use crate::Jobs;
    use crate::mvcc::{Begun, Interval, Keyspace, Loaded};

    const LONG: usize = 8 << 10;
    const SHORT: usize = BYTES_MIN - 1;
    const BUDGET: usize = 20 << 20;

    fn open(backend: &Backend) -> Keyspace {
        let loaded = Loaded::read(&backend.reader(), BUDGET, Jobs::default()).unwrap();
        Keyspace::new(backend.clone(), loaded, 0)
    }

    fn key(number: usize) -> Vec<u8> {
        format!("{number:04}").into_bytes()
    }

    /// Every second one is long.
    fn value(number: usize, version: u8) -> Vec<u8> {
        let len = if number.is_multiple_of(2) {
            LONG
        } else {
            SHORT
        };
        vec![number as u8 ^ version; len]
    }

    fn put(keyspace: &mut Keyspace, number: usize, version: u8) {
        let mut batch = WriteBatch::default();
        let mut changes = keyspace.begin(&mut batch);
        changes.put(&key(number), &value(number, version), 0);
        changes.finish();
        keyspace.shared.backend.write(batch);
        let index = keyspace.revision() as u64;
        keyspace.publish(index);
    }

    fn get(keyspace: &Keyspace, number: usize) -> Vec<u8> {
        let request = RangeRequest {
            key: key(number).into(),
            ..RangeRequest::default()
        };
        let reply = match keyspace.reader().begin_range(&request).unwrap() {
            Begun::Done(reply) => reply,
            Begun::Long(mut get) => get.step().expect("a key is one piece").unwrap(),
        };
        reply.kvs.iter().next().unwrap().unwrap().value().to_vec()
    }

    /// Those of `numbers` whose values are in memory.
    fn kept(keyspace: &Keyspace, numbers: impl Iterator<Item = usize>) -> Vec<usize> {
        let state = keyspace.shared.state.read();
        let is_kept = |number: &usize| state.index.get(&key(*number)).unwrap().value_bytes() > 0;
        numbers.filter(is_kept).collect()
    }

    /// Although all values have room in the budget.
    #[test]
    fn values_stay_if_somebody_asks_for_them() {
        const COUNT: usize = 2000;
        let mut keyspace = open(&Backend::default());
        let is_asked_for = |number: usize| number.is_multiple_of(5);
        let is_written_again = |number: usize| number.is_multiple_of(7);
        let version = |number| u8::from(is_written_again(number));
        for number in 0..COUNT {
            put(&mut keyspace, number, 0);
            if is_asked_for(number) {
                get(&keyspace, number);
            }
            if is_written_again(number) {
                put(&mut keyspace, number, 1);
            }
        }
        let is_unused = |number: &usize| {
            value(*number, 0).len() == LONG && !is_asked_for(*number) && !is_written_again(*number)
        };
        let unused: Vec<usize> = (0..COUNT).filter(is_unused).collect();
        let unused_kept = kept(&keyspace, unused.iter().copied());
        let (bytes, bytes_max) = (unused_kept.len() * LONG, bytes_max(BUDGET));
        assert!(bytes <= bytes_max, "{bytes} bytes");
        assert!(bytes > bytes_max / 4, "{bytes} bytes");
        let newest = &unused[unused.len() - unused_kept.len()..];
        assert_eq!(unused_kept, newest);
        let others = || (0..COUNT).filter(|number| !is_unused(number));
        assert!(kept(&keyspace, others()).into_iter().eq(others()));

        // All can be read, and come back with that, where there is room; they stay whatever comes.
        for number in 0..COUNT {
            assert_eq!(get(&keyspace, number), value(number, version(number)));
        }
        assert!(kept(&keyspace, 0..COUNT).into_iter().eq(0..COUNT));
        for number in COUNT..2 * COUNT {
            put(&mut keyspace, number, 0);
        }
        assert!(kept(&keyspace, 0..COUNT).into_iter().eq(0..COUNT));
    }

    /// A value that was written over or deleted meanwhile is not the one that was on probation.
    #[test]
    fn only_the_value_that_came_goes() {
        let mut keyspace = open(&Backend::default());
        put(&mut keyspace, 0, 0);
        let first = keyspace.revision();
        put(&mut keyspace, 0, 1);
        put(&mut keyspace, 2, 0);
        let mut batch = WriteBatch::default();
        let mut changes = keyspace.begin(&mut batch);
        changes.delete_range(Interval::new(&key(2), b""));
        changes.finish();
        keyspace.shared.backend.write(batch);
        keyspace.publish(first as u64 + 3);
        for number in 1000..2000 {
            put(&mut keyspace, 2 * number, 0);
        }
        assert_eq!(kept(&keyspace, [0].into_iter()), [0]);
        assert_eq!(get(&keyspace, 0), value(0, 1));
        // A new one under a name that was deleted has to be asked for, too.
        put(&mut keyspace, 2, 1);
        assert_eq!(kept(&keyspace, [2].into_iter()), [2]);
        for number in 2000..3000 {
            put(&mut keyspace, 2 * number, 0);
        }
        assert!(kept(&keyspace, [2].into_iter()).is_empty());
        assert_eq!(get(&keyspace, 2), value(2, 1));
    }
}
