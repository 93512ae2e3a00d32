//! What a member looks at before it proposes a change of the membership.
//!
//! These checks keep a cluster from losing its quorum by a change. They depend on what the
//! proposing member happens to know, so that they are no part of applying the change, and can be
//! switched off (`--strict-reconfig-check=false`). Matched is etcd v3.7: `mayAddMember` and its
//! like in `server/etcdserver/server.go`, and `server/etcdserver/api/membership/cluster.go`.

use std::time::Duration;

use super::{Member, Membership};

/// How long a connection must have held to count as [`Link::Steady`].
pub const HEALTH_INTERVAL: Duration = Duration::from_secs(5);

/// How a member is connected to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    /// It is not, or the other is unknown.
    Down,
    /// For less than [`HEALTH_INTERVAL`].
    Fresh,
    /// For longer.
    Steady,
}

/// Why a change of the membership is not proposed. The texts are etcd's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReconfigError {
    /// Of the voters after the change too few have been started.
    #[error("etcdserver: re-configuration failed due to not enough started members")]
    NotEnoughStarted,
    /// The proposing member is not connected to enough of the others.
    #[error("etcdserver: unhealthy cluster")]
    Unhealthy,
    /// The learner lacks too much of the log; see [`is_in_sync`].
    #[error("etcdserver: can only promote a learner member which is in sync with leader")]
    LearnerNotReady,
}

/// Whether a learner that has the log up to `learner` has enough of it to get a vote: nine tenths
/// of what the leader has.
pub fn is_in_sync(learner: u64, leader: u64) -> bool {
    u128::from(learner) * 10 >= u128::from(leader) * 9
}

fn quorum(voters: usize) -> usize {
    voters / 2 + 1
}

impl Membership {
    /// The members that have a vote, by ascending id.
    pub fn voters(&self) -> impl Iterator<Item = &Member> {
        self.members().filter(|member| !member.is_learner)
    }

    /// How many of these members there are, and how many of them are started.
    fn count<'a>(voters: impl Iterator<Item = &'a Member>) -> (usize, usize) {
        voters.fold((0, 0), |(all, started), voter| {
            (all + 1, started + usize::from(voter.is_started()))
        })
    }

    /// Whether enough voters are started for one more, which is not. One that is alone may always
    /// get company.
    pub fn is_ready_to_add_voter(&self) -> bool {
        let (voters, started) = Membership::count(self.voters());
        (voters, started) == (1, 1) || started >= quorum(voters + 1)
    }

    /// Whether enough voters are started without this one.
    pub fn is_ready_to_remove_voter(&self, id: u64) -> bool {
        let (voters, started) = Membership::count(self.voters().filter(|voter| voter.id != id));
        started >= quorum(voters)
    }

    /// Whether enough voters are started for one more, which is started, too.
    pub fn is_ready_to_promote(&self) -> bool {
        let (voters, started) = Membership::count(self.voters());
        started + 1 >= quorum(voters + 1)
    }

    /// Voters that `local` has a steady connection to, itself among them.
    fn connected(&self, local: u64, link: &impl Fn(u64) -> Link) -> usize {
        let is_connected = |voter: &&Member| voter.id == local || link(voter.id) == Link::Steady;
        self.voters().filter(is_connected).count()
    }

    /// Whether member `local`, which is connected to others by `link`, may propose to add a member.
    ///
    /// # Errors
    /// [`ReconfigError::NotEnoughStarted`] or [`ReconfigError::Unhealthy`].
    pub fn check_add(
        &self,
        is_learner: bool,
        local: u64,
        link: impl Fn(u64) -> Link,
    ) -> Result<(), ReconfigError> {
        if !is_learner && !self.is_ready_to_add_voter() {
            return Err(ReconfigError::NotEnoughStarted);
        }
        let voters = self.voters().count();
        // The new one counts as unavailable, even a learner.
        match voters == 1 || self.connected(local, &link) >= quorum(voters + 1) {
            true => Ok(()),
            false => Err(ReconfigError::Unhealthy),
        }
    }

    /// Whether member `local`, which is connected to others by `link`, may propose to remove member
    /// `id`. One that does not exist passes: that is for the applying of the change to say.
    ///
    /// # Errors
    /// [`ReconfigError::NotEnoughStarted`] or [`ReconfigError::Unhealthy`].
    pub fn check_remove(
        &self,
        id: u64,
        local: u64,
        link: impl Fn(u64) -> Link,
    ) -> Result<(), ReconfigError> {
        if self.member(id).is_some_and(|member| member.is_learner) {
            return Ok(());
        }
        if !self.is_ready_to_remove_voter(id) {
            return Err(ReconfigError::NotEnoughStarted);
        }
        // One that is down is no part of the quorum at work.
        if id != local && link(id) == Link::Down {
            return Ok(());
        }
        let (voters, connected) = (self.voters().count(), self.connected(local, &link));
        match connected > quorum(voters.saturating_sub(1)) {
            true => Ok(()),
            false => Err(ReconfigError::Unhealthy),
        }
    }

    /// Whether a learner that [`is_in_sync`] may be promoted.
    ///
    /// # Errors
    /// [`ReconfigError::NotEnoughStarted`].
    pub fn check_promote(&self) -> Result<(), ReconfigError> {
        match self.is_ready_to_promote() {
            true => Ok(()),
            false => Err(ReconfigError::NotEnoughStarted),
        }
    }
}
