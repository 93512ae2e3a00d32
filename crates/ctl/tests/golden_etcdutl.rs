//! Replays transcripts of etcd's own tool for files, as `golden.rs` does those of etcdctl: the same
//! arguments must give the same stdout, errors and exit codes.
//!
//! The files are made by the workspace's `etcd` and `etcdctl`; hashes of whole files differ.

mod harness;
mod replay;

use replay::group::{Api, Tested};
use replay::groups;

const DATA: &str = include_str!("data/golden-etcdutl.jsonl");

#[test]
fn prints_what_etcd_prints() {
    let server = Tested::new("RETCD_GOLDEN_SERVER", Api::V3, &[]);
    groups::check(DATA, Some(&server), 145);
}
