//! etcd's wire and log messages, as prost and tonic generate them from `proto/`.
//!
//! Little logic lives here: [`wire::decode`] reads what others have written, [`number`] what they have written as text, [`Nested`] makes messages
//! within each other safe to walk, [`code`] names gRPC's status codes. Names and numbers are etcd's (v3.7.1); the `.proto` files tell what each
//! means and since which version it is there. Byte fields are [`bytes::Bytes`], and fields are
//! written in the order of their numbers.
//!
//! Two things differ from etcd's own files and not on the wire: the log's requests of API v2
//! ([`etcdserverpb::Request`] and [`etcdserverpb::InternalRaftRequest::v2`]), which 3.7 dropped, are
//! kept for reading older logs, and [`snappb::Snapshot`] has a capital letter.

#![allow(missing_docs)] // fields whose names say all have no comment in the .proto files
#![allow(clippy::all)]

pub mod code;
#[warn(missing_docs, clippy::all)]
mod nested;
#[warn(missing_docs, clippy::all)]
pub mod number;
#[warn(missing_docs, clippy::all)]
pub mod wire;

pub use nested::{Nested, with_stack};

/// Users and roles in the backend.
pub mod authpb {
    tonic::include_proto!("authpb");
}
/// The client API (`KV`, `Watch`, `Lease`, `Cluster`, `Maintenance`, `Auth`) and the log's requests.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}
/// gRPC's standard health service.
pub mod healthpb {
    tonic::include_proto!("grpc.health.v1");
}
/// Leases in the backend and between members.
pub mod leasepb {
    tonic::include_proto!("leasepb");
}
/// What the cluster writes to its log about itself.
pub mod membershippb {
    tonic::include_proto!("membershippb");
}
/// The records of the keyspace.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}
/// Raft's messages as etcd writes them to its log and to its peers.
pub mod raftpb {
    tonic::include_proto!("raftpb");
}
/// The frame of a `.snap` file.
pub mod snappb {
    tonic::include_proto!("snappb");
}
/// The service `Election`.
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
/// The service `Lock`.
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
/// The records of the write-ahead log.
pub mod walpb {
    tonic::include_proto!("walpb");
}
