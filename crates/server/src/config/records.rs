//! What the log says of the configuration when a member starts.

use std::thread::available_parallelism;

use super::gates::Gate;
use super::resolve::QUOTA_BYTES_DEFAULT;
use super::{Config, version};
use crate::log::{ByteSize, Record};
use crate::log_record;

/// Above these sizes etcd warns.
const QUOTA_BYTES_RECOMMENDED_MAX: i64 = 8 << 30;
const REQUEST_BYTES_RECOMMENDED_MAX: usize = 10 << 20;

impl Config {
    /// The line `starting an etcd server`: the effective settings in etcd's order.
    /// `initial_cluster` is that of a member without data.
    pub fn starting_record(&self, initial_cluster: Option<String>) -> Record {
        let cpus = available_parallelism().map_or(1, usize::from);
        let retention = self.compaction_retention().unwrap_or_default();
        let endpoints = self
            .discovery
            .endpoints
            .iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(",");
        let initialized = initial_cluster.is_none();
        let token = match initialized {
            true => "",
            false => self.initial_cluster_token.as_str(),
        };
        log_record!(
            Info, None, "starting an etcd server";
            "etcd-version" => crate::VERSION,
            "git-sha" => version::GIT_SHA,
            "go-version" => version::GO_VERSION,
            "go-os" => version::GO_OS,
            "go-arch" => version::go_arch(),
            "max-cpu-set" => cpus,
            "max-cpu-available" => cpus,
            "member-initialized" => initialized,
            "name" => self.name,
            "data-dir" => self.data_dir,
            "wal-dir" => self.wal_dir,
            "wal-dir-dedicated" => self.wal_dir,
            "member-dir" => self.member_dir(),
            "force-new-cluster" => self.force_new_cluster,
            "heartbeat-interval" => self.heartbeat_interval(),
            "election-timeout" => self.election_timeout(),
            "initial-election-tick-advance" => self.initial_election_tick_advance,
            "snapshot-count" => self.snapshot_count,
            "max-wals" => self.max_wals,
            "max-snapshots" => self.max_snapshots,
            "snapshot-catchup-entries" => self.snapshot_catchup_entries,
            "initial-advertise-peer-urls" => self.initial_advertise_peer_urls,
            "listen-peer-urls" => self.listen_peer_urls,
            "advertise-client-urls" => self.advertise_client_urls,
            "listen-client-urls" => self.listen_client_urls,
            "listen-metrics-urls" => self.listen_metrics_urls,
            "local-address" => self.member_local_address().map_or_else(String::new, |address| address.to_string()),
            "cors" => self.cors.0.iter().collect::<Vec<_>>(),
            "host-whitelist" => self.host_whitelist.0.iter().collect::<Vec<_>>(),
            "initial-cluster" => initial_cluster.unwrap_or_default(),
            "initial-cluster-state" => self.initial_cluster_state.0,
            "initial-cluster-token" => token,
            "quota-backend-bytes" => self.quota_backend_bytes,
            "max-request-bytes" => self.max_request_bytes,
            "max-concurrent-streams" => self.max_concurrent_streams,
            "pre-vote" => self.pre_vote,
            "feature-gates" => self.feature_gates.text(),
            "initial-corrupt-check" => self.feature_gates.enabled(Gate::InitialCorruptCheck),
            "corrupt-check-time-interval" => self.corrupt_check_time,
            "compact-check-time-interval" => self.compact_hash_check_time,
            "auto-compaction-mode" => self.auto_compaction_mode,
            "auto-compaction-retention" => retention,
            "auto-compaction-interval" => retention,
            "discovery-token" => self.discovery.token,
            "discovery-endpoints" => endpoints,
            "discovery-dial-timeout" => self.discovery.dial_timeout,
            "discovery-request-timeout" => self.discovery.request_timeout,
            "discovery-keepalive-time" => self.discovery.keepalive_time,
            "discovery-keepalive-timeout" => self.discovery.keepalive_timeout,
            "discovery-insecure-transport" => self.discovery.insecure_transport,
            "discovery-insecure-skip-tls-verify" => self.discovery.insecure_skip_tls_verify,
            "discovery-cert" => self.discovery.cert,
            "discovery-key" => self.discovery.key,
            "discovery-cacert" => self.discovery.cacert,
            "discovery-user" => self.discovery.user.split(':').next().unwrap_or_default(),
            "downgrade-check-interval" => self.downgrade_check_time,
            "max-learners" => self.max_learners,
            "v2-deprecation" => self.v2_deprecation.0
        )
    }

    /// The quota, and warnings about sizes beyond etcd's recommendations.
    pub fn size_records(&self) -> Vec<Record> {
        const NAME: &str = "v3-applier";
        let quota = self.quota_backend_bytes;
        let quota_size = ByteSize(quota.unsigned_abs());
        let mut records = Vec::new();
        if self.max_request_bytes > REQUEST_BYTES_RECOMMENDED_MAX {
            records.push(log_record!(
                Warn, None, "exceeded recommended request limit";
                "max-request-bytes" => self.max_request_bytes,
                "max-request-size" => ByteSize(self.max_request_bytes as u64),
                "recommended-request-bytes" => REQUEST_BYTES_RECOMMENDED_MAX,
                "recommended-request-size" => ByteSize(REQUEST_BYTES_RECOMMENDED_MAX as u64)
            ));
        }
        if quota > QUOTA_BYTES_RECOMMENDED_MAX {
            records.push(log_record!(
                Warn, None, "quota exceeds the maximum value";
                "quota-name" => NAME, "quota-size-bytes" => quota, "quota-size" => quota_size,
                "quota-maximum-size-bytes" => QUOTA_BYTES_RECOMMENDED_MAX,
                "quota-maximum-size" => ByteSize(QUOTA_BYTES_RECOMMENDED_MAX as u64)
            ));
        }
        records.push(match quota {
            ..0 => log_record!(
                Info, None, "disabled backend quota"; "quota-name" => NAME, "quota-size-bytes" => quota
            ),
            QUOTA_BYTES_DEFAULT => log_record!(
                Info, None, "enabled backend quota with default value";
                "quota-name" => NAME, "quota-size-bytes" => quota, "quota-size" => quota_size
            ),
            _ => log_record!(
                Info, None, "enabled backend quota";
                "quota-name" => NAME, "quota-size-bytes" => quota, "quota-size" => quota_size
            ),
        });
        records
    }
}
