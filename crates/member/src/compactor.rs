//! Compactions that nobody asks for: `--auto-compaction-mode` and `-retention`.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use retcd_log::Text;
use retcd_proto::etcdserverpb::{CompactionRequest, InternalRaftRequest};
use retcd_state::machine::ApplyError;

use crate::Error;
use crate::config::AutoCompaction;
use crate::core::Core;

/// How often compaction by revisions looks, as in etcd.
const REVISION_INTERVAL: Duration = Duration::from_secs(300);
/// Periodic compaction notes the revision so many times per retention.
const NOTES_PER_PERIOD: u32 = 10;
/// With a longer retention periodic compaction runs once an hour.
const PERIODIC_INTERVAL_MAX: Duration = Duration::from_secs(3600);

/// What the log says before and after a compaction; tools wait for these lines.
type Lines = [&'static str; 3];
const PERIODIC_LINES: Lines = [
    "starting auto periodic compaction",
    "completed auto periodic compaction",
    "failed auto periodic compaction",
];
const REVISION_LINES: Lines = [
    "starting auto revision compaction",
    "completed auto revision compaction",
    "failed auto revision compaction",
];

/// Compacts while this member leads.
pub(crate) struct Compactor {
    core: Rc<Core>,
}

impl Compactor {
    pub(crate) fn new(core: &Rc<Core>) -> Compactor {
        Compactor {
            core: Rc::clone(core),
        }
    }

    pub(crate) async fn run(&self) {
        match self.core.shared.config.auto_compaction {
            AutoCompaction::Off => {}
            AutoCompaction::Revision(retention) => self.run_by_revision(retention).await,
            AutoCompaction::Periodic(retention) => self.run_periodically(retention).await,
        }
    }

    async fn run_by_revision(&self, retention: u64) {
        let mut last = 0;
        loop {
            self.core.clock.sleep(REVISION_INTERVAL).await;
            let newest = self.core.shared.state.reader.revision();
            let revision = newest - i64::try_from(retention).unwrap_or(i64::MAX);
            if revision > last && self.compact(revision, REVISION_LINES).await {
                last = revision;
            }
        }
    }

    /// Notes the revision ten times per period and compacts at the one from a period ago: once a
    /// period, or once an hour if the period is longer.
    async fn run_periodically(&self, retention: Duration) {
        let note_every = retention.min(PERIODIC_INTERVAL_MAX) / NOTES_PER_PERIOD;
        let notes_max = (retention.as_nanos() / note_every.as_nanos().max(1)) as usize + 1;
        let mut notes: VecDeque<i64> = VecDeque::new();
        let mut last = 0;
        let mut since_compaction = 0;
        loop {
            notes.push_back(self.core.shared.state.reader.revision());
            let pause = note_every.max(Duration::from_millis(1));
            self.core.clock.sleep(pause).await;
            since_compaction += 1;
            if notes.len() < notes_max || since_compaction < NOTES_PER_PERIOD {
                continue;
            }
            while notes.len() > notes_max {
                notes.pop_front();
            }
            let revision = notes.pop_front().expect("the notes are full");
            if revision > last && self.compact(revision, PERIODIC_LINES).await {
                last = revision;
            }
            since_compaction = 0;
        }
    }

    /// Whether the store is compacted at `revision` now.
    async fn compact(&self, revision: i64, lines: Lines) -> bool {
        let [starting, completed, failed] = lines;
        if !self.core.read_index.leads().await {
            return false;
        }
        retcd_log::info!(starting; "revision" => revision);
        let request = CompactionRequest {
            revision,
            physical: false,
        };
        let request = InternalRaftRequest {
            compaction: Some(request),
            ..Default::default()
        };
        // Another leader may have it, too: a revision that was old enough stays so.
        match self.core.proposer.propose(request.into()).await {
            Ok(_) => {
                retcd_log::info!(completed; "revision" => revision);
                true
            }
            Err(error) => {
                retcd_log::warn!(failed; "revision" => revision, "error" => Text(&error));
                // A revision that somebody else has compacted is done with, too.
                error == Error::Refused(ApplyError::Compacted)
            }
        }
    }
}
