//! The scenarios, and notes for readers of their tables.

use std::fmt;
use std::str::FromStr;

use super::idle::Idle;
use super::{Comparison, catch_up, large, leader_kill, tail};
use crate::disk;
use crate::load::Plan;
use crate::read_rate::ReadRate;
use crate::stats::count;
use crate::workload::{Kind, Workload};

/// Names beyond those of the workloads, for help texts.
pub(crate) const NAMES: &str = "latency, mixed, churn, connections[-CONNECTIONS], watches[-WATCHES][@CONNECTIONS], large, rss, restart, leader-kill, catch-up, tail";

/// Keys that are rewritten before the kill, so that the log is ahead of the last checkpoint.
pub(super) const REWRITTEN_KEYS: u64 = 10_000;

/// A scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// One workload alone.
    Load(Workload),
    /// Puts of one client, against what they cannot avoid.
    Latency,
    /// Puts during lists, compactions and defragmentations.
    Mixed,
    /// Updates of few keys with steady compaction.
    Churn,
    /// Clients that hold connections, watches and leases.
    Idle(Idle),
    /// More data than memory, through all that is done with a store.
    Large,
    /// Memory used by the key space.
    Rss,
    /// Start with a large key space.
    Restart,
    /// Puts while the leader is killed.
    LeaderKill,
    /// A member returns after missing more entries than the log retains.
    CatchUp,
    /// The slowest puts while all of that and more goes on.
    Tail,
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scenario::Load(workload) => workload.fmt(f),
            Scenario::Latency => f.write_str("latency"),
            Scenario::Mixed => f.write_str("mixed"),
            Scenario::Churn => f.write_str("churn"),
            Scenario::Idle(idle) => idle.fmt(f),
            Scenario::Large => f.write_str("large"),
            Scenario::Rss => f.write_str("rss"),
            Scenario::Restart => f.write_str("restart"),
            Scenario::LeaderKill => f.write_str("leader-kill"),
            Scenario::CatchUp => f.write_str("catch-up"),
            Scenario::Tail => f.write_str("tail"),
        }
    }
}

impl FromStr for Scenario {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "latency" => Ok(Scenario::Latency),
            "mixed" => Ok(Scenario::Mixed),
            "churn" => Ok(Scenario::Churn),
            "large" => Ok(Scenario::Large),
            "rss" => Ok(Scenario::Rss),
            "restart" => Ok(Scenario::Restart),
            "leader-kill" => Ok(Scenario::LeaderKill),
            "catch-up" => Ok(Scenario::CatchUp),
            "tail" => Ok(Scenario::Tail),
            _ => match Idle::parse(text)? {
                Some(idle) => Ok(Scenario::Idle(idle)),
                None => text
                    .parse()
                    .map(Scenario::Load)
                    .map_err(|error| format!("{error}, {NAMES}")),
            },
        }
    }
}

