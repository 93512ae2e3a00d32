//! Alarms, status and hashes, as clients and other members ask for them.

use std::rc::Rc;

use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::{AlarmMember, AlarmRequest, AlarmType, InternalRaftRequest};
use retcd_state::machine::Reply;
use retcd_state::membership::Downgrade;
use retcd_state::mvcc::{self, KeyspaceHash, StoreRevision};
use retcd_state::version::Version;
use retcd_storage::backend;

use crate::Error;
use crate::access::Credentials;
use crate::core::Core;
use crate::database::DatabaseStream;

/// Alarms, status and hashes.
pub struct Maintenance {
    core: Rc<Core>,
}

/// Where a member stands.
#[derive(Clone, Debug)]
pub struct StatusAnswer {
    /// The revision that the store shows.
    pub revision: StoreRevision,
    /// The index that the store shows; not above `raft.committed`.
    pub applied: u64,
    /// What the node says.
    pub raft: retcd_node::Status,
    /// Bytes of the database's file, and of those the ones in use.
    pub db_bytes: (u64, u64),
    /// All alarms.
    pub alarms: Vec<AlarmMember>,
    /// Whether the member has no vote.
    pub is_learner: bool,
    /// The version of the database's schema.
    pub storage_version: Option<Version>,
    /// The downgrade under way, if there is one.
    pub downgrade: Downgrade,
}

impl Maintenance {
    pub(crate) fn new(core: &Rc<Core>) -> Maintenance {
        Maintenance {
            core: Rc::clone(core),
        }
    }

    /// Raises, takes back or lists alarms, all through the log.
    ///
    /// # Errors
    /// The caller may not; as [`Core::propose_as`].
    pub async fn alarm(
        &self,
        credentials: &Credentials,
        action: AlarmAction,
        request: AlarmRequest,
    ) -> Result<(Vec<AlarmMember>, StoreRevision), Error> {
        let identity = match action {
            AlarmAction::Get => self.core.access.require_user(credentials).await?,
            _ => self.core.access.require_admin(credentials).await?,
        };
        let request = InternalRaftRequest {
            alarm: Some(request),
            ..Default::default()
        };
        let proposed = self.core.proposer.propose_by(identity, request.into());
        match proposed.await? {
            Reply::Alarm { revision, alarms } => Ok((alarms, revision)),
            other => unreachable!("an alarm request was answered with {other:?}"),
        }
    }

    /// Where this member stands.
    ///
    /// # Errors
    /// The caller has not logged in; the member stops, or is overwhelmed.
    pub async fn status(&self, credentials: &Credentials) -> Result<StatusAnswer, Error> {
        self.core.access.require_user(credentials).await?;
        let member = &*self.core.shared;
        // What was applied is looked at before what is committed, which is never less.
        let view = member.state.reader.view();
        let db_bytes = view.file_bytes();
        let (revision, applied) = (view.revision(), view.log_index());
        drop(view);
        let raft = self.core.read_index.inspect().await?.status;
        let alarms = member.state.alarms.read().list(AlarmType::None as i32);
        Ok(StatusAnswer {
            revision,
            applied,
            raft,
            db_bytes,
            alarms,
            is_learner: member.is_learner(),
            storage_version: member.storage_version(),
            downgrade: member.state.membership.read().downgrade(),
        })
    }

    /// The database as a file, as of now.
    ///
    /// # Errors
    /// The caller may not; the database cannot be read; the member stops.
    pub async fn snapshot(&self, credentials: &Credentials) -> Result<DatabaseStream, Error> {
        self.core.access.require_admin(credentials).await?;
        DatabaseStream::open(&self.core.shared.workers, &self.core.shared.backend).await
    }

    /// The hash of the whole database, and the revision that it shows.
    ///
    /// # Errors
    /// The caller may not; the database cannot be read; the member stops.
    pub async fn hash(&self, credentials: &Credentials) -> Result<(u32, StoreRevision), Error> {
        self.core.access.require_admin(credentials).await?;
        let started = self.core.clock.now();
        let (workers, view) = (
            &self.core.shared.workers,
            self.core.shared.state.reader.view(),
        );
        let (hash, revision) = workers.run(move || view.begin_hash()).await??;
        let hash = workers.run_in_pieces(hash, backend::HashInPieces::step);
        let hash = hash.await?.map_err(mvcc::StorageError::from)?;
        self.core
            .shared
            .observer
            .hash(self.core.clock.now() - started);
        Ok((hash, revision))
    }

    /// The hash of the keyspace at `revision`, 0 for the newest, and the revision of the store that
    /// it was asked of.
    ///
    /// # Errors
    /// The caller may not; as [`Maintenance::peers_hash_kv`].
    pub async fn hash_kv(
        &self,
        credentials: &Credentials,
        revision: i64,
    ) -> Result<(KeyspaceHash, StoreRevision), Error> {
        self.core.access.require_admin(credentials).await?;
        let started = self.core.clock.now();
        let hash = self.peers_hash_kv(revision).await?;
        self.core
            .shared
            .observer
            .hash_kv(self.core.clock.now() - started);
        Ok(hash)
    }

    /// The same for another member.
    ///
    /// # Errors
    /// The revision is gone or still to come; the database cannot be read; the member stops.
    pub async fn peers_hash_kv(
        &self,
        revision: i64,
    ) -> Result<(KeyspaceHash, StoreRevision), Error> {
        self.core.hash_kv(revision).await
    }
}
