//! The last revisions, kept in memory.
//!
//! Whoever fell behind a little finds here what it missed, encoded already, without asking the store;
//! and the last steps of every catch-up are made from here, so that it ends although writes go on.
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
