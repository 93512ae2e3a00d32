//! The node: what comes in, its turns and timer, and where its outputs go.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_member::{NodeWork, ToLog};
use retcd_node::{Input, LeaderInfo, Output, Role};
use retcd_proto::raftpb;

use super::apply::ToApply;
use super::{Process, Step, Stop, StopKind};
use crate::context::{Context, Event};
use crate::faults::Fault;

/// How often a process lets the others hear of it.
const PROBE_INTERVAL: Duration = Duration::from_millis(300);

impl Process {
    /// A packet from a peer.
    pub fn receive(&mut self, from: usize, bytes: Bytes, cx: &mut Context) {
        let message = raftpb::Message::decode(bytes).expect("the network changes no bytes");
        let sender = message.from();
        if self.shared.state.membership.read().is_removed(sender) {
            // As the server's transport: refused, and told why.
            let delay = cx.network.delay(&mut cx.rng);
            let event = Event::Removed {
                host: from,
                member: sender,
            };
            return cx.after(delay, event);
        }
        self.hear(sender, cx);
        self.push(Input::Messages(vec![message]), cx);
    }

    /// Another member was heard of.
    pub fn hear(&mut self, member: u64, cx: &Context) {
        self.wake_up(cx);
        self.wires.hear(member);
    }

    pub(super) fn probe(&mut self, cx: &mut Context) {
        let others: Vec<usize> = cx.addresses.values().copied().collect();
        for to in others.into_iter().filter(|to| *to != self.host) {
            if let Some(delay) = cx.network.fate(self.host, to, &mut cx.rng).first() {
                let member = self.id;
                cx.after(delay, Event::Heard { to, member });
            }
        }
        self.step_after(PROBE_INTERVAL, Step::Probe, cx);
    }

    /// A peer says that this member was removed.
    pub fn told_of_removal(&self) -> Stop {
        Stop::removed()
    }

    /// Puts something into the node's inbox.
    pub fn push(&mut self, input: Input, cx: &mut Context) {
        self.inbox.push(input);
        if !self.turn_due {
            self.turn_due = true;
            let delay = cx.between_us(1, 30);
            self.step_after(delay, Step::Turn, cx);
        }
    }

    pub(super) fn turn(&mut self, cx: &mut Context) -> Result<(), Stop> {
        self.turn_due = false;
        let now = self.local();
        for input in std::mem::take(&mut self.inbox) {
            self.node.handle(now, input);
        }
        self.act_on_outputs(cx)
    }

    pub(super) fn node_timer(&mut self, cx: &mut Context) -> Result<(), Stop> {
        let now = self.local();
        // The clock's rate may have changed since.
        if now >= self.timer {
            self.node.handle_timeout(now);
            self.act_on_outputs(cx)?;
        }
        self.set_node_timer(cx);
        Ok(())
    }

    pub(super) fn set_node_timer(&mut self, cx: &mut Context) {
        self.timer = self.node.poll_timeout();
        let due = self.clock.true_time(self.timer, cx.now);
        self.step_after(due - cx.now, Step::Timer, cx);
    }

    fn act_on_outputs(&mut self, cx: &mut Context) -> Result<(), Stop> {
        while let Some(output) = self.node.poll_output() {
            if let Output::Leader(info) = &output {
                self.leader_changed(*info, cx);
            }
            let Some(work) = self.outputs.pass_on(output) else {
                continue;
            };
            match work {
                NodeWork::Append(append) => self.queue_append(append, cx),
                NodeWork::ReadLog(wanted) => self.push_to_log(ToLog::Locate(wanted), cx),
                NodeWork::Send(messages) => self.send(messages, cx)?,
                NodeWork::Apply(entries) => self.queue_apply(ToApply::Entries(entries), cx),
                NodeWork::Restore(snapshot) => self.queue_apply(ToApply::Restore(snapshot), cx),
                NodeWork::SnapshotDue => self.queue_apply(ToApply::SnapshotDue, cx),
                NodeWork::Contradiction(contradiction) => {
                    return Err(Stop {
                        reason: contradiction.to_string(),
                        kind: StopKind::Contradiction,
                    });
                }
            }
        }
        let committed = self.node.status().committed;
        self.shared.progress.publish_committed(committed);
        Ok(())
    }

    fn send(&mut self, messages: Vec<raftpb::Message>, cx: &mut Context) -> Result<(), Stop> {
        for message in messages {
            let Some(&to) = cx.addresses.get(&message.to()) else {
                continue;
            };
            if message.r#type() == raftpb::MessageType::MsgSnap {
                self.send_snapshot(message, to, cx)?;
                continue;
            }
            let bytes = Bytes::from(message.encode_to_vec());
            cx.trace.mix_bytes(&bytes);
            // Proposals have no number by which raft could know them again: a transport must not
            // repeat them.
            let twice = message.r#type() != raftpb::MessageType::MsgProp;
            // A sender hears of some losses.
            if !cx.send(self.host, to, bytes, twice) && cx.rng.u8(..4) == 0 {
                let peer = message.to();
                self.push(Input::Unreachable { peer }, cx);
                if !twice {
                    self.push(Input::Undelivered(message.entries.clone()), cx);
                }
            }
            self.ambush(&message, cx);
        }
        Ok(())
    }

    /// In an ambush who has just given a vote may be killed for it.
    fn ambush(&self, message: &raftpb::Message, cx: &mut Context) {
        let votes = message.r#type() == raftpb::MessageType::MsgVoteResp && !message.reject();
        if votes && cx.now < cx.ambush_until && cx.rng.bool() {
            let (host, delay) = (self.host, cx.between_us(1, 1_000));
            let lasts = cx.between_us(100, 100_000);
            cx.after(delay, Event::Fault(Fault::Kill { host, lasts }));
        }
    }

    fn leader_changed(&self, info: LeaderInfo, cx: &mut Context) {
        let LeaderInfo {
            leader, term, role, ..
        } = info;
        if role == Role::Leader {
            let verdict = cx.log.leads(self.id, term);
            cx.check(verdict);
            let id = self.id;
            cx.note(|| format!("{id:x} leads in term {term}"));
            if cx.now < cx.ambush_until {
                let (host, delay) = (self.host, cx.between_us(1_000, 800_000));
                let lasts = cx.between_us(1_000, 500_000);
                cx.after(delay, Event::Fault(Fault::Kill { host, lasts }));
            }
        }
        cx.trace.mix(&[self.id, leader, term]);
    }
}
