//! Members and changes of the membership, as clients ask for them.
//!
//! What is checked here depends on what this member happens to know, so that it is no part of
//! applying the change: whether the cluster would keep a quorum of started members that can be
//! talked to, and whether a learner has caught up, which the leader alone knows.
//! `--strict-reconfig-check=false` switches all but the last off. Whether the change fits to the
//! membership is for the machine to say, the same on all members.
//!
//! All checks are made by the membership and the progress of the moment: what was changed through
//! another member before counts.

use std::rc::Rc;

use retcd_log::{Hex, Text};
use retcd_node::Standing;
use retcd_proto::raftpb::ConfChangeType;
use retcd_state::identity::member_id;
use retcd_state::membership::{
    ConfChangeContext, Link, Member, MemberError, Membership, ReconfigError,
};

use crate::Error;
use crate::access::Credentials;
use crate::core::Core;
use crate::peers::PeerError;
use crate::read_index::LEADER_RETRY;
use retcd_state::membership::HEALTH_INTERVAL;
use std::time::Duration;

/// The members of the cluster.
pub struct Cluster {
    core: Rc<Core>,
}

impl Cluster {
    pub(crate) fn new(core: &Rc<Core>) -> Cluster {
        Cluster {
            core: Rc::clone(core),
        }
    }

    /// The members, by id; those of everything that is committed if `linearizable`.
    ///
    /// # Errors
    /// The caller has not logged in; as
    /// [`ReadIndex::linearizable`](crate::read_index::ReadIndex::linearizable).
    pub async fn list(
        &self,
        credentials: &Credentials,
        linearizable: bool,
    ) -> Result<Vec<Member>, Error> {
        self.core.access.require_user(credentials).await?;
        if linearizable {
            self.core.read_index.linearizable().await?;
        }
        let membership = self.core.shared.state.membership.read();
        Ok(membership.members().cloned().collect())
    }

