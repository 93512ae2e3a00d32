//! What two samples tell: rates, latencies, and what somebody should look at.

use retcd_log::ByteSize;
use retcd_proto::etcdserverpb::StatusResponse;
use serde::Serialize;

use super::metrics::Metrics;
use super::sample::{MemberSample, Sample};

/// 99% of the syncs of a log should take less, by etcd's guide.
const FSYNC_SLOW_S: f64 = 0.010;
/// 99% of the commits of a database should take less, by etcd's guide.
const COMMIT_SLOW_S: f64 = 0.025;
/// Entries that a member may be behind. At 5000 between commit and apply, members refuse writes.
const LAG_MAX: u64 = 1000;
/// Percent of the quota from which on it is warned of.
const QUOTA_PERCENT: u64 = 80;

/// What a member does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Role {
    Leader,
    Follower,
    Learner,
    /// It did not answer.
    Unknown,
}

impl Role {
    pub(super) fn name(self) -> &'static str {
        match self {
            Role::Leader => "leader",
            Role::Follower => "follower",
            Role::Learner => "learner",
            Role::Unknown => "?",
        }
    }
}

/// A member. Numbers that it did not tell, and rates without two samples, are absent.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) endpoint: String,
    pub(super) id: Option<String>,
    pub(super) role: Role,
    pub(super) version: Option<String>,
    pub(super) revision: Option<i64>,
    pub(super) raft_term: Option<u64>,
    pub(super) raft_applied_index: Option<u64>,
    /// Log entries that others have and this member has not applied.
    pub(super) lag: Option<u64>,
    /// Bytes.
    pub(super) db_size: Option<u64>,
    pub(super) db_in_use: Option<u64>,
    pub(super) db_quota: Option<u64>,
    pub(super) reads_per_second: Option<f64>,
    pub(super) writes_per_second: Option<f64>,
    /// 99% of the requests, syncs and commits since the last sample took less.
    pub(super) request_p99_seconds: Option<f64>,
    pub(super) fsync_p99_seconds: Option<f64>,
    pub(super) commit_p99_seconds: Option<f64>,
    pub(super) watchers: Option<u64>,
    pub(super) slow_watchers: Option<u64>,
    pub(super) pending_proposals: Option<u64>,
    pub(super) leader_changes: Option<u64>,
    pub(super) memory_bytes: Option<u64>,
    /// Of one processor.
    pub(super) cpu_percent: Option<f64>,
    /// Why it did not answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
}

/// The cluster.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(super) struct View {
    /// The name of the leader, or its id.
    pub(super) leader: Option<String>,
    pub(super) members: Vec<Row>,
    pub(super) warnings: Vec<String>,
}

impl View {
    /// What a sample tells, and what has changed since the one before.
    pub(super) fn new(before: Option<&Sample>, now: &Sample) -> View {
        let statuses = now
            .members
            .iter()
            .filter_map(|member| member.status.as_ref().ok());
        let last_index = statuses
            .clone()
            .map(|status| status.raft_index)
            .max()
            .unwrap_or(0);
        let leader_id = statuses.map(|status| status.leader).find(|id| *id != 0);
        let mut members = Vec::new();
        let mut warnings = Vec::new();
        for member in &now.members {
            let earlier = before.and_then(|sample| {
                let same = sample
                    .members
                    .iter()
                    .find(|old| old.endpoint == member.endpoint);
                let seconds = now.at.saturating_duration_since(sample.at).as_secs_f64();
                Some((same?.metrics.as_ref().ok()?, seconds))
            });
            let row = row(member, earlier, last_index);
            warn(member, &row, &mut warnings);
            members.push(row);
        }
        let leader = members.iter().find(|row| row.role == Role::Leader);
        let leader = leader.map(Row::shown_name);
        if leader_id.is_none() {
            warnings.insert(
                0,
                "no member knows of a leader: no quorum, or an election".to_owned(),
            );
        }
        View {
            leader: leader.or_else(|| leader_id.map(|id| format!("{id:x}"))),
            members,
            warnings,
        }
    }
}

impl Row {
    /// The name, or the endpoint if there is none.
    pub(super) fn shown_name(&self) -> String {
        match self.name.is_empty() {
            true => self.endpoint.clone(),
            false => self.name.clone(),
        }
    }

    /// The part of the quota that is in use, in percent.
    pub(super) fn quota_percent(&self) -> Option<u64> {
        let quota = self.db_quota.filter(|quota| *quota > 0)?;
        Some(self.db_in_use?.saturating_mul(100) / quota)
    }
}

