//! What surrounds the machine: the order in which a batch of entries, a received database and the
//! steps of compactions are executed and made known.

use std::path::Path;
use std::sync::Arc;

use retcd_node::Input;
use retcd_proto::raftpb;
use retcd_state::Time;
use retcd_state::auth::TokenChange;
use retcd_state::machine::{
    Applied, Executed, Fatal, Machine, Moment, OpenError, ReceivedTree, Reply, RestoreError,
    SnapshotHead, TreeError,
};
use retcd_state::membership::Membership;
use retcd_state::mvcc::{Event, EventKind, Progress, StorageError};
use retcd_state::watch::RevisionEvents;

use crate::log::ToLog;
use crate::mailbox::{Mail, Mailboxes};
use crate::observer::Stages;
use crate::schema::{Commit, FollowedVersion, Outdated, Schema};
use crate::shared::Shared;

/// The machine and whoever hears of what it did.
pub struct Applier {
    machine: Machine,
    shared: Arc<Shared>,
    mailboxes: Mailboxes,
    version: FollowedVersion,
}

/// Why a member cannot go on. The process has to stop: what it knows and what its cluster has
/// agreed on would go apart.
#[derive(Debug, thiserror::Error)]
pub enum ApplyFailure {
    /// A committed entry cannot be applied.
    #[error(transparent)]
    Entry(#[from] Fatal),
    /// The leader's database cannot be taken over.
    #[error(transparent)]
    Restore(#[from] RestoreError),
    /// What came with it says something else than a snapshot does.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The leader's database is not the one that its snapshot stands for.
    #[error(
        "the snapshot is of index {snapshot}, the database that came with it of index {database}"
    )]
    ForeignDatabase {
        /// The snapshot's index.
        snapshot: u64,
        /// The database's.
        database: u64,
    },
    /// The cluster has gone on to a version that this program is too old for.
    #[error(transparent)]
    Outdated(#[from] Outdated),
}

/// What came of a batch of entries.
#[derive(Debug, Default)]
pub struct Report {
    /// For the node, in this order.
    pub inputs: Vec<Input>,
    /// Whether a compaction has steps to be made.
    pub compacting: bool,
}

/// What a batch changed in the keyspace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Keys that were put.
    pub puts: u64,
    /// Bytes of these keys and values.
    pub put_bytes: u64,
    /// Keys that were deleted.
    pub deletes: u64,
    /// Transactions of more than one change.
    pub txns: u64,
}

/// What came of a step of a compaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// There was none to be made.
    Idle,
    /// Some rows were looked at; there are more.
    Stepped,
    /// That was the last one of a compaction.
    Finished {
        /// Whether another compaction has steps to be made.
        more: bool,
    },
}

/// What was taken over.
pub struct Restored {
    /// The index that the database is of.
    pub index: u64,
    /// Its revision.
    pub revision: i64,
    /// For the log, which may let go what is before.
    pub to_log: ToLog,
    /// For the node.
    pub input: Input,
    /// Whether a compaction has steps to be made.
    pub compacting: bool,
}

impl Applier {
    /// Applies to `machine`, whose cluster's version is `version` when it starts.
    pub fn new(
        machine: Machine,
        shared: &Arc<Shared>,
        mailboxes: Mailboxes,
        version: FollowedVersion,
    ) -> Applier {
        Applier {
            machine,
            shared: Arc::clone(shared),
            mailboxes,
            version,
        }
    }

    /// The machine, to be looked at.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Whether a compaction has steps to be made.
    pub fn is_compacting(&self) -> bool {
        self.machine.is_compacting()
    }

    /// Executes committed entries, which went this way, and makes known what they did. The order is what clients rely on:
    ///
    /// 1. tokens, so that nobody who hears of a logout is let in by its token;
    /// 2. the applied index, so that nobody with a new token is told that it is still to come;
    /// 3. what was executed (`count`), so that whoever has an answer finds it counted;
    /// 4. events and compactions, so that whoever has seen its write acknowledged finds it
    ///    published;
    /// 5. the members that are talked to (`follow`) and the schema;
    /// 6. the term that has begun, which the cluster's version waits for;
    /// 7. replies.
    ///
    /// # Errors
    /// An entry cannot be applied; the cluster has become too new for this program.
    pub fn apply(
        &mut self,
        now: Moment,
        entries: &[raftpb::Entry],
        stages: Stages,
        count: impl FnOnce(&[Executed], Changes),
        follow: impl FnOnce(&Membership),
        commit: Commit<'_>,
    ) -> Result<Report, ApplyFailure> {
        let shared = &*self.shared;
        let was_enabled = shared.state.auth.read().is_enabled();
        let before = self.machine.applied().index;
        let Applied {
            applied,
            replies,
            executed,
            events,
            conf_changes,
            compacting,
            token_changes,
            cluster_changed,
            begun_term,
        } = self.machine.apply(now, entries)?;
        let last = entries.last().map_or(before, raftpb::Entry::index);
        assert!(
            applied.index == last.max(before),
            "applied up to {}, not to entry {last}, after {before}",
            applied.index
        );
        match (was_enabled, shared.state.auth.read().is_enabled()) {
            (false, true) => retcd_log::info!("enabled authentication"),
            (true, false) => retcd_log::info!("disabled authentication"),
            _ => {}
        }
        for change in token_changes {
            let at = now.monotonic.since_start();
            shared.authenticator.apply(change, at);
        }
        shared.progress.publish_applied(applied.index);
        count(&executed, Changes::of(&events));
        if let Some((newest, _)) = events.last() {
            // Whoever hears of a revision must be able to read it.
            let shown = shared.state.reader.revision();
            assert!(*newest <= shown, "events of {newest}, readers at {shown}");
        }
        assert!(
            conf_changes.len() <= entries.len(),
            "{} changes of the membership in {} entries",
            conf_changes.len(),
            entries.len()
        );
        let publish = |(revision, events)| Arc::new(RevisionEvents::new(revision, events));
        self.mailboxes.publish(events.into_iter().map(publish));
        for (_, reply) in &replies {
            if let Ok(Reply::Compact(compaction)) = reply {
                self.mailboxes.compacted(compaction.compacted);
            }
        }
        let mut inputs = Vec::with_capacity(1);
        if cluster_changed {
            follow_members(shared, follow);
            let schema = self.version.follow(&mut self.machine, shared, commit)?;
            if schema == Schema::AwaitsSnapshot {
                inputs.push(Input::SnapshotWanted);
            }
        }
        if let Some(term) = begun_term {
            shared.signals.term_began(term);
        }
        self.mailboxes.send_split(
            replies,
            |(request, _)| *request,
            |replies| Mail::Replies(replies, stages),
        );
        let changed = conf_changes.into_iter().map(|applied| applied.change);
        inputs.push(Input::Applied {
            index: applied.index,
            conf_changes: changed.collect(),
        });
        Ok(Report { inputs, compacting })
    }

