//! A consistent state of the keyspace, and walks over it that can be interrupted.

use std::ops::ControlFlow;

use parking_lot::RwLockReadGuard;
use retcd_proto::etcdserverpb::RangeRequest;
use retcd_storage::backend::{self, Backend, Bucket};

use super::index::{Held, KeyIndex};
use super::keyspace::State;
use super::range::Ranging;
use super::{Interval, RangeError, RangeReply, Record, Revision, StorageError};

/// What may still be done before others have their turn, counted in keys that are looked at in
/// memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Effort(usize);

impl Effort {
    /// For what has to be done at once.
    pub(super) const UNBOUNDED: Effort = Effort(usize::MAX);
    /// Some tenths of a millisecond, a few milliseconds if nothing is in the processor's caches.
    pub(super) const PIECE: Effort = Effort(10_000);
    /// What a record from the database costs.
    const PAST: usize = 16;

    #[cfg(test)]
    pub(super) fn of(keys: usize) -> Effort {
        Effort(keys)
    }

    /// Takes note of work that was done.
    pub(super) fn spend(&mut self, keys: usize) {
        // Nobody comes to the end of what is unbounded.
        self.0 = self.0.saturating_sub(keys);
    }

    /// Whether to go on another time.
    pub(super) fn is_spent(self) -> bool {
        self.0 == 0
    }
}

/// How far a walk has come.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum Position {
    /// It has not begun.
    #[default]
    Start,
    /// This key is next.
    At(Box<[u8]>),
    /// It is over.
    End,
}

/// The records of an interval, as far as they have been gathered.
#[derive(Default)]
pub(super) struct Gathered {
    position: Position,
    /// The first records, in the order of their keys.
    pub(super) kvs: Vec<Record>,
    /// How many keys there are in all; right at the end of the walk.
    pub(super) count: i64,
}

/// Where the records of superseded revisions come from.
pub(super) enum Values<'a> {
    /// From the newest state of the backend, while the index is locked.
    Newest(&'a Backend),
    /// From a state that was pinned together with the index.
    Pinned(&'a backend::Reader),
}

impl Values<'_> {
    fn record(&self, revision: Revision) -> Result<Record, StorageError> {
        match self {
            Values::Newest(backend) => record_of(&backend.reader(), revision),
            Values::Pinned(reader) => record_of(reader, revision),
        }
    }
}

/// The put at `revision`.
pub(super) fn record_of(
    reader: &backend::Reader,
    revision: Revision,
) -> Result<Record, StorageError> {
    let value = reader
        .get(Bucket::Key, &revision.to_key())?
        .ok_or(StorageError::Missing(revision))?;
    Ok(Record::from_value(value)?)
}

/// A consistent state of the keyspace.
pub(super) struct Snapshot<'a> {
    pub(super) index: &'a KeyIndex,
    /// The newest revision in `index`, which may be ahead of `revision`.
    pub(super) applied: i64,
    /// The revision that counts as the current one.
    pub(super) revision: i64,
    /// Revisions below are not readable; -1 if nothing was compacted yet.
    pub(super) compacted: i64,
    pub(super) values: Values<'a>,
}

