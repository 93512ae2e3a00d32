//! Changes that are not in the file yet.
//!
//! A layer takes batches while readers look at it. Each change carries the number of its batch, and
//! a reader sees the batches up to a bound, the newest one at the time it was opened. A change
//! replaces the one before it only if no reader can have a bound between the two; else the older
//! one is kept beside it. So a key that every batch writes costs one version per reader at most,
//! and neither a batch nor a reader copies the map.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::RwLock;

use super::{Bucket, Key, Value, WriteBatch};
use crate::bolt::{Change, Run};

/// Batches on their way to the file.
#[derive(Default)]
pub(super) struct Layer {
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    buckets: [BTreeMap<Key, Versions>; Bucket::ALL.len()],
    /// Batches written so far.
    batches: u64,
    /// Changes written so far.
    changes: usize,
    /// Bytes of the keys and values put so far.
    put_bytes: u64,
    /// The highest bound that was given to a reader.
    read_up_to: AtomicU64,
}

/// What the batches did to one key.
struct Versions {
    newest: Version,
    /// Ascending, all before the newest.
    older: Vec<Version>,
}

struct Version {
    batch: u64,
    /// `None`: deleted.
    value: Option<Value>,
}

impl Versions {
    fn write(&mut self, version: Version, read_up_to: u64) {
        let before = std::mem::replace(&mut self.newest, version);
        let (old, new) = (before.batch, self.newest.batch);
        assert!(
            old <= new && read_up_to < new,
            "batch {new} behind {old}, read up to {read_up_to}"
        );
        if before.batch <= read_up_to {
            self.older.push(before);
        }
    }

    fn at(&self, bound: u64) -> Option<&Version> {
        if self.newest.batch <= bound {
            return Some(&self.newest);
        }
        self.older
            .iter()
            .rev()
            .find(|version| version.batch <= bound)
    }
}

impl Layer {
    pub(super) fn write(&self, batch: WriteBatch) {
        let mut state = self.state.write();
        let state = &mut *state;
        state.batches += 1;
        state.changes += batch.changes.len();
        let read_up_to = *state.read_up_to.get_mut();
        for (bucket, key, value) in batch.changes {
            state.put_bytes += value.as_ref().map_or(0, |value| key.len() + value.len()) as u64;
            let version = Version {
                batch: state.batches,
                value,
            };
            match state.buckets[bucket as usize].entry(key) {
                Entry::Occupied(mut versions) => versions.get_mut().write(version, read_up_to),
                Entry::Vacant(vacant) => {
                    _ = vacant.insert(Versions {
                        newest: version,
                        older: Vec::new(),
                    })
                }
            }
        }
    }

    /// The number of changes so far.
    pub(super) fn changes(&self) -> usize {
        self.state.read().changes
    }

    /// Bytes of the keys and values put so far.
    pub(super) fn put_bytes(&self) -> u64 {
        self.state.read().put_bytes
    }

    /// A bound that shows the batches so far and no later one.
    pub(super) fn bound(&self) -> u64 {
        let state = self.state.read();
        // Under the lock, so that no batch falls between the two.
        state.read_up_to.fetch_max(state.batches, Ordering::Relaxed);
        state.batches
    }

    /// What this layer says about a key: nothing, deleted, or a value.
    pub(super) fn get(&self, bound: u64, bucket: Bucket, key: &[u8]) -> Option<Option<Value>> {
        let state = self.state.read();
        let version = state.buckets[bucket as usize].get(key)?.at(bound)?;
        Some(version.value.clone())
    }

    /// Appends up to `max` keys with what this layer says about them. Fewer mean that there are no
    /// more.
    pub(super) fn range(
        &self,
        bound: u64,
        bucket: Bucket,
        keys: (Bound<&[u8]>, Bound<&[u8]>),
        max: usize,
        found: &mut impl Extend<(Key, Option<Value>)>,
    ) -> usize {
        let state = self.state.read();
        let versions = state.buckets[bucket as usize].range::<[u8], _>(keys);
        let visible = versions.filter_map(|(key, versions)| Some((key, versions.at(bound)?)));
        let mut count = 0;
        found.extend(visible.take(max).map(|(key, version)| {
            count += 1;
            (key.clone(), version.value.clone())
        }));
        count
    }

    /// Hands all changes, newest versions only, to `commit`. No batch may be written any more.
    pub(super) fn with_runs<T>(&self, commit: impl FnOnce(&[Run<'_>]) -> T) -> T {
        let state = self.state.read();
        let changed = Bucket::ALL
            .iter()
            .zip(&state.buckets)
            .filter(|(_, versions)| !versions.is_empty());
        let runs: Vec<Run<'_>> = changed
            .map(|(bucket, versions)| {
                let changes = versions
                    .iter()
                    .map(|(key, versions)| Change {
                        key,
                        value: versions.newest.value.as_deref(),
                    })
                    .collect();
                Run {
                    bucket: bucket.name(),
                    changes,
                }
            })
            .collect();
        commit(&runs)
    }
}
