//! The handle that other threads hold, and what it shares with the peer thread.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::Instant;

use http::HeaderMap;
use parking_lot::RwLock;
use retcd_proto::raftpb::{Message, MessageType};
use retcd_storage::disk::Disk;
use tokio::sync::Semaphore;
use tokio::sync::mpsc::UnboundedSender;

use super::codec::make_explicit;
use super::dial::Dialer;
use super::inbox::Inbox;
use super::link::{Kind, Link, Overflow, PipelineQueue};
use super::picker::Picker;
use super::status::Status;
use super::{Config, Identity, OutgoingSnapshot, headers};
use crate::config::url::Url;
use crate::log::{self, Hex, Seldom, Text};
use crate::metrics::Metrics;
use crate::workers::Workers;

/// Snapshots that are sent at the same time, as in etcd.
const SNAPSHOTS_SENDING_MAX: usize = 16;
/// Snapshots that are received at the same time. There is one leader, and perhaps one that does not know yet
/// that it no longer is.
const SNAPSHOTS_RECEIVING_MAX: usize = 4;
/// Members that are known by their own word alone. Each that is added costs a few tasks, and anybody with the
/// cluster's id can add one.
const REMOTES_MAX: usize = 64;

/// What the transport, the door and the tasks share.
pub(super) struct Shared {
    pub identity: Identity,
    /// The headers of our requests.
    pub headers: HeaderMap,
    pub dialer: Dialer,
    pub inbox: Inbox,
    pub metrics: Arc<Metrics>,
    pub disk: Arc<dyn Disk>,
    pub snap_dir: PathBuf,
    pub workers: Workers,
    pub snapshot: Box<dyn Fn() -> std::io::Result<OutgoingSnapshot> + Send + Sync>,
    pub snapshot_pace: Option<u64>,
    pub removed_by_cluster: Box<dyn Fn() + Send + Sync>,
    links: RwLock<Links>,
    snapshots_sending: Arc<AtomicUsize>,
    /// Snapshots that may be received at the same time.
    pub snapshots_receiving: Semaphore,
    paused: AtomicBool,
    dropped: Seldom,
    commands: UnboundedSender<Command>,
}

#[derive(Default)]
struct Links {
    peers: BTreeMap<u64, Arc<Link>>,
    remotes: BTreeMap<u64, Arc<Link>>,
}

/// What the handle asks the peer thread to do.
pub(super) enum Command {
    /// Run the tasks of a new link.
    Start(Arc<Link>, PipelineQueue),
    /// End them.
    Stop(Arc<Link>),
    /// Send a snapshot.
    Snapshot(Counted, Arc<Link>, Box<Message>),
    /// Tell raft that a snapshot was not even begun.
    SnapshotDropped(u64),
    /// End everything.
    Shutdown,
}

/// One of a bounded number, until dropped.
pub(super) struct Counted(Arc<AtomicUsize>);

impl Counted {
    fn enter(count: &Arc<AtomicUsize>, max: usize) -> Option<Counted> {
        let counted = Counted(Arc::clone(count));
        (count.fetch_add(1, Relaxed) < max).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Shared {
    /// No links yet.
    pub fn new(config: Config, commands: UnboundedSender<Command>) -> Shared {
        Shared {
            headers: headers::request_headers(&config.identity),
            inbox: Inbox::new(config.identity.id, config.node, config.is_removed),
            identity: config.identity,
            dialer: config.dialer,
            metrics: config.metrics,
            disk: config.disk,
            snap_dir: config.snap_dir,
            workers: config.workers,
            snapshot: config.snapshot,
            snapshot_pace: config.snapshot_pace,
            removed_by_cluster: config.removed_by_cluster,
            links: RwLock::default(),
            snapshots_sending: Arc::default(),
            snapshots_receiving: Semaphore::new(SNAPSHOTS_RECEIVING_MAX),
            paused: AtomicBool::new(false),
            dropped: Seldom::default(),
            commands,
        }
    }

    /// A member that the membership knows.
    pub fn peer(&self, id: u64) -> Option<Arc<Link>> {
        self.links.read().peers.get(&id).cloned()
    }

    /// Whether traffic is to be dropped for now.
    pub fn is_paused(&self) -> bool {
        self.paused.load(Relaxed)
    }

    /// Adds a member that told us its URLs, comma separated, unless it is known. What is no URL is ignored.
    pub fn add_remote_from(&self, id: u64, urls: &str) {
        if urls.is_empty() || id == self.identity.id || self.inbox.is_removed(id) {
            return;
        }
        {
            let links = self.links.read();
            let known = links.peers.contains_key(&id) || links.remotes.contains_key(&id);
            if known || links.remotes.len() >= REMOTES_MAX {
                return;
            }
        }
        let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
        self.add(id, Kind::Remote, &urls);
    }

    fn command(&self, command: Command) {
        // A driver that is gone has nothing left to do.
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
        let local = self.identity.id;
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
        if message.r#type() == MessageType::MsgSnap {
            return self.send_snapshot(link, message);
        }
        if let Err(overflow) = link.send(message) {
            self.overflow(&link, &overflow);
            if overflow.message.r#type() == MessageType::MsgProp {
                self.inbox.give_back(overflow.message);
            }
        }
    }

