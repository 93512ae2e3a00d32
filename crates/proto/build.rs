//! Compiles `proto/` with protox, so that no `protoc` has to be installed.

use std::path::Path;

const FILES: &[&str] = &[
    "authpb/auth.proto",
    "etcdserverpb/auth.proto",
    "etcdserverpb/cluster.proto",
    "etcdserverpb/etcdserver.proto",
    "etcdserverpb/header.proto",
    "etcdserverpb/kv.proto",
    "etcdserverpb/lease.proto",
    "etcdserverpb/maintenance.proto",
    "etcdserverpb/raft_internal.proto",
    "etcdserverpb/watch.proto",
    "health/health.proto",
    "leasepb/lease.proto",
    "membershippb/membership.proto",
    "mvccpb/kv.proto",
    "raftpb/raft.proto",
    "snappb/snap.proto",
    "v3electionpb/v3election.proto",
    "v3lockpb/v3lock.proto",
    "walpb/record.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [root])?;
    tonic_prost_build::configure()
        // Byte fields are slices of the receive buffer, not copies of it.
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
