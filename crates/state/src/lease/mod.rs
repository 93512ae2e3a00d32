//! Leases: which exist, what is attached to them, and when they run out.
//!
//! Grants, revocations and checkpoints are log entries and change the same on every member. Time is
//! not: only the *primary* (the leader's lessor) has deadlines, renews them, and tells which leases
//! have expired, so that the node can propose their revocation. Everybody else holds leases to be
//! everlasting; a new primary gives each its full time, or what a checkpoint had left of it.
//!
//! A leader becomes the primary with the first entry of its term: only then has it applied all that
//! was granted and revoked before. What a client may be told of a lease, and by whom, is the matter
//! of [`renewal`].
//!
//! How much of its time a long lease has left is noted in the log from time to time, if that is
//! switched on (a *checkpoint*), so that it does not get all of it again from every new primary. A
//! renewal makes the note wrong: it has to be cleared, by an entry too, before the client may rely
//! on the renewal.
//!
//! Ownership: the lessor lives behind one mutex, [`SharedLessor`], that the machine takes for each
//! step of an entry (a look, a key that changes leases) and the runtime while it renews, looks up
//! or asks for expired ones. No call in here waits for anything, and none that clients or the
//! machine make often takes longer the more keys a lease has: [`LeaseKeys`] are given out as a copy
//! that shares its nodes.
//!
//! ```text
//! bucket lease:   8 bytes id, big endian → leasepb.Lease { 1 ID, 2 TTL, 3 RemainingTTL }
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use prost::Message;
use retcd_proto::leasepb;
use retcd_storage::backend::{self, BackendError, Bucket, WriteBatch};

use crate::Time;

pub mod renewal;

/// The longest time to live in seconds.
pub const TTL_MAX: i64 = 9_000_000_000;

/// How long a primary waits for a revocation that it asked for before it asks again.
const REVOKE_RETRY: Duration = Duration::from_secs(3);
/// Leases that a primary lets expire per second when it takes over: three quarters of the thousand
/// revocations per second that etcd allows itself.
const EXPIRIES_PER_SECOND: u32 = 750;
/// From this many leases on a new primary spreads their expiries.
const SPREAD_FROM: usize = 1000;
/// How often the remaining time of leases is checkpointed, of those that have more than this left.
const CHECKPOINT_INTERVAL: Duration = Duration::from_secs(300);
/// How long a primary waits for the entry of a checkpoint before it tells it again. etcd forgets
/// it.
const CHECKPOINT_RETRY: Duration = Duration::from_secs(10);

// A revocation, or a checkpoint, that is under way is not asked for again at every look.
const _: () = assert!(REVOKE_RETRY.as_nanos() > 0 && CHECKPOINT_RETRY.as_nanos() > 0);
const _: () = assert!(CHECKPOINT_RETRY.as_secs() < CHECKPOINT_INTERVAL.as_secs());
const _: () = assert!(EXPIRIES_PER_SECOND > 0 && SPREAD_FROM > EXPIRIES_PER_SECOND as usize);

/// The lessor as machine and runtime share it.
pub type SharedLessor = Arc<Mutex<Lessor>>;

/// What the lessor is told at start.
#[derive(Clone, Copy, Debug)]
pub struct LessorOptions {
    /// The shortest time to live in seconds; shorter ones are raised.
    pub ttl_min: i64,
    /// Whether the primary checkpoints the remaining time of long leases.
    pub checkpoint: bool,
    /// What a new primary gives each lease on top, for clients that still look for it: the election
    /// timeout. It also bounds how long a leader renews without asking whether it still leads
    /// ([`renewal`]).
    pub extend: Duration,
}

impl Default for LessorOptions {
    /// What etcd takes at its default election timeout of one second.
    fn default() -> Self {
        LessorOptions {
            ttl_min: 2,
            checkpoint: false,
            extend: Duration::from_secs(1),
        }
    }
}

/// The keys attached to a lease, in order. Clones are cheap and independent.
pub type LeaseKeys = imbl::OrdSet<Arc<[u8]>>;

/// Why a grant was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantError {
    /// Zero is no id.
    #[error("requested lease not found")]
    NoId,
    /// The id is taken.
    #[error("lease already exists")]
    Exists,
    /// The time to live is above [`TTL_MAX`].
    #[error("too large lease TTL")]
    TtlTooLarge,
}

