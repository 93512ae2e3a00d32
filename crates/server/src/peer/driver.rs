//! The tasks of the transport: those of each link, and the snapshots being sent.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::JoinSet;

use super::codec::StreamKind;
use super::link::{Kind, Link, PipelineQueue};
use super::reader::Reader;
use super::snapshot;
use super::transport::{Command, Shared};
use super::{pipeline, probe};
use crate::log::{self, Hex};

/// Runs the tasks of a [`Transport`](super::Transport).
pub struct Driver {
    shared: Arc<Shared>,
    commands: UnboundedReceiver<Command>,
    /// The tasks of each link; dropping a set aborts them.
    links: BTreeMap<u64, JoinSet<()>>,
    /// Reports to the node that wait for room in its queue.
    reports: JoinSet<()>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>, commands: UnboundedReceiver<Command>) -> Driver {
        Driver {
            shared,
            commands,
            links: BTreeMap::new(),
            reports: JoinSet::new(),
        }
    }

    /// Runs until [`Transport::stop`](super::Transport::stop). Needs a runtime with timers and
    /// sockets. The tasks never block, so that one thread is enough for all members.
    pub async fn run(mut self) {
        loop {
            tokio::select! {
                Some(command) = self.commands.recv() => if self.execute(command).is_break() {
                    return;
                },
                Some(_) = self.reports.join_next() => {}
                else => return,
            }
        }
    }

    /// Commands are executed in order, so that a link is stopped before the next one of its id
    /// starts.
    fn execute(&mut self, command: Command) -> ControlFlow<()> {
        match command {
            Command::Start(link, queue) => {
                let tasks = start(&self.shared, &link, &queue);
                self.links.insert(link.id, tasks);
            }
            Command::Stop(link) => {
                self.links.remove(&link.id);
                // A task may have activated it after the link was closed.
                link.status.end();
                log::info!("stopped remote peer"; "remote-peer-id" => Hex(link.id));
            }
            Command::Snapshot(permit, link, message) => {
                // If the link was stopped meanwhile, the member has been removed from raft.
                if let Some(tasks) = self.links.get_mut(&link.id) {
                    while tasks.try_join_next().is_some() {}
                    let shared = Arc::clone(&self.shared);
                    tasks.spawn(snapshot::send(shared, permit, link, *message));
                }
            }
            Command::SnapshotDropped(peer) => {
                let shared = Arc::clone(&self.shared);
                self.reports
                    .spawn(async move { shared.node.report_snapshot(peer, false).await });
            }
            Command::Shutdown => return ControlFlow::Break(()),
        }
        ControlFlow::Continue(())
    }
}

fn start(shared: &Arc<Shared>, link: &Arc<Link>, queue: &PipelineQueue) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let both = || (Arc::clone(shared), Arc::clone(link));
    let (local, peer) = (Hex(shared.local.id), Hex(link.id));
    log::info!("starting remote peer"; "remote-peer-id" => peer);
    for _ in 0..pipeline::WORKERS {
        let (shared, link) = both();
        tasks.spawn(pipeline::run(shared, link, Arc::clone(queue)));
    }
    log::info!("started HTTP pipelining with remote peer";
        "local-member-id" => local, "remote-peer-id" => peer);
    if link.kind == Kind::Peer {
        for kind in [StreamKind::MsgApp, StreamKind::Message] {
            let (shared, link) = both();
            tasks.spawn(Reader::new(shared, link, kind).run());
        }
        let (shared, link) = both();
        tasks.spawn(probe::run(shared, link));
    }
    log::info!("started remote peer"; "remote-peer-id" => peer);
    tasks
}
