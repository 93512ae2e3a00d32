//! Changes of the membership, as clients ask for them.
//!
//! What is checked here depends on what this member happens to know, so that it is no part of applying the change: whether
//! the cluster would keep a quorum of started members that can be talked to, and whether a learner has caught up, which the leader
//! alone knows. `--strict-reconfig-check=false` switches all but the last off. Whether the change fits to the membership is for
//! the machine to say, the same on all members.
//!
//! All checks are made by the membership and the progress of the moment: what was changed through another member before counts.

use std::time::Duration;

use retcd_node::Standing;
use retcd_proto::raftpb::ConfChangeType;
use retcd_state::identity::member_id;
use retcd_state::membership::{
    ConfChangeContext, HEALTH_INTERVAL, Link, Member as ClusterMember, Membership, ReconfigError,
};

use super::clock::unix_ms;
use super::local::Local;
use crate::auth::Credentials;
use crate::config::url::Url;
use crate::grpc::status::{self, Status};
use crate::log::{Hex, Text};
use crate::peer::{ClientError, peer_urls_of};

/// Pause between two tries to reach the leader.
const FORWARD_RETRY: Duration = Duration::from_millis(50);

impl Local {
    /// Adds a member; returns it and all members.
    ///
    /// # Errors
    /// etcd's status for URLs that are none, a cluster that is too weak, a URL that is taken; and as [`Local::propose`].
    pub async fn add_member(
        &self,
        peer_urls: &[String],
        is_learner: bool,
    ) -> Result<(ClusterMember, Vec<ClusterMember>), Status> {
        let peer_urls = parse_urls(peer_urls)?;
        // Not a founding member: the seconds make the id of one that was removed a new one.
        let id = member_id(&peer_urls, &(unix_ms() / 1000).to_string());
        self.check_strictly("rejecting member add request", id, |membership, link| {
            membership.check_add(is_learner, self.member.id, link)
        })
        .await?;
        let new = ClusterMember {
            id,
            peer_urls: Some(peer_urls),
            is_learner,
            ..ClusterMember::default()
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
    /// etcd's status for a cluster that would be too weak, or a member that does not exist; and as [`Local::propose`].
    pub async fn remove_member(&self, id: u64) -> Result<Vec<ClusterMember>, Status> {
        self.check_strictly("rejecting member remove request", id, |membership, link| {
            membership.check_remove(id, self.member.id, link)
        })
        .await?;
        // Not to be allowed by any flag: no member could ever do anything again.
        if self.member.membership.read().is_last_voter(id) {
            return Err(status::NOT_ENOUGH_STARTED);
        }
        self.change(ConfChangeType::ConfChangeRemoveNode, id, None)
            .await
    }

    /// Gives a member other peer URLs; returns all members.
    ///
    /// # Errors
    /// etcd's status for URLs that are none (which stop Go's members with a panic) or taken, or a member that does not exist;
    /// and as [`Local::propose`].
    pub async fn update_member(
        &self,
        id: u64,
        peer_urls: Vec<String>,
    ) -> Result<Vec<ClusterMember>, Status> {
        parse_urls(&peer_urls)?;
        let context = context_of(ClusterMember {
            id,
            peer_urls: Some(peer_urls),
            ..ClusterMember::default()
        });
        self.change(ConfChangeType::ConfChangeUpdateNode, id, Some(&context))
            .await
    }

    /// Gives a learner its vote, through the leader, who checks the client's `credentials` again; returns all members.
    ///
    /// # Errors
    /// etcd's status for a member that does not exist, votes already, or has not caught up; and as [`Local::propose`].
    pub async fn promote_member(
        &self,
        id: u64,
        credentials: &Credentials,
    ) -> Result<Vec<ClusterMember>, Status> {
        let metrics = &self.member.metrics.server;
        let deadline = self.member.clock.now() + self.member.limits.request_timeout;
        while self.member.clock.now() < deadline {
            match self.promote_as_leader(id).await {
                Err(error) if error == status::NOT_LEADER => {}
                Err(error) => {
                    let reason = [error.message.as_ref()];
                    let failures = &metrics.learner_promote_failures;
                    failures.with_label_values(&reason).inc();
                    return Err(error);
                }
                Ok(members) => {
                    metrics.learner_promote_successes.inc();
                    return Ok(members);
                }
            }
            let leader = self.leader(deadline).await?;
            if leader.id != self.member.id
                && let Some(promoted) = self.promote_at(&leader, id, credentials.token()).await
            {
                return promoted;
            }
            tokio::time::sleep(FORWARD_RETRY).await;
        }
        Err(status::TIMEOUT)
    }

    async fn promote_as_leader(&self, id: u64) -> Result<Vec<ClusterMember>, Status> {
        if !self.leads().await {
            return Err(status::NOT_LEADER);
        }
        self.linearizable().await?;
        self.check_in_sync(id).await?;
        self.check_strictly("rejecting member promote request", id, |membership, _| {
            membership.check_promote()
        })
        .await?;
        let context = ConfChangeContext {
            member: ClusterMember {
                id,
                ..ClusterMember::default()
            },
            is_promote: true,
        };
        self.change(ConfChangeType::ConfChangeAddNode, id, Some(&context))
            .await
    }

    /// Refuses a member that does not have nearly all of the log. What else is wrong with its promotion is for the machine to
    /// say.
    async fn check_in_sync(&self, id: u64) -> Result<(), Status> {
        let mut standing = self.inspect().await?.standing(id);
        if matches!(standing, Standing::Behind { grows: true, .. }) {
            // Its word for what it was sent last, and may have told others of, can be on its way.
            tokio::time::sleep(self.member.config.heartbeat_interval()).await;
            standing = self.inspect().await?.standing(id);
        }
        match standing {
            Standing::InSync => Ok(()),
            Standing::NotLeader => Err(status::NOT_LEADER),
            Standing::NotFound => Err(status::MEMBER_NOT_FOUND),
            Standing::Behind { its, leaders, .. } => {
                let share = its as f64 / leaders as f64;
                crate::error!("rejecting promote learner: learner is not ready";
                    "learner-ready-percent" => &format!("{share:.2}"),
                    "ready-percent-threshold" => "0.9");
                Err(status::LEARNER_NOT_READY)
            }
        }
    }

    /// Asks the leader for it; `None` if another URL, or another leader, may do it.
    async fn promote_at(
        &self,
        leader: &ClusterMember,
        id: u64,
        token: Option<&str>,
    ) -> Option<Result<Vec<ClusterMember>, Status>> {
        for url in peer_urls_of(leader) {
            return Some(match self.client.promote_member(&url, id, token).await {
                Ok(members) => Ok(members.into_iter().map(ClusterMember::from).collect()),
                Err(ClientError::MemberNotFound) => Err(status::MEMBER_NOT_FOUND),
                Err(ClientError::NotLearner) => Err(status::MEMBER_NOT_LEARNER),
                Err(ClientError::LearnerNotReady) => Err(status::LEARNER_NOT_READY),
                Err(_) => continue,
            });
        }
        None
    }

    /// The member that leads, as soon as there is one.
    ///
    /// # Errors
    /// There is none until `deadline`, on the member's clock.
    pub async fn leader(&self, deadline: Duration) -> Result<ClusterMember, Status> {
        let member = &*self.member;
        loop {
            let leader = member.leadership.leader();
            let found = member.membership.read().member(leader).cloned();
            if let Some(leader) = found {
                return Ok(leader);
            }
            if member.is_stopping() {
                return Err(status::STOPPED);
            }
            if member.clock.now() >= deadline {
                return Err(status::NO_LEADER);
            }
            tokio::time::sleep(FORWARD_RETRY).await;
        }
    }

    /// Without a quorum the change could not be made; what is known here then says why not, as far as it does.
    async fn check_strictly(
        &self,
        rejecting: &'static str,
        id: u64,
        check: impl FnOnce(&Membership, &dyn Fn(u64) -> Link) -> Result<(), ReconfigError>,
    ) -> Result<(), Status> {
        let member = &*self.member;
        if !member.config.strict_reconfig_check {
            return Ok(());
        }
        if member.leadership.leader() != 0 {
            let patience = member.config.election_timeout();
            let _ = tokio::time::timeout(patience, self.linearizable()).await;
        }
        let link = |id| member.link(id);
        check(&member.membership.read(), &link).map_err(|error| {
            crate::warn!(rejecting; "local-member-id" => Hex(member.id),
                "requested-member-id" => Hex(id), "error" => Text(&error));
            reconfig_status(error)
        })
    }

    async fn change(
        &self,
        kind: ConfChangeType,
        id: u64,
        context: Option<&ConfChangeContext>,
    ) -> Result<Vec<ClusterMember>, Status> {
        let result = self.propose_conf_change(kind, id, context).await;
        crate::info!("applied a configuration change through raft";
            "local-member-id" => Hex(self.member.id), "raft-conf-change" => kind.as_str_name(),
            "raft-conf-change-node-id" => Hex(id));
        result
    }
}

impl super::Member {
    /// How this member is connected to another.
    fn link(&self, id: u64) -> Link {
        match self.transport().active_since(id) {
            None => Link::Down,
            Some(since) if since.elapsed() > HEALTH_INTERVAL => Link::Steady,
            Some(_) => Link::Fresh,
        }
    }
}

fn context_of(member: ClusterMember) -> ConfChangeContext {
    ConfChangeContext {
        member,
        is_promote: false,
    }
}

/// The texts of valid URLs, sorted.
fn parse_urls(texts: &[String]) -> Result<Vec<String>, Status> {
    let urls: Result<Vec<Url>, _> = texts.iter().map(|text| Url::parse(text)).collect();
    let mut urls = urls.map_err(|_| status::BAD_MEMBER_URLS)?;
    if urls.is_empty() {
        return Err(status::BAD_MEMBER_URLS);
    }
    urls.sort();
    Ok(urls.iter().map(Url::to_string).collect())
}

fn reconfig_status(error: ReconfigError) -> Status {
    match error {
        ReconfigError::NotEnoughStarted => status::NOT_ENOUGH_STARTED,
        ReconfigError::Unhealthy => status::UNHEALTHY,
        ReconfigError::LearnerNotReady => status::LEARNER_NOT_READY,
    }
}
