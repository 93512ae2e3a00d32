//! Traffic between the members of a cluster: etcd's peer protocol over HTTP/1.1.
//!
//! ```text
//!   node ──Transport::send──▶ queue of the stream ──▶ body of the response to the peer's GET ──▶ peer
//!                        └──▶ queue of the pipeline ─▶ POST /raft, until streams are there
//!                        └──▶ snapshots ────────────▶ POST /raft/snapshot
//!
//!   peer ──▶ body of the response to our GET ─┐
//!   peer ──▶ POST /raft, /raft/snapshot ──────┴─▶ NodeSender ──▶ the node's queue
//! ```
//! Each member opens both streams (see [`codec`]) to each other member and reads them; the side
//! that accepted the connection writes. So messages from A to B are in the response to a request of
//! B.
//!
//! - [`Transport`]: the handle for other threads. Sending never blocks: queues have etcd's bounds,
//!   and a message for a full queue is dropped and reported to raft, which can handle that.
//! - [`Driver`]: the tasks, on one thread. Each peer has queues, connections and tasks of its own,
//!   so that one that is slow or dead does not delay the others.
//! - [`PeerService`]: serves the connections of other members. [`RaftHandler`] answers their
//!   requests under `/raft`, [`pages`] the others.
//! - [`Client`]: asks other members for their pages.
//!
//! Messages are checked before they get to the node: versions, cluster, sender, recipient, and
//! whether raft may be given them. Refusals have etcd's status and text, and are logged at a
//! limited rate.
//!
//! Deliberately absent: HTTP/2, which older members would take for gRPC; and the listener itself.

mod ask;
mod body;
mod client;
pub mod codec;
mod dial;
mod driver;
mod handler;
mod headers;
mod link;
mod node_sender;
pub mod pages;
mod persistent;
mod picker;
mod pipeline;
mod probe;
mod protocol;
mod reader;
mod reply;
mod service;
mod snapshot;
mod statistics;
mod status;
mod transport;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use retcd_member::NodeQueue;
use retcd_proto::raftpb::SnapshotMetadata;
use retcd_storage::disk::Disk;

pub(crate) use ask::HttpPeers;
pub use body::PeerBody;
pub(crate) use client::ask_each_url;
pub use client::{Client, ClientError, HashKv, RemoteCluster, Versions};
pub use dial::{Dialer, PeerIo, PeerStream, WriteDeadline};
pub use driver::Driver;
pub use handler::RaftHandler;
pub use headers::Mismatch;
pub use pages::PeerProbe;
pub use persistent::ExchangeError;
pub use service::PeerService;
pub use snapshot::remove_unfinished;
pub use statistics::FollowerStatistics;
pub use transport::Transport;

use crate::metrics::Metrics;
use crate::workers::Workers;

/// Timeout of reads that expect data, and of writes. A stream carries three heartbeats in this
/// time.
pub const IO_TIMEOUT: Duration = Duration::from_secs(5);

/// This member, as its headers identify it to others.
#[derive(Clone, Debug)]
pub struct LocalMember {
    /// Its id.
    pub id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The peer URLs that it advertises.
    pub urls: Vec<String>,
}

/// What a transport needs.
pub struct Config {
    /// This member.
    pub local: LocalMember,
    /// Opens connections to other members.
    pub dialer: Dialer,
    /// The node's queue.
    pub node: NodeQueue,
    /// Numbers for Prometheus.
    pub metrics: Arc<Metrics>,
    /// The disk for received databases.
    pub disk: Arc<dyn Disk>,
    /// The directory of `.snap` files and the database; it must exist.
    pub snap_dir: PathBuf,
    /// For reading and writing snapshots.
    pub workers: Workers,
    /// Makes a snapshot to send; called on a worker.
    pub snapshot: Box<dyn Fn() -> std::io::Result<OutgoingSnapshot> + Send + Sync>,
    /// Bytes per second of one snapshot being sent; `None` for no limit.
    pub snapshot_pace: Option<u64>,
    /// Whether a member was removed from the cluster; called often.
    pub is_removed: Box<dyn Fn(u64) -> bool + Send + Sync>,
    /// Called when another member reports that this one was removed, perhaps more than once.
    pub removed_by_cluster: Box<dyn Fn() + Send + Sync>,
}

/// A snapshot to send: the database as of an index.
pub struct OutgoingSnapshot {
    /// Index and term of the last applied entry, and the configuration there.
    pub metadata: SnapshotMetadata,
    /// The membership, as `.snap` files have it; versions up to 3.5 read it.
    pub data: Bytes,
    /// The size of the database.
    pub size_bytes: u64,
    /// The database's file.
    pub database: Box<dyn Read + Send>,
}

/// Makes the parts of a member's transport. Nothing runs before the driver does.
pub fn open(config: Config) -> (Transport, RaftHandler, Driver) {
    let (commands, received) = tokio::sync::mpsc::unbounded_channel();
    let shared = Arc::new(transport::Shared::new(config, commands));
    let transport = Transport::new(Arc::clone(&shared));
    let handler = RaftHandler::new(Arc::clone(&shared));
    (transport, handler, Driver::new(shared, received))
}
