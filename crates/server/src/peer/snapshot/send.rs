//! Sends a database to a peer.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use retcd_proto::raftpb::{Message, Snapshot};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::timeout;

use super::{TransferGuard, human};
use crate::log::{self, Hex, Text};
use crate::peer::OutgoingSnapshot;
use crate::peer::codec::{encode_frame, make_explicit};
use crate::peer::link::Link;
use crate::peer::persistent::{self, ExchangeError, Outgoing, Piece};
use crate::peer::pipeline::{self, PostError};
use crate::peer::transport::Shared;
use crate::workers::Workers;

/// The unit of reads of the database.
const PIECE_BYTES: usize = 128 << 10;
/// Pieces between reader and connection, which bound the memory of a transfer.
const PIECES_MAX: usize = 4;
/// Timeout of writes, longer than others because the peer's disk may stall.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);
/// Time from the last byte to the response: the peer syncs and checks the file.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(300);
/// Bytes of the body of an error.
const ERROR_BYTES_MAX: usize = 64 << 10;

/// Sends a snapshot and reports the result to the node.
pub(in crate::peer) async fn send(
    shared: Arc<Shared>,
    permit: OwnedSemaphorePermit,
    link: Arc<Link>,
    message: Message,
) {
    let start = Instant::now();
    let delivered = {
        let handles = shared.metrics.peer.handles(shared.local.id, link.id);
        let sending = TransferGuard::new(handles.snapshot_sending());
        let result = make_and_post(&shared, &link, message).await;
        drop(sending);
        match &result {
            Ok(bytes) => {
                link.status.activate();
                handles.sent_bytes().inc_by(*bytes);
                handles.snapshot_sends().inc();
                handles
                    .snapshot_send_time()
                    .observe(start.elapsed().as_secs_f64());
            }
            Err(error) => {
                link.status.deactivate("post", "sendMsgSnap", error);
                handles.sent_failures().inc();
                handles.snapshot_send_failures().inc();
                shared.node.report_unreachable(link.id);
            }
        }
        result.is_ok()
    };
    drop(permit);
    shared.node.report_snapshot(link.id, delivered).await;
}

/// The bytes that were sent.
async fn make_and_post(
    shared: &Arc<Shared>,
    link: &Link,
    mut message: Message,
) -> Result<u64, PostError> {
    let source = Arc::clone(shared);
    let made = shared.workers.run(move || (source.snapshot)()).await;
    let snapshot = made
        .unwrap_or_else(|stopped| Err(stopped.into()))
        .map_err(PostError::Source)
        .inspect_err(|error| {
            log::warn!("failed to make a database snapshot";
            "remote-peer-id" => Hex(link.id), "error" => Text(error));
        })?;
    let (index, size) = (snapshot.metadata.index(), snapshot.size_bytes);
    message.snapshot = Some(Snapshot {
        data: Some(snapshot.data.clone()),
        metadata: Some(snapshot.metadata.clone()),
    });
    make_explicit(&mut message);
    let mut head = BytesMut::new();
    encode_frame(&message, &mut head);
    let bytes = head.len() as u64 + size;
    log::info!("sending database snapshot";
        "snapshot-index" => index, "remote-peer-id" => Hex(link.id),
        "bytes" => bytes, "size" => human(bytes));
    let result = post(shared, link, head.freeze(), snapshot).await;
    match &result {
        Ok(()) => log::info!("sent database snapshot";
            "snapshot-index" => index, "remote-peer-id" => Hex(link.id),
            "bytes" => bytes, "size" => human(bytes)),
        Err(error) => log::warn!("failed to send database snapshot";
            "snapshot-index" => index, "remote-peer-id" => Hex(link.id),
            "bytes" => bytes, "size" => human(bytes), "error" => Text(error)),
    }
    result.map(|()| bytes)
}

async fn post(
    shared: &Arc<Shared>,
    link: &Link,
    head: Bytes,
    snapshot: OutgoingSnapshot,
) -> Result<(), PostError> {
    let url = link.picker.pick();
    let (pieces, body) = mpsc::channel(PIECES_MAX);
    let mut request = pipeline::request(
        shared,
        "/raft/snapshot",
        "application/octet-stream",
        Outgoing::Pieces(body),
    );
    persistent::address(&url, &mut request);
    let pace = shared.snapshot_pace;
    let all = async {
        let mut sender = persistent::connect(&shared.dialer, &url, WRITE_TIMEOUT).await?;
        let reading = read(&shared.workers, head, snapshot, pieces, pace);
        let answer = sender.send_request(request);
        tokio::pin!(reading, answer);
        let answer = tokio::select! {
            // First, so that a failed read is reported and not the broken connection that follows.
            biased;
            read = &mut reading => {
                read.map_err(PostError::Source)?;
                timeout(ANSWER_TIMEOUT, answer).await.map_err(|_| ExchangeError::Timeout)?
            }
            early = &mut answer => early,
        };
        let response =
            persistent::collect(answer.map_err(ExchangeError::Http)?, ERROR_BYTES_MAX).await?;
        pipeline::check(shared, link, &response, || format!("{url}/raft/snapshot"))
    };
    let result = all.await;
    if result.is_err() {
        link.picker.unreachable(&url);
    }
    result
}

/// Reads the database in pieces until its end or until the connection is closed. Each read is a
/// task of the workers, which so do not wait for the peer.
async fn read(
    workers: &Workers,
    head: Bytes,
    mut snapshot: OutgoingSnapshot,
    pieces: mpsc::Sender<Piece>,
    pace: Option<u64>,
) -> io::Result<()> {
    let start = Instant::now();
    let mut read_bytes = 0;
    let mut next = Some(head);
    while let Some(bytes) = next {
        if pieces.send(Piece::Bytes(bytes)).await.is_err() {
            // The connection reports why.
            return Ok(());
        }
        wait_for_pace(start, read_bytes, pace).await;
        let read = move || {
            let piece = read_piece(&mut snapshot.database);
            (snapshot, piece)
        };
        let (rest, piece) = workers.run(read).await?;
        (snapshot, next) = (rest, piece?);
        read_bytes += next.as_ref().map_or(0, |bytes| bytes.len() as u64);
    }
    if read_bytes != snapshot.size_bytes {
        let text = format!("{read_bytes} bytes of {}", snapshot.size_bytes);
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, text));
    }
    let _ = pieces.send(Piece::End).await;
    Ok(())
}

/// Waits until `bytes` may have been sent, at `pace` bytes per second.
async fn wait_for_pace(start: Instant, bytes: u64, pace: Option<u64>) {
    let Some(pace) = pace.filter(|pace| *pace > 0) else {
        return;
    };
    let due = Duration::from_secs_f64(bytes as f64 / pace as f64);
    tokio::time::sleep(due.saturating_sub(start.elapsed())).await;
}

/// The next piece; none at the end.
fn read_piece(database: &mut impl Read) -> io::Result<Option<Bytes>> {
    let mut piece = Vec::with_capacity(PIECE_BYTES);
    database.take(PIECE_BYTES as u64).read_to_end(&mut piece)?;
    Ok((!piece.is_empty()).then(|| piece.into()))
}
