//! The machine executes log entries.
//!
//! One straight `match` over the request: what it does follows from the entries and the state
//! alone, so that every member ends up with the same rows. All changes of a call to
//! [`Machine::apply`] go to the backend in one batch, together with the index of the last entry;
//! only then do readers see them and may their answers go out. Entries at or below that index
//! change nothing: after a crash the log is simply applied again.
//!
//! A member that is too far behind for the log takes over a database of the leader's with
//! [`Machine::restore`]; [`DatabaseCopy`] is what the leader sends.
//!
//! What a client can be told is an [`ApplyError`] beside the reply. A [`Fatal`] means that this
//! member cannot go on without losing or inventing data: the process has to stop.

mod copy;
mod load;
mod reply;
mod restore;
mod v2;

use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, InternalRaftRequest, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest, Request as V2Request,
    TxnRequest,
};
use retcd_proto::membershippb;
use retcd_proto::raftpb::{ConfChange, Entry, EntryType};
use retcd_proto::wire::{self, WireError};
use retcd_storage::backend::{Backend, BackendError, WriteBatch};

use crate::Jobs;
use crate::alarm::Alarms;
use crate::auth::{self, AuthStore, Caller};
use crate::entry::{LoggedRequest, keep_one};
use crate::lease::{GrantError, LessorOptions, SharedLessor};
use crate::membership::{Downgrade, Membership};
use crate::meta::{self, AppliedIndex};
use crate::mvcc::txn::{self, WriteError};
use crate::mvcc::{
    CompactError, Interval, Keyspace, Prev, Progress, RangeError, Reader, StorageError,
};
use crate::request::Operation;
use crate::v2::Timestamp;
use crate::version::{self, SchemaError, Version};
use crate::{Time, quota};
use load::Loaded;

pub use self::v2::{ReceivedTree, TreeError, concerns_v2};
pub use copy::{CopyError, DatabaseCopy, SnapshotHead};
pub use reply::{
    Applied, AppliedConfChange, ApplyError, CompactReply, Executed, Fatal, FatalProblem,
    LeaseGrantReply, OpenError, Reply,
};

pub use restore::{RestoreError, Restored};

/// Membership as machine and runtime share it; only the machine changes it.
pub type SharedMembership = Arc<RwLock<Membership>>;
/// Alarms as machine and runtime share them; only the machine changes them.
pub type SharedAlarms = Arc<RwLock<Alarms>>;
/// Users and roles as machine and runtime share them; only the machine changes them.
pub type SharedAuth = Arc<RwLock<AuthStore>>;

/// A moment, by both clocks.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// What leases count by.
    pub monotonic: Time,
    /// What API v2 tells the rest of a TTL by. Decides nothing.
    pub wall: Timestamp,
}

impl From<Time> for Moment {
    /// Where nobody is told a TTL of API v2.
    fn from(monotonic: Time) -> Moment {
        let wall = Timestamp(0);
        Moment { monotonic, wall }
    }
}

/// What the machine is told at start.
#[derive(Clone, Copy, Debug)]
pub struct MachineOptions {
    /// Leases.
    pub lessor: LessorOptions,
    /// How many learners the cluster may have.
    pub learners_max: usize,
    /// Whether checkpoints of leases survive a restart even in a cluster before 3.6.
    pub persist_checkpoints: bool,
    /// Bytes of values that are kept in memory; others are read from the backend when asked for.
    pub value_bytes_max: usize,
    /// How a start shares its work.
    pub jobs: Jobs,
    /// The wall clock at start, from which the TTLs are counted that the history of API v2 tells.
    /// Decides nothing.
    pub started: Timestamp,
}

impl Default for MachineOptions {
    fn default() -> Self {
        MachineOptions {
            lessor: LessorOptions::default(),
            learners_max: 1,
            persist_checkpoints: false,
            value_bytes_max: usize::MAX,
            jobs: Jobs::default(),
            started: Timestamp(0),
        }
    }
}

/// The replicated state.
pub struct Machine {
    backend: Backend,
    keyspace: Keyspace,
    lessor: SharedLessor,
    alarms: SharedAlarms,
    auth: SharedAuth,
    membership: SharedMembership,
    v2: v2::Tree,
    applied: AppliedIndex,
    /// What the backend has of `applied`.
    flushed: AppliedIndex,
    options: MachineOptions,
    /// Changes not written to the backend yet; empty between calls, but for the first revision of
    /// a new auth store, which goes with the first entry.
    batch: WriteBatch,
}

