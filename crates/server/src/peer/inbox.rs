//! The way into the node: checks what comes from outside and puts it into the node's queue.
//!
//! Raft ends the process on some messages that no honest member sends. Those are refused here, where it is still
//! known who sent them.

use std::sync::mpsc::{SyncSender, TrySendError};
use std::time::Duration;

use retcd_node::Input;
use retcd_proto::raftpb::{Message, MessageType};

use crate::log::{self, Hex, Seldom};

/// How long a report that must not be lost waits before it is tried again.
const REPORT_RETRY: Duration = Duration::from_millis(20);

/// Why a message was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Its sender was removed from the cluster.
    #[error("cannot process message from removed member")]
    Removed,
    /// It is for another member.
    #[error("cannot process message to mismatch member")]
    Mismatch,
    /// It is of a type that never leaves a process, or lacks what its type must have.
    #[error("raft: cannot step raft local message")]
    Malformed,
    /// The node has more to do than it can.
    #[error("raft: proposal dropped")]
    Busy,
    /// The node has stopped.
    #[error("raft: stopped")]
    Stopped,
}

/// Puts inputs into the node's queue.
pub(super) struct Inbox {
    local: u64,
    node: SyncSender<Input>,
    is_removed: Box<dyn Fn(u64) -> bool + Send + Sync>,
    refused: Seldom,
}

impl Inbox {
    /// The inbox of the member `local`.
    pub fn new(
        local: u64,
        node: SyncSender<Input>,
        is_removed: Box<dyn Fn(u64) -> bool + Send + Sync>,
    ) -> Inbox {
        Inbox {
            local,
            node,
            is_removed,
            refused: Seldom::default(),
        }
    }

    /// Whether a member was removed from the cluster.
    pub fn is_removed(&self, id: u64) -> bool {
        (self.is_removed)(id)
    }

    /// Whether a message from a stream or a POST may be handed on.
    ///
    /// # Errors
    /// When it is not for the node, which the log tells once in a while.
    pub fn admit(&self, message: &Message) -> Result<(), Refusal> {
        self.check(message)?;
        match message.r#type() {
            // Without its database it would lead nowhere: it comes by `snapshot::receive` alone.
            MessageType::MsgSnap => self.refuse(message, Refusal::Malformed),
            _ => Ok(()),
        }
    }

    /// Checks sender, addressee and form.
    ///
    /// # Errors
    /// When the message is not for the node.
    pub fn check(&self, message: &Message) -> Result<(), Refusal> {
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

    /// Hands messages on that were admitted, in order.
    ///
    /// # Errors
    /// [`Refusal::Busy`] or [`Refusal::Stopped`], for all of them.
    pub fn put(&self, messages: Vec<Message>) -> Result<(), Refusal> {
        if messages.is_empty() {
            return Ok(());
        }
        self.node
            .try_send(Input::Messages(messages))
            .map_err(|error| match error {
                TrySendError::Full(_) => Refusal::Busy,
                TrySendError::Disconnected(_) => Refusal::Stopped,
            })
    }

    fn refuse(&self, message: &Message, refusal: Refusal) -> Result<(), Refusal> {
        if self.refused.now() {
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

    /// Tells that messages to a peer were lost. A hint, that may itself be lost.
    pub fn report_unreachable(&self, peer: u64) {
        let _ = self.node.try_send(Input::Unreachable { peer });
    }

    /// Gives proposals back that certainly did not leave. If there is no room for them they are lost, like a
    /// message.
    pub fn give_back(&self, proposals: Message) {
        let _ = self.node.try_send(Input::Undelivered(proposals.entries));
    }

    /// Tells how sending a snapshot ended. Raft waits for it, so it is repeated until there is room.
    pub async fn report_snapshot(&self, peer: u64, delivered: bool) {
        while let Err(TrySendError::Full(_)) =
            self.node.try_send(Input::SnapshotSent { peer, delivered })
        {
            tokio::time::sleep(REPORT_RETRY).await;
        }
    }
}

/// Whether raft can be given this message: it has a type that travels, and entries where they must be and in
/// the order in which a log holds them.
fn is_plausible(message: &Message) -> bool {
    // Not `message.r#type()`, which takes an unknown number for the first type.
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

/// Entries follow one another behind the message's index, and no term is below the one before.
fn has_ordered_entries(message: &Message) -> bool {
    let (mut index, mut term) = (message.index(), message.log_term());
    message.entries.iter().all(|entry| {
        let follows = Some(entry.index()) == index.checked_add(1) && entry.term() >= term;
        (index, term) = (entry.index(), entry.term());
        follows
    }) && term <= message.term()
}