    fn send_snapshot(&self, link: Arc<Link>, message: Message) {
        let Some(counted) = Counted::enter(&self.snapshots_sending, SNAPSHOTS_SENDING_MAX) else {
            let queue = "snapshots";
            self.overflow(&link, &Overflow { message, queue });
            return self.command(Command::SnapshotDropped(link.id));
        };
        self.command(Command::Snapshot(counted, link, Box::new(message)));
    }

    fn overflow(&self, link: &Link, Overflow { message, queue }: &Overflow) {
        let local = self.identity.id;
        if self.dropped.now() {
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
        self.inbox.report_unreachable(link.id);
    }

    fn remove(&self, id: u64) {
        let removed = self.links.write().peers.remove(&id);
        let local = Hex(self.identity.id);
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

/// Sends to the other members, from any thread. Nothing here blocks.
#[derive(Clone)]
pub struct Transport(Arc<Shared>);

impl Transport {
    pub(super) fn new(shared: Arc<Shared>) -> Transport {
        Transport(shared)
    }

    /// Sends messages, each to the member that it names. One to a member that is not known, or to 0, is
    /// dropped. One that finds its queue full is dropped and reported as [`Input::Unreachable`], a snapshot
    /// also as [`Input::SnapshotSent`] that was not delivered.
    ///
    /// A `MsgSnap` carries metadata alone; the database and the final metadata come from
    /// [`Config::snapshot`](super::Config::snapshot).
    ///
    /// [`Input::Unreachable`]: retcd_node::Input::Unreachable
    /// [`Input::SnapshotSent`]: retcd_node::Input::SnapshotSent
    pub fn send(&self, messages: Vec<Message>) {
        if self.0.is_paused() {
            return;
        }
        for message in messages {
            if message.to() != 0 {
                self.0.send_one(message);
            }
        }
    }

    /// Adds a member, unless it is known, and dials it.
    pub fn add_peer(&self, id: u64, urls: &[String]) {
        self.0.add(id, Kind::Peer, urls);
    }

    /// Gives a member other URLs, for the next connections.
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
            "local-member-id" => Hex(self.0.identity.id),
            "updated-remote-peer-id" => Hex(id),
            "updated-remote-peer-urls" => urls);
    }

    /// Removes a member and ends its streams.
    pub fn remove_peer(&self, id: u64) {
        self.0.remove(id);
    }

    /// Removes all members.
    pub fn remove_all(&self) {
        let ids: Vec<u64> = self.0.links.read().peers.keys().copied().collect();
        for id in ids {
            self.0.remove(id);
        }
    }

    /// Adds a member that the membership does not know (yet), unless it is known. Only the pipeline leads to it.
    pub fn add_remote(&self, id: u64, urls: &[String]) {
        self.0.add(id, Kind::Remote, urls);
    }

    /// Since when a member can be talked to without a break; `None` if it cannot, or is not known.
    pub fn active_since(&self, id: u64) -> Option<Instant> {
        self.0.peer(id)?.status.active_since()
    }

    /// How many members can be talked to.
    pub fn active_peers(&self) -> usize {
        let links = self.0.links.read();
        links
            .peers
            .values()
            .filter(|link| link.status.is_active())
            .count()
    }

    /// Drops everything that is sent, and everything that comes in on streams, until [`Transport::resume`].
    pub fn pause(&self) {
        self.0.paused.store(true, Relaxed);
    }

    /// Ends [`Transport::pause`].
    pub fn resume(&self) {
        self.0.paused.store(false, Relaxed);
    }

    /// Ends the driver and all connections to and from members.
    pub fn stop(&self) {
        let links = std::mem::take(&mut *self.0.links.write());
        for link in links.peers.values().chain(links.remotes.values()) {
            link.close();
        }
        self.0.command(Command::Shutdown);
    }
}
