//! All that a member knows of its place, of one moment: what decisions about members go by.

use retcd_state::membership::is_in_sync;

use crate::event::{Follower, ReplicationState, Role, Status};

/// Where a member and its followers stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// Where it stands.
    pub status: Status,
    /// What a leader knows of the members, itself included, ascending by id; empty if it does not
    /// lead.
    pub followers: Vec<Follower>,
}

/// What a leader says about a member that is to get a vote.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// That somebody else leads.
    NotLeader,
    /// That there is no such member.
    NotFound,
    /// It has nearly all of the log. One that votes has passed that long ago.
    InSync,
    /// It lacks too much.
    Behind {
        /// Up to which index it has the log.
        its: u64,
        /// Up to which the leader has it.
        leaders: u64,
        /// Whether entries are on their way to it, or its word that it has them.
        grows: bool,
    },
}

impl Inspection {
    /// Whether `member` has enough of the log to get a vote.
    pub fn standing(&self, member: u64) -> Standing {
        let find = |id| self.followers.iter().find(|follower| follower.id == id);
        let leader = match self.status.role {
            Role::Leader => find(self.status.leader),
            Role::Follower | Role::PreCandidate | Role::Candidate => None,
        };
        let Some(leader) = leader else {
            return Standing::NotLeader;
        };
        let Some(member) = find(member) else {
            return Standing::NotFound;
        };
        if is_in_sync(member.matched, leader.matched) {
            return Standing::InSync;
        }
        Standing::Behind {
            its: member.matched,
            leaders: leader.matched,
            grows: member.recent_active && member.state == ReplicationState::Replicate,
        }
    }
}
