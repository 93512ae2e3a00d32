//! `/debug/vars`: a few facts about the process, in the shape of Go's `expvar`.
//!
//! `memstats` is Go's own in etcd. Here it holds one of its fields, `Sys`, the memory that the
//! operating system gave to the process.

use serde::{Serialize, Serializer};

use super::{HttpContext, Probe, Response};
use crate::metrics::{Process, file_descriptor_limit};
use crate::net_http::reply;

/// Raft's view of a member. Ids are shown in hexadecimal; 0 is nobody.
#[derive(Debug, Clone, Default, Serialize)]
pub struct RaftStatus {
    /// This member.
    #[serde(serialize_with = "hex")]
    pub id: u64,
    /// Its term.
    pub term: u64,
    /// Whom it voted for in this term.
    #[serde(serialize_with = "hex")]
    pub vote: u64,
    /// The highest index known to be committed.
    pub commit: u64,
    /// The leader.
    #[serde(serialize_with = "hex")]
    pub lead: u64,
    /// `StateFollower`, `StateCandidate`, `StatePreCandidate` or `StateLeader`.
    #[serde(rename = "raftState")]
    pub state: &'static str,
    /// The highest index that was applied.
    pub applied: u64,
    /// How far each member is, by its id; empty unless this member leads.
    #[serde(serialize_with = "by_hex")]
    pub progress: Vec<(u64, Progress)>,
    /// Whom leadership is being handed to.
    #[serde(rename = "leadtransferee", serialize_with = "hex")]
    pub lead_transferee: u64,
}

/// How far the leader knows a member to be.
#[derive(Debug, Clone, Serialize)]
pub struct Progress {
    /// The highest index that the member has.
    #[serde(rename = "match")]
    pub matched: u64,
    /// The next index to send.
    pub next: u64,
    /// `StateProbe`, `StateReplicate` or `StateSnapshot`.
    pub state: &'static str,
}

fn hex<S: Serializer>(id: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&format_args!("{id:x}"))
}

fn by_hex<S: Serializer>(progress: &[(u64, Progress)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(
        progress
            .iter()
            .map(|(id, progress)| (format!("{id:x}"), progress)),
    )
}

#[derive(Serialize)]
struct MemoryStatistics {
    #[serde(rename = "Sys")]
    resident_bytes: u64,
}

/// One line for each name, sorted.
pub(super) async fn vars<P: Probe>(context: &HttpContext<P>) -> Response {
    let memory = MemoryStatistics {
        resident_bytes: Process::read().resident_bytes(),
    };
    let body = format!(
        "{{\n\"cmdline\": {},\n\"file_descriptor_limit\": {},\n\"memstats\": {},\n\"raft.status\": {}\n}}\n",
        reply::to_json(&context.command_line),
        file_descriptor_limit(),
        reply::to_json(&memory),
        reply::to_json(&context.probe.raft_status().await),
    );
    reply::ok("application/json; charset=utf-8", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raft_status_is_etcds() {
        let leader = RaftStatus {
            id: 0x628170c800dbcee,
            term: 2,
            vote: 0x628170c800dbcee,
            commit: 4,
            lead: 0x628170c800dbcee,
            state: "StateLeader",
            applied: 4,
            progress: vec![(
                0x628170c800dbcee,
                Progress {
                    matched: 4,
                    next: 5,
                    state: "StateReplicate",
                },
            )],
            lead_transferee: 0,
        };
        assert_eq!(
            reply::to_json(&leader),
            r#"{"id":"628170c800dbcee","term":2,"vote":"628170c800dbcee","commit":4,"lead":"628170c800dbcee","raftState":"StateLeader","applied":4,"progress":{"628170c800dbcee":{"match":4,"next":5,"state":"StateReplicate"}},"leadtransferee":"0"}"#
        );
    }
}