impl Machine {
    /// Rebuilds the state that `backend` holds.
    pub fn open(backend: Backend, options: MachineOptions) -> Result<Machine, OpenError> {
        let loaded = Loaded::read(&backend.reader(), options)?;
        let mut v2 = v2::Tree::of(&loaded.membership);
        if loaded.is_v2_written {
            v2.set_written();
            v2.publish(loaded.applied.index);
        }
        Ok(Machine {
            applied: loaded.applied,
            flushed: loaded.applied,
            alarms: Arc::new(RwLock::new(loaded.alarms)),
            v2,
            membership: Arc::new(RwLock::new(loaded.membership)),
            lessor: Arc::new(Mutex::new(loaded.lessor)),
            auth: Arc::new(RwLock::new(loaded.auth)),
            batch: loaded.batch,
            keyspace: Keyspace::new(backend.clone(), loaded.keyspace, loaded.applied.index),
            options,
            backend,
        })
    }

    /// Goes on with the tree of API v2 that a snapshot's `document` holds, of the entry `snapshot`,
    /// and with what `entries` did to it that the database has already. There is no document if
    /// its file could not be read.
    ///
    /// # Errors
    /// It holds none, or does not fit the entries.
    pub fn recover_v2(
        &mut self,
        document: Option<&[u8]>,
        snapshot: u64,
        entries: &[Entry],
    ) -> Result<(), TreeError> {
        let membership = self.membership.read();
        let applied = self.applied.index;
        let is_written = self.v2.store().is_written();
        if is_written && document.is_none() && snapshot > 0 {
            return Err(TreeError::Unreadable { snapshot });
        }
        let started = self.options.started;
        self.v2 = v2::Tree::recover(document, snapshot, entries, &membership, applied, started)?;
        self.v2.set_written_if(is_written, &membership);
        self.v2.publish(applied);
        Ok(())
    }

    /// Reads and watches of API v2's tree, for any thread.
    pub fn v2_reader(&self) -> crate::v2::Reader {
        self.v2.store().reader()
    }

    /// Goes on with the tree of API v2 that came with the database of [`Machine::restore`].
    ///
    /// # Errors
    /// The database cannot be read.
    pub fn install_v2(&mut self, tree: ReceivedTree) -> Result<(), BackendError> {
        let is_written = meta::is_v2_written(&self.backend.reader())?;
        let membership = self.membership.read();
        self.v2
            .install(tree, is_written, &membership, self.applied.index);
        Ok(())
    }

    /// A reader of the keyspace, for any thread.
    pub fn reader(&self) -> Reader {
        self.keyspace.reader()
    }

    /// The lessor; see [`crate::lease`] for who may hold it.
    pub fn lessor(&self) -> SharedLessor {
        Arc::clone(&self.lessor)
    }

    /// The alarms.
    pub fn alarms(&self) -> SharedAlarms {
        Arc::clone(&self.alarms)
    }

    /// Users and roles.
    pub fn auth_store(&self) -> SharedAuth {
        Arc::clone(&self.auth)
    }

    /// The membership.
    pub fn membership(&self) -> SharedMembership {
        Arc::clone(&self.membership)
    }

    /// How far the log is applied. Raft starts from here, with the membership's
    /// [`conf_state`](Membership::conf_state).
    pub fn applied(&self) -> AppliedIndex {
        self.applied
    }

    /// A snapshot of what is applied; the database has to be durable up to there before it counts.
    ///
    /// # Panics
    /// If nothing is applied yet.
    pub fn snapshot_head(&self) -> SnapshotHead {
        let applied = self.applied;
        let membership = self.membership.read().clone();
        let conf_state = membership.conf_state().clone();
        assert!(
            applied.index > 0 && !conf_state.voters.is_empty(),
            "a snapshot at {} of {conf_state:?}",
            applied.index
        );
        SnapshotHead {
            applied,
            conf_state,
            membership,
            tree: self.v2.store().document(),
        }
    }

    /// The version of the storage schema; `None` if a file from before 3.5 leaves it open.
    pub fn storage_version(&self) -> Result<Option<Version>, SchemaError> {
        version::detect(&self.backend.reader())
    }

    /// Takes the storage schema to the cluster's version, whose mark is all that differs; the new
    /// version, if it is one.
    pub fn update_storage_version(&mut self) -> Result<Option<Version>, SchemaError> {
        let Some(cluster) = self.membership.read().cluster_version() else {
            return Ok(None);
        };
        let target = Version::new(cluster.major, cluster.minor, 0);
        if self.storage_version()? == Some(target) {
            return Ok(None);
        }
        version::check(target)?;
        let mut batch = WriteBatch::default();
        version::put(target, &mut batch);
        self.backend.write(batch);
        Ok(Some(target))
    }

