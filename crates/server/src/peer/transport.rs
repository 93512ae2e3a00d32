//! The handle for other threads, and the state that it shares with the peer thread.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderMap;
use parking_lot::RwLock;
use retcd_proto::raftpb::{Message, MessageType};
use retcd_storage::disk::Disk;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::codec::make_explicit;
use super::dial::Dialer;
use super::link::{Kind, Link, Overflow, PipelineQueue};
use super::node_sender::NodeSender;
use super::picker::Picker;
use super::statistics::FollowerStatistics;
use super::status::Status;
use super::{Config, LocalMember, OutgoingSnapshot, headers};
use crate::config::url::Url;
use crate::log::{self, Hex, Text, Throttle};
use crate::metrics::Metrics;
use crate::workers::Workers;

/// Snapshots that are sent concurrently, as in etcd.
const SNAPSHOTS_SENDING_MAX: usize = 16;
/// Snapshots that are received concurrently. They come from the leader, and perhaps from one that
/// does not know yet that it was replaced.
const SNAPSHOTS_RECEIVING_MAX: usize = 4;
/// Members that are known only by their requests. Each costs a few tasks, and whoever knows the
/// cluster's id can add one.
const REMOTES_MAX: usize = 64;

/// Shared by the transport, the handler and the tasks.
pub(super) struct Shared {
    pub local: LocalMember,
    /// The headers of our requests.
    pub headers: HeaderMap,
    pub dialer: Dialer,
    pub node: NodeSender,
    pub metrics: Arc<Metrics>,
    pub disk: Arc<dyn Disk>,
    pub snap_dir: PathBuf,
    pub workers: Workers,
    pub snapshot: Box<dyn Fn() -> std::io::Result<OutgoingSnapshot> + Send + Sync>,
    pub snapshot_pace: Option<u64>,
    pub removed_by_cluster: Box<dyn Fn() + Send + Sync>,
    links: RwLock<Links>,
    snapshots_sending: Arc<Semaphore>,
    pub snapshots_receiving: Semaphore,
    dropped: Throttle,
    commands: UnboundedSender<Command>,
}

#[derive(Default)]
struct Links {
    peers: BTreeMap<u64, Arc<Link>>,
    remotes: BTreeMap<u64, Arc<Link>>,
}

impl Links {
    fn contains(&self, id: u64) -> bool {
        self.peers.contains_key(&id) || self.remotes.contains_key(&id)
    }
}

/// What the handle has the peer thread do.
pub(super) enum Command {
    /// Run the tasks of a new link.
    Start(Arc<Link>, PipelineQueue),
    /// End them.
    Stop(Arc<Link>),
    /// Send a snapshot.
    Snapshot(OwnedSemaphorePermit, Arc<Link>, Box<Message>),
    /// Report that a snapshot could not be sent, as there are too many.
    SnapshotDropped(u64),
    /// End all tasks.
    Shutdown,
}

impl Shared {
    pub(super) fn new(config: Config, commands: UnboundedSender<Command>) -> Shared {
        Shared {
            headers: headers::request_headers(&config.local),
            node: NodeSender::new(config.local.id, config.node, config.is_removed),
            local: config.local,
            dialer: config.dialer,
            metrics: config.metrics,
            disk: config.disk,
            snap_dir: config.snap_dir,
            workers: config.workers,
            snapshot: config.snapshot,
            snapshot_pace: config.snapshot_pace,
            removed_by_cluster: config.removed_by_cluster,
            links: RwLock::default(),
            snapshots_sending: Arc::new(Semaphore::new(SNAPSHOTS_SENDING_MAX)),
            snapshots_receiving: Semaphore::new(SNAPSHOTS_RECEIVING_MAX),
            dropped: Throttle::default(),
            commands,
        }
    }

    /// A member of the membership.
    pub(super) fn peer(&self, id: u64) -> Option<Arc<Link>> {
        self.links.read().peers.get(&id).cloned()
    }

    /// Whether a member is of the membership, or was added as one that may be.
    pub(super) fn is_known(&self, id: u64) -> bool {
        self.links.read().contains(id)
    }

