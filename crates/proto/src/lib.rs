//! etcd's wire and log messages, as prost and tonic generate them from `proto/`.
//!
//! No logic lives here. Names and numbers are etcd's (v3.7.1); byte fields are [`bytes::Bytes`].

#![allow(missing_docs)] // the messages are documented in their .proto files
#![allow(clippy::all)]

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
pub mod leasepb {
    tonic::include_proto!("leasepb");
}
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
pub mod snappb {
    tonic::include_proto!("snappb");
}
pub mod v3electionpb {
    tonic::include_proto!("v3electionpb");
}
pub mod v3lockpb {
    tonic::include_proto!("v3lockpb");
}
/// The records of the write-ahead log.
pub mod walpb {
    tonic::include_proto!("walpb");
}