    /// Executes committed entries, in the order of the log; those already applied are passed over.
    /// `now` is what the deadlines of granted leases count from.
    ///
    /// After an error the machine must not be used any more.
    pub fn apply(&mut self, now: impl Into<Moment>, entries: &[Entry]) -> Result<Applied, Fatal> {
        let now = now.into();
        let mut applied = Applied::default();
        let before = self.keyspace.revision();
        for entry in entries {
            let (index, term) = (entry.index(), entry.term());
            if index <= self.applied.index {
                continue;
            }
            let result = self.apply_entry(now, entry, &mut applied);
            result.map_err(|problem| Fatal {
                index,
                term,
                problem,
            })?;
            self.applied = AppliedIndex { index, term };
        }
        self.flush();
        let (revision, told) = (self.keyspace.revision(), applied.events.len() as i64);
        assert_eq!(
            before + told,
            revision,
            "{told} revisions behind {before} are told to watchers"
        );
        applied.applied = self.applied;
        applied.compacting = self.keyspace.is_compacting();
        Ok(applied)
    }

    /// Looks at up to `limit` rows and removes those that compactions have made unreadable. To be
    /// called between batches, as often as the load allows, while [`Applied::compacting`].
    pub fn compaction_step(&mut self, limit: usize) -> Result<Progress, StorageError> {
        self.keyspace.compaction_step(limit)
    }

    /// Whether rows wait to be removed, also of a compaction that a restart interrupted.
    pub fn is_compacting(&self) -> bool {
        self.keyspace.is_compacting()
    }

    /// Hands the changes to the backend and then to the readers.
    fn flush(&mut self) {
        let (applied, flushed) = (self.applied.index, self.flushed.index);
        assert!(
            flushed <= applied,
            "applied went back, {flushed} to {applied}"
        );
        if self.applied != self.flushed {
            meta::put_applied(self.applied, &mut self.batch);
            self.flushed = self.applied;
        }
        // Before the backend: whoever copies it finds the tree that goes with it.
        self.v2.publish(applied);
        if !self.batch.is_empty() {
            self.backend.write(std::mem::take(&mut self.batch));
        }
        self.keyspace.publish(self.applied.index);
    }

    fn apply_entry(
        &mut self,
        now: Moment,
        entry: &Entry,
        applied: &mut Applied,
    ) -> Result<(), FatalProblem> {
        if self.applied.index > 0 && entry.index() != self.applied.index + 1 {
            return Err(FatalProblem::Gap {
                applied: self.applied.index,
            });
        }
        let kind = entry.r#type.unwrap_or_default();
        match EntryType::try_from(kind).map_err(|_| FatalProblem::UnknownType(kind))? {
            EntryType::EntryConfChange => self.apply_conf_change(entry, applied),
            EntryType::EntryConfChangeV2 => Err(FatalProblem::ConfChangeV2),
            EntryType::EntryNormal if entry.data().is_empty() => {
                self.lessor.lock().begin_term(entry.term(), now.monotonic);
                applied.begun_term = Some(entry.term());
                Ok(())
            }
            EntryType::EntryNormal => match request_of(entry)? {
                LoggedRequest::V3(request) => {
                    self.apply_request(now.monotonic, entry, *request, applied)
                }
                LoggedRequest::V2(request) => self.apply_v2(now.wall, &request, applied),
            },
        }
    }

    fn apply_conf_change(
        &mut self,
        entry: &Entry,
        applied: &mut Applied,
    ) -> Result<(), FatalProblem> {
        let mut change: ConfChange = decode(entry).map_err(|error| undecodable(entry, error))?;
        let mut membership = self.membership.write();
        let changed = self
            .v2
            .apply_conf_change(&change, &mut membership, &mut self.batch);
        let reply = match changed? {
            Ok(()) => Ok(Reply::Members(membership.members().cloned().collect())),
            Err(error) => {
                change.node_id = Some(0);
                Err(ApplyError::Member(error))
            }
        };
        applied.replies.push((change.id(), reply));
        applied.cluster_changed = true;
        let conf_state = membership.conf_state().clone();
        applied.conf_changes.push(AppliedConfChange {
            index: entry.index(),
            change,
            conf_state,
        });
        Ok(())
    }

