//! What every thread of the member shares.

use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};
use std::time::Duration;

use parking_lot::RwLock;
use retcd_node::Input;
use retcd_proto::etcdserverpb::ResponseHeader;
use retcd_state::lease::SharedLessor;
use retcd_state::mvcc;
use retcd_storage::backend::Backend;

use super::apply_thread::ToApply;
use super::clock::Clock;
use super::mailbox::Mailboxes;
use super::progress::Progress;
use crate::config::Config;
use crate::metrics::Metrics;

/// The member as seen from a connection: readers, queues and numbers, no decisions.
pub struct Member {
    /// This member's id.
    pub id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The effective configuration.
    pub config: Arc<Config>,
    /// Limits that requests are checked against.
    pub limits: Limits,
    /// Reads the keyspace.
    pub reader: mvcc::Reader,
    /// The leases.
    pub lessor: SharedLessor,
    /// Membership, alarms and versions as of the last applied entry.
    pub cluster: RwLock<Arc<super::ClusterView>>,
    /// The database.
    pub backend: Backend,
    /// Raft's numbers.
    pub progress: Progress,
    /// Time since the start.
    pub clock: Clock,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// Ways to the connection threads.
    pub mailboxes: Mailboxes,
    pub(super) node: SyncSender<Input>,
    pub(super) apply: Sender<ToApply>,
    /// The newest revision whose compaction has finished; physical compactions wait for it.
    pub(super) compacted: tokio::sync::watch::Sender<i64>,
    /// Becomes true when the member stops.
    pub(super) stopping: tokio::sync::watch::Sender<bool>,
}

/// Limits on requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one proposal.
    pub request_bytes_max: usize,
    /// Bytes of one gRPC message from a client.
    pub receive_bytes_max: usize,
    /// Operations per list of a transaction.
    pub txn_ops_max: usize,
    /// Bytes in use from which writes are refused; `None` for no quota.
    pub quota_bytes: Option<u64>,
    /// How long a request may wait for its answer.
    pub request_timeout: Duration,
}

impl Member {
    /// A header with the current revision.
    pub fn header(&self) -> ResponseHeader {
        self.header_at(self.reader.revision())
    }

    /// A header with the revision that an operation ended at.
    pub fn header_at(&self, revision: i64) -> ResponseHeader {
        ResponseHeader {
            cluster_id: self.cluster_id,
            member_id: self.id,
            revision,
            raft_term: self.progress.term(),
        }
    }

    /// Membership, alarms and versions.
    pub fn cluster(&self) -> Arc<super::ClusterView> {
        Arc::clone(&self.cluster.read())
    }

    /// Resolves when the member stops.
    pub async fn stopped(&self) {
        let mut stopping = self.stopping.subscribe();
        // An error means that the member is gone altogether.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    }
}