    /// Adds a member by the comma-separated URLs of its request, unless it is known. Invalid URLs
    /// are ignored.
    pub(super) fn add_remote_from(&self, id: u64, urls: &str) {
        if urls.is_empty() || id == self.local.id || self.node.is_removed(id) {
            return;
        }
        {
            let links = self.links.read();
            if links.contains(id) || links.remotes.len() >= REMOTES_MAX {
                return;
            }
        }
        let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
        self.add(id, Kind::Remote, &urls);
    }

    fn command(&self, command: Command) {
        // Fails when the driver has stopped, and the tasks with it.
        let _ = self.commands.send(command);
    }

    fn add(&self, id: u64, kind: Kind, texts: &[String]) {
        let urls = match parse(texts) {
            Ok(picker) => picker,
            Err(error) => {
                log::warn!("ignored a member without valid peer URLs";
                    "remote-peer-id" => Hex(id), "remote-peer-urls" => texts, "error" => error);
                return;
            }
        };
        let Some(picker) = Picker::new(urls) else {
            return;
        };
        let local = self.local.id;
        let mut links = self.links.write();
        let known = links.peers.contains_key(&id)
            || (kind == Kind::Remote && links.remotes.contains_key(&id));
        if known {
            return;
        }
        let status = Status::new(local, id, Arc::clone(&self.metrics));
        let (link, queue) = Link::new(id, kind, picker, status);
        let link = Arc::new(link);
        if let Some(remote) = links.remotes.remove(&id) {
            remote.close();
            self.command(Command::Stop(remote));
        }
        match kind {
            Kind::Peer => links.peers.insert(id, Arc::clone(&link)),
            Kind::Remote => links.remotes.insert(id, Arc::clone(&link)),
        };
        self.command(Command::Start(link, queue));
        drop(links);
        let message = match kind {
            Kind::Peer => "added remote peer",
            Kind::Remote => "added new remote peer",
        };
        log::info!(message;
            "local-member-id" => Hex(local), "remote-peer-id" => Hex(id), "remote-peer-urls" => texts);
    }

    fn send_one(&self, mut message: Message) {
        let to = message.to();
        let link = {
            let links = self.links.read();
            links
                .peers
                .get(&to)
                .or_else(|| links.remotes.get(&to))
                .cloned()
        };
        let Some(link) = link else {
            log::debug!("ignored message send request; unknown remote peer target";
                "type" => message.r#type().as_str_name(), "unknown-target-peer-id" => Hex(to));
            return;
        };
        make_explicit(&mut message);
        if message.r#type() == MessageType::MsgApp {
            self.node.appends.send();
        }
        if message.r#type() == MessageType::MsgSnap {
            return self.send_snapshot(link, message);
        }
        if let Err(overflow) = link.send(message) {
            self.overflow(&link, &overflow);
            if overflow.message.r#type() == MessageType::MsgProp {
                self.node.return_proposals(overflow.message);
            }
        }
    }

    fn send_snapshot(&self, link: Arc<Link>, message: Message) {
        let Ok(permit) = Arc::clone(&self.snapshots_sending).try_acquire_owned() else {
            let queue = "snapshots";
            self.overflow(&link, &Overflow { message, queue });
            return self.command(Command::SnapshotDropped(link.id));
        };
        self.command(Command::Snapshot(permit, link, Box::new(message)));
    }

    fn overflow(&self, link: &Link, Overflow { message, queue }: &Overflow) {
        let local = self.local.id;
        if self.dropped.allow() {
            log::warn!("dropped internal Raft message since sending buffer is full";
                "message-type" => message.r#type().as_str_name(),
                "local-member-id" => Hex(local),
                "from" => Hex(message.from()),
                "remote-peer-id" => Hex(link.id),
                "remote-peer-name" => *queue,
                "remote-peer-active" => link.status.is_active());
        }
        self.metrics
            .peer
            .handles(local, link.id)
            .sent_failures()
            .inc();
        self.node.report_unreachable(link.id);
    }

    fn remove(&self, id: u64) {
        let removed = self.links.write().peers.remove(&id);
        let local = Hex(self.local.id);
        let Some(link) = removed else {
            log::warn!("skipped removing already removed peer";
                "local-member-id" => local, "removed-remote-peer-id" => Hex(id));
            return;
        };
        link.close();
        self.command(Command::Stop(link));
        log::info!("removed remote peer";
            "local-member-id" => local, "removed-remote-peer-id" => Hex(id));
    }
}

