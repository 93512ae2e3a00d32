//! The numbers that other rooms own and that `/metrics` only copies.
//!
//! A database's size or the current revision is not counted twice: the server fills a [`Sample`]
//! when somebody reads the page, and requests pay nothing for it.

use super::family::{Page, gauge};

/// The version that this server reports, e.g. `3.7.1`.
const SERVER_VERSION: &str = env!("CARGO_PKG_VERSION");

/// The state of one member at the moment of reading.
#[derive(Debug, Clone, Default)]
pub struct Sample {
    /// This member's id; shown in hexadecimal.
    pub member_id: u64,
    /// The ids of all members of the cluster, this one included.
    pub members: Vec<u64>,
    /// The cluster's version as `major.minor`, once it is decided.
    pub cluster_version: Option<String>,
    /// Whether a leader is known.
    pub has_leader: bool,
    /// Whether this member leads.
    pub is_leader: bool,
    /// Whether this member does not vote yet.
    pub is_learner: bool,
    /// The highest index known to be committed.
    pub committed_index: u64,
    /// The highest index that was applied.
    pub applied_index: u64,
    /// Proposals that wait for their commit.
    pub proposals_pending: u64,
    /// Whether a snapshot from the leader is being applied.
    pub applying_snapshot: bool,
    /// The effective quota in bytes: 2 GiB when the flag is 0, negative when it is switched off.
    pub quota_backend_bytes: i64,
    /// Every feature gate, `AllAlpha` and `AllBeta` too.
    pub features: Vec<Feature>,
    /// The alarms that are raised.
    pub alarms: Vec<RaisedAlarm>,
    /// The revision of the auth store; 1 in one that never changed.
    pub auth_revision: u64,
    /// The size of the database's file in bytes.
    pub db_size_bytes: u64,
    /// The part of it that is in use, in bytes.
    pub db_in_use_bytes: u64,
    /// Readers of the database that are open.
    pub db_open_reads: u64,
    /// Whether a defragmentation is going on.
    pub defrag_in_flight: bool,
    /// Keys in the index.
    pub keys: u64,
    /// The current revision; 1 in an empty store.
    pub current_revision: i64,
    /// The last compacted revision; -1 before the first compaction.
    pub compact_revision: i64,
    /// When this process last finished a compaction, in seconds since 1970; 0 before the first.
    pub last_compaction_seconds: u64,
    /// Open watch streams.
    pub watch_streams: u64,
    /// Watchers on all streams.
    pub watchers: u64,
    /// Those of them that have not caught up.
    pub slow_watchers: u64,
    /// Events that wait for their watchers.
    pub pending_events: u64,
}

/// One feature gate, as `etcd_server_feature_enabled` shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Feature {
    /// The gate's name.
    pub name: &'static str,
    /// `ALPHA`, `BETA`, or nothing for a feature that is generally available.
    pub stage: &'static str,
    /// Whether it is on.
    pub enabled: bool,
}

/// One raised alarm.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RaisedAlarm {
    /// The member that raised it.
    pub member_id: u64,
    /// `NOSPACE` or `CORRUPT`.
    pub kind: &'static str,
}

impl Sample {
    pub(super) fn append(&self, page: &mut Page) {
        self.append_identity(page);
        self.append_raft(page);
        self.append_store(page);
        self.append_watch(page);
    }

    fn append_identity(&self, page: &mut Page) {
        let id = format!("{:x}", self.member_id);
        // A proxy has none.
        if self.member_id != 0 {
            page.gauges(
                "etcd_server_id",
                "Always 1; the label is this member's id in hexadecimal.",
                vec![gauge(&[("server_id", &id)], 1.0)],
            );
        }
        page.gauges(
            "etcd_server_version",
            "Always 1; the label is this server's version.",
            vec![gauge(&[("server_version", SERVER_VERSION)], 1.0)],
        );
        page.gauges(
            "etcd_server_go_version",
            "Always 1; the label names the language that this server is built with.",
            vec![gauge(&[("server_go_version", "rust")], 1.0)],
        );
        let cluster_version = self.cluster_version.iter();
        page.gauges(
            "etcd_cluster_version",
            "Always 1; the label is the version that all members agreed on.",
            cluster_version
                .map(|version| gauge(&[("cluster_version", version)], 1.0))
                .collect(),
        );
        let features = self.features.iter().map(|feature| {
            let labels = [("name", feature.name), ("stage", feature.stage)];
            gauge(&labels, flag(feature.enabled))
        });
        page.gauges(
            "etcd_server_feature_enabled",
            "Whether a feature gate is on.",
            features.collect(),
        );
        let known = self
            .members
            .iter()
            .map(|member| gauge(&[("Local", &id), ("Remote", &format!("{member:x}"))], 1.0));
        page.gauges(
            "etcd_network_known_peers",
            "Always 1; one series for each member of the cluster.",
            known.collect(),
        );
        let alarms = self.alarms.iter().map(|alarm| {
            let raised_by = format!("{:x}", alarm.member_id);
            gauge(
                &[("alarm_type", alarm.kind), ("server_id", &raised_by)],
                1.0,
            )
        });
        page.gauges(
            "etcd_debugging_server_alarms",
            "Always 1; one series for each alarm that is raised.",
            alarms.collect(),
        );
    }

