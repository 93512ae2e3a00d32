//! Traffic between the members of a cluster: not connected yet.

use std::io::Read;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Empty;
use hyper::body::Incoming;
use hyper::{Request, Response};
use retcd_node::Input;
use retcd_proto::raftpb::{Message, SnapshotMetadata};
use retcd_storage::disk::Disk;

use crate::metrics::Metrics;

#[allow(missing_docs)]
pub const IO_TIMEOUT: Duration = Duration::from_secs(5);
#[allow(missing_docs)]
pub struct Identity {
    pub id: u64,
    pub cluster_id: u64,
    pub urls: Vec<String>,
}
#[allow(missing_docs)]
pub struct Dialer;
#[allow(missing_docs)]
impl Dialer {
    pub fn new(_: Duration) -> Dialer {
        Dialer
    }
}
#[allow(missing_docs)]
pub struct Config {
    pub identity: Identity,
    pub dialer: Dialer,
    pub node: SyncSender<Input>,
    pub metrics: Arc<Metrics>,
    pub disk: Arc<dyn Disk>,
    pub snap_dir: PathBuf,
    pub snapshot: Box<dyn Fn() -> std::io::Result<OutgoingSnapshot> + Send + Sync>,
    pub snapshot_pace: Option<u64>,
    pub is_removed: Box<dyn Fn(u64) -> bool + Send + Sync>,
    pub removed_by_cluster: Box<dyn Fn() + Send + Sync>,
}
#[allow(missing_docs)]
pub struct OutgoingSnapshot {
    pub metadata: SnapshotMetadata,
    pub data: Bytes,
    pub size_bytes: u64,
    pub database: Box<dyn Read + Send>,
}
#[allow(missing_docs)]
#[derive(Clone)]
pub struct Transport;
#[allow(missing_docs)]
impl Transport {
    pub fn send(&self, _: Vec<Message>) {}
    pub fn add_peer(&self, _: u64, _: &[String]) {}
    pub fn update_peer(&self, _: u64, _: &[String]) {}
    pub fn remove_peer(&self, _: u64) {}
}
#[allow(missing_docs)]
pub struct Door;
#[allow(missing_docs)]
impl Door {
    pub async fn handle(&self, _: Request<Incoming>) -> Option<Response<Empty<Bytes>>> {
        None
    }
}
#[allow(missing_docs)]
pub struct Driver;
#[allow(missing_docs)]
impl Driver {
    pub async fn run(self) {
        std::future::pending().await
    }
}
#[allow(missing_docs)]
pub fn open(_: Config) -> (Transport, Door, Driver) {
    (Transport, Door, Driver)
}
