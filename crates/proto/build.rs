//! Compiles `proto/` with protox, so that no `protoc` has to be installed, and notes the shape of every message.

use std::path::Path;

use tonic_prost_build::Config;

#[path = "build/shapes.rs"]
mod shapes;

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

/// The messages that hold themselves, by the names that stand for them there.
const NESTED: &[(&str, &str)] = &[
    ("etcdserverpb.NestedTxnRequest", "etcdserverpb.TxnRequest"),
    ("etcdserverpb.NestedTxnResponse", "etcdserverpb.TxnResponse"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [root])?;
    let shapes = shapes::generate(&descriptors);
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("shapes.rs"), shapes)?;
    let mut config = Config::new();
    config.enable_type_names();
    let builder = tonic_prost_build::configure()
        // Byte fields are slices of the receive buffer, not copies of it.
        .bytes(".");
    let nest = |builder: tonic_prost_build::Builder, (name, message): &(&str, &str)| {
        let message = message.replace('.', "::");
        builder.extern_path(
            format!(".{name}"),
            format!("crate::Nested<crate::{message}>"),
        )
    };
    let builder = NESTED.iter().fold(builder, nest);
    builder.compile_fds_with_config(descriptors, config)?;
    Ok(())
}
