//! The thread that owns the node: turns its outputs into work for the other threads.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender};

use retcd_member::{NodeWork, Outputs, Shared, ToLog};
use retcd_node::{Input, Node, Output, Role};

use super::apply_thread::ToApply;
use super::fatal::stop_process;
use super::heartbeats::Heartbeats;
use crate::clock::Clock;
use crate::peer::Transport;

/// Inputs that are taken in before the node's outputs are looked at; bounds the latency of a turn.
const INPUTS_PER_TURN_MAX: usize = 1024;

/// The node and where its outputs go.
pub(super) struct NodeThread {
    /// The node.
    pub node: Node,
    /// To those who wait.
    pub outputs: Outputs,
    /// To the write-ahead log.
    pub log: Sender<ToLog>,
    /// To the machine.
    pub apply: Sender<ToApply>,
    /// To the other members.
    pub peers: Transport,
    /// The member's clock.
    pub clock: Clock,
    /// What the threads share.
    pub member: Arc<Shared>,
    /// When the followers heard of this member.
    pub heartbeats: Heartbeats,
}

impl NodeThread {
    /// Runs until the member has ended.
    pub(super) fn run(mut self, inbox: &Receiver<Input>) {
        loop {
            while let Some(output) = self.node.poll_output() {
                self.act_on(output);
            }
            let committed = self.node.status().committed;
            self.member.progress.publish_committed(committed);
            let wait = self.node.poll_timeout().saturating_sub(self.clock.now());
            match inbox.recv_timeout(wait) {
                Ok(input) => {
                    let now = self.clock.now();
                    self.node.handle(now, input);
                    for input in inbox.try_iter().take(INPUTS_PER_TURN_MAX) {
                        self.node.handle(now, input);
                    }
                }
                Err(RecvTimeoutError::Timeout) => self.node.handle_timeout(self.clock.now()),
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if self.member.signals.has_ended() {
                return;
            }
        }
    }

    fn act_on(&mut self, output: Output) {
        // A thread that is gone means that the process is stopping: nothing is owed to it.
        match self.outputs.pass_on(output) {
            None => {}
            Some(NodeWork::Append(append)) => drop(self.log.send(ToLog::Append(append))),
            Some(NodeWork::ReadLog(wanted)) => drop(self.log.send(ToLog::Locate(wanted))),
            Some(NodeWork::Apply(entries)) => {
                let committed_at = self.clock.now();
                drop(self.apply.send(ToApply::Entries(entries, committed_at)))
            }
            Some(NodeWork::Restore(snapshot)) => drop(self.apply.send(ToApply::Restore(snapshot))),
            Some(NodeWork::SnapshotDue) => drop(self.apply.send(ToApply::SnapshotDue)),
            Some(NodeWork::Send(messages)) => {
                match self.node.status().role {
                    Role::Leader => self.heartbeats.observe(&messages, self.clock.now()),
                    _ => self.heartbeats.reset(),
                }
                self.peers.send(messages);
            }
            Some(NodeWork::Contradiction(contradiction)) => stop_process(
                "the cluster contradicts what this member has stored",
                &contradiction,
            ),
        }
    }
}
