//! Leases: the leader alone keeps deadlines, so that the other members send renewals and questions
//! on to it.
//!
//! Grants and revocations go through the log. What a renewal may be answered is decided by
//! [`Renewal`]; here is who is asked, and how long is waited. `expire` is what a leader does on its
//! own.

mod expire;

use std::rc::Rc;
use std::time::Duration;

use retcd_log::{Hex, Text};
use retcd_proto::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest, LeaseRevokeRequest};
use retcd_state::auth::{self, AuthError, AuthStore, Caller};
use retcd_state::lease::renewal::{Renewal, Step};
use retcd_state::lease::{Lessor, TimeToLive};
use retcd_state::machine::{ApplyError, LeaseGrantReply, Reply};
use retcd_state::mvcc::StoreRevision;
use retcd_state::quota;

use crate::Error;
use crate::access::Credentials;
use crate::core::Core;
use crate::peers::PeerError;
use crate::read_index::LEADER_RETRY;
use crate::space::Space;
use crate::watch::Watches;

/// How often a lease that has run out is looked at again until it is revoked.
const REVOKED_LOOK: Duration = Duration::from_millis(20);

/// The leases.
pub struct Leases {
    core: Rc<Core>,
    space: Rc<Space>,
    watches: Rc<Watches>,
}

/// What is left of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeToLiveAnswer {
    /// The lease; `None` if there is none.
    pub found: Option<TimeToLive>,
    /// The state that this is of.
    pub revision: LeaseRevision,
}

/// The revision of the store that an answer about leases is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LeaseRevision {
    /// Of this member's.
    Own(StoreRevision),
    /// Of the leader's, which this member's shows, too.
    Leaders(i64),
}

impl LeaseRevision {
    /// The number.
    pub fn get(self) -> i64 {
        match self {
            LeaseRevision::Own(revision) => revision.get(),
            LeaseRevision::Leaders(revision) => revision,
        }
    }
}

/// A lease was renewed, or is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeepAliveAnswer {
    /// The lease's id.
    pub id: i64,
    /// Its time in seconds; 0 if there is no such lease.
    pub ttl: i64,
    /// A revision at which the lease was there, or, if there is none, at which it was gone.
    pub revision: StoreRevision,
}

/// Why a member that may lead does not answer for a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unanswered {
    /// There is no such lease.
    NotFound,
    /// It does not lead.
    NotPrimary,
    /// It may lead, but no quorum has said so in time.
    Unconfirmed,
    /// It has not applied in time what is committed.
    Behind,
}

impl From<Unanswered> for Error {
    fn from(unanswered: Unanswered) -> Error {
        match unanswered {
            Unanswered::NotFound => ApplyError::LeaseNotFound.into(),
            Unanswered::NotPrimary | Unanswered::Unconfirmed => Error::NotPrimary,
            Unanswered::Behind => Error::ApplyTimedOut,
        }
    }
}

impl Leases {
    pub(crate) fn new(core: &Rc<Core>, space: &Rc<Space>, watches: &Rc<Watches>) -> Leases {
        Leases {
            core: Rc::clone(core),
            space: Rc::clone(space),
            watches: Rc::clone(watches),
        }
    }

    /// Grants a lease; id 0 lets this member choose one.
    ///
    /// # Errors
    /// As [`Core::propose_as`] and [`Space::check`].
    pub async fn grant(
        &self,
        credentials: &Credentials,
        mut request: LeaseGrantRequest,
    ) -> Result<LeaseGrantReply, Error> {
        let identity = self.core.access.require_user(credentials).await?;
        while request.id == 0 {
            request.id = (self.core.proposer.next_id() & i64::MAX as u64) as i64;
        }
        let _promised = self.space.check(quota::LEASE_GRANT_COST).await?;
        let request = InternalRaftRequest {
            lease_grant: Some(request),
            ..Default::default()
        };
        let proposed = self.core.proposer.propose_by(identity, request.into());
        match proposed.await? {
            Reply::LeaseGrant(reply) => {
                self.core.shared.observer.lease_granted(reply.ttl);
                Ok(reply)
            }
            other => unreachable!("a grant was answered with {other:?}"),
        }
    }

