//! Entries for followers that are so far behind that memory does not hold them: what is being read
//! from the log's files, and who waits for it.
//!
//! Raft asks its [`LogStore`] for entries, is told that it has to wait, and asks again when it is
//! reminded, or when the follower is heard of: so what is passed over here is not lost.

use std::collections::BTreeMap;
use std::time::Duration;

use raft::{GetEntriesContext, ProgressState, RawNode};
use retcd_proto::raftpb;
use retcd_storage::wal::Wanted;

use crate::log_store::{LogStore, Missed};
use crate::raft_types::entry_to_raft;

/// Bytes of entries that are read from the log at once, and are on their way to a follower that is
/// so far behind.
const BYTES_MAX: usize = 4 << 20;
/// Of whom raft is reminded when entries were read that several followers wait for. Who else does
/// asks again with its next answer to a heartbeat.
const REMINDERS_MAX: usize = 16;

/// What is being read, and for whom.
pub struct LogReads {
    /// By the index of the first entry, who waits.
    under_way: BTreeMap<u64, Vec<GetEntriesContext>>,
    /// Followers for which more is read only when they have acknowledged what they were sent: what
    /// they acknowledged last, and since when that has been so.
    unacknowledged: BTreeMap<u64, (u64, Duration)>,
    /// How long a follower may acknowledge nothing.
    patience: Duration,
}

impl LogReads {
    /// Nothing is read yet. A follower that acknowledges nothing for `patience` has lost something.
    pub fn new(patience: Duration) -> LogReads {
        LogReads {
            under_way: BTreeMap::new(),
            unacknowledged: BTreeMap::new(),
            patience,
        }
    }

    /// What is to be read, of what raft has asked for in vain.
    pub fn begin(&mut self, raw: &mut RawNode<LogStore>, now: Duration) -> Vec<Wanted> {
        let mut wanted = Vec::new();
        for Missed { first, context } in raw.mut_store().take_missed() {
            if let Some(waiting) = self.under_way.get_mut(&first) {
                if waiting.len() < REMINDERS_MAX {
                    waiting.push(context);
                }
                continue;
            }
            if !self.may_read_ahead(raw, now, first) {
                continue;
            }
            self.under_way.insert(first, vec![context]);
            wanted.push(Wanted {
                first,
                end: raw.store().first_in_memory(),
                bytes_max: BYTES_MAX,
            });
        }
        wanted
    }

    /// Whether a follower that needs the entry `first` next has acknowledged all it was sent. Else raft
    /// would read, for each, half a gigabyte ahead of what the network takes. If that is silent for
    /// long, an acknowledgement was lost: raft goes back to what it knows.
    fn may_read_ahead(&mut self, raw: &mut RawNode<LogStore>, now: Duration, first: u64) -> bool {
        let followers = raw.raft.prs().iter();
        let asking = followers.filter(|(_, progress)| progress.next_idx == first);
        let (waiting, ready): (Vec<_>, Vec<_>) = asking
            .map(|(id, progress)| (*id, progress.state, progress.matched))
            .partition(|(_, state, matched)| {
                *state == ProgressState::Replicate && matched + 1 < first
            });
        for (id, _, matched) in waiting {
            let last = self.unacknowledged.entry(id).or_insert((matched, now));
            if last.0 != matched {
                *last = (matched, now);
            } else if now >= last.1 + self.patience {
                self.unacknowledged.remove(&id);
                raw.report_unreachable(id);
            }
        }
        !ready.is_empty()
    }

    /// The entries from `first` on were read, as many as there are, and go to those who wait. If they
    /// are gone, so is what comes before: who needs that gets a snapshot.
    pub fn finish(&mut self, raw: &mut RawNode<LogStore>, first: u64, entries: &[raftpb::Entry]) {
        let Some(waiting) = self.under_way.remove(&first) else {
            return;
        };
        let entries: Vec<_> = entries.iter().map(entry_to_raft).collect();
        let store = raw.mut_store();
        // The log may have been cut meanwhile, by a snapshot of another leader too.
        let is_wanted = first > store.compacted_index() && first < store.first_in_memory();
        if is_wanted && (entries.is_empty() || !store.is_earlier(&entries)) {
            store.compact_to_memory();
        } else if is_wanted {
            store.lend(entries);
        }
        for context in waiting {
            raw.on_entries_fetched(context);
        }
        raw.mut_store().lend(Vec::new());
    }
}
