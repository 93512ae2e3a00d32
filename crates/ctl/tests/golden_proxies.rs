//! Replays what etcd's tool and pages said through `etcd gateway` and `etcd grpc-proxy`.
//!
//! The transcripts are in `data/golden-proxies.jsonl`, in the form of those of `golden.rs`; the first
//! entry of a group says which proxies stand before its members. A `page` is asked for over HTTP. The
//! servers and proxies are the workspace's `etcd`. Those at `RETCD_GOLDEN_SERVER` are tried, too, but a proxy
//! of etcd keeps watches for which the replay would wait in vain.

mod harness;
mod replay;

use replay::group::{Api, Tested};
use replay::groups;

const DATA: &str = include_str!("data/golden-proxies.jsonl");

#[test]
fn proxies_answer_as_etcds() {
    let server = Tested::new("RETCD_GOLDEN_SERVER", Api::V3, &[]);
    groups::check(DATA, Some(&server), 75);
}
