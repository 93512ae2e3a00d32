//! Leadership that is handed over: because an operator asks for it, or because the leader stops.

use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures_util::future::{Either, select};
use retcd_log::{Hex, Text};
use retcd_node::{Input, Role};
use retcd_state::membership::ReconfigError;

use crate::Error;
use crate::access::Credentials;
use crate::core::Core;

/// Hands leadership over.
pub struct Transfer {
    core: Rc<Core>,
}

impl Transfer {
    pub(crate) fn new(core: &Rc<Core>) -> Transfer {
        Transfer {
            core: Rc::clone(core),
        }
    }

    /// Hands leadership to another voter and waits until it has taken over.
    ///
    /// # Errors
    /// The caller may not; this member does not lead; the other cannot lead, or does not take over
    /// in time.
    pub async fn move_leader(&self, credentials: &Credentials, to: u64) -> Result<(), Error> {
        self.core.access.require_admin(credentials).await?;
        if !self.core.read_index.leads().await {
            return Err(Error::NotLeader);
        }
        self.core.read_index.linearizable().await?;
        let votes = {
            let membership = self.core.shared.state.membership.read();
            membership.member(to).is_some_and(|to| !to.is_learner)
        };
        match votes {
            true => self.transfer(to).await,
            false => Err(Error::BadTransferee),
        }
    }

    /// Ends with the transfer: when `to` leads, when raft gives it up after an election timeout, or
    /// when `to` cannot be talked to any more, as it stops, too.
    async fn transfer(&self, to: u64) -> Result<(), Error> {
        let member = &*self.core.shared;
        let (started, from) = (self.core.clock.now(), member.id);
        retcd_log::info!("leadership transfer starting"; "local-member-id" => Hex(from),
            "current-leader-member-id" => Hex(from), "transferee-member-id" => Hex(to));
        member.node.send(Input::TransferLeader { to })?;
        // So that what is told of the leader from here on knows of the transfer.
        self.core.read_index.inspect().await?;
        let ended = pin!(
            member
                .leadership
                .wait_for(|told| told.leader == to || (told.leader != 0 && told.transferee != to))
        );
        // In this order: who leads already, maybe itself, need not be connected.
        let ended = select(ended, self.core.peers.disconnected(to));
        let timeout = member.config.limits.request_timeout;
        let moved = match self.core.clock.within(timeout, ended).await {
            Some(Either::Left((ended, _))) => ended.leader == to,
            Some(Either::Right(_)) | None => false,
        };
        if !moved {
            return Err(Error::TransferTimedOut);
        }
        retcd_log::info!("leadership transfer finished"; "local-member-id" => Hex(member.id),
            "old-leader-member-id" => Hex(from), "new-leader-member-id" => Hex(to),
            "took" => self.core.clock.now() - started);
        Ok(())
    }

    /// Hands leadership to a voter that can be talked to, the one that has been connected for
    /// longest first, as a leader that stops does. A failure is logged: the others will notice
    /// soon.
    pub async fn leave(&self) {
        let member = &*self.core.shared;
        let leads = self.core.read_index.inspect().await;
        let leads = leads.is_ok_and(|inspection| inspection.status.role == Role::Leader);
        let skipped = |message| {
            retcd_log::info!(message; "local-member-id" => Hex(member.id),
                "current-leader-member-id" => Hex(member.leadership.leader()));
        };
        if !leads {
            return skipped("skipped leadership transfer; local server is not leader");
        }
        let voters: Vec<u64> = member
            .state
            .membership
            .read()
            .voters()
            .map(|m| m.id)
            .collect();
        if voters.len() <= 1 {
            return skipped("skipped leadership transfer for single voting member cluster");
        }
        let mut connected: Vec<(Duration, u64)> = voters
            .iter()
            .filter_map(|id| Some((self.core.peers.connected_since(*id)?, *id)))
            .collect();
        connected.sort_unstable();
        let mut failure = Error::from(ReconfigError::Unhealthy);
        for (_, id) in connected {
            match self.transfer(id).await {
                Ok(()) => return,
                Err(error) => failure = error,
            }
        }
        retcd_log::warn!("leadership transfer failed"; "local-member-id" => Hex(member.id),
            "error" => Text(&failure));
    }
}