    fn apply_request(
        &mut self,
        now: Time,
        entry: &Entry,
        mut request: InternalRaftRequest,
        applied: &mut Applied,
    ) -> Result<(), FatalProblem> {
        let admin = self.auth.read().check_admin_requests(&request);
        keep_one(&mut request);
        let id = match (&request.header, request.id) {
            (Some(header), 0) => header.id,
            (_, id) => id,
        };
        let position = AppliedIndex {
            index: entry.index(),
            term: entry.term(),
        };
        let reply = match admin {
            Ok(()) => {
                let reply = self.execute(now, position, &request, applied)?;
                applied.executed.push(Executed {
                    operation: Operation::of(&request),
                    success: matches!(reply, Ok(_) | Err(ApplyError::Compacted)),
                });
                reply
            }
            Err(refused) => Err(ApplyError::Auth(refused)),
        };
        applied.replies.push((id, reply));
        Ok(())
    }

    /// Executes one request.
    fn execute(
        &mut self,
        now: Time,
        position: AppliedIndex,
        request: &InternalRaftRequest,
        applied: &mut Applied,
    ) -> Result<Result<Reply, ApplyError>, FatalProblem> {
        let r = request;
        let revision = self.keyspace.store_revision();
        let done = Ok(Ok(Reply::Done { revision }));
        if let Some(request) = &r.cluster_version_set {
            self.set_cluster_version(&request.ver, applied)?;
            return done;
        } else if let Some(request) = &r.cluster_member_attr_set {
            self.set_attributes(request);
            applied.cluster_changed = true;
            return done;
        } else if let Some(request) = &r.downgrade_info_set {
            self.set_downgrade(request);
            applied.cluster_changed = true;
            return done;
        } else if r.downgrade_version_test.is_some() {
            return done;
        }
        if let Some(refused) = self.refused(r) {
            return Ok(Err(refused));
        }
        let caller = Caller::of(r.header.as_ref());
        if let Err(refused) = self.auth.read().check(caller, r, &self.lessor) {
            return Ok(Err(ApplyError::Auth(refused)));
        }
        if let Some(request) = &r.range {
            self.range(request)
        } else if let Some(request) = &r.put {
            self.put(request, applied)
        } else if let Some(request) = &r.delete_range {
            let mut changes = self.keyspace.begin(&mut self.batch);
            let reply = txn::delete_range(&mut changes, &self.lessor, request);
            applied.events.extend(changes.finish());
            Ok(Ok(Reply::DeleteRange(reply)))
        } else if let Some(request) = &r.txn {
            self.txn(request, applied)
        } else if let Some(request) = &r.compaction {
            Ok(self.compact(request))
        } else if let Some(request) = &r.lease_grant {
            Ok(self.lease_grant(now, request))
        } else if let Some(request) = &r.lease_revoke {
            self.lease_revoke(request, applied)
        } else if let Some(request) = &r.lease_checkpoint {
            Ok(Ok(self.lease_checkpoint(now, request)))
        } else if let Some(request) = &r.alarm {
            Ok(Ok(self.alarm(request)))
        } else {
            self.auth(position, r, applied)
        }
    }

    /// Changes of and questions for users and roles, and logins.
    fn auth(
        &mut self,
        position: AppliedIndex,
        request: &InternalRaftRequest,
        applied: &mut Applied,
    ) -> Result<Result<Reply, ApplyError>, FatalProblem> {
        let request = auth::password::settle(position, request);
        // The change is visible at once: whoever is permitted something by it must not find older
        // keys.
        if !self.batch.is_empty() {
            self.flush();
        }
        let reply = self
            .auth
            .write()
            .apply(position.index, &request, &mut self.batch);
        let reply = reply.ok_or(FatalProblem::UnknownRequest)?;
        if let Ok(reply) = &reply {
            let change = auth::token_change(position.index, &request, reply);
            applied.token_changes.extend(change);
        }
        let revision = self.keyspace.store_revision();
        Ok(match reply {
            Ok(reply) => Ok(Reply::Auth { revision, reply }),
            Err(refused) => Err(ApplyError::Auth(refused)),
        })
    }