fn parse(texts: &[String]) -> Result<Vec<Url>, String> {
    let urls: Result<Vec<Url>, _> = texts.iter().map(|text| Url::parse(text)).collect();
    urls.map_err(|error| error.to_string())
}

/// Sends messages to other members, from any thread. Does not block.
#[derive(Clone)]
pub struct Transport(Arc<Shared>);

impl Transport {
    pub(super) fn new(shared: Arc<Shared>) -> Transport {
        Transport(shared)
    }

    /// Sends messages to their recipients. Those to unknown members and to 0 are dropped. Those for
    /// a full queue are dropped and reported as [`Input::Unreachable`], and snapshots also as
    /// [`Input::SnapshotSent`] that was not delivered.
    ///
    /// A `MsgSnap` only has metadata here. The database and the final metadata come from
    /// [`Config::snapshot`](super::Config::snapshot).
    ///
    /// [`Input::Unreachable`]: retcd_node::Input::Unreachable
    /// [`Input::SnapshotSent`]: retcd_node::Input::SnapshotSent
    pub fn send(&self, messages: Vec<Message>) {
        for message in messages {
            if message.to() != 0 {
                self.0.send_one(message);
            }
        }
    }

    /// Adds a member of the membership, unless it is known, and connects to it.
    pub fn add_peer(&self, id: u64, urls: &[String]) {
        self.0.add(id, Kind::Peer, urls);
    }

    /// Sets the URLs of a member for its next connections.
    pub fn update_peer(&self, id: u64, urls: &[String]) {
        let Some(link) = self.0.peer(id) else {
            return;
        };
        match parse(urls) {
            Ok(parsed) => link.picker.update(parsed),
            Err(error) => {
                log::warn!("ignored invalid peer URLs";
                    "remote-peer-id" => Hex(id), "remote-peer-urls" => urls, "error" => Text(error));
                return;
            }
        }
        log::info!("updated remote peer";
            "local-member-id" => Hex(self.0.local.id),
            "updated-remote-peer-id" => Hex(id),
            "updated-remote-peer-urls" => urls);
    }

    /// Removes a member and closes its streams.
    pub fn remove_peer(&self, id: u64) {
        self.0.remove(id);
    }

    /// Adds a member that is not in the membership (yet), unless it is known. Messages to it use
    /// the pipeline.
    pub fn add_remote(&self, id: u64, urls: &[String]) {
        self.0.add(id, Kind::Remote, urls);
    }

    /// How sending to each member of the membership went, by id.
    pub fn followers(&self) -> Vec<(u64, FollowerStatistics)> {
        let links = self.0.links.read();
        let peers = links.peers.iter();
        peers
            .map(|(id, link)| (*id, link.follower.statistics()))
            .collect()
    }

    /// How many messages with entries or commits were received, and how many sent.
    pub fn append_counts(&self) -> (u64, u64) {
        self.0.node.appends.totals()
    }

    /// Since when a member has been active without interruption; none if it is not active or not
    /// known.
    pub fn active_since(&self, id: u64) -> Option<Instant> {
        self.0.peer(id)?.status.active_since()
    }

    /// Waits until a member is not active. Returns at once if it is not known.
    pub async fn inactive(&self, id: u64) {
        let peer = self.0.peer(id);
        if let Some(link) = peer {
            link.status.inactive().await;
        }
    }

    /// The number of active members.
    pub fn active_peers(&self) -> usize {
        let links = self.0.links.read();
        links
            .peers
            .values()
            .filter(|link| link.status.is_active())
            .count()
    }

    /// Stops the driver and closes all streams.
    pub fn stop(&self) {
        let links = std::mem::take(&mut *self.0.links.write());
        for link in links.peers.values().chain(links.remotes.values()) {
            link.close();
        }
        self.0.command(Command::Shutdown);
    }
}
