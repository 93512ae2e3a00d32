//! Everything that etcd 3.3.25 was asked, in the same order. Where we answer otherwise, a list says
//! why.
//!
//! `RETCD_TEST_ETCD_3_3=/path/to/etcd` replays against that program instead, without exceptions: so
//! it shows that the comparison itself is right.

use super::member::Member;
use super::transcript::{Comparison, group};

const TRANSCRIPT: &str = include_str!("../data/v2-3.3.25.jsonl");

/// What etcd logs once it serves.
const READY: &str = "serving insecure client requests";

const COMPARISON: Comparison = Comparison {
    headers: &[
        "Allow",
        "Content-Length",
        "Content-Type",
        "Location",
        "Transfer-Encoding",
        "Www-Authenticate",
        "X-Content-Type-Options",
        "X-Etcd-Cluster-Id",
        "X-Etcd-Index",
        "X-Raft-Index",
    ],
    lengths: true,
    numbers: true,
    plain: str::to_owned,
};

/// Pages beside API v2, which are those of etcd 3.7.
const OTHER_PAGES: [&str; 3] = ["/health", "/version", "/config/local/log"];

/// etcd 3.3 counts its own look-ups of users as reads that failed, and some refusals as successes.
const COUNTS: &str = "/v2/stats/store";

async fn replay(name: &str) {
    let reference = std::env::var("RETCD_TEST_ETCD_3_3").ok();
    let mut member = Member::start(reference.as_deref(), READY, &[]).await;
    let mut differences = Vec::new();
    for exchange in group(TRANSCRIPT, name) {
        let is_other = OTHER_PAGES.iter().any(|page| exchange.is_of(page));
        if is_other && reference.is_none() {
            continue;
        }
        let is_ours = exchange.is_of(COUNTS) && reference.is_none();
        let comparison = Comparison {
            lengths: !is_ours,
            numbers: !is_ours,
            ..COMPARISON
        };
        let same = exchange.replay(member.port, &mut member.names, comparison);
        differences.extend(same.err());
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn keys_are_answered_as_by_etcd() {
    replay("keys-").await;
}

#[tokio::test]
async fn members_are_answered_as_by_etcd() {
    replay("members-").await;
}

#[tokio::test]
async fn users_and_roles_are_answered_as_by_etcd() {
    replay("auth-").await;
}

#[tokio::test]
async fn watches_are_answered_as_by_etcd() {
    replay("watch-").await;
}
