//! Leases between members: the leader alone keeps deadlines, so that the others send renewals and questions on to it.

use std::time::Duration;

use bytes::Bytes;
use retcd_proto::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use retcd_state::lease::{Lessor, RenewError, TimeToLive};
use retcd_state::mvcc::StoreRevision;

use super::local::Local;
use super::reconfigure::peer_urls_of;
use crate::config::gates::Gate;
use crate::grpc::header::{self, header};
use crate::grpc::status::{self, Status};
use crate::http::LeaseError;
use crate::peer::ClientError;

/// Pause between two tries to reach the leader, as in etcd.
const FORWARD_RETRY: Duration = Duration::from_millis(50);
/// How often a lease that has run out is looked at again until it is revoked.
const REVOKED_LOOK: Duration = Duration::from_millis(20);

impl Local {
    /// Gives a lease its full time again; returns it in seconds, 0 if there is no such lease.
    ///
    /// # Errors
    /// There is no leader, or none that answers in time.
    pub async fn renew_lease(&self, id: i64) -> Result<i64, Status> {
        if self.member.progress.is_leader() {
            self.ensure_leadership().await?;
            if !self.fast_keep_alive() || !self.member.lessor.lock().contains(id) {
                self.applied_what_is_committed().await?;
            }
            match self.renew_as_leader(id).await {
                Err(LeaseError::NotPrimary) => {}
                renewed => return settle(renewed),
            }
        }
        let deadline = self.member.clock.now() + self.member.limits.request_timeout;
        while self.member.clock.now() < deadline {
            let leader = self.leader(deadline).await?;
            if leader.id == self.member.id {
                match self.renew_as_leader(id).await {
                    Err(LeaseError::NotPrimary) => {}
                    renewed => return settle(renewed),
                }
            } else {
                for url in peer_urls_of(&leader) {
                    match self.client.lease_renew(&url, id).await {
                        Ok(ttl) => return Ok(ttl),
                        Err(ClientError::LeaseNotFound) => return Ok(0),
                        Err(_) => {}
                    }
                }
            }
            tokio::time::sleep(FORWARD_RETRY).await;
        }
        Err(status::TIMEOUT)
    }

    /// The same at the leader itself.
    ///
    /// # Errors
    /// There is no such lease, or this member does not lead.
    pub async fn renew_as_leader(&self, id: i64) -> Result<i64, LeaseError> {
        let member = &*self.member;
        loop {
            let renewed = member.lessor.lock().renew(id, member.clock.time());
            match renewed {
                Ok(renewed) => {
                    if renewed.clear_checkpoint {
                        // Or the next leader would not know of the renewal.
                        let cleared = self.clear_lease_checkpoint(id).await;
                        cleared.map_err(|_| LeaseError::NotPrimary)?;
                    }
                    member.metrics.lease.renewed.inc();
                    return Ok(renewed.ttl);
                }
                Err(RenewError::NotFound) => return Err(LeaseError::NotFound),
                Err(RenewError::NotPrimary) => return Err(LeaseError::NotPrimary),
                // Its revocation is on its way through the log; with another leader it may come back.
                Err(RenewError::Expired) if member.is_stopping() => {
                    return Err(LeaseError::NotPrimary);
                }
                Err(RenewError::Expired) => tokio::time::sleep(REVOKED_LOOK).await,
            }
        }
    }

