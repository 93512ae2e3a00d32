//! Everything that etcd 3.7.1 was asked, in the same order. Where we answer otherwise, a list says
//! why.
//!
//! `RETCD_TEST_ETCD_3_7=/path/to/etcd` replays against that program instead, without exceptions: so
//! it shows that the comparison itself is right.

use super::member::Member;
use super::transcript::{Comparison, group};

const TRANSCRIPT: &str = include_str!("../data/gateway-3.7.1.jsonl");

/// What etcd logs once it serves.
pub const READY: &str = "serving client traffic insecurely";

const COMPARISON: Comparison = Comparison {
    headers: &[
        "Access-Control-Allow-Headers",
        "Access-Control-Allow-Methods",
        "Access-Control-Allow-Origin",
        "Content-Length",
        "Content-Type",
        "Grpc-Metadata-Content-Type",
        "Location",
        "Transfer-Encoding",
        "Www-Authenticate",
        "X-Content-Type-Options",
    ],
    // They depend on spaces.
    lengths: false,
    numbers: true,
    plain: without_chance,
};

/// A text without the spaces that Go's protobuf puts into those of some builds.
fn without_chance(body: &str) -> String {
    body.replace("proto:\u{a0}", "proto: ")
        .replace(", \"", ",\"")
        .replace(", {", ",{")
        .replace("  alarm:", " alarm:")
}

/// Answered otherwise on purpose, and why.
const EXCEPTIONS: [(&str, &str); 1] = [(
    "gw-lease-009",
    "a list of keys only shows leases, as etcd up to 3.6 does (see docs/compatibility.md)",
)];

async fn replay(name: &str, flags: &[&str]) {
    let reference = std::env::var("RETCD_TEST_ETCD_3_7").ok();
    let mut member = Member::start(reference.as_deref(), READY, flags).await;
    let mut differences = Vec::new();
    for exchange in group(TRANSCRIPT, name) {
        let is_exception = || EXCEPTIONS.iter().any(|(id, _)| *id == exchange.id);
        if exchange.is_informative() || (reference.is_none() && is_exception()) {
            continue;
        }
        let same = exchange.replay(member.port, &mut member.names, COMPARISON);
        differences.extend(same.err());
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[tokio::test]
async fn keys_are_answered_as_by_etcd() {
    replay("gw-kv-", &[]).await;
}

#[tokio::test]
async fn leases_are_answered_as_by_etcd() {
    replay("gw-lease-", &[]).await;
}

#[tokio::test]
async fn watches_are_answered_as_by_etcd() {
    replay("gw-watch-", &[]).await;
}

#[tokio::test]
async fn maintenance_and_members_are_answered_as_by_etcd() {
    replay("gw-maint-", &[]).await;
}

#[tokio::test]
async fn users_and_roles_are_answered_as_by_etcd() {
    replay("gw-auth-", &[]).await;
}

#[tokio::test]
async fn locks_and_elections_are_answered_as_by_etcd() {
    replay("gw-lock-", &[]).await;
}

#[tokio::test]
async fn without_a_gateway_its_paths_are_none() {
    replay("gw-nogw-", &["--enable-grpc-gateway=false"]).await;
}