    /// Goes on with the database in `file`, which the leader has sent with `snapshot`; the log has
    /// recorded its arrival.
    ///
    /// # Errors
    /// The database cannot be read, or is not the snapshot's.
    pub fn restore(
        &mut self,
        now: Time,
        snapshot: &raftpb::Snapshot,
        file: &Path,
        follow: impl FnOnce(&Membership),
        commit: Commit<'_>,
    ) -> Result<Restored, ApplyFailure> {
        let metadata = snapshot.metadata.clone().unwrap_or_default();
        let index = metadata.index();
        let data = snapshot.data.as_deref().unwrap_or_default();
        let tree = ReceivedTree::read(data)?;
        let restored = self.machine.restore(file)?;
        let installed = self.machine.install_v2(tree);
        installed.map_err(|error| RestoreError::from(OpenError::from(error)))?;
        if restored.applied.index != index {
            return Err(ApplyFailure::ForeignDatabase {
                snapshot: index,
                database: restored.applied.index,
            });
        }
        let shared = &*self.shared;
        let applied = shared.progress.applied();
        assert!(
            applied <= index,
            "a snapshot of {index} takes the place of entry {applied}"
        );
        assert!(
            restored.compacted <= restored.revision,
            "compacted {} in a store at {}",
            restored.compacted,
            restored.revision
        );
        // The database does not tell who has logged out meanwhile.
        let logged_out = TokenChange::LogoutAll;
        shared.authenticator.apply(logged_out, now.since_start());
        self.mailboxes
            .restored(restored.revision, restored.compacted);
        follow_members(shared, follow);
        shared.publish_storage_version(&self.machine);
        let schema = self.version.follow(&mut self.machine, shared, commit)?;
        if schema == Schema::AwaitsSnapshot {
            self.version
                .handle_snapshot(index, &mut self.machine, shared, commit);
        }
        shared.progress.publish_applied(index);
        if !restored.compacting {
            // The leader has made the compactions that somebody waits for here.
            shared.signals.compaction_finished(restored.compacted);
        }
        Ok(Restored {
            index,
            revision: restored.revision,
            to_log: ToLog::Release(index),
            input: Input::Applied {
                index,
                conf_changes: Vec::new(),
            },
            compacting: restored.compacting,
        })
    }

    /// A snapshot of all that is applied, to be written while the machine goes on.
    pub fn snapshot(&self) -> SnapshotHead {
        self.machine.snapshot_head()
    }

    /// A snapshot of `index` is durable.
    pub fn handle_snapshot(&mut self, index: u64, commit: Commit<'_>) {
        self.version
            .handle_snapshot(index, &mut self.machine, &self.shared, commit);
    }

    /// Makes a step of a compaction.
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn compaction_step(&mut self) -> Result<Step, StorageError> {
        let shared = &*self.shared;
        let batch = shared.config.compaction_batch;
        match self.machine.compaction_step(batch)? {
            Progress::Finished { revision, deleted } => {
                shared.observer.compacted(deleted);
                retcd_log::info!("finished scheduled compaction"; "compact-revision" => revision);
                shared.signals.compaction_finished(revision);
                let more = self.machine.is_compacting();
                Ok(Step::Finished { more })
            }
            Progress::Stepped { deleted } => {
                shared.observer.compacted(deleted);
                Ok(Step::Stepped)
            }
            Progress::Idle => Ok(Step::Idle),
        }
    }
}

fn follow_members(shared: &Shared, follow: impl FnOnce(&Membership)) {
    let membership = shared.state.membership.read();
    if membership.is_removed(shared.id) {
        shared.signals.remove();
    }
    follow(&membership);
}

impl Changes {
    fn of(events: &[(i64, Arc<[Event]>)]) -> Changes {
        let mut changes = Changes::default();
        for (_, events) in events {
            let puts = events.iter().filter(|event| event.kind == EventKind::Put);
            let (mut count, mut bytes) = (0, 0);
            for put in puts {
                count += 1;
                bytes += put.record.key().len() + put.record.value().len();
            }
            changes.puts += count;
            changes.put_bytes += bytes as u64;
            changes.deletes += events.len() as u64 - count;
            changes.txns += u64::from(events.len() > 1);
        }
        changes
    }
}