    /// What is left of a lease, -1 seconds if there is no such lease, and the keys attached to it if they are asked for.
    ///
    /// # Errors
    /// There is no leader, or none that answers in time.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        if self.member.progress.is_leader() {
            return self.own_time_to_live(request).await;
        }
        // A leader that tells no revision had all that is shown here when it was asked.
        let ((), before) = self.look_at_leases(|_| ()).await;
        let deadline = self.member.clock.now() + self.member.limits.request_timeout;
        while self.member.clock.now() < deadline {
            let leader = self.leader(deadline).await?;
            if leader.id == self.member.id {
                return self.own_time_to_live(request).await;
            }
            for url in peer_urls_of(&leader) {
                let asked = self
                    .client
                    .lease_time_to_live(&url, request.id, request.keys);
                match asked.await {
                    Ok(found) => return self.pass_on_time_to_live(found, before).await,
                    Err(ClientError::LeaseNotFound) => {
                        let revision = self.revision_behind_all().await?;
                        return Ok(self.no_such_lease(request.id, revision));
                    }
                    Err(_) => {}
                }
            }
            tokio::time::sleep(FORWARD_RETRY).await;
        }
        Err(status::TIMEOUT)
    }

    async fn own_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        match self.time_to_live_as_leader(request.id, request.keys).await {
            Ok((Some(found), revision)) => {
                Ok(self.time_to_live_response(request.id, found, revision))
            }
            Ok((None, revision)) => Ok(self.no_such_lease(request.id, revision)),
            Err(LeaseError::NotFound) => Err(status::LEASE_NOT_FOUND),
            Err(LeaseError::NotPrimary) => Err(status::LEADER_CHANGED),
            Err(LeaseError::Behind) => Err(status::TIMEOUT_APPLYING),
        }
    }

    /// The leader's answer as this member's: of the leader's revision, once it is shown here.
    async fn pass_on_time_to_live(
        &self,
        mut found: LeaseTimeToLiveResponse,
        before: StoreRevision,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let own = header(self.member.origin(), before);
        found.header = Some(match found.header {
            Some(leaders) if leaders.revision > own.revision => {
                let published = self.watches.published(leaders.revision);
                let in_time = tokio::time::timeout(self.member.limits.request_timeout, published);
                in_time.await.map_err(|_| status::TIMEOUT)?;
                header::passed_on(self.member.origin(), &leaders)
            }
            _ => own,
        });
        Ok(found)
    }

    /// The answer for who asked this member, as a client or as a member that does not lead.
    pub fn time_to_live_response(
        &self,
        id: i64,
        found: TimeToLive,
        revision: StoreRevision,
    ) -> LeaseTimeToLiveResponse {
        let keys = found.keys.iter();
        LeaseTimeToLiveResponse {
            header: Some(header(self.member.origin(), revision)),
            id,
            ttl: found.ttl,
            granted_ttl: found.granted_ttl,
            keys: keys.map(|key| Bytes::copy_from_slice(key)).collect(),
        }
    }

    fn no_such_lease(&self, id: i64, revision: StoreRevision) -> LeaseTimeToLiveResponse {
        LeaseTimeToLiveResponse {
            header: Some(header(self.member.origin(), revision)),
            id,
            ttl: -1,
            ..LeaseTimeToLiveResponse::default()
        }
    }

    /// The same at the leader itself, and the revision of the store that it is of.
    ///
    /// # Errors
    /// This member does not lead, or it is too slow.
    pub async fn time_to_live_as_leader(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<(Option<TimeToLive>, StoreRevision), LeaseError> {
        let applied = self.applied_what_is_committed().await;
        applied.map_err(|_| LeaseError::Behind)?;
        let now = self.member.clock.time();
        let look = |lessor: &Lessor| (lessor.time_to_live(id, now, keys), lessor.is_primary());
        match self.look_at_leases(look).await {
            // Without deadlines what is left is not known.
            ((Some(_), false), _) => Err(LeaseError::NotPrimary),
            ((found, _), revision) => Ok((found, revision)),
        }
    }

    /// What `look` finds among the leases, and the revision of the store that this is of. Readers of this thread
    /// show that revision by then.
    pub async fn look_at_leases<T>(&self, look: impl FnOnce(&Lessor) -> T) -> (T, StoreRevision) {
        let (found, revision) = {
            let lessor = self.member.lessor.lock();
            (
                look(&lessor),
                self.member.reader.revision_of_leases(&lessor),
            )
        };
        self.watches.published(revision.get()).await;
        (found, revision)
    }

    /// A revision of the store that shows all that was committed when this was called: for an answer that says of
    /// something that it is gone.
    ///
    /// # Errors
    /// As [`Local::linearizable`].
    pub async fn revision_behind_all(&self) -> Result<StoreRevision, Status> {
        self.linearizable().await?;
        Ok(self.member.reader.view().revision())
    }

    /// Makes sure that this member still leads, if it may have slept through an election: a stopped process believes what it
    /// knew.
    ///
    /// # Errors
    /// It does not, or cannot know.
    pub async fn ensure_leadership(&self) -> Result<(), Status> {
        const TICKS: u32 = 3;
        let member = &*self.member;
        let awake = member.config.heartbeat_interval() * TICKS;
        if member
            .clock
            .now()
            .saturating_sub(member.progress.turned_at())
            < awake
        {
            return Ok(());
        }
        let confirmed = self.linearizable().await;
        if confirmed.is_ok() && member.progress.is_leader() {
            return Ok(());
        }
        crate::warn!("this member does not lead any more"; "local-member-id" => crate::log::Hex(member.id),
            "new-lead" => crate::log::Hex(member.progress.leader()));
        Err(status::NOT_PRIMARY)
    }

    fn fast_keep_alive(&self) -> bool {
        let gates = &self.member.config.feature_gates;
        gates.enabled(Gate::FastLeaseKeepAlive)
    }
}

fn settle(renewed: Result<i64, LeaseError>) -> Result<i64, Status> {
    match renewed {
        Ok(ttl) => Ok(ttl),
        Err(LeaseError::NotFound) => Ok(0),
        Err(LeaseError::NotPrimary) => Err(status::NOT_PRIMARY),
        Err(LeaseError::Behind) => Err(status::TIMEOUT_APPLYING),
    }
}