impl Scenario {
    /// The note below its table.
    pub(super) fn note(self, comparison: &Comparison, plan: &Plan) -> String {
        match self {
            Scenario::Load(workload) => match workload.kind {
                Kind::Put => "a random key each".into(),
                Kind::Get => "a random key each, linearizable".into(),
                Kind::GetZipf => "the k-th key in proportion to 1/k^0.99 (Zipf), linearizable".into(),
                Kind::GetSerializable => "a random key each, serializable".into(),
                Kind::List(keys) => {
                    format!("{keys} neighbouring keys, linearizable{}", described(plan.read_rate))
                }
                Kind::Stream(keys) => format!(
                    "{keys} neighbouring keys by RangeStream, linearizable; one op is the whole list{}",
                    described(plan.read_rate)
                ),
                Kind::Page(keys) => format!("the next {keys} keys of the key space from a random one on, linearizable"),
                Kind::Txn => "a get, then a put on the condition that the key has not changed; one op is both".into(),
                Kind::Watch(watchers) => format!(
                    "{watchers} watchers of one prefix on {} streams, {} writers; one op is one event at one watcher, its \
                     latency counts from before the put was sent, and the processor time holds the puts",
                    plan.streams.min(watchers),
                    workload.clients.unwrap_or(plan.writers),
                ),
                Kind::LeaseGrant => "a new lease each".into(),
                Kind::LeaseKeepAlive => "a stream and a lease for each client".into(),
                Kind::Connect => "a new connection, a linearizable get of a random key, the end of the connection".into(),
                Kind::V2Set => "API v2: a random key each, a connection for each client".into(),
                Kind::V2Get => "API v2: a random key each, of what the member has, a connection for each client".into(),
                Kind::V2QuorumGet => "API v2: a random key each, quorum=true, a connection for each client".into(),
                Kind::JsonPut => "JSON gateway: a random key each, a connection for each client".into(),
                Kind::JsonList(keys) => {
                    format!("JSON gateway: {keys} neighbouring keys, linearizable, a connection for each client")
                }
                Kind::JsonWatch(watchers) => format!(
                    "JSON gateway: {watchers} watchers of one prefix, a connection for each, {} writers; one op is one event at \
                     one watcher, its latency counts from before the put was sent, and the processor time holds the puts",
                    workload.clients.unwrap_or(plan.writers),
                ),
                Kind::V2Watch(polls) => format!(
                    "API v2: {polls} long polls of one directory, a connection for each, {} writers; one op is one event at one \
                     poll, its latency counts from before the write was sent, and the processor time holds the writes",
                    workload.clients.unwrap_or(plan.writers),
                ),
            },
            Scenario::Latency => format!(
                "one client at the leader by turns: a put of a random key, a health check on the same connection as the empty round \
                 trip, an append of {} bytes with fdatasync on the same disk{}; the floor is the sum of each turn without the put",
                disk::ENTRY_LEN,
                match comparison.members {
                    1 => String::new(),
                    _ => format!(", {} bytes to another thread by TCP and back as the round trip between members", disk::ENTRY_LEN),
                },
            ),
            Scenario::Mixed => "puts, while two clients list 10,000 keys each, the history is compacted every second and the \
                                 backend of a member defragmented every three"
                .into(),
            Scenario::Churn => format!(
                "{} updates of {} keys with values of {} bytes, a random key each, while every second the history is compacted but \
                 for the last second's; the database file against keys and values alone",
                count(comparison.churn.updates),
                count(comparison.churn.keys),
                plan.value_size,
            ),
            Scenario::Idle(Idle::Connections(connections)) => format!(
                "{} connections, each with a watch of a key of its own and a lease that is kept alive every ten seconds; memory \
                 after {} s",
                count(connections),
                plan.duration().as_secs_f64(),
            ),
            Scenario::Idle(Idle::Watches {
                watches,
                connections,
            }) => format!(
                "{} watches, each of a key of its own, on {} connections with a stream each; memory after {} s",
                count(watches),
                count(connections),
                plan.duration().as_secs_f64(),
            ),
            Scenario::Large => format!(
                "{} values of {} bytes. Gets, pages of {} from a random key on, and puts go on for {} s each; compaction, defragmentation \
                 and snapshot are one call each; the watch takes all history, its calls are messages; restart is the time to the first \
                 get. Meanwhile, but for the restart, {} small puts per second come from a paced writer: their p99.9 and longest. Memory \
                 is resident, at the end of a step and at its peak",
                count(comparison.large.keys),
                comparison.large.value_size,
                large::page_len(comparison.large.value_size),
                plan.duration().as_secs_f64(),
                large::PUTS_PER_SECOND,
            ),
            Scenario::Rss => format!("memory at rest with {} keys of {} bytes", plan.keys.count, plan.value_size),
            Scenario::Restart => format!(
                "{} keys of {} bytes; from exec to the first answered linearizable get, after SIGTERM, and after SIGKILL behind \
                 {REWRITTEN_KEYS} more puts",
                plan.keys.count, plan.value_size
            ),
            Scenario::LeaderKill => format!(
                "puts of new keys by {} clients with a pause of {} ms between two, spread over the members, which go on at \
                 another member when theirs is gone; the leader is killed by SIGKILL while they put",
                leader_kill::CLIENTS,
                leader_kill::PAUSE.as_millis(),
            ),
            Scenario::CatchUp => format!(
                "a follower is stopped, {} MiB of new keys with values of {} bytes are put, the follower is started again and needs \
                 a snapshot; from exec until it has applied as much as the leader, while {} clients put {} times a second \
                 together",
                comparison.catch_up_mib,
                catch_up::VALUE_SIZE,
                catch_up::CLIENTS,
                catch_up::PUTS_PER_SECOND,
            ),
            Scenario::Tail => format!(
                "{} puts a second by {} clients, whose latencies count from when they were due, first alone; then meanwhile two clients \
                 list 10,000 keys each, the history is compacted every second, the backend of a member defragmented every three, \
                 snapshots are read from the members in turn, and a follower that has missed {} MiB catches up by snapshot",
                tail::PUTS_PER_SECOND,
                tail::CLIENTS,
                tail::MISSED_MIB,
            ),
        }
    }