    /// Revokes a lease and deletes its keys; the revision after that.
    ///
    /// # Errors
    /// As [`Core::propose_as`].
    pub async fn revoke(&self, credentials: &Credentials, id: i64) -> Result<StoreRevision, Error> {
        let identity = self.core.access.require_user(credentials).await?;
        let request = InternalRaftRequest {
            lease_revoke: Some(LeaseRevokeRequest { id }),
            ..Default::default()
        };
        let proposed = self.core.proposer.propose_by(identity, request.into());
        match proposed.await? {
            Reply::LeaseRevoke { revision } => {
                self.core.shared.observer.lease_revoked();
                Ok(revision)
            }
            other => unreachable!("a revocation was answered with {other:?}"),
        }
    }

    /// All leases, by the end of their time where it is known, for those who may read all their
    /// keys; and the revision of the store that this is of.
    ///
    /// # Errors
    /// The caller may not; as [`Access::identify`](crate::access::Access::identify).
    pub async fn list(
        &self,
        credentials: &Credentials,
    ) -> Result<(Vec<i64>, StoreRevision), Error> {
        self.core.access.require_user(credentials).await?;
        let (mut leases, revision) = self.look(Lessor::list).await;
        leases.sort_unstable();
        let ids: Vec<i64> = leases.into_iter().map(|(_, id)| id).collect();
        let lessor = &self.core.shared.state.lessor;
        let may_read = |store: &AuthStore, who: Caller<'_>| {
            ids.iter()
                .try_for_each(|id| store.check_lease(who, auth::Access::Read, *id, lessor))
        };
        self.core.access.require(credentials, may_read).await?;
        Ok((ids, revision))
    }

    /// Gives a lease its full time again.
    ///
    /// # Errors
    /// The caller may not write its keys; there is no leader, or none that answers in time.
    pub async fn keep_alive(
        &self,
        credentials: &Credentials,
        id: i64,
    ) -> Result<KeepAliveAnswer, Error> {
        // Of before the renewal, so that it is none at which the lease may be gone.
        let ((), before) = self.look(|_| ()).await;
        self.check_renewal(credentials, id).await?;
        let ttl = self.renew(id).await?;
        let revision = match ttl {
            0 => self.revision_behind_all().await?,
            _ => before,
        };
        Ok(KeepAliveAnswer { id, ttl, revision })
    }

    /// Who keeps a lease alive must be able to write its keys.
    async fn check_renewal(&self, credentials: &Credentials, id: i64) -> Result<(), Error> {
        let state = &self.core.shared.state;
        if !state.auth.read().is_enabled() {
            return Ok(());
        }
        let mut identity = self.core.access.require_user(credentials).await?;
        if !state.lessor.lock().contains(id) {
            // Granted a moment ago, it may not be applied here yet, nor may its keys.
            self.core.read_index.linearizable().await?;
            identity = self.core.access.identify(credentials).await?;
        }
        let may_write = |store: &AuthStore, who: Caller<'_>| {
            store.check_lease(who, auth::Access::Write, id, &state.lessor)
        };
        self.core.access.check(identity.as_ref(), may_write)
    }

    /// Gives a lease its full time again; returns it in seconds, 0 if there is no such lease.
    async fn renew(&self, id: i64) -> Result<i64, Error> {
        let mut renewal = Renewal::new(id);
        let deadline = self.deadline();
        while self.core.clock.now() < deadline {
            match self.renew_here(&mut renewal, deadline).await {
                Ok(ttl) => return Ok(ttl),
                Err(Unanswered::NotFound) => return Ok(0),
                Err(Unanswered::NotPrimary) => {}
                Err(other) => return Err(other.into()),
            }
            if let Some(ttl) = self.renew_at_leader(id, &mut renewal, deadline).await? {
                return Ok(ttl);
            }
        }
        Err(Error::TIMED_OUT)
    }

    fn deadline(&self) -> Duration {
        self.core.clock.now() + self.core.shared.config.limits.request_timeout
    }

    /// Gives a lease its full time again on behalf of another member, which holds this one to lead.
    ///
    /// # Errors
    /// There is no such lease, this member does not lead, or it is too slow.
    pub async fn renew_as_leader(&self, id: i64) -> Result<i64, Error> {
        let deadline = self.deadline();
        Ok(self.renew_here(&mut Renewal::new(id), deadline).await?)
    }

    async fn renew_here(
        &self,
        renewal: &mut Renewal,
        deadline: Duration,
    ) -> Result<i64, Unanswered> {
        let member = &*self.core.shared;
        while self.core.clock.now() < deadline {
            let (now, led_at) = (self.core.clock.time(), self.core.read_index.led_at());
            let (term, step) = {
                let mut lessor = member.state.lessor.lock();
                (lessor.primary_in(), renewal.step(&mut lessor, now, led_at))
            };
            if let Step::Renewed(ttl) | Step::ClearCheckpoint(ttl) = step {
                // Clients take 0 for the end of the lease.
                assert!(ttl > 0, "lease {:x} was renewed for {ttl} s", renewal.id());
            }
            match step {
                Step::Renewed(ttl) => {
                    member.observer.lease_renewed();
                    return Ok(ttl);
                }
                Step::ClearCheckpoint(ttl) => {
                    let term = term.ok_or(Unanswered::NotPrimary)?;
                    let cleared = self.clear_checkpoint(term, renewal.id()).await;
                    cleared.map_err(|_| Unanswered::NotPrimary)?;
                    member.observer.lease_renewed();
                    return Ok(ttl);
                }
                Step::Unknown => return Err(Unanswered::NotFound),
                Step::AskLeader => return Err(Unanswered::NotPrimary),
                Step::ConfirmLeader => self.confirm_lead().await?,
                Step::CatchUp => {
                    let confirmed = self.core.read_index.linearizable().await;
                    confirmed.map_err(|_| Unanswered::Behind)?;
                    renewal.caught_up();
                }
                // With another leader the lease may come back.
                Step::Wait if member.signals.is_stopping() => return Err(Unanswered::NotPrimary),
                Step::Wait => self.core.clock.sleep(REVOKED_LOOK).await,
            }
        }
        Err(Unanswered::Behind)
    }

    /// Asks a quorum whether this member leads, and the machine whether it has caught up if the
    /// gate wants that of every renewal.
    async fn confirm_lead(&self) -> Result<(), Unanswered> {
        let confirmed = match self.core.shared.config.fast_lease_keep_alive {
            true => self.core.read_index.confirm_leader().await,
            false => self.core.read_index.linearizable().await,
        };
        match confirmed {
            Ok(confirmed) if confirmed.leads() => Ok(()),
            Ok(_) => Err(Unanswered::NotPrimary),
            Err(error) => {
                retcd_log::warn!("failed to confirm that this member leads";
                    "local-member-id" => Hex(self.core.shared.id), "error" => Text(&error));
                Err(Unanswered::Unconfirmed)
            }
        }
    }

    /// `None` if it has to be tried again.
    async fn renew_at_leader(
        &self,
        id: i64,
        renewal: &mut Renewal,
        deadline: Duration,
    ) -> Result<Option<i64>, Error> {
        let leader = self.core.read_index.leader(deadline).await?;
        if leader.id == self.core.shared.id {
            // Just elected: it keeps deadlines as soon as it has caught up.
            self.core.read_index.linearizable().await?;
            renewal.caught_up();
            return Ok(None);
        }
        match self.core.peers.renew_lease(&leader, id).await {
            Ok(ttl) => return Ok(Some(ttl)),
            Err(PeerError::LeaseNotFound) => renewal.denied(),
            Err(_) => self.core.clock.sleep(LEADER_RETRY).await,
        }
        Ok(None)
    }

    /// Forgets the remaining time that a checkpoint noted for a lease which has its full time
    /// again. Only in the term of the renewal: a successor that comes to know of it later has
    /// counted from the checkpoint, and would let the lease end before the time that the client was
    /// told.
    async fn clear_checkpoint(&self, term: u64, id: i64) -> Result<(), Error> {
        self.checkpoint(term, vec![(id, 0)]).await
    }

    /// What is left of a lease, and the keys attached to it if they are asked for and may be read.
    ///
    /// # Errors
    /// The caller may not read the keys; there is no leader, or none that answers in time.
    pub async fn time_to_live(
        &self,
        credentials: &Credentials,
        id: i64,
        keys: bool,
    ) -> Result<TimeToLiveAnswer, Error> {
        self.core.access.require_user(credentials).await?;
        let answer = self.find(id, keys).await?;
        // These keys, not those that the lease has a moment earlier or later.
        let keys = answer.found.iter().flat_map(|found| found.keys.iter());
        let may_read = |store: &AuthStore, who: Caller<'_>| may_read_all(store, who, keys);
        self.core.access.require(credentials, may_read).await?;
        Ok(answer)
    }

    async fn find(&self, id: i64, keys: bool) -> Result<TimeToLiveAnswer, Error> {
        // A leader that tells no revision had all that is shown here when it was asked.
        let ((), before) = self.look(|_| ()).await;
        let deadline = self.deadline();
        let mut denied = false;
        while self.core.clock.now() < deadline {
            let leader = self.core.read_index.leader(deadline).await?;
            if leader.id == self.core.shared.id || denied {
                match self.find_as_leader(id, keys).await {
                    Ok((found, revision)) => {
                        let revision = LeaseRevision::Own(revision);
                        return Ok(TimeToLiveAnswer { found, revision });
                    }
                    Err(Unanswered::Behind | Unanswered::Unconfirmed) => {
                        return Err(Error::ApplyTimedOut);
                    }
                    Err(Unanswered::NotPrimary | Unanswered::NotFound) => denied = false,
                }
                continue;
            }
            match self.core.peers.time_to_live(&leader, id, keys).await {
                Ok(told) => {
                    let revision = self.show_leaders(told.revision, before).await?;
                    let found = Some(told.found);
                    return Ok(TimeToLiveAnswer { found, revision });
                }
                // As with a renewal: what is committed says so, too, or it is not true.
                Err(PeerError::LeaseNotFound) => denied = true,
                Err(_) => self.core.clock.sleep(LEADER_RETRY).await,
            }
        }
        Err(Error::TIMED_OUT)
    }

    /// The revision of an answer that the leader gave at `leaders`, once it is shown here.
    async fn show_leaders(
        &self,
        leaders: Option<i64>,
        before: StoreRevision,
    ) -> Result<LeaseRevision, Error> {
        let Some(revision) = leaders.filter(|revision| *revision > before.get()) else {
            return Ok(LeaseRevision::Own(before));
        };
        let timeout = self.core.shared.config.limits.request_timeout;
        let published = self.watches.published(revision);
        let in_time = self.core.clock.within(timeout, published).await;
        in_time.ok_or(Error::TIMED_OUT)?;
        Ok(LeaseRevision::Leaders(revision))
    }

    /// What is left of a lease by what this member knows once a quorum has been asked, and the
    /// revision of the store that it is of: for another member, which holds this one to lead.
    ///
    /// # Errors
    /// There is no such lease, this member does not lead, or it is too slow.
    pub async fn time_to_live_as_leader(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<(TimeToLive, StoreRevision), Error> {
        let (found, revision) = self.find_as_leader(id, keys).await?;
        Ok((found.ok_or(Unanswered::NotFound)?, revision))
    }

    async fn find_as_leader(
        &self,
        id: i64,
        keys: bool,
    ) -> Result<(Option<TimeToLive>, StoreRevision), Unanswered> {
        let confirmed = self.core.read_index.linearizable().await;
        let confirmed = confirmed.map_err(|_| Unanswered::Behind)?;
        let now = self.core.clock.time();
        let look = |lessor: &Lessor| (lessor.time_to_live(id, now, keys), lessor.is_primary());
        match self.look(look).await {
            // Without deadlines what is left is not known.
            ((Some(_), primary), _) if !primary || !confirmed.leads() => {
                Err(Unanswered::NotPrimary)
            }
            ((found, _), revision) => Ok((found, revision)),
        }
    }

    /// What `look` finds among the leases, and the revision of the store that this is of. Readers
    /// of this thread show that revision by then.
    async fn look<T>(&self, look: impl FnOnce(&Lessor) -> T) -> (T, StoreRevision) {
        let (found, revision) = {
            let state = &self.core.shared.state;
            let lessor = state.lessor.lock();
            (look(&lessor), state.reader.revision_of_leases(&lessor))
        };
        self.watches.published(revision.get()).await;
        (found, revision)
    }

    /// A revision of the store that shows all that was committed when this was called: for an
    /// answer that says of something that it is gone.
    async fn revision_behind_all(&self) -> Result<StoreRevision, Error> {
        self.core.read_index.linearizable().await?;
        Ok(self.core.shared.state.reader.view().revision())
    }
}

fn may_read_all<'a, K: AsRef<[u8]> + 'a>(
    store: &AuthStore,
    who: Caller<'_>,
    mut keys: impl Iterator<Item = &'a K>,
) -> Result<(), AuthError> {
    if store.check_admin(who).is_ok() {
        return Ok(());
    }
    keys.try_for_each(|key| store.check_keys(who, auth::Access::Read, key.as_ref(), b""))
}