/// Why a lease was not renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RenewError {
    /// Only the leader renews.
    #[error("not a primary lessor")]
    NotPrimary,
    /// There is no such lease.
    #[error("requested lease not found")]
    NotFound,
    /// The lease has run out and waits for its revocation: ask again until it is gone.
    #[error("lease expired")]
    Expired,
}

/// A renewed lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Renewed {
    /// The time to live in seconds, counted from now.
    pub ttl: i64,
    /// Whether a checkpoint is on record that has to be cleared by proposing one of 0 seconds.
    /// Until that is applied the client must not be told of the renewal, as the next primary would
    /// not know.
    pub clear_checkpoint: bool,
}

/// What there is to know of a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeToLive {
    /// The granted time to live in seconds.
    pub granted_ttl: i64,
    /// Whole seconds left.
    pub ttl: i64,
    /// The attached keys, if they were asked for.
    pub keys: LeaseKeys,
}

/// A row of bucket `lease` that is none.
#[derive(Debug, thiserror::Error)]
pub enum LeaseLoadError {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The row cannot be read.
    #[error("damaged lease in bucket lease: key {0:02x?}")]
    Damaged(Box<[u8]>),
}

struct Lease {
    ttl: i64,
    /// Seconds left at the last checkpoint, 0 for none.
    remaining_ttl: i64,
    /// When it runs out, on a primary.
    expiry: Option<Time>,
    /// Its place in `Lessor::due`: the expiry, or the next try to have it revoked.
    due: Option<Time>,
    /// Its place in `Lessor::checkpoints`.
    checkpoint_due: Option<Time>,
    keys: LeaseKeys,
}

impl Lease {
    fn new(ttl: i64, remaining_ttl: i64) -> Lease {
        Lease {
            ttl,
            remaining_ttl,
            expiry: None,
            due: None,
            checkpoint_due: None,
            keys: LeaseKeys::new(),
        }
    }

    /// Seconds that a new primary gives.
    fn remaining(&self) -> i64 {
        if self.remaining_ttl > 0 {
            self.remaining_ttl
        } else {
            self.ttl
        }
    }

    fn persist(&self, id: i64, batch: &mut WriteBatch) {
        let lease = leasepb::Lease {
            id,
            ttl: self.ttl,
            remaining_ttl: self.remaining_ttl,
        };
        batch.put(
            Bucket::Lease,
            &id.to_be_bytes(),
            lease.encode_to_vec().into(),
        );
    }
}

/// All leases.
pub struct Lessor {
    options: LessorOptions,
    leases: BTreeMap<i64, Lease>,
    /// The term in which this member leads; it need not have begun in the log.
    elected_in: Option<u64>,
    primary: bool,
    /// Every lease of a primary by the time it has to be looked at.
    due: BTreeSet<(Time, i64)>,
    /// Long leases of a primary by the time of their next checkpoint.
    checkpoints: BTreeSet<(Time, i64)>,
    /// The store's revision behind the last entry that took a lease away or changed what is
    /// attached to one; 0 if that was before the start.
    changed_at: i64,
}

impl Lessor {
    /// Reads bucket `lease`. The keys have to be attached by whoever reads them.
    pub fn open(
        reader: &backend::Reader,
        options: LessorOptions,
    ) -> Result<Lessor, LeaseLoadError> {
        let mut leases = BTreeMap::new();
        for row in reader.range(Bucket::Lease, b"", None) {
            let (key, value) = row?;
            let lease = leasepb::Lease::decode(&value[..])
                .map_err(|_| LeaseLoadError::Damaged(key[..].into()))?;
            leases.insert(
                lease.id,
                Lease::new(lease.ttl.max(options.ttl_min), lease.remaining_ttl),
            );
        }
        Ok(Lessor {
            options,
            leases,
            elected_in: None,
            primary: false,
            due: BTreeSet::new(),
            checkpoints: BTreeSet::new(),
            changed_at: 0,
        })
    }

