//! Leases between members: the leader alone keeps deadlines, so that the others send renewals and questions on to it.

use std::time::Duration;

use bytes::Bytes;
use retcd_proto::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use retcd_state::lease::{RenewError, TimeToLive};

use super::local::Local;
use super::reconfigure::peer_urls_of;
use crate::config::gates::Gate;
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

    /// What is left of a lease, `None` if there is no such lease.
    ///
    /// # Errors
    /// There is no leader, or none that answers in time.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<Option<LeaseTimeToLiveResponse>, Status> {
        let answer = |found: TimeToLive| LeaseTimeToLiveResponse {
            id: request.id,
            ttl: found.ttl,
            granted_ttl: found.granted_ttl,
            keys: found
                .keys
                .iter()
                .map(|key| Bytes::copy_from_slice(key))
                .collect(),
            ..LeaseTimeToLiveResponse::default()
        };
        let own = |found: Result<TimeToLive, LeaseError>| match found {
            Ok(found) => Ok(Some(answer(found))),
            Err(LeaseError::NotFound) => Ok(None),
            Err(LeaseError::NotPrimary) => Err(status::LEADER_CHANGED),
            Err(LeaseError::Behind) => Err(status::TIMEOUT_APPLYING),
        };
        if self.member.progress.is_leader() {
            return own(self.time_to_live_as_leader(request.id, request.keys).await);
        }
        let deadline = self.member.clock.now() + self.member.limits.request_timeout;
        while self.member.clock.now() < deadline {
            let leader = self.leader(deadline).await?;
            if leader.id == self.member.id {
                return own(self.time_to_live_as_leader(request.id, request.keys).await);
            }
            for url in peer_urls_of(&leader) {
                let asked = self
                    .client
                    .lease_time_to_live(&url, request.id, request.keys);
                match asked.await {
                    Ok(found) => return Ok(Some(found)),
                    Err(ClientError::LeaseNotFound) => return Ok(None),
                    Err(_) => {}
                }
            }
            tokio::time::sleep(FORWARD_RETRY).await;
        }
        Err(status::TIMEOUT)
    }

    /// The same at the leader itself.
    ///
    /// # Errors
    /// There is no such lease, this member does not lead, or it is too slow.
    pub async fn time_to_live_as_leader(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<TimeToLive, LeaseError> {
        let applied = self.applied_what_is_committed().await;
        applied.map_err(|_| LeaseError::Behind)?;
        let lessor = self.member.lessor.lock();
        let found = lessor.time_to_live(id, self.member.clock.time(), keys);
        match found {
            None => Err(LeaseError::NotFound),
            // Without deadlines what is left is not known.
            Some(_) if !lessor.is_primary() => Err(LeaseError::NotPrimary),
            Some(found) => Ok(found),
        }
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
