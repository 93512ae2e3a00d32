//! What the crate `raft` has to say, in the words of Go's raft: people and tools search for those.
//!
//! The crate gives a message and values by name ([slog]); ids are decimal there and hexadecimal in etcd's
//! lines, and message types have longer names. A message that is not known here is passed on as it is.

use std::fmt::{Arguments, Write as _};

use retcd_log::{Level, Record, emit, enabled};
use slog::{Drain, Key, Never, OwnedKVList, Record as RaftRecord, Serializer};

/// Writes raft's lines for a member.
pub(crate) struct RaftLog {
    pub(crate) id: u64,
}

impl Drain for RaftLog {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &RaftRecord<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let level = match record.level() {
            slog::Level::Critical | slog::Level::Error => Level::Error,
            slog::Level::Warning => Level::Warn,
            slog::Level::Info => Level::Info,
            slog::Level::Debug | slog::Level::Trace => Level::Debug,
        };
        if !enabled(level) {
            return Ok(());
        }
        let mut values = Values::default();
        // It only fails where the serializer does.
        let _ = slog::KV::serialize(&record.kv(), record, &mut values);
        for line in lines(self.id, &record.msg().to_string(), &values) {
            let place = (record.file(), record.line());
            emit(&Record::new(level, Some("raft"), place, line));
        }
        Ok(())
    }
}

/// The values of a message, by name.
#[derive(Default)]
struct Values(Vec<(Key, String)>);

impl Values {
    fn text(&self, key: &str) -> &str {
        let found = self.0.iter().find(|(name, _)| *name == key);
        found.map_or("", |(_, value)| value)
    }

    fn number(&self, key: &str) -> u64 {
        self.text(key).parse().unwrap_or_default()
    }

    /// The name of a message type as in Go.
    fn kind(&self, key: &str) -> String {
        let name = self.text(key).replace("Response", "Resp");
        match name.as_str() {
            "MsgRequestVote" => "MsgVote".to_owned(),
            "MsgRequestVoteResp" => "MsgVoteResp".to_owned(),
            "MsgRequestPreVote" => "MsgPreVote".to_owned(),
            "MsgRequestPreVoteResp" => "MsgPreVoteResp".to_owned(),
            "MsgAppend" => "MsgApp".to_owned(),
            "MsgAppendResp" => "MsgAppResp".to_owned(),
            "MsgSnapshot" => "MsgSnap".to_owned(),
            _ => name,
        }
    }
}

impl Serializer for Values {
    fn emit_arguments(&mut self, key: Key, value: &Arguments<'_>) -> slog::Result {
        self.0.push((key, value.to_string()));
        Ok(())
    }
}

/// The lines that Go's raft has for this.
fn lines(id: u64, message: &str, values: &Values) -> Vec<String> {
    let number = |key| values.number(key);
    let term = number("term");
    // Where a vote's line tells what both sides have.
    let votes = |what: &str| {
        let (log_term, log_index) = (number("log_term"), number("log_index"));
        let (msg_term, msg_index) = (number("msg_term"), number("msg_index"));
        format!(
            "{id:x} [logterm: {log_term}, index: {log_index}, vote: {:x}] {what} {:x} [logterm: {msg_term}, index: {msg_index}] at term {term}",
            number("vote"),
            number("from")
        )
    };
    if message.starts_with("RawNode created") {
        // It tells nothing that the one before does not.
        return Vec::new();
    }
    let line = if message == "newRaft" {
        let peers = ids(values.text("peers")).into_iter();
        let peers: Vec<String> = peers.map(|peer| format!("{peer:x}")).collect();
        format!(
            "newRaft {id:x} [peers: [{}], term: {term}, commit: {}, applied: {}, lastindex: {}, lastterm: {}]",
            peers.join(","),
            number("commit"),
            number("applied"),
            number("last index"),
            number("last term")
        )
    } else if message == "switched to configuration" {
        format!("{id:x} {message} {}", configuration(values.text("config")))
    } else if message == "starting a new election" {
        format!("{id:x} is {message} at term {term}")
    } else if message == "broadcasting vote request" {
        let (log_term, log_index) = (number("log_term"), number("log_index"));
        let kind = values.kind("type");
        let sent = ids(values.text("to")).into_iter().filter(|to| *to != id);
        return sent
            .map(|to| format!("{id:x} [logterm: {log_term}, index: {log_index}] sent {kind} request to {to:x} at term {term}"))
            .collect();
    } else if message == "received votes response" {
        let kind = values.kind("type");
        let rejection = match values.text("vote") {
            "false" => " rejection",
            _ => "",
        };
        return vec![
            format!(
                "{id:x} received {kind}{rejection} from {:x} at term {term}",
                number("from")
            ),
            format!(
                "{id:x} has received {} {kind} votes and {} vote rejections",
                number("approvals"),
                number("rejections")
            ),
        ];
    } else if message.starts_with("received a message with higher term") {
        format!(
            "{id:x} [term: {term}] received a {} message with higher term from {:x} [term: {}]",
            values.kind("msg type"),
            number("from"),
            number("message_term")
        )
    } else if message.starts_with("ignored a message with lower term") {
        format!(
            "{id:x} [term: {term}] ignored a {} message with lower term from {:x} [term: {}]",
            values.kind("msg type"),
            number("from"),
            number("msg term")
        )
    } else if message.contains("] cast vote for ") {
        votes(&format!("cast {} for", values.kind("msg type")))
    } else if message.contains("] rejected vote from ") {
        votes(&format!("rejected {} from", values.kind("msg type")))
    } else if message.contains("lease is not expired") {
        let ignored = votes(&format!("ignored {} from", values.kind("msg type")));
        let ticks = number("remaining ticks");
        format!("{ignored}: lease is not expired (remaining ticks: {ticks})")
    } else {
        let mut line = format!("{id:x} {}", in_hex(message, values));
        // What stands in the message need not be told again.
        for (key, value) in &values.0 {
            if !message.contains(value.as_str()) {
                let _ = write!(line, " [{key}: {value}]");
            }
        }
        line
    };
    vec![line]
}

