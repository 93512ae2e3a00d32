//! Sends messages of other members to the node, after checking them.
//!
//! The raft library panics on some messages that no correct member sends. They are refused here,
//! where their sender is still known.

use std::time::Duration;

use retcd_member::{Error, NodeQueue};
use retcd_node::Input;
use retcd_proto::raftpb::{Message, MessageType};

use super::statistics::AppendCounts;
use crate::log::{self, Hex, Throttle};

/// Pause before a report that must not be lost is sent again.
const REPORT_RETRY: Duration = Duration::from_millis(20);

/// Why a message is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// The sender was removed from the cluster.
    #[error("cannot process message from removed member")]
    Removed,
    /// The recipient is another member.
    #[error("cannot process message to mismatch member")]
    Mismatch,
    /// Its type is local to a process, or it lacks what its type requires.
    #[error("raft: cannot step raft local message")]
    Malformed,
    /// The node's queue is full.
    #[error("raft: proposal dropped")]
    Busy,
    /// The node has stopped.
    #[error("raft: stopped")]
    Stopped,
}

/// The sending end of the node's queue.
pub(super) struct NodeSender {
    local: u64,
    node: NodeQueue,
    is_removed: Box<dyn Fn(u64) -> bool + Send + Sync>,
    /// Of this member's messages, both ways.
    pub appends: AppendCounts,
    refused: Throttle,
}

impl NodeSender {
    /// For the node of member `local`.
    pub(super) fn new(
        local: u64,
        node: NodeQueue,
        is_removed: Box<dyn Fn(u64) -> bool + Send + Sync>,
    ) -> NodeSender {
        NodeSender {
            local,
            node,
            is_removed,
            appends: AppendCounts::default(),
            refused: Throttle::default(),
        }
    }

    /// Whether a member was removed from the cluster.
    pub(super) fn is_removed(&self, id: u64) -> bool {
        (self.is_removed)(id)
    }

    /// Checks a message from a stream or a POST.
    ///
    /// # Errors
    /// It must not be sent to the node. Logged at a limited rate.
    pub(super) fn admit(&self, message: &Message) -> Result<(), Refusal> {
        self.check(message)?;
        match message.r#type() {
            // Only `snapshot::receive` takes these, with their database.
            MessageType::MsgSnap => self.refuse(message, Refusal::Malformed),
            MessageType::MsgApp => {
                self.appends.receive();
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Checks sender, recipient and form.
    ///
    /// # Errors
    /// The message must not be sent to the node.
    pub(super) fn check(&self, message: &Message) -> Result<(), Refusal> {
        if self.is_removed(message.from()) {
            return self.refuse(message, Refusal::Removed);
        }
        if message.to() != self.local {
            return self.refuse(message, Refusal::Mismatch);
        }
        if !is_plausible(message) {
            return self.refuse(message, Refusal::Malformed);
        }
        Ok(())
    }

    /// Sends messages that have been checked.
    ///
    /// # Errors
    /// [`Refusal::Busy`] or [`Refusal::Stopped`]; none of them is sent then.
    pub(super) fn send(&self, messages: Vec<Message>) -> Result<(), Refusal> {
        if messages.is_empty() {
            return Ok(());
        }
        self.node
            .send(Input::Messages(messages))
            .map_err(|error| match error {
                Error::Overloaded => Refusal::Busy,
                _ => Refusal::Stopped,
            })
    }

    fn refuse(&self, message: &Message, refusal: Refusal) -> Result<(), Refusal> {
        if self.refused.allow() {
            let local = Hex(self.local);
            match refusal {
                Refusal::Removed => log::warn!("rejected Raft message from removed member";
                    "local-member-id" => local, "removed-member-id" => Hex(message.from())),
                Refusal::Mismatch => log::warn!("rejected Raft message to mismatch member";
                    "local-member-id" => local, "mismatch-member-id" => Hex(message.to())),
                _ => log::warn!("failed to process Raft message";
                    "local-member-id" => local, "from" => Hex(message.from()),
                    "message-type" => message.r#type.unwrap_or_default(), "error" => log::Text(refusal)),
            }
        }
        Err(refusal)
    }

    /// Reports that messages to a peer were lost. Best effort.
    pub(super) fn report_unreachable(&self, peer: u64) {
        let _ = self.node.send(Input::Unreachable { peer });
    }

    /// Returns proposals that certainly were not sent. They are lost if the queue is full.
    pub(super) fn return_proposals(&self, proposals: Message) {
        let _ = self.node.send(Input::Undelivered(proposals.entries));
    }

    /// Reports how sending a snapshot ended. Raft waits for this, so that it retries until there is
    /// room.
    pub(super) async fn report_snapshot(&self, peer: u64, delivered: bool) {
        let report = || self.node.send(Input::SnapshotSent { peer, delivered });
        while let Err(Error::Overloaded) = report() {
            tokio::time::sleep(REPORT_RETRY).await;
        }
    }
}

/// Whether raft may be given this message: its type is not local, and it has the entries that its
/// type requires, in the order of a log.
fn is_plausible(message: &Message) -> bool {
    // Not `message.r#type()`, which maps unknown numbers to the first type.
    let Ok(kind) = MessageType::try_from(message.r#type.unwrap_or_default()) else {
        return false;
    };
    match kind {
        MessageType::MsgApp => has_ordered_entries(message),
        MessageType::MsgProp | MessageType::MsgReadIndex => !message.entries.is_empty(),
        MessageType::MsgSnap => message
            .snapshot
            .as_ref()
            .and_then(|snapshot| snapshot.metadata.as_ref())
            .is_some_and(|metadata| metadata.index() > 0),
        MessageType::MsgAppResp
        | MessageType::MsgVote
        | MessageType::MsgVoteResp
        | MessageType::MsgHeartbeat
        | MessageType::MsgHeartbeatResp
        | MessageType::MsgTransferLeader
        | MessageType::MsgTimeoutNow
        | MessageType::MsgReadIndexResp
        | MessageType::MsgPreVote
        | MessageType::MsgPreVoteResp => true,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgStorageAppend
        | MessageType::MsgStorageAppendResp
        | MessageType::MsgStorageApply
        | MessageType::MsgStorageApplyResp
        | MessageType::MsgForgetLeader => false,
    }
}

/// Whether entries continue at the message's index without gaps, with terms that do not decrease.
fn has_ordered_entries(message: &Message) -> bool {
    let (mut index, mut term) = (message.index(), message.log_term());
    message.entries.iter().all(|entry| {
        let follows = Some(entry.index()) == index.checked_add(1) && entry.term() >= term;
        (index, term) = (entry.index(), entry.term());
        follows
    }) && term <= message.term()
}
