//! What follows from the settings: timeouts, limits, directories.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use retcd_member::config::AutoCompaction;

use super::check::ConfigError;
use super::gates::Gate;
use super::{Config, member_dir};
use crate::log::GoDuration;

/// The shortest retention by time. The revision is noted ten times per retention, so that a shorter
/// one would keep a processor busy. etcd accepts any, and crashes on one below ten nanoseconds.
pub(super) const RETENTION_MIN: GoDuration = GoDuration::from_millis(100);

/// gRPC messages may be this much larger than `max_request_bytes`, as in etcd.
const GRPC_OVERHEAD_BYTES: usize = 512 * 1024;

impl Config {
    /// `--auto-compaction-mode` and `--auto-compaction-retention`.
    ///
    /// # Errors
    /// The retention is neither a number nor a duration, or does not fit the mode.
    pub fn auto_compaction(&self) -> Result<AutoCompaction, ConfigError> {
        let retention = u64::try_from(self.compaction_retention()?.0)
            .expect("a retention below zero is refused");
        Ok(match (retention, self.auto_compaction_mode.as_str()) {
            (0, _) => AutoCompaction::Off,
            (revisions, "revision") => AutoCompaction::Revision(revisions),
            (nanos, _) => AutoCompaction::Periodic(Duration::from_nanos(nanos)),
        })
    }

    /// As etcd stores it: a duration in both modes, a nanosecond for each revision. Not negative.
    pub(super) fn compaction_retention(&self) -> Result<GoDuration, ConfigError> {
        const HOUR_NANOS: i64 = 3_600_000_000_000;
        let text = match self.auto_compaction_retention.as_str() {
            "" => "0",
            text => text,
        };
        let number = text.parse::<i64>().ok().filter(|number| *number >= 0);
        match (number, self.auto_compaction_mode.as_str()) {
            (Some(revisions), "revision") => Ok(GoDuration(revisions)),
            (Some(hours), _) => Ok(GoDuration(hours.saturating_mul(HOUR_NANOS))),
            (None, mode) => match text.parse().map_err(ConfigError::CompactionRetention)? {
                GoDuration(0) => Ok(GoDuration(0)),
                _ if mode == "revision" => Err(ConfigError::RetentionNotRevisions(text.to_owned())),
                span if span < RETENTION_MIN => {
                    Err(ConfigError::RetentionTooShort(text.to_owned()))
                }
                span => Ok(span),
            },
        }
    }

    /// The local address of connections to other members: the first advertised address that is an
    /// IP others can reach. None leaves the choice to the operating system, as without the gate
    /// SetMemberLocalAddr.
    pub fn member_local_address(&self) -> Option<IpAddr> {
        if !self.feature_gates.enabled(Gate::SetMemberLocalAddr) {
            return None;
        }
        self.initial_advertise_peer_urls
            .iter()
            .filter_map(|url| url.host().parse().ok())
            .find(|address: &IpAddr| !address.is_loopback() && !address.is_unspecified())
    }

    /// Ticks without a leader until an election.
    pub fn election_ticks(&self) -> usize {
        self.election_timeout_ms / self.heartbeat_interval_ms
    }

    /// Rounded down to whole ticks.
    pub fn election_timeout(&self) -> Duration {
        Duration::from_millis((self.election_ticks() * self.heartbeat_interval_ms) as u64)
    }

    /// The duration of a tick.
    pub fn heartbeat_interval(&self) -> Duration {
        Duration::from_millis(self.heartbeat_interval_ms as u64)
    }

    /// As in etcd.
    pub fn peer_dial_timeout(&self) -> Duration {
        Duration::from_secs(1) + self.election_timeout()
    }

    /// Time for a whole request, as in etcd: 5 s for queues and the disk, and two elections.
    pub fn request_timeout(&self) -> Duration {
        Duration::from_secs(5) + 2 * self.election_timeout()
    }

    /// The limit for messages that are received.
    pub fn max_grpc_message_bytes(&self) -> usize {
        self.max_request_bytes.saturating_add(GRPC_OVERHEAD_BYTES)
    }

    /// Whether histograms of call durations are wanted.
    pub fn extensive_metrics(&self) -> bool {
        self.metrics == "extensive"
    }

    /// Whether profiles are served: also to whoever looks for a fault (etcd v3.7: server/embed/etcd.go).
    pub fn profiles_served(&self) -> bool {
        self.enable_pprof || self.log_level == "debug"
    }

    /// Whether it is noted what calls did lately, and shown (etcd v3.7: server/embed/etcd.go).
    pub fn requests_recorded(&self) -> bool {
        self.log_level == "debug"
    }

    /// The subdirectory `member` of the data directory.
    pub fn member_dir(&self) -> PathBuf {
        member_dir(&self.data_dir)
    }

    /// The directory of snapshots and the database.
    pub fn snap_dir(&self) -> PathBuf {
        self.member_dir().join("snap")
    }

    /// The directory of the write-ahead log.
    pub fn wal_dir(&self) -> PathBuf {
        if self.wal_dir.is_empty() {
            self.member_dir().join("wal")
        } else {
            self.wal_dir.clone().into()
        }
    }
}
