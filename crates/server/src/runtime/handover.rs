//! Leadership that is handed over: because an operator asks for it, or because the leader stops.

use std::time::Instant;

use retcd_node::{Input, Role};

use super::local::Local;
use crate::grpc::status::{self, Status};
use crate::log::Hex;

impl Local {
    /// Hands leadership to another voter and waits until it has taken over.
    ///
    /// # Errors
    /// This member does not lead; etcd's status for a member that cannot lead, or that does not take over in time.
    pub async fn move_leader(&self, to: u64) -> Result<(), Status> {
        if !self.leads().await {
            return Err(status::NOT_LEADER);
        }
        self.linearizable().await?;
        let votes = {
            let membership = self.member.membership.read();
            membership.member(to).is_some_and(|to| !to.is_learner)
        };
        match votes {
            true => self.transfer(to).await,
            false => Err(status::BAD_LEADER_TRANSFEREE),
        }
    }

    /// Ends with the transfer: when `to` leads, when raft gives it up after an election timeout, or when `to` cannot be
    /// talked to any more, as it stops, too.
    async fn transfer(&self, to: u64) -> Result<(), Status> {
        let member = &*self.member;
        let (started, from) = (Instant::now(), member.id);
        crate::info!("leadership transfer starting"; "local-member-id" => Hex(from),
            "current-leader-member-id" => Hex(from), "transferee-member-id" => Hex(to));
        self.send(Input::TransferLeader { to })?;
        // So that what is told of the leader from here on knows of the transfer.
        self.inspect().await?;
        let ended = member
            .leadership
            .wait_for(|told| told.leader == to || (told.leader != 0 && told.transferee != to));
        // In this order: who leads already, maybe itself, need not be connected.
        let moved = tokio::select! {
            biased;
            ended = ended => ended.leader == to,
            () = member.transport().inactive(to) => false,
            () = tokio::time::sleep(member.limits.request_timeout) => false,
        };
        if !moved {
            return Err(status::TIMEOUT_LEADER_TRANSFER);
        }
        crate::info!("leadership transfer finished"; "local-member-id" => Hex(member.id),
            "old-leader-member-id" => Hex(from), "new-leader-member-id" => Hex(to),
            "took" => started.elapsed());
        Ok(())
    }

    /// Hands leadership to a voter that can be talked to, the one that has been connected for longest first, as a leader that
    /// stops does. A failure is logged: the others will notice soon.
    pub async fn leave_leadership(&self) {
        let member = &*self.member;
        let leads = self.inspect().await;
        let leads = leads.is_ok_and(|inspection| inspection.status.role == Role::Leader);
        let skipped = |message| {
            crate::info!(message; "local-member-id" => Hex(member.id),
                "current-leader-member-id" => Hex(member.leadership.leader()));
        };
        if !leads {
            return skipped("skipped leadership transfer; local server is not leader");
        }
        let voters: Vec<u64> = member.membership.read().voters().map(|m| m.id).collect();
        if voters.len() <= 1 {
            return skipped("skipped leadership transfer for single voting member cluster");
        }
        let mut connected: Vec<(Instant, u64)> = voters
            .iter()
            .filter_map(|id| Some((member.transport().active_since(*id)?, *id)))
            .collect();
        connected.sort_unstable();
        let mut failure = status::UNHEALTHY;
        for (_, id) in connected {
            match self.transfer(id).await {
                Ok(()) => return,
                Err(error) => failure = error,
            }
        }
        crate::warn!("leadership transfer failed"; "local-member-id" => Hex(member.id),
            "error" => &*failure.message);
    }
}
