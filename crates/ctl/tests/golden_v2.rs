//! Replays transcripts of etcd 3.3.25's tool with `ETCDCTL_API=2`, as `golden.rs` does for version 3;
//! and a few of our own, of how the two versions live together (`data/versions.jsonl`).
//!
//! The server is the workspace's `etcd`, or the one at `RETCD_GOLDEN_V2_SERVER`. Of help texts the
//! names of commands and options are compared.

mod harness;
mod replay;

use replay::group::{Api, Tested};
use replay::groups;

const DATA: &str = include_str!("data/golden-etcdctl-v2.jsonl");
const VERSIONS: &str = include_str!("data/versions.jsonl");

/// The variable with the path of another server.
const SERVER: &str = "RETCD_GOLDEN_V2_SERVER";

/// What the workspace's server needs for API version 2.
const FLAGS: &[&str] = &["--enable-v2=true", "--bcrypt-cost=4"];

fn server() -> Tested {
    let other = std::env::var_os(SERVER).is_some();
    let flags = if other { &[] } else { FLAGS };
    Tested::new(SERVER, Api::V2, flags)
}

#[test]
fn prints_what_etcd_prints() {
    groups::check(DATA, Some(&server()), 270);
}

#[test]
fn versions_live_together() {
    groups::check(VERSIONS, Some(&server()), 15);
}
