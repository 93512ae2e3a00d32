//! Leadership that is handed over: because an operator asks for it, or because the leader stops.

use std::time::Instant;

use retcd_node::Input;

use super::local::Local;
use crate::grpc::status::{self, Status};
use crate::log::Hex;

impl Local {
    /// Hands leadership to another voter and waits until it has taken over. This member must lead.
    ///
    /// # Errors
    /// etcd's status for a member that cannot lead, or that does not take over in time.
    pub async fn move_leader(&self, to: u64) -> Result<(), Status> {
        let member = &*self.member;
        let votes = |id| {
            member
                .membership
                .read()
                .member(id)
                .is_some_and(|m| !m.is_learner)
        };
        if !votes(to) {
            return Err(status::BAD_LEADER_TRANSFEREE);
        }
        let (started, from) = (Instant::now(), member.progress.leader());
        crate::info!("leadership transfer starting"; "local-member-id" => Hex(member.id),
            "current-leader-member-id" => Hex(from), "transferee-member-id" => Hex(to));
        self.send(Input::TransferLeader { to })?;
        // Raft gives a transfer up after an election timeout, without a word.
        while member.progress.leader() != to {
            if started.elapsed() >= member.limits.request_timeout {
                return Err(status::TIMEOUT_LEADER_TRANSFER);
            }
            tokio::time::sleep(member.config.heartbeat_interval()).await;
        }
        crate::info!("leadership transfer finished"; "local-member-id" => Hex(member.id),
            "old-leader-member-id" => Hex(from), "new-leader-member-id" => Hex(to),
            "took" => started.elapsed());
        Ok(())
    }

    /// Hands leadership to the voter that has been connected for longest, as a leader that stops does. A failure is
    /// logged: the others will notice soon.
    pub async fn leave_leadership(&self) {
        let member = &*self.member;
        let skipped = |message| {
            crate::info!(message; "local-member-id" => Hex(member.id),
                "current-leader-member-id" => Hex(member.progress.leader()));
        };
        if !member.progress.is_leader() {
            return skipped("skipped leadership transfer; local server is not leader");
        }
        let voters: Vec<u64> = member.membership.read().voters().map(|m| m.id).collect();
        if voters.len() <= 1 {
            return skipped("skipped leadership transfer for single voting member cluster");
        }
        let connected = voters
            .iter()
            .filter_map(|id| Some((member.transport().active_since(*id)?, *id)));
        let moved = match connected.min() {
            Some((_, id)) => self.move_leader(id).await,
            None => Err(status::UNHEALTHY),
        };
        if let Err(error) = moved {
            crate::warn!("leadership transfer failed"; "local-member-id" => Hex(member.id),
                "error" => &*error.message);
        }
    }
}
