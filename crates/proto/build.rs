//! Compiles `proto/` with protox, so that `protoc` need not be installed, and generates a schema
//! for every message.

use std::path::Path;

use tonic_prost_build::Config;

#[path = "build/schemas.rs"]
mod schemas;

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
    "profile/profile.proto",
    "raftpb/raft.proto",
    "snappb/snap.proto",
    "trace/collector.proto",
    "v3electionpb/v3election.proto",
    "v3lockpb/v3lock.proto",
    "walpb/record.proto",
];

/// The recursive messages, and the placeholder names that stand for them in the `.proto` files.
const NESTED: &[(&str, &str)] = &[
    ("etcdserverpb.NestedTxnRequest", "etcdserverpb.TxnRequest"),
    ("etcdserverpb.NestedTxnResponse", "etcdserverpb.TxnResponse"),
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let root = Path::new("proto");
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, [root])?;
    let schemas = schemas::generate(&descriptors);
    let out = std::env::var("OUT_DIR")?;
    std::fs::write(Path::new(&out).join("schemas.rs"), schemas)?;
    let mut config = Config::new();
    config.enable_type_names();
    let builder = tonic_prost_build::configure()
        // Byte fields are slices of the receive buffer, not copies.
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
