//! Replays transcripts of etcd's own tool: the same arguments must give the same stdout, errors and
//! exit codes.
//!
//! The transcripts are in `data/golden-etcdctl.jsonl`: a first line lists the omissions and changes
//! with reasons, followed by one entry per line. The entries of a group run in order against a new
//! member; groups run in parallel. Values that vary between runs are placeholders such as
//! `{{MEMBER_ID:hex}}`, bound at their first occurrence.
//!
//! The member is the workspace's `etcd`, or the server at `RETCD_GOLDEN_SERVER`. Of stderr only
//! lines that are not JSON are compared, up to a usage text.

mod harness;
mod replay;

use replay::group::{Api, Tested};
use replay::groups;

const DATA: &str = include_str!("data/golden-etcdctl.jsonl");
/// Speeds up the tests; no transcript depends on it.
const FLAGS: &[&str] = &["--bcrypt-cost=4"];

#[test]
fn prints_what_etcd_prints() {
    let server = Tested::new("RETCD_GOLDEN_SERVER", Api::V3, FLAGS);
    groups::check(DATA, Some(&server), 1100);
}