    /// Whether its clients can read slowly.
    pub(super) fn takes_read_rate(self) -> bool {
        matches!(self, Scenario::Load(workload) if workload.kind.takes_read_rate())
    }

    /// The minimum number of members: with two, a cluster that misses one cannot write.
    pub(super) fn members_min(self) -> u32 {
        match self {
            Scenario::LeaderKill | Scenario::CatchUp | Scenario::Tail => 3,
            _ => 1,
        }
    }

    /// The number of connections that it needs at the same time, where loads have those of `plan`
    /// and few more.
    pub(super) fn connections(self, plan: &Plan) -> u64 {
        match self {
            Scenario::Load(workload) => Plan {
                workload,
                ..plan.clone()
            }
            .open_connections(),
            Scenario::Idle(idle) => idle.connections().into(),
            _ => plan.connections.into(),
        }
    }

    /// Whether it reads or writes the key space whose size is given.
    pub(super) fn uses_keys(self) -> bool {
        match self {
            Scenario::Load(workload) => {
                !matches!(workload.kind, Kind::LeaseGrant | Kind::LeaseKeepAlive)
            }
            Scenario::Latency
            | Scenario::Mixed
            | Scenario::Rss
            | Scenario::Restart
            | Scenario::Tail => true,
            Scenario::Churn
            | Scenario::Idle(_)
            | Scenario::Large
            | Scenario::LeaderKill
            | Scenario::CatchUp => false,
        }
    }

    /// Whether members are stopped and started again.
    pub(super) fn restarts(self) -> bool {
        matches!(
            self,
            Scenario::Restart | Scenario::CatchUp | Scenario::Tail | Scenario::Large
        )
    }
}

/// For a note.
fn described(read_rate: Option<ReadRate>) -> String {
    read_rate.map_or(String::new(), |rate| {
        format!("; each client takes at most {rate}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scenarios_read_back_as_they_are_written() {
        for text in [
            "put",
            "list-1000",
            "stream-1000@4",
            "watch-10@4",
            "latency",
            "mixed",
            "churn",
            "connections-10000",
            "watches-500@7",
            "large",
            "rss",
            "restart",
            "leader-kill",
            "catch-up",
            "tail",
        ] {
            assert_eq!(text.parse::<Scenario>().unwrap().to_string(), text);
        }
        for (short, long) in [
            ("connections", "connections-10000"),
            ("watches", "watches-100000@100"),
            ("watches-7", "watches-7@7"),
        ] {
            assert_eq!(short.parse::<Scenario>().unwrap().to_string(), long);
        }
        for text in [
            "connections-0",
            "connections-5@2",
            "watches-5@6",
            "watches-x",
        ] {
            assert!(text.parse::<Scenario>().is_err(), "{text:?}");
        }
        let error = "nonsense".parse::<Scenario>().unwrap_err();
        assert!(
            error.contains("lease-grant") && error.contains("restart"),
            "{error}"
        );
    }
}