fn row(member: &MemberSample, earlier: Option<(&Metrics, f64)>, last_index: u64) -> Row {
    let status = member.status.as_ref().ok();
    let metrics = member.metrics.as_ref().ok();
    let changes = metrics
        .zip(earlier)
        .map(|(now, (before, seconds))| Changes {
            now,
            before,
            seconds,
        });
    let number = |name| {
        metrics
            .and_then(|metrics| metrics.value(name))
            .map(|value| value as u64)
    };
    let quantile = |name| changes.as_ref().and_then(|changes| changes.p99(name));
    let bytes = |of: fn(&StatusResponse) -> i64| {
        let bytes = status.map(of).and_then(|bytes| u64::try_from(bytes).ok());
        bytes.filter(|bytes| *bytes > 0)
    };
    let methods = |methods: &[&str]| {
        changes
            .as_ref()
            .and_then(|changes| changes.requests(methods))
    };
    Row {
        name: member.name.clone(),
        endpoint: member.endpoint.clone(),
        id: status.and_then(|status| Some(format!("{:x}", status.header.as_ref()?.member_id))),
        role: status.map_or(Role::Unknown, role),
        version: status.map(|status| status.version.clone()),
        revision: status.and_then(|status| Some(status.header.as_ref()?.revision)),
        raft_term: status.map(|status| status.raft_term),
        raft_applied_index: status.map(|status| status.raft_applied_index),
        lag: status.map(|status| last_index.saturating_sub(status.raft_applied_index)),
        db_size: bytes(|status| status.db_size),
        db_in_use: bytes(|status| status.db_size_in_use),
        // Members before 3.6 do not tell it in their status.
        db_quota: bytes(|status| status.db_size_quota)
            .or_else(|| number("etcd_server_quota_backend_bytes")),
        reads_per_second: methods(&["Range", "RangeStream"]),
        writes_per_second: methods(&["Put", "DeleteRange", "Txn"]),
        request_p99_seconds: quantile("etcd_server_request_duration_seconds"),
        fsync_p99_seconds: quantile("etcd_disk_wal_fsync_duration_seconds"),
        commit_p99_seconds: quantile("etcd_disk_backend_commit_duration_seconds"),
        watchers: number("etcd_debugging_mvcc_watcher_total"),
        slow_watchers: number("etcd_debugging_mvcc_slow_watcher_total"),
        pending_proposals: number("etcd_server_proposals_pending"),
        leader_changes: number("etcd_server_leader_changes_seen_total"),
        memory_bytes: number("process_resident_memory_bytes"),
        cpu_percent: changes
            .as_ref()
            .and_then(|changes| changes.rate("process_cpu_seconds_total", ""))
            .map(|rate| rate * 100.0),
        error: member.status.as_ref().err().cloned(),
    }
}

fn role(status: &StatusResponse) -> Role {
    let id = status.header.as_ref().map_or(0, |header| header.member_id);
    match (status.is_learner, status.leader == id && id != 0) {
        (true, _) => Role::Learner,
        (false, true) => Role::Leader,
        (false, false) => Role::Follower,
    }
}

/// Metrics of a member at two times.
struct Changes<'m> {
    now: &'m Metrics,
    before: &'m Metrics,
    seconds: f64,
}

impl Changes<'_> {
    /// How much a counter grows per second. A member that was started again begins at zero.
    fn rate(&self, name: &str, label: &str) -> Option<f64> {
        let now = self.now.sum(name, label)?;
        let before = self.before.sum(name, label).filter(|before| *before <= now);
        (self.seconds > 0.0).then(|| (now - before.unwrap_or(0.0)) / self.seconds)
    }

    /// Requests of any of these methods per second.
    fn requests(&self, methods: &[&str]) -> Option<f64> {
        let rates = methods.iter().filter_map(|method| {
            let label = format!("grpc_method=\"{method}\"");
            self.rate("grpc_server_handled_total", &label)
        });
        rates.reduce(|sum, rate| sum + rate)
    }

    fn p99(&self, name: &str) -> Option<f64> {
        self.now.quantile_since(self.before, name, 0.99)
    }
}

