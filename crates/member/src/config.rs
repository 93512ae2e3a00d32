//! What a member is told about how to behave.

use std::time::Duration;

use retcd_state::version::Version;

/// A member's settings, as far as they concern what this crate does.
#[derive(Clone, Debug)]
pub struct Config {
    /// The member's name.
    pub name: String,
    /// Where clients reach it.
    pub client_urls: Vec<String>,
    /// The version of etcd that it stands in for.
    pub version: Version,
    /// Limits on requests.
    pub limits: Limits,
    /// `--heartbeat-interval`.
    pub heartbeat_interval: Duration,
    /// `--election-timeout`.
    pub election_timeout: Duration,
    /// The election timeout in ticks.
    pub election_ticks: u32,
    /// `--initial-election-tick-advance`.
    pub initial_election_tick_advance: bool,
    /// The canonical forms of peer URLs, sorted; `None` if one of them is none.
    pub parse_peer_urls: fn(&[String]) -> Option<Vec<String>>,
    /// `--strict-reconfig-check`.
    pub strict_reconfig_check: bool,
    /// Gate `PriorityRequest`: the end of a lease is let in while ordinary requests are refused.
    pub priority_requests: bool,
    /// Gate `FastLeaseKeepAlive`: a renewal does not wait for the machine.
    pub fast_lease_keep_alive: bool,
    /// Time between two periodic comparisons of all members' data (`--corrupt-check-time`).
    pub corrupt_check: Option<Duration>,
    /// Time between two comparisons of compactions (`--compact-hash-check-time`, with its gate).
    pub compact_hash_check: Option<Duration>,
    /// Time between two looks whether a downgrade is done (`--downgrade-check-time`).
    pub downgrade_check: Option<Duration>,
    /// Compactions that nobody asks for.
    pub auto_compaction: AutoCompaction,
    /// Compactions remove rows in steps of so many revisions.
    pub compaction_batch: usize,
}

/// `--auto-compaction-mode` and `--auto-compaction-retention`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AutoCompaction {
    /// None.
    Off,
    /// Keep what the store held this long ago.
    Periodic(Duration),
    /// Keep so many revisions.
    Revision(u64),
}

/// Limits on requests.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of one proposal.
    pub request_bytes_max: usize,
    /// Operations per list of a transaction.
    pub txn_ops_max: usize,
    /// Bytes in use from which writes are refused; `None` for no quota.
    pub quota_bytes: Option<u64>,
    /// How long a request may wait for its answer.
    pub request_timeout: Duration,
}
