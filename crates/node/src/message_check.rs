//! What a peer's message must be before raft may see it.
//!
//! raft-rs ends the process on messages that its own kind never sends; other programs may. Whatever
//! is refused here is as good as lost on the way, which raft survives. Terms, votes and quorums are
//! raft's own business.

use raft::eraftpb::{Entry, EntryType, Message, MessageType};
use retcd_proto::raftpb::ConfChange;
use retcd_state::membership::check_form;

use crate::event::Contradiction;
use crate::raft_types::conf_change_in;

/// Elections that a cluster may have held while this member heard of none. A term that is further
/// ahead comes from no election, and would leave the cluster without terms to count on.
const TERM_LEAD_MAX: u64 = 1 << 32;
/// The same for a member that knows of no term yet, and so of nothing to measure by.
const FIRST_TERM_MAX: u64 = 1 << 63;

/// Indexes up to which a log is believed to reach. No log is ever so long, and there is room to
/// count on.
const INDEX_MAX: u64 = 1 << 63;

const _: () = assert!(TERM_LEAD_MAX < FIRST_TERM_MAX && INDEX_MAX < u64::MAX);

/// What raft knows that a message is held against.
pub struct View {
    /// This member's id.
    pub id: u64,
    /// The current term.
    pub term: u64,
    /// Whether this member leads.
    pub leads: bool,
    /// The commit index.
    pub committed: u64,
    /// The newest index in the log.
    pub last: u64,
}

/// What becomes of a message.
#[derive(Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Raft takes it.
    Step,
    /// It is dropped.
    Drop,
    /// It proves that this member must not go on.
    Stop(Contradiction),
}

/// Checks `message`; `term_at` gives the term of an entry that is in the log, or is the one before
/// it.
pub fn check(message: &Message, view: &View, term_at: impl Fn(u64) -> Option<u64>) -> Verdict {
    if message.to != view.id || message.from == 0 || message.from == view.id {
        return Verdict::Drop;
    }
    if message.term > newest_credible_term(view.term) {
        return Verdict::Drop;
    }
    // What is passed on for a client has no term. Otherwise raft takes its absence for this
    // member's own word.
    let passed_on = matches!(
        message.get_msg_type(),
        MessageType::MsgPropose | MessageType::MsgReadIndex | MessageType::MsgTransferLeader
    );
    if message.term == 0 && !passed_on {
        return Verdict::Drop;
    }
    match message.get_msg_type() {
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum => Verdict::Drop,
        MessageType::MsgPropose => proposal(message),
        MessageType::MsgReadIndex if message.entries.len() != 1 => Verdict::Drop,
        MessageType::MsgReadIndexResp if message.entries.len() != 1 => Verdict::Drop,
        // Who does not lead would pass it on; whoever sent it can find the leader as well.
        MessageType::MsgTransferLeader if !view.leads => Verdict::Drop,
        MessageType::MsgHeartbeat if message.term >= view.term && message.commit > view.last => {
            Verdict::Stop(Contradiction::LogLost {
                acknowledged: message.commit,
                last: view.last,
            })
        }
        MessageType::MsgAppend => append(message, view, term_at),
        MessageType::MsgAppendResponse if !message.reject && message.index > view.last => {
            Verdict::Drop
        }
        MessageType::MsgSnapshot => snapshot(message, view, term_at),
        _ => Verdict::Step,
    }
}

fn newest_credible_term(known: u64) -> u64 {
    match known {
        0 => FIRST_TERM_MAX,
        _ => known.saturating_add(TERM_LEAD_MAX),
    }
}

/// Whether a change of the membership can be judged by whoever applies it.
fn is_sound(change: &ConfChange) -> bool {
    check_form(change).is_ok()
}

/// Only whole proposals of kinds that etcd knows; joint consensus it does not. A change of the
/// membership that cannot be read would stop every member that applies it.
fn proposal(message: &Message) -> Verdict {
    let sound = |entry: &Entry| match entry.get_entry_type() {
        EntryType::EntryNormal => true,
        EntryType::EntryConfChange => conf_change_in(entry).is_some_and(|change| is_sound(&change)),
        EntryType::EntryConfChangeV2 => false,
    };
    match !message.entries.is_empty() && message.entries.iter().all(sound) {
        true => Verdict::Step,
        false => Verdict::Drop,
    }
}