    /// Adds a member; returns it and all members.
    ///
    /// # Errors
    /// URLs that are none, a cluster that is too weak, a URL that is taken; and as
    /// [`Proposer::propose`](crate::proposer::Proposer::propose).
    pub async fn add(
        &self,
        credentials: &Credentials,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<(Member, Vec<Member>), Error> {
        self.core.access.require_admin(credentials).await?;
        let peer_urls = self.parse_urls(peer_urls)?;
        // Not a founding member: the seconds make the id of one that was removed a new one.
        let id = member_id(&peer_urls, &(self.core.clock.unix_ms() / 1000).to_string());
        self.check_strictly("rejecting member add request", id, |membership, link| {
            membership.check_add(is_learner, self.core.shared.id, link)
        })
        .await?;
        let new = Member {
            id,
            peer_urls: Some(peer_urls),
            is_learner,
            ..Member::default()
        };
        let kind = match is_learner {
            true => ConfChangeType::ConfChangeAddLearnerNode,
            false => ConfChangeType::ConfChangeAddNode,
        };
        let context = context_of(new.clone());
        let members = self.change(kind, id, Some(&context)).await?;
        Ok((new, members))
    }

    /// Removes a member; returns those that are left.
    ///
    /// # Errors
    /// a cluster that would be too weak, or a member that does not exist; and as
    /// [`Proposer::propose`](crate::proposer::Proposer::propose).
    pub async fn remove(&self, credentials: &Credentials, id: u64) -> Result<Vec<Member>, Error> {
        self.core.access.require_admin(credentials).await?;
        self.check_strictly("rejecting member remove request", id, |membership, link| {
            membership.check_remove(id, self.core.shared.id, link)
        })
        .await?;
        // Not to be allowed by any flag: no member could ever do anything again.
        if self.core.shared.state.membership.read().is_last_voter(id) {
            return Err(ReconfigError::NotEnoughStarted.into());
        }
        self.change(ConfChangeType::ConfChangeRemoveNode, id, None)
            .await
    }

    /// Gives a member other peer URLs; returns all members.
    ///
    /// # Errors
    /// URLs that are none (which stop Go's members with a panic) or taken, or a member that does
    /// not exist; and as [`Proposer::propose`](crate::proposer::Proposer::propose).
    pub async fn update(
        &self,
        credentials: &Credentials,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<Vec<Member>, Error> {
        self.core.access.require_admin(credentials).await?;
        self.parse_urls(&peer_urls)?;
        let context = context_of(Member {
            id,
            peer_urls: Some(peer_urls),
            ..Member::default()
        });
        self.change(ConfChangeType::ConfChangeUpdateNode, id, Some(&context))
            .await
    }

    /// Gives a learner its vote, through the leader, who checks the client's `credentials` again;
    /// returns all members.
    ///
    /// # Errors
    /// The member does not exist, votes already, or has not caught up; and as
    /// [`Proposer::propose`](crate::proposer::Proposer::propose).
    pub async fn promote(&self, credentials: &Credentials, id: u64) -> Result<Vec<Member>, Error> {
        self.core.access.require_admin(credentials).await?;
        let deadline = self.core.clock.now() + self.core.shared.config.limits.request_timeout;
        while self.core.clock.now() < deadline {
            match self.promote_as_leader(id).await {
                Err(Error::NotLeader) => {}
                result => {
                    let observed = result.as_ref().map(|_| ());
                    self.core.shared.observer.promoted(observed);
                    return result;
                }
            }
            let leader = self.core.read_index.leader(deadline).await?;
            if leader.id != self.core.shared.id
                && let Some(promoted) = self.promote_at(&leader, id, credentials).await
            {
                return promoted;
            }
            self.core.clock.sleep(LEADER_RETRY).await;
        }
        Err(Error::TIMED_OUT)
    }

    async fn promote_as_leader(&self, id: u64) -> Result<Vec<Member>, Error> {
        if !self.core.read_index.leads().await {
            return Err(Error::NotLeader);
        }
        self.core.read_index.linearizable().await?;
        // Whoever leads when the change enters the log: what the learner has it keeps.
        self.check_in_sync(id).await?;
        self.check_strictly("rejecting member promote request", id, |membership, _| {
            membership.check_promote()
        })
        .await?;
        let context = ConfChangeContext {
            member: Member {
                id,
                ..Member::default()
            },
            is_promote: true,
        };
        self.change(ConfChangeType::ConfChangeAddNode, id, Some(&context))
            .await
    }

    /// Refuses a member that does not have nearly all of the log. What else is wrong with its
    /// promotion is for the machine to say.
    async fn check_in_sync(&self, id: u64) -> Result<(), Error> {
        let mut standing = self.core.read_index.inspect().await?.standing(id);
        if matches!(standing, Standing::Behind { grows: true, .. }) {
            // Its word for what it was sent last, and may have told others of, can be on its way.
            self.core
                .clock
                .sleep(self.core.shared.config.heartbeat_interval)
                .await;
            standing = self.core.read_index.inspect().await?.standing(id);
        }
        match standing {
            Standing::InSync => Ok(()),
            Standing::NotLeader => Err(Error::NotLeader),
            Standing::NotFound => Err(Error::MEMBER_NOT_FOUND),
            Standing::Behind { its, leaders, .. } => {
                let share = its as f64 / leaders as f64;
                retcd_log::error!("rejecting promote learner: learner is not ready";
                    "learner-ready-percent" => &format!("{share:.2}"),
                    "ready-percent-threshold" => "0.9");
                Err(ReconfigError::LearnerNotReady.into())
            }
        }
    }

    /// Asks the leader for it; `None` if it has to be tried again.
    async fn promote_at(
        &self,
        leader: &Member,
        id: u64,
        credentials: &Credentials,
    ) -> Option<Result<Vec<Member>, Error>> {
        let token = credentials.token.as_deref();
        Some(match self.core.peers.promote(leader, id, token).await {
            Ok(members) => Ok(members),
            Err(PeerError::MemberNotFound) => Err(Error::MEMBER_NOT_FOUND),
            Err(PeerError::NotLearner) => Err(Error::member(MemberError::NotLearner)),
            Err(PeerError::LearnerNotReady) => Err(ReconfigError::LearnerNotReady.into()),
            Err(_) => return None,
        })
    }

    /// Without a quorum the change could not be made; what is known here then says why not, as far
    /// as it does.
    async fn check_strictly(
        &self,
        rejecting: &'static str,
        id: u64,
        check: impl FnOnce(&Membership, &dyn Fn(u64) -> Link) -> Result<(), ReconfigError>,
    ) -> Result<(), Error> {
        let member = &*self.core.shared;
        if !member.config.strict_reconfig_check {
            return Ok(());
        }
        if member.leadership.leader() != 0 {
            let patience = member.config.election_timeout;
            let up_to_date = self.core.read_index.linearizable();
            let _ = self.core.clock.within(patience, up_to_date).await;
        }
        let now = self.core.clock.now();
        let link = |id| link(self.core.peers.connected_since(id), now);
        check(&member.state.membership.read(), &link).map_err(|error| {
            retcd_log::warn!(rejecting; "local-member-id" => Hex(member.id),
                "requested-member-id" => Hex(id), "error" => Text(&error));
            error.into()
        })
    }

    /// The texts of valid URLs, sorted.
    fn parse_urls(&self, texts: &[String]) -> Result<Vec<String>, Error> {
        let urls = (self.core.shared.config.parse_peer_urls)(texts);
        let urls = urls.filter(|urls| !urls.is_empty());
        urls.ok_or(Error::BadPeerUrls)
    }

    async fn change(
        &self,
        kind: ConfChangeType,
        id: u64,
        context: Option<&ConfChangeContext>,
    ) -> Result<Vec<Member>, Error> {
        let result = self
            .core
            .proposer
            .propose_conf_change(kind, id, context)
            .await;
        // What the machine refused was applied, too.
        if matches!(result, Ok(_) | Err(Error::Refused(_))) {
            retcd_log::info!("applied a configuration change through raft";
                "local-member-id" => Hex(self.core.shared.id),
                "raft-conf-change" => kind.as_str_name(), "raft-conf-change-node-id" => Hex(id));
        }
        result
    }
}

/// How long this member has been connected to another, as `connected_since` says at `now`.
fn link(connected_since: Option<Duration>, now: Duration) -> Link {
    match connected_since {
        None => Link::Down,
        Some(since) if now.saturating_sub(since) > HEALTH_INTERVAL => Link::Steady,
        Some(_) => Link::Fresh,
    }
}

fn context_of(member: Member) -> ConfChangeContext {
    ConfChangeContext {
        member,
        is_promote: false,
    }
}