/// Adds what somebody should look at.
fn warn(member: &MemberSample, row: &Row, warnings: &mut Vec<String>) {
    let name = row.shown_name();
    let mut add = |text: String| warnings.push(format!("{name}: {text}"));
    let status = match &member.status {
        Ok(status) => status,
        Err(reason) => return add(reason.clone()),
    };
    status.errors.iter().for_each(|error| add(error.clone()));
    if let Err(reason) = &member.metrics {
        add(format!(
            "no metrics: {reason} (name its --listen-client-http-urls or --listen-metrics-urls with --metrics-endpoints)"
        ));
    }
    let millis = |seconds: f64| format!("{:.1} ms", seconds * 1000.0);
    if let Some(took) = row.fsync_p99_seconds.filter(|took| *took > FSYNC_SLOW_S) {
        let (took, limit) = (millis(took), millis(FSYNC_SLOW_S));
        add(format!(
            "slow disk: 99% of the syncs of its log take up to {took}, more than {limit}"
        ));
    }
    if let Some(took) = row.commit_p99_seconds.filter(|took| *took > COMMIT_SLOW_S) {
        let (took, limit) = (millis(took), millis(COMMIT_SLOW_S));
        add(format!(
            "slow disk: 99% of the commits of its database take up to {took}, more than {limit}"
        ));
    }
    if let Some(lag) = row.lag.filter(|lag| *lag > LAG_MAX) {
        add(format!("{lag} log entries behind"));
    }
    if let Some(percent) = row
        .quota_percent()
        .filter(|percent| *percent >= QUOTA_PERCENT)
    {
        let quota = ByteSize(row.db_quota.unwrap_or(0));
        add(format!("{percent}% of the quota of {quota} is in use"));
    }
    if let Some(slow) = row.slow_watchers.filter(|slow| *slow > 0) {
        add(format!("{slow} watchers are behind"));
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::time::{Duration, Instant};

    use retcd_proto::etcdserverpb::ResponseHeader;

    use super::*;

    const METRICS: &str = "\
etcd_debugging_mvcc_watcher_total 12
etcd_debugging_mvcc_slow_watcher_total 1
process_resident_memory_bytes 5e7
process_cpu_seconds_total 10
";

    fn member(id: u64, applied: u64, metrics: String) -> MemberSample {
        MemberSample {
            name: format!("m{id}"),
            endpoint: format!("http://10.0.0.{id}:2379"),
            status: Ok(StatusResponse {
                header: Some(ResponseHeader {
                    member_id: id,
                    revision: 77,
                    ..ResponseHeader::default()
                }),
                version: "3.7.1".to_owned(),
                leader: 2,
                raft_index: applied,
                raft_applied_index: applied,
                raft_term: 4,
                db_size: 2_000_000,
                db_size_in_use: 1_800_000,
                db_size_quota: 2_000_000,
                ..StatusResponse::default()
            }),
            metrics: Ok(Metrics::parse(&metrics)),
        }
    }

    /// Two seconds after another sample; m3 does not answer.
    pub(in super::super) fn view() -> View {
        let at = Instant::now();
        let counters = |puts: u32, slow: u32| {
            format!(
                "{METRICS}grpc_server_handled_total{{grpc_code=\"OK\",grpc_method=\"Put\"}} {puts}\n\
                 etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"0.032\"}} {slow}\n\
                 etcd_disk_wal_fsync_duration_seconds_bucket{{le=\"+Inf\"}} {slow}\n"
            )
        };
        let before = Sample {
            at,
            members: vec![
                member(1, 5000, counters(100, 0)),
                member(2, 9000, counters(900, 0)),
            ],
        };
        let mut silent = member(3, 0, String::new());
        silent.status = Err("no answer from http://10.0.0.3:2379: refused".to_owned());
        silent.metrics = Err("refused".to_owned());
        let now = Sample {
            at: at + Duration::from_secs(2),
            members: vec![
                member(1, 5000, counters(150, 0)),
                member(2, 9001, counters(10, 100)),
                silent,
            ],
        };
        View::new(Some(&before), &now)
    }

    #[test]
    fn two_samples_have_rates() {
        let view = view();
        assert_eq!(view.leader.as_deref(), Some("m2"));
        let [m1, m2, m3] = &view.members[..] else {
            panic!("{view:?}");
        };
        assert_eq!(
            (m1.writes_per_second, m1.reads_per_second),
            (Some(25.0), None)
        );
        // It was started again meanwhile.
        assert_eq!(m2.writes_per_second, Some(5.0));
        assert_eq!(
            (m1.role, m2.role, m3.role),
            (Role::Follower, Role::Leader, Role::Unknown)
        );
        assert_eq!((m1.lag, m2.lag, m3.lag), (Some(4001), Some(0), None));
        assert_eq!((m1.watchers, m1.cpu_percent), (Some(12), Some(0.0)));
        assert_eq!(m1.fsync_p99_seconds, None);
        assert!(m2.fsync_p99_seconds > Some(0.03), "{m2:?}");
    }

    #[test]
    fn warns_of_what_needs_somebody() {
        let warnings = [
            "m1: 4001 log entries behind",
            "m1: 90% of the quota of 2.0 MB is in use",
            "m1: 1 watchers are behind",
            "m2: slow disk: 99% of the syncs of its log take up to 31.7 ms, more than 10.0 ms",
            "m2: 90% of the quota of 2.0 MB is in use",
            "m2: 1 watchers are behind",
            "m3: no answer from http://10.0.0.3:2379: refused",
        ];
        assert_eq!(view().warnings, warnings);
        let nobody = View::new(
            None,
            &Sample {
                at: Instant::now(),
                members: Vec::new(),
            },
        );
        assert_eq!(
            nobody.warnings,
            ["no member knows of a leader: no quorum, or an election"]
        );
    }
}