/// Entries follow each other, terms never fall, and nothing contradicts what is committed.
///
/// Only the origin of a log has the term 0. raft-rs finds it wherever it has no entry, too, and
/// would take entries behind a gap for those that come next.
fn append(message: &Message, view: &View, term_at: impl Fn(u64) -> Option<u64>) -> Verdict {
    let last = message.index.saturating_add(message.entries.len() as u64);
    if last > INDEX_MAX || (message.log_term == 0 && message.index > 0) {
        return Verdict::Drop;
    }
    let mut term = message.log_term;
    for (entry, index) in message.entries.iter().zip(message.index + 1..) {
        if entry.index != index || entry.term < term || entry.term > message.term {
            return Verdict::Drop;
        }
        term = entry.term;
    }
    if message.term < view.term || term_at(message.index) != Some(message.log_term) {
        return Verdict::Step;
    }
    let differs = |index, term| term_at(index).is_some_and(|ours| ours != term);
    let conflict = message
        .entries
        .iter()
        .take_while(|entry| entry.index <= view.committed)
        .find(|entry| differs(entry.index, entry.term));
    conflict.map_or(Verdict::Step, |entry| {
        Verdict::Stop(Contradiction::Conflict {
            index: entry.index,
            committed: view.committed,
        })
    })
}

