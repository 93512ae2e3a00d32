//! Traffic between the members of a cluster: etcd's peer protocol over HTTP/1.1.
//!
//! ```text
//!   node ──Transport::send──▶ queue of the stream ──▶ body of the response to the peer's GET ──▶ peer
//!                        └──▶ queue of the pipeline ─▶ POST /raft, until streams are there
//!                        └──▶ snapshots ────────────▶ POST /raft/snapshot
//!
//!   peer ──▶ body of the response to our GET ─┐
//!   peer ──▶ POST /raft, /raft/snapshot ──────┴─▶ Inbox ──▶ the node's queue
//! ```
//! Each member dials both streams (see [`codec`]) to each other member, and reads what comes; the side that was
//! dialed writes. So what A tells B flows in the response to a request of B.
//!
//! - [`Transport`]: the handle for other threads. Sending never blocks: every queue has etcd's bound, and a
//!   message that finds it full is dropped and reported to raft, which copes.
//! - [`Driver`]: everything that runs, on one thread. A peer that is slow or dead has queues, connections and
//!   tasks of its own and holds up nobody.
//! - [`Door`]: answers what peers ask under `/raft`.
//! - [`Client`]: the small requests between members that are not raft's.
//!
//! What comes in is checked before it gets to the node: versions, cluster, sender, addressee, and that a
//! message is one that raft can be given. Refusals have etcd's status and text, and are logged once in a while.
//!
//! Deliberately absent: the pages of the peer listener outside of `/raft` (`/members`, `/version`, ... are
//! served with the client's), HTTP/2, which older members would take for gRPC, and the listener itself: it
//! wraps its connections in a [`WriteDeadline`] and hands requests to the [`Door`].

mod body;
mod client;
pub mod codec;
mod dial;
mod door;
mod driver;
mod headers;
mod inbox;
mod line;
mod link;
mod picker;
mod pipeline;
mod probe;
mod reader;
mod reply;
mod snapshot;
mod status;
mod transport;

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bytes::Bytes;
use retcd_node::Input;
use retcd_proto::raftpb::SnapshotMetadata;
use retcd_storage::disk::Disk;

pub use body::PeerBody;
pub use client::{
    Client, ClientError, HashKv, RemoteCluster, RemoteMember, RemoteVersions, peer_urls_of,
};
pub use dial::{Dialer, Io, Stream, WriteDeadline};
pub use door::Door;
pub use driver::Driver;
pub use headers::Mismatch;
pub use line::ExchangeError;
pub use snapshot::remove_unfinished;
pub use transport::Transport;

use crate::metrics::Metrics;
use crate::workers::Workers;

/// How long the other end of a listener's connection may leave bytes untaken, or keep us waiting for bytes
/// that are due. Streams carry a heartbeat three times in it.
pub const IO_TIMEOUT: Duration = Duration::from_secs(5);

/// Who this member is.
#[derive(Clone, Debug)]
pub struct Identity {
    /// This member's id.
    pub id: u64,
    /// The cluster's id.
    pub cluster_id: u64,
    /// The peer URLs that this member advertises, as text.
    pub urls: Vec<String>,
}

/// What the transport is made of.
pub struct Config {
    /// Who this member is.
    pub identity: Identity,
    /// Opens connections to other members.
    pub dialer: Dialer,
    /// The node's queue.
    pub node: SyncSender<Input>,
    /// Numbers for Prometheus.
    pub metrics: Arc<Metrics>,
    /// Where received databases are put.
    pub disk: Arc<dyn Disk>,
    /// The directory of `.snap` files and the database; it must exist.
    pub snap_dir: PathBuf,
    /// Read and write snapshots, and look up names.
    pub workers: Workers,
    /// Makes the snapshot that is sent; called by one of the workers.
    pub snapshot: Box<dyn Fn() -> std::io::Result<OutgoingSnapshot> + Send + Sync>,
    /// Bytes per second of one snapshot being sent; `None` for no limit.
    pub snapshot_pace: Option<u64>,
    /// Whether a member was removed from the cluster; called often.
    pub is_removed: Box<dyn Fn(u64) -> bool + Send + Sync>,
    /// Called when another member says that this one was removed; the member is to stop. May come more than
    /// once.
    pub removed_by_cluster: Box<dyn Fn() + Send + Sync>,
}

/// A snapshot to be sent: the database as of one index, and what goes with it.
pub struct OutgoingSnapshot {
    /// Index and term of the last entry in the database, and the configuration there.
    pub metadata: SnapshotMetadata,
    /// The membership in the form that `.snap` files have; versions up to 3.5 take it from here.
    pub data: Bytes,
    /// Bytes of the database.
    pub size_bytes: u64,
    /// The database's file.
    pub database: Box<dyn Read + Send>,
}

/// Makes the three parts of a member's transport. Nothing runs before the driver does.
pub fn open(config: Config) -> (Transport, Door, Driver) {
    let (commands, received) = tokio::sync::mpsc::unbounded_channel();
    let shared = Arc::new(transport::Shared::new(config, commands));
    let transport = Transport::new(Arc::clone(&shared));
    let door = Door::new(Arc::clone(&shared));
    (transport, door, Driver::new(shared, received))
}
