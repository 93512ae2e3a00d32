//! The thread that talks to other members.
//!
//! It serves the peer listeners as a connection thread serves clients: the pages that members ask
//! for (the list of members, a lease's renewal, a promotion) propose and read like clients'
//! requests. The transport runs here, too, so that no large response to a client delays a
//! heartbeat. The protocol itself is in [`peer`].

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use retcd_member::{Mailbox, NodeQueue, Shared};
use retcd_node::durable::Dirs;
use retcd_state::machine::DatabaseCopy;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::accept::{Accepted, AcceptedStream};
use crate::metrics::Metrics;
use crate::peer::{self, Dialer, Driver, OutgoingSnapshot, PeerService, RaftHandler, Transport};
use crate::probe::LocalProbe;
use crate::workers::Workers;

/// What the thread runs with.
pub(crate) struct PeerThread {
    /// Its number among the connection threads.
    pub(crate) number: usize,
    pub(crate) mailbox: Mailbox,
    pub(crate) handler: RaftHandler,
    pub(crate) driver: Driver,
}

/// What a transport is made of beside the member.
pub(crate) struct Made {
    /// Opens connections to other members.
    pub(crate) dialer: Dialer,
    /// Read and write snapshots, and look up names.
    pub(crate) workers: Workers,
    /// The node's queue.
    pub(crate) node: NodeQueue,
    /// What Prometheus is told.
    pub(crate) metrics: Arc<Metrics>,
    /// Where the others reach this member.
    pub(crate) urls: Vec<String>,
}

/// The transport of `member`, which stores received databases in `dirs`.
pub(crate) fn transport(
    member: &Arc<Shared>,
    dirs: &Dirs,
    made_of: Made,
) -> (Transport, RaftHandler, Driver) {
    let backend = member.backend.clone();
    let membership = Arc::clone(&member.state.membership);
    let tree = member.state.v2.clone();
    let removed = Arc::clone(member);
    peer::open(peer::Config {
        local: peer::LocalMember {
            id: member.id,
            cluster_id: member.cluster_id,
            urls: made_of.urls,
        },
        dialer: made_of.dialer,
        node: made_of.node,
        metrics: made_of.metrics,
        disk: Arc::clone(&dirs.disk),
        snap_dir: dirs.snap_dir.clone(),
        workers: made_of.workers,
        snapshot: Box::new(move || {
            let copy = DatabaseCopy::take(&backend, &tree).map_err(io::Error::other)?;
            let snapshot = copy.head.to_snapshot();
            Ok(OutgoingSnapshot {
                metadata: snapshot.metadata.unwrap_or_default(),
                data: snapshot.data.unwrap_or_default(),
                size_bytes: copy.file.len(),
                database: Box::new(copy.file),
            })
        }),
        snapshot_pace: None,
        is_removed: Box::new(move |id| membership.read().is_removed(id)),
        removed_by_cluster: Box::new(move || removed.signals.remove()),
    })
}

/// Serves the connections of other members and runs the transport until the member has ended.
pub(crate) async fn serve(
    member: &Shared,
    service: PeerService<LocalProbe>,
    driver: Driver,
    mut accepted: UnboundedReceiver<Accepted>,
) {
    let service = Rc::new(service);
    tokio::task::spawn_local(driver.run());
    let accept = async {
        while let Some(Accepted { stream, .. }) = accepted.recv().await {
            let service = Rc::clone(&service);
            tokio::task::spawn_local(async move {
                // The member at the other end connects again.
                let _ = serve_stream(&service, stream).await;
            });
        }
    };
    tokio::select! {
        () = accept => {}
        () = member.signals.ended() => {}
    }
}

async fn serve_stream(
    service: &PeerService<LocalProbe>,
    mut stream: AcceptedStream,
) -> io::Result<()> {
    stream.register()?;
    match stream {
        AcceptedStream::Plain(stream) => service.serve(stream).await,
        AcceptedStream::Tls(established) => service.serve(established.stream).await,
    }
}