    fn append_raft(&self, page: &mut Page) {
        let gauges = [
            (
                "etcd_server_has_leader",
                "Whether a leader is known.",
                flag(self.has_leader),
            ),
            (
                "etcd_server_is_leader",
                "Whether this member leads.",
                flag(self.is_leader),
            ),
            (
                "etcd_server_is_learner",
                "Whether this member is a learner, without a vote.",
                flag(self.is_learner),
            ),
            (
                "etcd_server_proposals_committed_total",
                "The highest raft index that is committed.",
                self.committed_index as f64,
            ),
            (
                "etcd_server_proposals_applied_total",
                "The highest raft index that is applied.",
                self.applied_index as f64,
            ),
            (
                "etcd_server_proposals_pending",
                "Proposals that wait for their commit.",
                self.proposals_pending as f64,
            ),
            (
                "etcd_server_snapshot_apply_in_progress_total",
                "Whether a snapshot from the leader is being applied.",
                flag(self.applying_snapshot),
            ),
            (
                "etcd_server_quota_backend_bytes",
                "Quota of the database in bytes; negative when there is none.",
                self.quota_backend_bytes as f64,
            ),
            (
                "etcd_debugging_auth_revision",
                "Revision of the auth store.",
                self.auth_revision as f64,
            ),
        ];
        append_all(page, &gauges);
    }

    fn append_store(&self, page: &mut Page) {
        let gauges = [
            (
                "etcd_mvcc_db_total_size_in_bytes",
                "Size of the database's file in bytes.",
                self.db_size_bytes as f64,
            ),
            (
                "etcd_mvcc_db_total_size_in_use_in_bytes",
                "Bytes of the database's file that hold data.",
                self.db_in_use_bytes as f64,
            ),
            (
                "etcd_mvcc_db_open_read_transactions",
                "Readers of the database that are open.",
                self.db_open_reads as f64,
            ),
            (
                "etcd_disk_defrag_inflight",
                "Whether a defragmentation is going on.",
                flag(self.defrag_in_flight),
            ),
            (
                "etcd_debugging_mvcc_keys_total",
                "Keys in the index.",
                self.keys as f64,
            ),
            (
                "etcd_debugging_mvcc_current_revision",
                "Current revision of the store.",
                self.current_revision as f64,
            ),
            (
                "etcd_debugging_mvcc_compact_revision",
                "Revision up to which the store is compacted; -1 before the first time.",
                self.compact_revision as f64,
            ),
            (
                "etcd_debugging_mvcc_db_compaction_last",
                "When the last compaction ended, in seconds since 1970; 0 after a start.",
                self.last_compaction_seconds as f64,
            ),
        ];
        append_all(page, &gauges);
    }

    fn append_watch(&self, page: &mut Page) {
        let gauges = [
            (
                "etcd_debugging_mvcc_watch_stream_total",
                "Watch streams that are open.",
                self.watch_streams as f64,
            ),
            (
                "etcd_debugging_mvcc_watcher_total",
                "Watchers on all streams.",
                self.watchers as f64,
            ),
            (
                "etcd_debugging_mvcc_slow_watcher_total",
                "Watchers that read history because they are behind.",
                self.slow_watchers as f64,
            ),
            (
                "etcd_debugging_mvcc_pending_events_total",
                "Events that wait to be sent.",
                self.pending_events as f64,
            ),
        ];
        append_all(page, &gauges);
    }
}

fn append_all(page: &mut Page, gauges: &[(&str, &str, f64)]) {
    for (name, help, value) in gauges {
        page.gauge(name, help, *value);
    }
}

fn flag(value: bool) -> f64 {
    f64::from(u8::from(value))
}