/// A snapshot stands for at least one entry and names the members; etcd never uses joint consensus.
/// It does not contradict what is committed: raft-rs would take one over the last committed entry.
fn snapshot(message: &Message, view: &View, term_at: impl Fn(u64) -> Option<u64>) -> Verdict {
    let metadata = message.get_snapshot().get_metadata();
    let conf_state = metadata.get_conf_state();
    let mut ids: Vec<u64> = [conf_state.get_voters(), conf_state.get_learners()].concat();
    ids.sort_unstable();
    let distinct = ids.windows(2).all(|pair| pair[0] != pair[1]) && ids.first() != Some(&0);
    let joint =
        !conf_state.get_voters_outgoing().is_empty() || !conf_state.get_learners_next().is_empty();
    let sound = (1..=INDEX_MAX).contains(&metadata.index)
        && (1..=message.term).contains(&metadata.term)
        && !conf_state.get_voters().is_empty()
        && distinct
        && !joint;
    if !sound {
        return Verdict::Drop;
    }
    let (index, committed) = (metadata.index, view.committed);
    let differs = term_at(index).is_some_and(|ours| ours != metadata.term);
    match message.term >= view.term && index <= committed && differs {
        true => Verdict::Stop(Contradiction::Conflict { index, committed }),
        false => Verdict::Step,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: View = View {
        id: 1,
        term: 3,
        leads: false,
        committed: 5,
        last: 7,
    };

    fn message(kind: MessageType) -> Message {
        Message {
            from: 2,
            to: 1,
            term: 3,
            msg_type: kind,
            ..Default::default()
        }
    }

    fn entry(index: u64, term: u64) -> Entry {
        Entry {
            index,
            term,
            ..Default::default()
        }
    }

    /// Our log: entries 1 to 7, all of term 2.
    fn verdict(message: &Message) -> Verdict {
        check(message, &VIEW, |index| (index <= 7).then_some(2))
    }

    #[test]
    fn messages_for_others_and_from_nobody_are_dropped() {
        let good = message(MessageType::MsgRequestVote);
        assert_eq!(verdict(&good), Verdict::Step);
        for (from, to) in [(2, 3), (0, 1), (1, 1)] {
            let bad = Message {
                from,
                to,
                ..good.clone()
            };
            assert_eq!(verdict(&bad), Verdict::Drop);
        }
    }

    #[test]
    fn what_would_end_the_process_inside_raft_is_dropped() {
        for kind in [
            MessageType::MsgHup,
            MessageType::MsgBeat,
            MessageType::MsgCheckQuorum,
            MessageType::MsgPropose,
            MessageType::MsgReadIndex,
            MessageType::MsgReadIndexResp,
            MessageType::MsgTransferLeader,
            MessageType::MsgSnapshot,
        ] {
            assert_eq!(verdict(&message(kind)), Verdict::Drop, "{kind:?}");
        }
        let mut ahead = message(MessageType::MsgAppendResponse);
        ahead.index = 8;
        assert_eq!(verdict(&ahead), Verdict::Drop);
    }

    #[test]
    fn entries_must_follow_each_other() {
        let mut append = message(MessageType::MsgAppend);
        (append.index, append.log_term) = (7, 2);
        append.entries = vec![entry(8, 2), entry(9, 3)].into();
        assert_eq!(verdict(&append), Verdict::Step);
        for entries in [
            vec![entry(9, 3)],
            vec![entry(8, 2), entry(10, 3)],
            vec![entry(8, 1)],
            vec![entry(8, 4)],
        ] {
            append.entries = entries.into();
            assert_eq!(verdict(&append), Verdict::Drop);
        }
    }

    #[test]
    fn a_leader_that_knows_more_than_we_have_stops_us() {
        let mut heartbeat = message(MessageType::MsgHeartbeat);
        heartbeat.commit = 7;
        assert_eq!(verdict(&heartbeat), Verdict::Step);
        heartbeat.commit = 8;
        let lost = Contradiction::LogLost {
            acknowledged: 8,
            last: 7,
        };
        assert_eq!(verdict(&heartbeat), Verdict::Stop(lost));
        heartbeat.term = 2;
        assert_eq!(verdict(&heartbeat), Verdict::Step, "an old leader's word");
    }

    #[test]
    fn only_committed_entries_must_agree() {
        let mut append = message(MessageType::MsgAppend);
        (append.index, append.log_term) = (4, 2);
        append.entries = vec![entry(5, 2), entry(6, 3)].into();
        assert_eq!(verdict(&append), Verdict::Step);
        append.entries = vec![entry(5, 3)].into();
        let conflict = Contradiction::Conflict {
            index: 5,
            committed: 5,
        };
        assert_eq!(verdict(&append), Verdict::Stop(conflict));
    }

    #[test]
    fn a_snapshot_must_agree_with_what_is_committed() {
        let verdict_of = |index, term| {
            let mut message = message(MessageType::MsgSnapshot);
            let metadata = message.mut_snapshot().mut_metadata();
            (metadata.index, metadata.term) = (index, term);
            metadata.mut_conf_state().set_voters(vec![1, 2]);
            verdict(&message)
        };
        assert_eq!(verdict_of(5, 2), Verdict::Step);
        assert_eq!(verdict_of(6, 3), Verdict::Step, "not committed here");
        let conflict = Contradiction::Conflict {
            index: 5,
            committed: 5,
        };
        assert_eq!(verdict_of(5, 3), Verdict::Stop(conflict));
    }

    #[test]
    fn only_changes_of_the_membership_that_can_be_applied_are_proposed() {
        use crate::raft_types::entry_to_raft;
        use retcd_proto::raftpb;
        let judged = |kind: i32, data: &'static [u8]| {
            let mut proposal = message(MessageType::MsgPropose);
            proposal.mut_entries().push(entry_to_raft(&raftpb::Entry {
                r#type: Some(kind),
                data: Some(data.into()),
                ..Default::default()
            }));
            verdict(&proposal)
        };
        let change = raftpb::EntryType::EntryConfChange as i32;
        // Promotion, learner, update, removal, which needs no context.
        for data in [
            b"\x08\x01\x10\x00\x18\x02\x22\x08{\"id\":2}".as_slice(),
            b"\x08\x01\x10\x03\x18\x02\x22\x19{\"id\":2,\"isLearner\":true}",
            b"\x08\x01\x10\x02\x18\x02\x22\x08{\"ID\":2}",
            b"\x08\x01\x10\x01\x18\x02",
        ] {
            assert_eq!(judged(change, data), Verdict::Step, "{data:?}");
        }
        // A type that nobody knows; no message at all; no context; no JSON; another member's;
        // another role.
        for data in [
            b"\x10\x04".as_slice(),
            b"\x0a\xff",
            b"\x08\x01\x10\x00\x18\x02",
            b"\x08\x01\x10\x00\x18\x02\x22\x02no",
            b"\x08\x01\x10\x00\x18\x02\x22\x08{\"id\":3}",
            b"\x08\x01\x10\x03\x18\x02\x22\x08{\"id\":2}",
        ] {
            assert_eq!(judged(change, data), Verdict::Drop, "{data:?}");
        }
        let joint = raftpb::EntryType::EntryConfChangeV2 as i32;
        for kind in [joint, 3, -1] {
            assert_eq!(judged(kind, b""), Verdict::Drop, "{kind}");
        }
    }
}
