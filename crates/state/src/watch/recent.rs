//! The last revisions, kept in memory.
//!
//! Whoever fell behind a little finds here what it missed, encoded already, without asking the
//! store; and the last steps of every catch-up are made from here, so that it ends although writes
//! go on.
//!
//! Invariant: the revisions are consecutive, and end with the hub's.

use std::collections::VecDeque;
use std::sync::Arc;

use super::events::RevisionEvents;

#[derive(Default)]
pub(super) struct Recent {
    changes: VecDeque<Arc<RevisionEvents>>,
    record_bytes: usize,
}

impl Recent {
    /// Adds the next revision and forgets the oldest ones beyond the bounds.
    pub(super) fn push(
        &mut self,
        changes: Arc<RevisionEvents>,
        count_max: usize,
        bytes_max: usize,
    ) {
        if let Some(last) = self.changes.back() {
            let (last, new) = (last.revision(), changes.revision());
            assert!(new == last + 1, "revision {new} follows {last}");
        }
        self.record_bytes += changes.record_bytes();
        self.changes.push_back(changes);
        while self.changes.len() > count_max || self.record_bytes > bytes_max {
            let Some(oldest) = self.changes.pop_front() else {
                break;
            };
            self.record_bytes -= oldest.record_bytes();
        }
        let (count, bytes) = (self.changes.len(), self.record_bytes);
        assert!(
            count > 0 || bytes == 0,
            "{bytes} bytes of {count} revisions"
        );
    }

    pub(super) fn clear(&mut self) {
        *self = Recent::default();
    }

    /// The revisions `from..=to`, or `None` if `from` is older than what is kept.
    pub(super) fn range(
        &self,
        from: i64,
        to: i64,
    ) -> Option<impl Iterator<Item = &Arc<RevisionEvents>> + '_> {
        let first = self.changes.front()?.revision();
        let skip = usize::try_from(from - first).ok()?;
        Some(
            self.changes
                .iter()
                .skip(skip)
                .take_while(move |changes| changes.revision() <= to),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mvcc::{Event, EventKind, Prev, Record};

    fn push(recent: &mut Recent, revision: i64, key_bytes: usize, bytes_max: usize) {
        let event = Event {
            kind: EventKind::Delete,
            record: Record::tombstone(&vec![b'k'; key_bytes], revision),
            prev: Prev::Absent,
        };
        let changes = RevisionEvents::new(revision, Arc::new([event]));
        recent.push(Arc::new(changes), 3, bytes_max);
    }

    fn range(recent: &Recent, from: i64, to: i64) -> Option<Vec<i64>> {
        let changes = recent.range(from, to)?;
        Some(changes.map(|changes| changes.revision()).collect())
    }

    #[test]
    fn keeps_the_last_revisions() {
        let mut recent = Recent::default();
        assert_eq!(range(&recent, 1, 9), None);
        for revision in 5..9 {
            push(&mut recent, revision, 10, 1000);
        }
        assert_eq!(range(&recent, 5, 9), None, "the oldest of four is gone");
        assert_eq!(range(&recent, 6, 9), Some(vec![6, 7, 8]));
        assert_eq!(range(&recent, 7, 7), Some(vec![7]));
        assert_eq!(range(&recent, 9, 9), Some(vec![]));
    }

    #[test]
    fn keeps_no_more_bytes_than_allowed() {
        let mut recent = Recent::default();
        push(&mut recent, 2, 400, 1000);
        push(&mut recent, 3, 400, 1000);
        assert_eq!(range(&recent, 2, 9), Some(vec![2, 3]));
        push(&mut recent, 4, 400, 1000);
        assert_eq!(range(&recent, 2, 9), None);
        assert_eq!(range(&recent, 3, 9), Some(vec![3, 4]));
        push(&mut recent, 5, 2000, 1000);
        assert_eq!((recent.changes.len(), recent.record_bytes), (0, 0));
        push(&mut recent, 6, 400, 1000);
        assert_eq!(range(&recent, 6, 9), Some(vec![6]));
    }
}