    /// What the alarms forbid.
    fn refused(&self, r: &InternalRaftRequest) -> Option<ApplyError> {
        let alarms = self.alarms.read();
        if alarms.is_raised(AlarmType::Corrupt) {
            let keyspace =
                r.range.is_some() || r.put.is_some() || r.delete_range.is_some() || r.txn.is_some();
            let others =
                r.compaction.is_some() || r.lease_grant.is_some() || r.lease_revoke.is_some();
            return (keyspace || others).then_some(ApplyError::Corrupt);
        }
        if alarms.is_raised(AlarmType::Nospace) {
            let costly_txn = r.txn.as_ref().is_some_and(|txn| quota::txn_cost(txn) > 0);
            return (r.put.is_some() || costly_txn || r.lease_grant.is_some())
                .then_some(ApplyError::NoSpace);
        }
        None
    }

    fn range(&mut self, request: &RangeRequest) -> Result<Result<Reply, ApplyError>, FatalProblem> {
        self.flush_for_history(request.revision > 0);
        let changes = self.keyspace.begin(&mut self.batch);
        settle(
            changes
                .range(request)
                .map(Reply::Range)
                .map_err(WriteError::Range),
        )
    }

    fn put(
        &mut self,
        request: &PutRequest,
        applied: &mut Applied,
    ) -> Result<Result<Reply, ApplyError>, FatalProblem> {
        let mut changes = self.keyspace.begin(&mut self.batch);
        let reply = txn::put(&mut changes, &self.lessor, request);
        applied.events.extend(changes.finish());
        settle(reply.map(Reply::Put))
    }

    fn txn(
        &mut self,
        request: &TxnRequest,
        applied: &mut Applied,
    ) -> Result<Result<Reply, ApplyError>, FatalProblem> {
        self.flush_for_history(txn::reads_history(request));
        let mut changes = self.keyspace.begin(&mut self.batch);
        let reply = txn::txn(&mut changes, &self.lessor, request);
        applied.events.extend(changes.finish());
        settle(reply.map(Reply::Txn))
    }

    /// Older records are read from the backend: what this batch has written so far has to be there.
    fn flush_for_history(&mut self, reads_history: bool) {
        if reads_history && !self.batch.is_empty() {
            self.flush();
        }
    }

    fn compact(&mut self, request: &CompactionRequest) -> Result<Reply, ApplyError> {
        let revision = request.revision;
        self.keyspace
            .compact(revision, &mut self.batch)
            .map_err(|error| match error {
                CompactError::Compacted => ApplyError::Compacted,
                CompactError::FutureRevision => ApplyError::FutureRevision,
            })?;
        Ok(Reply::Compact(CompactReply {
            revision: self.keyspace.store_revision(),
            compacted: revision,
        }))
    }

    fn lease_grant(&mut self, now: Time, request: &LeaseGrantRequest) -> Result<Reply, ApplyError> {
        let mut lessor = self.lessor.lock();
        let ttl = lessor.grant(request.id, request.ttl, now, &mut self.batch);
        lessor.changed_at(self.keyspace.revision());
        drop(lessor);
        let ttl = ttl.map_err(|error| match error {
            GrantError::NoId => ApplyError::LeaseNotFound,
            GrantError::Exists => ApplyError::LeaseExists,
            GrantError::TtlTooLarge => ApplyError::LeaseTtlTooLarge,
        })?;
        Ok(Reply::LeaseGrant(LeaseGrantReply {
            revision: self.keyspace.store_revision(),
            id: request.id,
            ttl,
        }))
    }

    /// The lease and its keys go in one revision, in one batch.
    fn lease_revoke(
        &mut self,
        request: &LeaseRevokeRequest,
        applied: &mut Applied,
    ) -> Result<Result<Reply, ApplyError>, FatalProblem> {
        let keys = {
            let mut lessor = self.lessor.lock();
            let Some(keys) = lessor.revoke(request.id, &mut self.batch) else {
                return Ok(Err(ApplyError::LeaseNotFound));
            };
            lessor.changed_at(self.keyspace.revision() + i64::from(!keys.is_empty()));
            keys
        };
        let mut changes = self.keyspace.begin(&mut self.batch);
        for key in &keys {
            let deleted = changes.delete_range(Interval::Key(key));
            let leases = deleted.iter().filter_map(Prev::attributes);
            assert!(
                leases.map(|kv| kv.lease()).eq([request.id]),
                "{key:?} is attached to {:x}, deleted were {deleted:?}",
                request.id
            );
        }
        applied.events.extend(changes.finish());
        let (leases, revision) = (self.lessor.lock().revision(), self.keyspace.revision());
        assert_eq!(leases, revision, "leases are of {leases} at {revision}");
        Ok(Ok(Reply::LeaseRevoke {
            revision: self.keyspace.store_revision(),
        }))
    }

