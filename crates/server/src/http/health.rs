//! `/health`, `/livez` and `/readyz`.
//!
//! `/health` is the oldest: it fails for any alarm of any member, without a leader, and when a read
//! fails. `/livez` and `/readyz` run named checks; their lines are listed in a fixed order, which
//! etcd leaves open.
//!
//! A failed check is logged as well: the log still has the reason for a restart, or for an endpoint
//! that was taken out of service, when the answer to the probe is long gone.

use http::StatusCode;
use retcd_proto::etcdserverpb::AlarmType;
use serde::Serialize;

use super::mux::{Check, HealthPage};
use super::{HttpContext, Probe, Response};
use crate::net_http::{query, reply};
use crate::status::text;

pub(super) async fn health<P: Probe>(context: &HttpContext<P>, query: &str) -> Response {
    #[derive(Serialize)]
    struct Health {
        health: &'static str,
        reason: String,
    }
    let counters = &context.metrics.health;
    match sickness(&context.probe, query).await {
        None => {
            counters.successes.inc();
            let well = Health {
                health: "true",
                reason: String::new(),
            };
            reply::ok(reply::TEXT, reply::to_json(&well))
        }
        Some(reason) => {
            counters.failures.inc();
            let ill = Health {
                health: "false",
                reason,
            };
            let status = StatusCode::SERVICE_UNAVAILABLE;
            let output = reply::to_json(&ill);
            crate::warn!("/health error"; "output" => &output, "status-code" => status.as_u16());
            reply::error(status, &output)
        }
    }
}

/// Why the member is not well, in etcd's words.
async fn sickness(probe: &impl Probe, query: &str) -> Option<String> {
    let excluded = query::values(query, "exclude");
    for alarm in probe.alarms() {
        let name = alarm.alarm().as_str_name();
        if excluded.iter().any(|excluded| excluded == name) {
            continue;
        }
        return Some(match alarm.alarm() {
            AlarmType::Nospace | AlarmType::Corrupt => format!("ALARM {name}"),
            AlarmType::None => "ALARM UNKNOWN".to_owned(),
        });
    }
    // The first value counts, and only this word.
    let serializable = query::pairs(query).find(|(name, _)| name == "serializable");
    let read = match serializable.is_some_and(|(_, value)| value == "true") {
        true => probe.serializable_read().await,
        false if probe.leader().is_none() => return Some("RAFT NO LEADER".to_owned()),
        false => probe.linearizable_read().await,
    };
    read.err()
        .map(|error| format!("RANGE ERROR:{}", text(error)))
}

/// A page of checks, or one check of it, which then cannot be excluded.
pub(super) async fn check<P: Probe>(
    context: &HttpContext<P>,
    page: HealthPage,
    only: Option<Check>,
    query: &str,
) -> Response {
    let excluded = query::values(query, "exclude");
    let is_excluded = |check: &Check| excluded.iter().any(|name| name == check.name());
    let checks = match &only {
        Some(check) => std::slice::from_ref(check),
        None => page.checks(),
    };
    let unknown: Vec<String> = excluded
        .iter()
        .filter(|name| only.is_none() && checks.iter().all(|check| *name != check.name()))
        .map(|name| format!("{name:?}"))
        .collect();
    if !unknown.is_empty() {
        crate::warn!("some health checks cannot be excluded"; "missing-health-checks" => unknown.join(","));
    }
    let mut report = String::new();
    let mut failed = false;
    for check in checks
        .iter()
        .filter(|check| only.is_some() || !is_excluded(check))
    {
        let result = run(&context.probe, *check).await;
        context
            .metrics
            .health
            .checked(page.name(), check.name(), result.is_ok());
        report += &match &result {
            Ok(()) => format!("[+]{} ok\n", check.name()),
            Err(error) => format!("[-]{} failed: {error}\n", check.name()),
        };
        failed |= result.is_err();
    }
    if failed {
        let status = StatusCode::SERVICE_UNAVAILABLE;
        let path = match only {
            Some(check) => format!("/{}/{}", page.name(), check.name()),
            None => format!("/{}", page.name()),
        };
        crate::error!("Health check error"; "path" => path, "reason" => &report, "status-code" => status.as_u16());
        return reply::error(status, &report);
    }
    let verbose = query::pairs(query).any(|(name, _)| name == "verbose");
    let report = if verbose { report } else { String::new() };
    reply::plain(StatusCode::OK, report + "ok\n")
}

async fn run(probe: &impl Probe, check: Check) -> Result<(), String> {
    match check {
        Check::SerializableRead => probe.serializable_read().await.map_err(text),
        Check::LinearizableRead => probe.linearizable_read().await.map_err(text),
        Check::NonLearner if probe.is_learner() => Err("not supported for learner".to_owned()),
        Check::NonLearner => Ok(()),
        Check::DataCorruption => {
            let alarms = probe.alarms();
            match alarms
                .iter()
                .any(|alarm| alarm.alarm() == AlarmType::Corrupt)
            {
                true => Err("alarm activated: CORRUPT".to_owned()),
                false => Ok(()),
            }
        }
    }
}