    /// Records that an entry which makes `revision` has taken effect here, too. To be called under
    /// the lock under which it did.
    pub(crate) fn changed_at(&mut self, revision: i64) {
        let before = self.changed_at;
        assert!(
            before <= revision,
            "leases of {before} changed at {revision}"
        );
        self.changed_at = revision;
    }

    /// The store's revision that the lessor is of: readers may still be at an older one, and are at
    /// a newer one only if it changed no lease.
    pub(crate) fn revision(&self) -> i64 {
        self.changed_at
    }

    /// Whether the lease exists.
    pub fn contains(&self, id: i64) -> bool {
        self.leases.contains_key(&id)
    }

    /// Number of leases.
    pub fn len(&self) -> usize {
        self.leases.len()
    }

    /// Whether there are no leases.
    pub fn is_empty(&self) -> bool {
        self.leases.is_empty()
    }

    /// Whether this lessor keeps deadlines.
    pub fn is_primary(&self) -> bool {
        self.primary
    }

    /// The term in which this member keeps deadlines; `None` if it does not, or was made to without
    /// an election.
    pub fn primary_in(&self) -> Option<u64> {
        self.elected_in.filter(|_| self.primary)
    }

    /// All ids, each behind its expiry on a primary. Clients see them in the order of such pairs,
    /// which is left to the caller: it may let go of the lessor before.
    pub fn list(&self) -> Vec<(Option<Time>, i64)> {
        let leases = self.leases.iter();
        leases.map(|(id, lease)| (lease.expiry, *id)).collect()
    }

    /// Applies a grant; returns the effective time to live in seconds.
    pub fn grant(
        &mut self,
        id: i64,
        ttl: i64,
        now: Time,
        batch: &mut WriteBatch,
    ) -> Result<i64, GrantError> {
        if id == 0 {
            return Err(GrantError::NoId);
        }
        if ttl > TTL_MAX {
            return Err(GrantError::TtlTooLarge);
        }
        if self.leases.contains_key(&id) {
            return Err(GrantError::Exists);
        }
        let ttl = ttl.max(self.options.ttl_min);
        let lease = Lease::new(ttl, 0);
        lease.persist(id, batch);
        self.leases.insert(id, lease);
        if self.primary {
            self.run(id, ttl, now);
            self.schedule_next_checkpoint(id, now);
        }
        self.assert_deadlines();
        Ok(ttl)
    }

    /// Applies a revocation: the lease is gone, and the keys that were attached to it have to be
    /// deleted in this order. `None` if there is no such lease.
    pub fn revoke(&mut self, id: i64, batch: &mut WriteBatch) -> Option<LeaseKeys> {
        let lease = self.leases.remove(&id)?;
        if let Some(due) = lease.due {
            self.due.remove(&(due, id));
        }
        if let Some(due) = lease.checkpoint_due {
            self.checkpoints.remove(&(due, id));
        }
        self.assert_deadlines();
        batch.delete(Bucket::Lease, &id.to_be_bytes());
        Some(lease.keys)
    }

