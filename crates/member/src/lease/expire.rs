//! What a leader does about leases on its own: revoke what has run out, and note what long ones
//! have left.
//!
//! Both hold in the term of the deadlines that they follow from, and only enter the log in it
//! (`Proposer::propose_as_leader`): a successor gives all leases their time again. So no quorum is
//! asked before whether this member still leads, which etcd does if its clock has stood still (v3.7:
//! `server/etcdserver/server.go`, `ensureLeadership`). A leader that has slept through an election
//! appends what it decides in its own term, which no quorum accepts any more; and what is committed
//! of that term stands before the successor's first entry, with which its deadlines begin.

use std::time::Duration;

use futures_util::future::join_all;
use retcd_proto::etcdserverpb::{
    InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest, LeaseRevokeRequest,
};

use super::Leases;
use crate::Error;

/// How often expired leases are looked for, as in etcd.
const INTERVAL: Duration = Duration::from_millis(500);
/// Leases that are revoked per look.
const REVOKE_MAX: usize = 500;
/// Revocations under way at a time.
const REVOKE_PARALLEL: usize = 16;
/// Checkpoints per proposal.
const CHECKPOINT_MAX: usize = 1000;

impl Leases {
    /// Revokes and checkpoints while this member leads; never ends.
    pub(crate) async fn run_expiry(&self) {
        loop {
            self.core.clock.sleep(INTERVAL).await;
            self.expire().await;
        }
    }

    async fn expire(&self) {
        let now = self.core.clock.time();
        let (term, expired, checkpoints) = {
            let mut lessor = self.core.shared.state.lessor.lock();
            let Some(term) = lessor.primary_in() else {
                return;
            };
            (
                term,
                lessor.expired(now, REVOKE_MAX),
                lessor.due_checkpoints(now, CHECKPOINT_MAX),
            )
        };
        for (id, remaining_ttl) in &checkpoints {
            assert!(
                *remaining_ttl > 0,
                "lease {id:x} has {remaining_ttl} s left at a checkpoint"
            );
        }
        for ids in expired.chunks(REVOKE_PARALLEL) {
            let revoked = join_all(ids.iter().map(|id| self.revoke_as_root(term, *id))).await;
            let count = revoked.iter().filter(|result| result.is_ok()).count();
            self.core.shared.observer.leases_expired(count);
        }
        if !checkpoints.is_empty() {
            // What fails now is due again at the next look.
            let _ = self.checkpoint(term, checkpoints).await;
        }
    }

    /// A revocation that fails is asked for again by the lessor. It deletes the lease's keys, which
    /// not everybody may.
    async fn revoke_as_root(&self, term: u64, id: i64) -> Result<(), Error> {
        let request = InternalRaftRequest {
            lease_revoke: Some(LeaseRevokeRequest { id }),
            ..Default::default()
        };
        let (root, proposer) = (self.core.access.root(), &self.core.proposer);
        let proposed = proposer.propose_as_leader(term, root, request.into());
        proposed.await.map(drop)
    }

    /// Notes what leases have left, as seconds by id, by the word of the primary of `term`.
    pub(super) async fn checkpoint(
        &self,
        term: u64,
        checkpoints: Vec<(i64, i64)>,
    ) -> Result<(), Error> {
        let checkpoint = |(id, remaining_ttl)| LeaseCheckpoint { id, remaining_ttl };
        let checkpoints = checkpoints.into_iter().map(checkpoint).collect();
        let request = InternalRaftRequest {
            lease_checkpoint: Some(LeaseCheckpointRequest { checkpoints }),
            ..Default::default()
        };
        let proposer = &self.core.proposer;
        let proposed = proposer.propose_as_leader(term, None, request.into());
        proposed.await.map(drop)
    }
}