impl<'a> Snapshot<'a> {
    /// What readers may see of a locked state.
    pub(super) fn published(
        state: &'a RwLockReadGuard<'_, State>,
        backend: &'a Backend,
    ) -> Snapshot<'a> {
        Snapshot {
            index: &state.index,
            applied: state.applied,
            revision: state.revision,
            compacted: state.compacted,
            values: Values::Newest(backend),
        }
    }

    /// The revision to read at for a request that names `revision`.
    pub(super) fn read_revision(&self, revision: i64) -> Result<i64, RangeError> {
        if revision > self.revision {
            return Err(RangeError::FutureRevision);
        }
        let revision = if revision <= 0 {
            self.revision
        } else {
            revision
        };
        if revision < self.compacted {
            Err(RangeError::Compacted)
        } else {
            Ok(revision)
        }
    }

    /// Answers `request`, however long it takes.
    pub(super) fn range(&self, request: &RangeRequest) -> Result<RangeReply, RangeError> {
        let reply =
            Ranging::begin(request, self)?.step(request, self, &mut { Effort::UNBOUNDED })?;
        Ok(reply.expect("unbounded effort comes to the end"))
    }

    /// The record of `key` at revision `at`.
    pub(super) fn get(&self, key: &[u8], at: i64) -> Result<Option<Record>, StorageError> {
        let Some(entry) = self.index.get(key) else {
            return Ok(None);
        };
        if at >= self.applied {
            return Ok(entry.live().cloned());
        }
        match entry.at(at) {
            Held::Absent => Ok(None),
            Held::Newest(record) => Ok(Some(record.clone())),
            Held::Past(revision) => self.values.record(revision).map(Some),
        }
    }

    /// Calls `visit` for the keys of `interval` that exist at revision `at`, from `position` on,
    /// until it breaks or `effort` is spent.
    fn walk(
        &self,
        interval: Interval<'_>,
        at: i64,
        position: &mut Position,
        effort: &mut Effort,
        mut visit: impl FnMut(Held<'_>, &mut Effort) -> Result<ControlFlow<()>, StorageError>,
    ) -> Result<(), StorageError> {
        let (start, end) = match (&*position, interval) {
            (Position::End, _) => return Ok(()),
            (_, Interval::Key(key)) => {
                effort.spend(1);
                let held = self
                    .index
                    .get(key)
                    .map_or(Held::Absent, |entry| entry.at(at));
                if !matches!(held, Held::Absent) {
                    let _ = visit(held, effort)?;
                }
                *position = Position::End;
                return Ok(());
            }
            (Position::Start, Interval::Range { start, end }) => (start, end),
            (Position::At(next), Interval::Range { end, .. }) => (&**next, end),
        };
        let mut next = Position::End;
        if at >= self.applied {
            for record in self.index.live_records(start, end) {
                if effort.is_spent() {
                    next = Position::At(record.key().into());
                    break;
                }
                effort.spend(1);
                if visit(Held::Newest(record), effort)?.is_break() {
                    break;
                }
            }
        } else {
            for entry in self.index.range(start, end) {
                if effort.is_spent() {
                    next = Position::At(entry.key().into());
                    break;
                }
                effort.spend(1);
                let held = entry.at(at);
                if !matches!(held, Held::Absent) && visit(held, effort)?.is_break() {
                    break;
                }
            }
        }
        *position = next;
        Ok(())
    }

    /// Gathers the first `limit` records of `interval` at revision `at`, and counts how many there
    /// are in all. Whether it has come to the end.
    pub(super) fn gather(
        &self,
        interval: Interval<'_>,
        at: i64,
        limit: usize,
        gathered: &mut Gathered,
        effort: &mut Effort,
    ) -> Result<bool, StorageError> {
        let Gathered {
            position,
            kvs,
            count,
        } = gathered;
        let mut is_counted = false;
        if let Interval::Range { start, end } = interval
            && at >= self.applied
        {
            is_counted = true;
            if *position == Position::Start {
                let live = self.index.count_live(start, end);
                *count = live as i64;
                kvs.reserve_exact(live.min(limit));
                if limit == 0 {
                    *position = Position::End;
                }
            }
        }
        self.walk(interval, at, position, effort, |held, effort| {
            if kvs.len() < limit {
                kvs.push(self.record(held, effort)?);
            }
            if !is_counted {
                *count += 1;
                return Ok(ControlFlow::Continue(()));
            }
            Ok(match kvs.len() < limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        Ok(*position == Position::End)
    }

    /// The first `limit` records of `interval` at revision `at`, and whether there are more.
    pub(super) fn page(
        &self,
        interval: Interval<'_>,
        at: i64,
        limit: usize,
    ) -> Result<(Vec<Record>, bool), StorageError> {
        let (mut kvs, mut more) = (Vec::new(), false);
        let (mut position, mut effort) = (Position::Start, Effort::UNBOUNDED);
        self.walk(interval, at, &mut position, &mut effort, |held, effort| {
            if kvs.len() == limit {
                more = true;
                return Ok(ControlFlow::Break(()));
            }
            kvs.push(self.record(held, effort)?);
            Ok(ControlFlow::Continue(()))
        })?;
        Ok((kvs, more))
    }

    /// Whether `holds` is true of the records of `interval` at the current revision, from
    /// `position` to where it comes; it goes no further once it is not.
    pub(super) fn all(
        &self,
        interval: Interval<'_>,
        position: &mut Position,
        effort: &mut Effort,
        mut holds: impl FnMut(&Record) -> bool,
    ) -> Result<bool, StorageError> {
        let mut all = true;
        self.walk(interval, self.revision, position, effort, |held, effort| {
            all = match held {
                Held::Newest(record) => holds(record),
                other => holds(&self.record(other, effort)?),
            };
            Ok(match all {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            })
        })?;
        Ok(all)
    }

    fn record(&self, held: Held<'_>, effort: &mut Effort) -> Result<Record, StorageError> {
        match held {
            Held::Newest(record) => Ok(record.clone()),
            Held::Past(revision) => {
                effort.spend(Effort::PAST);
                self.values.record(revision)
            }
            Held::Absent => unreachable!("a walk passes over keys that do not exist"),
        }
    }

    /// The newest records of `interval`.
    pub(super) fn newest(&self, interval: Interval<'_>) -> Vec<Record> {
        match interval {
            Interval::Key(key) => self
                .index
                .get(key)
                .and_then(|entry| entry.live().cloned())
                .into_iter()
                .collect(),
            Interval::Range { start, end } => {
                self.index.live_records(start, end).cloned().collect()
            }
        }
    }
}