/// `message` with the ids in it as etcd writes them.
fn in_hex(message: &str, values: &Values) -> String {
    let mut message = message.to_owned();
    for key in ["from", "to", "lead_transferee", "last_lead_transferee"] {
        let text = values.text(key);
        if let Ok(id) = text.parse::<u64>()
            && id != 0
        {
            message = message.replace(text, &format!("{id:x}"));
        }
    }
    message
}

/// The numbers in what Rust prints of a set or a list.
fn ids(text: &str) -> Vec<u64> {
    let numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut ids: Vec<u64> = numbers.filter_map(|number| number.parse().ok()).collect();
    ids.sort_unstable();
    ids
}

/// A configuration as Go's raft prints it: ids are decimal there.
fn configuration(text: &str) -> String {
    let (voters, rest) = text.split_once("learners:").unwrap_or((text, ""));
    let learners = rest.split("learners_next").next().unwrap_or_default();
    let list = |text| {
        let ids = ids(text);
        let ids: Vec<String> = ids.iter().map(u64::to_string).collect();
        format!("({})", ids.join(" "))
    };
    let learners = match ids(learners).is_empty() {
        true => String::new(),
        false => format!(" learners={}", list(learners)),
    };
    format!("voters={}{learners}", list(voters))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt::Display;

    use raft::eraftpb::MessageType;

    fn check(message: &str, values: &[(Key, &dyn Display)], expected: &[&str]) {
        let values = values.iter().map(|(key, value)| (*key, value.to_string()));
        assert_eq!(lines(0x1a, message, &Values(values.collect())), expected);
    }

    #[test]
    fn raft_speaks_as_gos_does() {
        let kind = |kind: MessageType| format!("{kind:?}");
        let vote = kind(MessageType::MsgRequestPreVote);
        let response = kind(MessageType::MsgRequestVoteResponse);
        check(
            "starting a new election",
            &[("term", &3)],
            &["1a is starting a new election at term 3"],
        );
        check(
            "became leader at term 4",
            &[("term", &4)],
            &["1a became leader at term 4"],
        );
        check(
            "broadcasting vote request",
            &[
                ("type", &vote),
                ("term", &2),
                ("log_term", &1),
                ("log_index", &9),
                ("to", &"[26, 27]"),
            ],
            &["1a [logterm: 1, index: 9] sent MsgPreVote request to 1b at term 2"],
        );
        check(
            "received votes response",
            &[
                ("type", &response),
                ("term", &2),
                ("from", &27),
                ("vote", &false),
                ("approvals", &1),
                ("rejections", &1),
            ],
            &[
                "1a received MsgVoteResp rejection from 1b at term 2",
                "1a has received 1 MsgVoteResp votes and 1 vote rejections",
            ],
        );
        check(
            "received a message with higher term from 27",
            &[
                ("from", &27),
                ("term", &2),
                ("message_term", &5),
                ("msg type", &kind(MessageType::MsgAppend)),
            ],
            &["1a [term: 2] received a MsgApp message with higher term from 1b [term: 5]"],
        );
        check(
            "[logterm: 1, index: 9, vote: 0] cast vote for 27 [logterm: 1, index: 9] at term 2",
            &[
                ("log_term", &1),
                ("log_index", &9),
                ("vote", &0),
                ("from", &27),
                ("msg_term", &1),
                ("msg_index", &9),
                ("term", &2),
                ("msg type", &vote),
            ],
            &[
                "1a [logterm: 1, index: 9, vote: 0] cast MsgPreVote for 1b [logterm: 1, index: 9] at term 2",
            ],
        );
        check(
            "[term 7] starts to transfer leadership to 27",
            &[("lead_transferee", &27), ("term", &7)],
            &["1a [term 7] starts to transfer leadership to 1b"],
        );
        check(
            "stepped down to follower since quorum is not active",
            &[],
            &["1a stepped down to follower since quorum is not active"],
        );
    }

    #[test]
    fn configurations_read_as_gos() {
        let text = format!("{:?}", raft::ProgressTracker::new(10).conf());
        assert_eq!(configuration(&text), "voters=()", "{text}");
        let filled = text.replacen("voters: {}", "voters: {27, 26}", 1).replacen(
            " learners: {}",
            " learners: {30}",
            1,
        );
        let expected = "voters=(26 27) learners=(30)";
        assert_eq!(configuration(&filled), expected, "{filled}");
    }
}
