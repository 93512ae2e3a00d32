//! What the settings mean for the member's behaviour.

use retcd_member::config::{Config as MemberConfig, Limits};
use retcd_state::version::Version;

use super::gates::Gate;
use super::url::Url;
use super::{Config, ConfigError};
use crate::log::GoDuration;

impl Config {
    /// The settings of the member itself.
    ///
    /// # Errors
    /// As [`Config::auto_compaction`].
    pub fn member(&self) -> Result<MemberConfig, ConfigError> {
        let gates = &self.feature_gates;
        let interval = |interval: GoDuration| Some(interval.std()).filter(|time| !time.is_zero());
        let version = Version::parse(crate::VERSION.as_bytes());
        Ok(MemberConfig {
            name: self.name.clone(),
            client_urls: texts(&self.advertise_client_urls),
            version: version.expect("the own version is one"),
            limits: Limits {
                request_bytes_max: self.max_request_bytes,
                txn_ops_max: self.max_txn_ops,
                // Negative for none.
                quota_bytes: u64::try_from(self.quota_backend_bytes).ok(),
                request_timeout: self.request_timeout(),
            },
            heartbeat_interval: self.heartbeat_interval(),
            election_timeout: self.election_timeout(),
            election_ticks: self.election_ticks() as u32,
            initial_election_tick_advance: self.initial_election_tick_advance,
            parse_peer_urls: parse_urls,
            strict_reconfig_check: self.strict_reconfig_check,
            priority_requests: gates.enabled(Gate::PriorityRequest),
            fast_lease_keep_alive: gates.enabled(Gate::FastLeaseKeepAlive),
            corrupt_check: interval(self.corrupt_check_time),
            compact_hash_check: interval(self.compact_hash_check_time)
                .filter(|_| gates.enabled(Gate::CompactHashCheck)),
            downgrade_check: interval(self.downgrade_check_time),
            auto_compaction: self.auto_compaction()?,
            compaction_batch: self.compaction_batch_limit.unsigned_abs().max(1),
        })
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}

fn parse_urls(texts: &[String]) -> Option<Vec<String>> {
    let urls: Result<Vec<Url>, _> = texts.iter().map(|text| Url::parse(text)).collect();
    let mut urls = urls.ok()?;
    urls.sort();
    Some(self::texts(&urls))
}