    fn lease_checkpoint(&mut self, now: Time, request: &LeaseCheckpointRequest) -> Reply {
        let cluster_version = self.membership.read().cluster_version();
        let persist =
            self.options.persist_checkpoints || cluster_version >= Some(Version::new(3, 6, 0));
        for checkpoint in &request.checkpoints {
            self.lessor.lock().checkpoint(
                checkpoint.id,
                checkpoint.remaining_ttl,
                now,
                persist,
                &mut self.batch,
            );
        }
        Reply::LeaseCheckpoint {
            revision: self.keyspace.store_revision(),
        }
    }

    fn alarm(&mut self, request: &AlarmRequest) -> Reply {
        let mut alarms = self.alarms.write();
        let (member_id, alarm) = (request.member_id, request.alarm);
        let alarms = match AlarmAction::try_from(request.action) {
            Ok(AlarmAction::Get) => alarms.list(alarm),
            Ok(AlarmAction::Activate) if alarm == AlarmType::None as i32 => Vec::new(),
            Ok(AlarmAction::Activate) => vec![alarms.activate(member_id, alarm, &mut self.batch)],
            Ok(AlarmAction::Deactivate) => alarms
                .deactivate(member_id, alarm, &mut self.batch)
                .into_iter()
                .collect(),
            Err(_) => Vec::new(),
        };
        let revision = self.keyspace.store_revision();
        Reply::Alarm { revision, alarms }
    }

    fn set_cluster_version(
        &mut self,
        version: &str,
        applied: &mut Applied,
    ) -> Result<(), FatalProblem> {
        let membership = &mut self.membership.write();
        self.v2
            .set_cluster_version(version, membership, &mut self.batch)?;
        applied.cluster_changed = true;
        Ok(())
    }

    fn set_attributes(&mut self, request: &membershippb::ClusterMemberAttrSetRequest) {
        let attributes = request.member_attributes.clone().unwrap_or_default();
        let membership = &mut self.membership.write();
        self.v2
            .set_attributes(request.member_id, &attributes, membership, &mut self.batch);
    }

    fn set_downgrade(&mut self, request: &membershippb::DowngradeInfoSetRequest) {
        let target_version = if request.enabled {
            request.ver.clone()
        } else {
            String::new()
        };
        let downgrade = Downgrade {
            target_version,
            enabled: request.enabled,
        };
        self.membership
            .write()
            .set_downgrade(downgrade, &mut self.batch);
    }

    fn apply_v2(
        &mut self,
        now: Timestamp,
        request: &V2Request,
        applied: &mut Applied,
    ) -> Result<(), FatalProblem> {
        let membership = &mut self.membership.write();
        let v2::Told {
            answer,
            cluster_changed,
        } = self.v2.apply(now, request, membership, &mut self.batch)?;
        applied.cluster_changed |= cluster_changed;
        applied.replies.push((request.id(), Ok(Reply::V2(answer))));
        Ok(())
    }
}

fn request_of(entry: &Entry) -> Result<LoggedRequest, FatalProblem> {
    LoggedRequest::of(entry).map_err(|error| undecodable(entry, error))
}

fn decode<T: prost::Message + prost::Name + Default>(entry: &Entry) -> Result<T, WireError> {
    wire::decode(entry.data.clone().unwrap_or_default())
}

fn undecodable(entry: &Entry, error: WireError) -> FatalProblem {
    let bytes = entry.data().len();
    match error {
        WireError::NotUtf8 => FatalProblem::NotUtf8 { bytes },
        error => FatalProblem::Undecodable { bytes, error },
    }
}

/// Tells what a client is to blame for from what the store is.
fn settle(reply: Result<Reply, WriteError>) -> Result<Result<Reply, ApplyError>, FatalProblem> {
    let error = match reply {
        Ok(reply) => return Ok(Ok(reply)),
        Err(error) => error,
    };
    Ok(Err(match error {
        WriteError::LeaseNotFound => ApplyError::LeaseNotFound,
        WriteError::KeyNotFound => ApplyError::KeyNotFound,
        WriteError::Range(RangeError::Compacted) => ApplyError::Compacted,
        WriteError::Range(RangeError::FutureRevision) => ApplyError::FutureRevision,
        WriteError::Range(RangeError::ReplyTooLarge(bytes)) => ApplyError::ReplyTooLarge(bytes),
        WriteError::Range(RangeError::Storage(error)) => return Err(error.into()),
    }))
}