    /// Applies a checkpoint: what is left of the lease in seconds, 0 for all of it. An unknown
    /// lease is no error. With `persist` the checkpoint survives a restart.
    pub fn checkpoint(
        &mut self,
        id: i64,
        remaining_ttl: i64,
        now: Time,
        persist: bool,
        batch: &mut WriteBatch,
    ) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        lease.remaining_ttl = remaining_ttl;
        if persist {
            lease.persist(id, batch);
        }
        if self.primary {
            self.schedule_next_checkpoint(id, now);
        }
    }

    /// Attaches `key`, which must not be attached to it yet, and says whether there is such a
    /// lease; lease 0 is none.
    pub fn attach(&mut self, id: i64, key: &[u8]) -> bool {
        let Some(lease) = self.leases.get_mut(&id) else {
            return false;
        };
        let before = lease.keys.insert(key.into());
        debug_assert!(before.is_none(), "{key:?} was attached to {id:x} already");
        true
    }

    /// Detaches `key`, which must be attached if there is such a lease; lease 0 is none.
    pub fn detach(&mut self, id: i64, key: &[u8]) {
        if let Some(lease) = self.leases.get_mut(&id) {
            let before = lease.keys.remove(key);
            debug_assert!(before.is_some(), "{key:?} was not attached to {id:x}");
        }
    }

    /// The keys attached to a lease; none if there is no such lease.
    pub fn keys(&self, id: i64) -> LeaseKeys {
        let lease = self.leases.get(&id);
        lease.map_or_else(LeaseKeys::new, |lease| lease.keys.clone())
    }

    /// Gives the lease its full time again.
    pub fn renew(&mut self, id: i64, now: Time) -> Result<Renewed, RenewError> {
        if !self.primary {
            return Err(RenewError::NotPrimary);
        }
        let lease = self.leases.get_mut(&id).ok_or(RenewError::NotFound)?;
        if lease.expiry.is_some_and(|expiry| expiry <= now) {
            return Err(RenewError::Expired);
        }
        let (ttl, clear_checkpoint) = (lease.ttl, lease.remaining_ttl > 0);
        self.run(id, ttl, now);
        Ok(Renewed {
            ttl,
            clear_checkpoint,
        })
    }

    /// What is left of a lease; `None` if there is no such lease.
    pub fn time_to_live(&self, id: i64, now: Time, keys: bool) -> Option<TimeToLive> {
        let lease = self.leases.get(&id)?;
        let ttl = match lease.expiry {
            Some(expiry) => expiry.saturating_since(now).as_secs() as i64,
            None => lease.remaining(),
        };
        let keys = if keys {
            lease.keys.clone()
        } else {
            LeaseKeys::new()
        };
        Some(TimeToLive {
            granted_ttl: lease.ttl,
            ttl,
            keys,
        })
    }

    /// This member leads in `term`. It keeps deadlines from that term's first entry on.
    pub fn elect(&mut self, term: u64) {
        let before = self.elected_in.unwrap_or(0);
        assert!(before <= term, "elected in {term} after {before}");
        if self.elected_in != Some(term) {
            self.demote();
            self.elected_in = Some(term);
        }
    }

    /// Applies the first entry of a term.
    pub fn begin_term(&mut self, term: u64, now: Time) {
        if self.elected_in == Some(term) {
            self.promote(now, self.options.extend);
            self.elected_in = Some(term);
        }
    }

    /// Starts to keep deadlines: every lease gets its time, or what a checkpoint has left of it,
    /// and `extend` on top for clients that still look for the new leader.
    pub fn promote(&mut self, now: Time, extend: Duration) {
        self.demote();
        self.primary = true;
        let ids: Vec<i64> = self.leases.keys().copied().collect();
        for &id in &ids {
            self.resume(id, now, extend);
            self.schedule_next_checkpoint(id, now);
        }
        if ids.len() >= SPREAD_FROM {
            self.spread(now, extend);
        }
        self.assert_deadlines();
    }

    /// Keeps leases that would run out in one second from being more than can be revoked in it
    /// (etcd v3.7: `server/lease/lessor.go`, `Promote`).
    fn spread(&mut self, now: Time, extend: Duration) {
        let by_expiry: Vec<(Time, i64)> = self.due.iter().copied().collect();
        let Some((first, _)) = by_expiry.first() else {
            return;
        };
        let mut base = first.saturating_since(now);
        let mut next = base + Duration::from_secs(1);
        let mut expiries = 0;
        for (expiry, id) in by_expiry {
            let remaining = expiry.saturating_since(now);
            if remaining > next {
                base = remaining;
                next = base + Duration::from_secs(1);
                expiries = 1;
                continue;
            }
            expiries += 1;
            if expiries <= EXPIRIES_PER_SECOND {
                continue;
            }
            let rate_delay = Duration::from_secs(1) * expiries / EXPIRIES_PER_SECOND;
            // One that is seconds ahead of the window needs to move by so much less.
            let delay = rate_delay.saturating_sub(remaining.saturating_sub(base));
            next = base + delay;
            self.resume(id, now, delay + extend);
        }
    }

    /// Stops to keep deadlines.
    pub fn demote(&mut self) {
        self.primary = false;
        self.elected_in = None;
        self.due.clear();
        self.checkpoints.clear();
        for lease in self.leases.values_mut() {
            (lease.expiry, lease.due, lease.checkpoint_due) = (None, None, None);
        }
        self.assert_deadlines();
    }

    /// A primary has a deadline for each lease, anybody else for none.
    fn assert_deadlines(&self) {
        let (due, leases) = (self.due.len(), self.leases.len());
        let expected = if self.primary { leases } else { 0 };
        assert_eq!(due, expected, "deadlines of {leases} leases");
        let checkpoints = self.checkpoints.len();
        assert!(
            checkpoints <= due,
            "{checkpoints} checkpoints, {due} deadlines"
        );
    }

    /// Up to `limit` leases that have run out, by expiry. Their revocation is to be proposed; each
    /// is told again if it still exists after a few seconds.
    pub fn expired(&mut self, now: Time, limit: usize) -> Vec<i64> {
        let mut expired = Vec::new();
        while expired.len() < limit
            && let Some(&(due, id)) = self.due.first()
            && due <= now
        {
            self.schedule(id, now + REVOKE_RETRY);
            expired.push(id);
        }
        self.assert_deadlines();
        expired
    }

    /// When [`Lessor::expired`] has something to tell next.
    pub fn next_expiry(&self) -> Option<Time> {
        self.due.first().map(|(due, _)| *due)
    }

    /// Up to `limit` leases whose remaining time is to be checkpointed, as (id, seconds). Each is
    /// told again if its checkpoint is not applied within a few seconds.
    pub fn due_checkpoints(&mut self, now: Time, limit: usize) -> Vec<(i64, i64)> {
        let mut checkpoints = Vec::new();
        while checkpoints.len() < limit
            && let Some(&(due, id)) = self.checkpoints.first()
            && due <= now
        {
            let lease = &self.leases[&id];
            let left = lease
                .expiry
                .map_or(Duration::ZERO, |expiry| expiry.saturating_since(now));
            let seconds = left.as_secs() as i64 + i64::from(left.subsec_nanos() > 0);
            let next = if seconds == 0 {
                // It waits for its revocation.
                None
            } else if seconds >= lease.ttl {
                Some(now + CHECKPOINT_INTERVAL)
            } else {
                checkpoints.push((id, seconds));
                Some(now + CHECKPOINT_RETRY)
            };
            self.schedule_checkpoint(id, next);
        }
        checkpoints
    }

    /// When [`Lessor::due_checkpoints`] has something to look at next.
    pub fn next_checkpoint(&self) -> Option<Time> {
        self.checkpoints.first().map(|(due, _)| *due)
    }

    /// Lets the lease run from now for what it has left, and a bit longer.
    fn resume(&mut self, id: i64, now: Time, extend: Duration) {
        if let Some(lease) = self.leases.get(&id) {
            let remaining = lease.remaining();
            self.run(id, remaining, now + extend);
        }
    }

    /// Lets the lease run for this many seconds.
    fn run(&mut self, id: i64, seconds: i64, from: Time) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        let expiry = from + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
        lease.expiry = Some(expiry);
        self.schedule(id, expiry);
    }

    fn schedule(&mut self, id: i64, due: Time) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        if let Some(old) = lease.due.replace(due) {
            let removed = self.due.remove(&(old, id));
            assert!(removed, "lease {id:x} was not due at {old:?}");
        }
        let is_new = self.due.insert((due, id));
        assert!(is_new, "lease {id:x} is due at {due:?} twice");
    }

    /// Schedules the next checkpoint of a lease that has long to go.
    fn schedule_next_checkpoint(&mut self, id: i64, now: Time) {
        let Some(lease) = self.leases.get(&id) else {
            return;
        };
        let long = lease.remaining() > CHECKPOINT_INTERVAL.as_secs() as i64;
        let due = (self.options.checkpoint && long).then(|| now + CHECKPOINT_INTERVAL);
        self.schedule_checkpoint(id, due);
    }

    fn schedule_checkpoint(&mut self, id: i64, due: Option<Time>) {
        let Some(lease) = self.leases.get_mut(&id) else {
            return;
        };
        if let Some(old) = std::mem::replace(&mut lease.checkpoint_due, due) {
            let removed = self.checkpoints.remove(&(old, id));
            assert!(removed, "lease {id:x} had no checkpoint at {old:?}");
        }
        if let Some(due) = due {
            self.checkpoints.insert((due, id));
        }
    }
}
