//! Replays transcripts of etcd's own tool: the same arguments must give the same stdout, errors and
//! exit codes.
//!
//! The transcripts are in `data/golden-etcdctl.jsonl`: a first line names what differs from the
//! original on purpose, and why, followed by one entry per line. The entries of a group run in order
//! against a new member; groups run in parallel. Values that vary between runs are placeholders such
//! as `{{MEMBER_ID:hex}}`, bound at their first occurrence.
//!
//! The member is the workspace's `etcd`, or the server at `RETCD_GOLDEN_SERVER`. Of stderr only
//! lines that are not JSON are compared, up to a usage text.

mod harness;
mod replay;

use replay::group::{Api, Tested};
use replay::{entry, groups};

const DATA: &str = include_str!("data/golden-etcdctl.jsonl");
/// Speeds up the tests; no transcript depends on it.
const FLAGS: &[&str] = &["--bcrypt-cost=4"];

#[test]
fn prints_what_etcd_prints() {
    let server = Tested::new("RETCD_GOLDEN_SERVER", Api::V3, FLAGS);
    groups::check(DATA, Some(&server), 1111);
}

/// Of all transcripts at most one in a hundred may be an exception: of the 1,159 of etcdctl, the 145
/// of etcdutl and the 273 of the JSON gateway, which has one (`crates/server/tests/gateway`).
#[test]
fn few_answers_differ_on_purpose() {
    const ALL: usize = 1159 + 145 + 273;
    let files = [DATA, include_str!("data/golden-etcdutl.jsonl")].map(entry::read);
    for file in &files {
        let entries = file.groups.values().flatten();
        let ids: Vec<&String> = entries.map(|entry| &entry.id).collect();
        for (id, why) in file.exceptions.iter().chain(&file.crashes) {
            assert!(ids.contains(&id) && !why.is_empty(), "{id}");
        }
    }
    let exceptions: usize = files.iter().map(|file| file.exceptions.len()).sum();
    let with_gateway = exceptions + 1;
    assert!(with_gateway * 100 <= ALL, "{with_gateway} of {ALL}");
}
