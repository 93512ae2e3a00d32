//! Leases between members: the leader alone keeps deadlines, so that the others send renewals and questions on to it.
//!
//! What may be answered is decided by [`Renewal`]; here is who is asked, and how long is waited.

use std::time::Duration;

use bytes::Bytes;
use retcd_proto::etcdserverpb::{LeaseTimeToLiveRequest, LeaseTimeToLiveResponse};
use retcd_state::lease::renewal::{Renewal, Step};
use retcd_state::lease::{Lessor, TimeToLive};
use retcd_state::mvcc::StoreRevision;

use super::local::Local;
use crate::config::gates::Gate;
use crate::grpc::header::{self, header};
use crate::grpc::status::{self, Status};
use crate::http::LeaseError;
use crate::log::Hex;
use crate::peer::{ClientError, peer_urls_of};

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
        let mut renewal = Renewal::new(id);
        let deadline = self.member.clock.now() + self.member.limits.request_timeout;
        while self.member.clock.now() < deadline {
            match self.renew_here(&mut renewal, deadline).await {
                Ok(ttl) => return Ok(ttl),
                Err(LeaseError::NotFound) => return Ok(0),
                Err(LeaseError::Unconfirmed) => return Err(status::NOT_PRIMARY),
                Err(LeaseError::Behind) => return Err(status::TIMEOUT_APPLYING),
                Err(LeaseError::NotPrimary) => {}
            }
            if let Some(ttl) = self.renew_at_leader(id, &mut renewal, deadline).await? {
                return Ok(ttl);
            }
        }
        Err(status::TIMEOUT)
    }

    /// The same on behalf of another member, which holds this one to lead.
    ///
    /// # Errors
    /// There is no such lease, this member does not lead, or it is too slow.
    pub async fn renew_as_leader(&self, id: i64) -> Result<i64, LeaseError> {
        let deadline = self.member.clock.now() + self.member.limits.request_timeout;
        self.renew_here(&mut Renewal::new(id), deadline).await
    }

    async fn renew_here(
        &self,
        renewal: &mut Renewal,
        deadline: Duration,
    ) -> Result<i64, LeaseError> {
        let member = &*self.member;
        while member.clock.now() < deadline {
            let (now, led_at) = (member.clock.time(), self.led_at());
            let step = renewal.step(&mut member.lessor.lock(), now, led_at);
            match step {
                Step::Renewed(ttl) => {
                    member.metrics.lease.renewed.inc();
                    return Ok(ttl);
                }
                Step::ClearCheckpoint(ttl) => {
                    let cleared = self.clear_lease_checkpoint(renewal.id()).await;
                    cleared.map_err(|_| LeaseError::NotPrimary)?;
                    member.metrics.lease.renewed.inc();
                    return Ok(ttl);
                }
                Step::Unknown => return Err(LeaseError::NotFound),
                Step::AskLeader => return Err(LeaseError::NotPrimary),
                Step::ConfirmLeader => self.confirm_lead().await?,
                Step::CatchUp => {
                    let confirmed = self.linearizable().await;
                    confirmed.map_err(|_| LeaseError::Behind)?;
                    renewal.caught_up();
                }
                // With another leader the lease may come back.
                Step::Wait if member.is_stopping() => return Err(LeaseError::NotPrimary),
                Step::Wait => tokio::time::sleep(REVOKED_LOOK).await,
            }
        }
        Err(LeaseError::Behind)
    }

    /// Asks a quorum whether this member leads, and the machine whether it has caught up if `--feature-gates` want that
    /// of every renewal.
    async fn confirm_lead(&self) -> Result<(), LeaseError> {
        let member = &*self.member;
        let gates = &member.config.feature_gates;
        let confirmed = match gates.enabled(Gate::FastLeaseKeepAlive) {
            true => self.confirm_leader().await,
            false => self.linearizable().await,
        };
        match confirmed {
            Ok(confirmed) if confirmed.leads => Ok(()),
            Ok(_) => Err(LeaseError::NotPrimary),
            Err(error) => {
                crate::warn!("failed to confirm that this member leads";
                    "local-member-id" => Hex(member.id), "error" => &*error.message);
                Err(LeaseError::Unconfirmed)
            }
        }
    }

    /// `None` if it has to be tried again.
    async fn renew_at_leader(
        &self,
        id: i64,
        renewal: &mut Renewal,
        deadline: Duration,
    ) -> Result<Option<i64>, Status> {
        let leader = self.leader(deadline).await?;
        if leader.id == self.member.id {
            // Just elected: it keeps deadlines as soon as it has caught up.
            self.linearizable().await?;
            renewal.caught_up();
            return Ok(None);
        }
        for url in peer_urls_of(&leader) {
            match self.client.lease_renew(&url, id).await {
                Ok(ttl) => return Ok(Some(ttl)),
                Err(ClientError::LeaseNotFound) => {
                    renewal.denied();
                    return Ok(None);
                }
                Err(_) => {}
            }
        }
        tokio::time::sleep(FORWARD_RETRY).await;
        Ok(None)
    }

    /// What is left of a lease, -1 seconds if there is no such lease, and the keys attached to it if they are asked for.
    ///
    /// # Errors
    /// There is no leader, or none that answers in time.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Status> {
        let LeaseTimeToLiveRequest { id, keys } = request;
        // A leader that tells no revision had all that is shown here when it was asked.
        let ((), before) = self.look_at_leases(|_| ()).await;
        let deadline = self.member.clock.now() + self.member.limits.request_timeout;
        let mut denied = false;
        while self.member.clock.now() < deadline {
            let leader = self.leader(deadline).await?;
            if leader.id == self.member.id || denied {
                match self.time_to_live_as_leader(id, keys).await {
                    Ok((Some(found), revision)) => {
                        return Ok(self.time_to_live_response(id, found, revision));
                    }
                    Ok((None, revision)) => return Ok(self.no_such_lease(id, revision)),
                    Err(LeaseError::Behind | LeaseError::Unconfirmed) => {
                        return Err(status::TIMEOUT_APPLYING);
                    }
                    Err(LeaseError::NotPrimary | LeaseError::NotFound) => denied = false,
                }
                continue;
            }
            for url in peer_urls_of(&leader) {
                match self.client.lease_time_to_live(&url, id, keys).await {
                    Ok(found) => return self.pass_on_time_to_live(found, before).await,
                    // As with a renewal: what is committed says so, too, or it is not true.
                    Err(ClientError::LeaseNotFound) => denied = true,
                    Err(_) => {}
                }
            }
            if !denied {
                tokio::time::sleep(FORWARD_RETRY).await;
            }
        }
        Err(status::TIMEOUT)
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

    /// The same by what this member knows once a quorum has been asked, and the revision of the store that it is of.
    ///
    /// # Errors
    /// This member does not lead, or it is too slow.
    pub async fn time_to_live_as_leader(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<(Option<TimeToLive>, StoreRevision), LeaseError> {
        let confirmed = self.linearizable().await;
        let confirmed = confirmed.map_err(|_| LeaseError::Behind)?;
        let now = self.member.clock.time();
        let look = |lessor: &Lessor| (lessor.time_to_live(id, now, keys), lessor.is_primary());
        match self.look_at_leases(look).await {
            // Without deadlines what is left is not known.
            ((Some(_), primary), _) if !primary || !confirmed.leads => Err(LeaseError::NotPrimary),
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
}
