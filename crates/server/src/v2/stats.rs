//! `/v2/stats`: of this member, of a leader's followers, and of the tree. They are no interface to
//! build on: what is counted, and from when on, differs from member to member.

use std::fmt::Write;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use http::StatusCode;
use retcd_state::v2::Timestamp;

use super::Context;
use super::json;
use super::reply::{self, Response, message};
use super::route::Stats;
use crate::clock::timestamp;
use crate::log::GoDuration;
use crate::peer::FollowerStatistics;
use crate::server::ServerThread;

/// Go's zero time.
const NEVER: &str = "0001-01-01T00:00:00Z";

pub(super) fn stats(context: &Context<'_>, of: Stats) -> Response {
    if let Some(refusal) = reply::refuse_method(context.method(), &["GET"]) {
        return refusal;
    }
    let server = &context.thread.server;
    let body = match of {
        Stats::Own => own(context.thread),
        Stats::Leader if server.member.leadership.leader() != server.member.id => {
            return message(StatusCode::FORBIDDEN, "not current leader");
        }
        Stats::Leader => leader(server.member.id, &server.transport.followers()),
        Stats::Store => store(context.thread),
    };
    reply::json(StatusCode::OK, body)
}

fn own(thread: &ServerThread) -> String {
    let server = &thread.server;
    let (id, leader) = (server.member.id, server.member.leadership.leader());
    let state = match leader == id {
        true => "StateLeader",
        false => "StateFollower",
    };
    let since = server.metrics.server.leader_changed_at_ns.load(Relaxed);
    let (leader, uptime, since) = match leader {
        0 => (String::new(), Duration::ZERO, NEVER.to_owned()),
        leader => {
            let uptime = u64::try_from(timestamp().0 - since).unwrap_or_default();
            let since = Timestamp(since).to_string();
            (format!("{leader:x}"), Duration::from_nanos(uptime), since)
        }
    };
    let mut name = Vec::new();
    json::string(&mut name, &server.member.config.name);
    let name = String::from_utf8(name).expect("JSON is text");
    let (received, sent) = server.transport.append_counts();
    format!(
        "{{\"name\":{name},\"id\":\"{id:x}\",\"state\":\"{state}\",\"startTime\":\"{}\",\
         \"leaderInfo\":{{\"leader\":\"{leader}\",\"uptime\":\"{}\",\"startTime\":\"{since}\"}},\
         \"recvAppendRequestCnt\":{received},\"sendAppendRequestCnt\":{sent}}}",
        server.started,
        GoDuration::from(uptime),
    )
}

fn leader(id: u64, followers: &[(u64, FollowerStatistics)]) -> String {
    let mut body = format!("{{\"leader\":\"{id:x}\",\"followers\":{{");
    // Go sorts by the text.
    let mut followers: Vec<_> = followers
        .iter()
        .map(|(id, statistics)| (format!("{id:x}"), statistics))
        .collect();
    followers.sort_by(|a, b| a.0.cmp(&b.0));
    for (i, (id, statistics)) in followers.iter().enumerate() {
        let separator = if i == 0 { "" } else { "," };
        let _ = write!(
            body,
            "{separator}\"{id}\":{{\"latency\":{{\"current\":{},\"average\":{},\"standardDeviation\":{},\
             \"minimum\":{},\"maximum\":{}}},\"counts\":{{\"fail\":{},\"success\":{}}}}}",
            float(statistics.current),
            float(statistics.average),
            float(statistics.standard_deviation),
            float(statistics.minimum),
            float(statistics.maximum),
            statistics.failures,
            statistics.successes,
        );
    }
    body + "}}"
}

fn store(thread: &ServerThread) -> String {
    let statistics = thread.member.v2.reader().statistics();
    let fields: Vec<String> = statistics
        .fields()
        .map(|(name, count)| format!("\"{name}\":{count}"))
        .collect();
    format!("{{{}}}", fields.join(","))
}

/// A number as Go writes it.
fn float(value: f64) -> String {
    match value.abs() {
        magnitude if magnitude != 0.0 && !(1e-6..1e21).contains(&magnitude) => format!("{value:e}"),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn followers_are_told_as_by_go() {
        let fresh = FollowerStatistics::default();
        let mut used = fresh;
        (used.successes, used.failures) = (3, 1);
        (used.current, used.average) = (0.25, 1.0);
        used.standard_deviation = 5e-7;
        (used.minimum, used.maximum) = (0.0, 2.5);
        assert_eq!(
            leader(0x1a, &[(2, used), (0x10, fresh)]),
            "{\"leader\":\"1a\",\"followers\":{\
             \"10\":{\"latency\":{\"current\":0,\"average\":0,\"standardDeviation\":0,\
             \"minimum\":9223372036854776000,\"maximum\":0},\"counts\":{\"fail\":0,\"success\":0}},\
             \"2\":{\"latency\":{\"current\":0.25,\"average\":1,\"standardDeviation\":5e-7,\
             \"minimum\":0,\"maximum\":2.5},\"counts\":{\"fail\":1,\"success\":3}}}}"
        );
        assert_eq!(leader(1, &[]), "{\"leader\":\"1\",\"followers\":{}}");
    }
}
