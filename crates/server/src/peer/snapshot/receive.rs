//! Receives a database from the leader.
//!
//! ```text
//! body ──▶ block ──▶ file ──▶ disk      each at its own pace, a block or some tens of them apart
//! ```
//! While a block is written the next one is received, and what was written is brought to the disk
//! meanwhile, so that little is left for the sync at the end.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use retcd_proto::raftpb::{Message, MessageType};
use retcd_storage::bolt::{Access, Db, Options};
use retcd_storage::disk::{Disk, File, OpenMode};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{TransferGuard, human};
use crate::log::{self, Hex, Text};
use crate::peer::IO_TIMEOUT;
use crate::peer::body::PeerBody;
use crate::peer::codec::{CodecError, MessageDecoder, SNAPSHOT_MESSAGE_BYTES_MAX};
use crate::peer::reply;
use crate::peer::transport::Shared;
use crate::workers::Stopped;

/// The length before the message.
const LENGTH_BYTES: usize = size_of::<u64>();
/// The unit of writes.
const BLOCK_BYTES: usize = 1 << 20;
/// Bytes that are written between two syncs: few, as who else syncs on this disk waits for them.
const SYNC_BYTES: u64 = 4 << 20;
/// The prefix of files until they are complete.
const UNFINISHED_PREFIX: &str = "tmp";
/// Names to try for a file.
const UNFINISHED_MAX: u32 = 1000;

/// Why a body could not be read.
#[derive(Debug, thiserror::Error)]
enum BodyError {
    #[error("i/o timeout")]
    Silent,
    /// The body ended between two parts.
    #[error("EOF")]
    Missing,
    #[error("unexpected EOF")]
    Ended,
    #[error("{0}")]
    Http(#[from] hyper::Error),
    #[error("{0}")]
    Codec(#[from] CodecError),
}

/// The response to a snapshot that is refused.
struct Refused {
    status: StatusCode,
    text: String,
}

/// Stores a snapshot from the body of a request whose headers have been checked, and notifies the
/// node.
pub(in crate::peer) async fn receive(
    shared: &Arc<Shared>,
    mut body: Incoming,
) -> Response<PeerBody> {
    let start = Instant::now();
    let (peer, local) = (&shared.metrics.peer, shared.local.id);
    let unknown = || peer.unknown_snapshot_sender(local);
    let (message, first) = match read_message(&mut body).await {
        Ok(read) => read,
        Err(error) => {
            log::warn!("failed to decode Raft message";
                "local-member-id" => Hex(local), "error" => Text(&error));
            unknown().snapshot_receive_failures().inc();
            let text = format!("failed to decode raft message ({error})");
            return reply::error(StatusCode::BAD_REQUEST, &text);
        }
    };
    let from = message.from();
    let handles = match shared.is_known(from) {
        true => peer.handles(local, from),
        false => unknown(),
    };
    let receiving = TransferGuard::new(handles.snapshot_receiving());
    let result = take(shared, message, first, body).await;
    drop(receiving);
    match result {
        Ok(bytes) => {
            handles.received_bytes().inc_by(bytes);
            handles.snapshot_receives().inc();
            let took = start.elapsed().as_secs_f64();
            handles.snapshot_receive_time().observe(took);
            reply::no_content()
        }
        Err(Refused { status, text }) => {
            handles.snapshot_receive_failures().inc();
            log::warn!("failed to receive a database snapshot";
                "local-member-id" => Hex(local),
                "remote-snapshot-sender-id" => Hex(from),
                "error" => &text);
            let mut response = reply::error(status, &text);
            // The rest of the body is not read.
            reply::close(&mut response);
            response
        }
    }
}

/// The message at the start, and what has been read beyond it.
async fn read_message(body: &mut Incoming) -> Result<(Message, Bytes), BodyError> {
    let mut decoder = MessageDecoder::new(SNAPSHOT_MESSAGE_BYTES_MAX);
    let mut received = 0;
    loop {
        let bytes = next_bytes(body).await?.ok_or(match received {
            // As in Go, the error depends on whether the length or the message has begun.
            0 | LENGTH_BYTES => BodyError::Missing,
            _ => BodyError::Ended,
        })?;
        received += bytes.len();
        decoder.push(&bytes);
        if let Some(message) = decoder.next_message()? {
            return Ok((message, decoder.into_rest()));
        }
    }
}

async fn next_bytes(body: &mut Incoming) -> Result<Option<Bytes>, BodyError> {
    loop {
        let frame = timeout(IO_TIMEOUT, body.frame())
            .await
            .map_err(|_| BodyError::Silent)?;
        match frame.transpose()?.map(http_body::Frame::into_data) {
            None => return Ok(None),
            Some(Ok(bytes)) => return Ok(Some(bytes)),
            Some(Err(_trailers)) => {}
        }
    }
}

/// The bytes of the database that were stored.
async fn take(
    shared: &Arc<Shared>,
    message: Message,
    first: Bytes,
    body: Incoming,
) -> Result<u64, Refused> {
    let refuse = |status, text: &str| Refused {
        status,
        text: text.to_owned(),
    };
    if message.r#type() != MessageType::MsgSnap {
        return Err(refuse(StatusCode::BAD_REQUEST, "wrong raft message type"));
    }
    let cannot_process = |refusal| Refused {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        text: format!("failed to process raft message ({refusal})"),
    };
    // etcd checks this after it has received the database, with the same response.
    shared.node.check(&message).map_err(cannot_process)?;
    let cannot_save = |error: String| Refused {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        text: format!("failed to save KV snapshot ({error})"),
    };
    let Ok(_permit) = shared.snapshots_receiving.try_acquire() else {
        return Err(cannot_save("too many at the same time".to_owned()));
    };
    let (index, from) = (snapshot_index(&message), Hex(message.from()));
    let local = Hex(shared.local.id);
    log::info!("receiving database snapshot";
        "local-member-id" => local, "remote-snapshot-sender-id" => from,
        "incoming-snapshot-index" => index);
    let start = Instant::now();
    let stored = store(shared, index, first, body)
        .await
        .map_err(cannot_save)?;
    log::info!("received and saved database snapshot";
        "local-member-id" => local, "remote-snapshot-sender-id" => from,
        "incoming-snapshot-index" => index,
        "incoming-snapshot-size-bytes" => stored.bytes,
        "incoming-snapshot-size" => human(stored.bytes),
        "download-took" => start.elapsed());
    shared
        .metrics
        .snap
        .db_fsync
        .observe(stored.fsync.as_secs_f64());
    shared
        .metrics
        .snap
        .db_save
        .observe(start.elapsed().as_secs_f64());
    shared.node.send(vec![message]).map_err(cannot_process)?;
    Ok(stored.bytes)
}

fn snapshot_index(message: &Message) -> u64 {
    let metadata = message.snapshot.as_ref().and_then(|s| s.metadata.as_ref());
    metadata.map_or(0, |metadata| metadata.index())
}

/// The body in blocks.
struct Blocks {
    body: Incoming,
    /// What has been received and is in no block yet.
    rest: Bytes,
}

impl Blocks {
    /// Fills `block` anew. One that is not full is the last, and may be empty.
    async fn fill(&mut self, mut block: Vec<u8>) -> Result<Vec<u8>, BodyError> {
        block.clear();
        loop {
            let room = BLOCK_BYTES - block.len();
            let piece = self.rest.split_to(room.min(self.rest.len()));
            block.extend_from_slice(&piece);
            if block.len() == BLOCK_BYTES {
                return Ok(block);
            }
            match next_bytes(&mut self.body).await? {
                Some(bytes) => self.rest = bytes,
                None => return Ok(block),
            }
        }
    }
}

/// Writes the body to a file. Each block is a task of the workers, which so do not wait for the
/// leader.
async fn store(
    shared: &Arc<Shared>,
    index: u64,
    first: Bytes,
    body: Incoming,
) -> Result<Stored, String> {
    let workers = &shared.workers;
    let disk_error = |error: io::Error| log::go_io_error(&error);
    let (disk, dir) = (Arc::clone(&shared.disk), shared.snap_dir.clone());
    let create = workers.run(move || Unfinished::create(disk, &dir)).await;
    let mut file = create
        .unwrap_or_else(|stopped| Err(stopped.into()))
        .map_err(disk_error)?;
    let mut blocks = Blocks { body, rest: first };
    let body_error = |error: BodyError| error.to_string();
    let first = blocks.fill(Vec::with_capacity(BLOCK_BYTES)).await;
    let mut block = first.map_err(body_error)?;
    let mut next = Vec::with_capacity(BLOCK_BYTES);
    while block.len() == BLOCK_BYTES {
        let write = workers.run(move || file.write(&block).map(|file| (file, block)));
        let (written, filled) = tokio::join!(write, blocks.fill(next));
        (file, next) = written
            .unwrap_or_else(|stopped| Err(stopped.into()))
            .map_err(disk_error)?;
        block = filled.map_err(body_error)?;
        if let Some(sync) = file.next_sync().map_err(disk_error)? {
            workers.queue().submit(sync);
        }
    }
    file.wait_for_sync().await.map_err(disk_error)?;
    let finish = workers.run(move || file.write(&block)?.finish(index)).await;
    finish
        .unwrap_or_else(|stopped| Err(stopped.into()))
        .map_err(disk_error)
}

/// A database that has its final name and has been synced.
struct Stored {
    bytes: u64,
    fsync: Duration,
}

/// An incomplete file, removed when dropped. If that fails, it is removed at the next start.
struct Unfinished {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    path: PathBuf,
    /// Whether it has its final name.
    is_finished: bool,
    file: Arc<dyn File>,
    /// Bytes that were written.
    bytes: u64,
    /// How many of them have a sync behind them, or one under way.
    sync_bytes: u64,
    /// What comes of the one under way.
    sync: Option<oneshot::Receiver<io::Result<()>>>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        if !self.is_finished {
            let _ = self.disk.remove_file(&self.path);
        }
    }
}

impl Unfinished {
    fn create(disk: Arc<dyn Disk>, dir: &Path) -> io::Result<Unfinished> {
        let (path, file) = create_unfinished(&*disk, dir)?;
        Ok(Unfinished {
            disk,
            dir: dir.to_owned(),
            path,
            is_finished: false,
            file,
            bytes: 0,
            sync_bytes: 0,
            sync: None,
        })
    }

    /// Writes of whole blocks, aligned to pages, cost the kernel several times less than a write for
    /// each piece that is received.
    fn write(mut self, block: &[u8]) -> io::Result<Unfinished> {
        self.file.write_all_at(&[IoSlice::new(block)], self.bytes)?;
        self.bytes += block.len() as u64;
        Ok(self)
    }

    /// The next sync, if much was written since the last one, which has ended.
    ///
    /// # Errors
    /// That one failed: a file tells of it once, and the sync at the end might not.
    fn next_sync(&mut self) -> io::Result<Option<impl FnOnce() + Send + 'static>> {
        if self.bytes - self.sync_bytes < SYNC_BYTES {
            return Ok(None);
        }
        if let Some(sync) = &mut self.sync {
            match sync.try_recv() {
                Ok(result) => result?,
                Err(_) => return Ok(None),
            }
        }
        let (done, sync) = oneshot::channel();
        (self.sync, self.sync_bytes) = (Some(sync), self.bytes);
        let file = Arc::clone(&self.file);
        Ok(Some(move || drop(done.send(file.sync_data()))))
    }

    /// Waits for the sync that is under way.
    async fn wait_for_sync(&mut self) -> io::Result<()> {
        match self.sync.take() {
            // Work is dropped when the member stops.
            Some(sync) => sync.await.unwrap_or_else(|_| Err(Stopped.into())),
            None => Ok(()),
        }
    }

    /// Syncs and checks the file and gives it its final name.
    fn finish(mut self, index: u64) -> io::Result<Stored> {
        let this = &mut self;
        let start = Instant::now();
        this.file.sync_data()?;
        let fsync = start.elapsed();
        check(&this.disk, &this.path, index)?;
        let path = publish(&*this.disk, &this.dir, &this.path, index)?;
        this.is_finished = true;
        let bytes = this.bytes;
        log::info!("saved database snapshot to disk";
            "path" => path, "bytes" => bytes, "size" => human(bytes));
        Ok(Stored { bytes, fsync })
    }
}

fn create_unfinished(disk: &dyn Disk, dir: &Path) -> io::Result<(PathBuf, Arc<dyn File>)> {
    for number in 0..UNFINISHED_MAX {
        let path = dir.join(format!("{UNFINISHED_PREFIX}{number:09}"));
        match disk.open(&path, OpenMode::CreateNew { mode: 0o600 }) {
            Ok(file) => return Ok((path, file)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("too many unfinished snapshots"))
}

/// Opens the database as readers do, which checks its meta pages, its length and its buckets. It
/// must be of the index in the message: once the message is in the log, the member needs such a
/// database.
fn check(disk: &Arc<dyn Disk>, path: &Path, index: u64) -> io::Result<()> {
    let options = Options {
        access: Access::ReadOnly,
        ..Options::default()
    };
    let invalid = |error: String| io::Error::new(io::ErrorKind::InvalidData, error);
    let database = Db::open(Arc::clone(disk), path, options)
        .and_then(|database| database.read().get(b"meta", b"consistent_index"))
        .map_err(|error| invalid(error.to_string()))?
        .and_then(|entry| entry.value().try_into().ok().map(u64::from_be_bytes))
        .unwrap_or_default();
    if database != index {
        return Err(invalid(format!(
            "the snapshot is of index {index}, the database of index {database}"
        )));
    }
    Ok(())
}

/// Gives the file its final name. A file of that name is from an earlier snapshot with the same
/// contents.
fn publish(disk: &dyn Disk, dir: &Path, unfinished: &Path, index: u64) -> io::Result<PathBuf> {
    let path = dir.join(format!("{index:016x}.snap.db"));
    if disk.exists(&path)? {
        disk.remove_file(unfinished)?;
    } else {
        disk.rename(unfinished, &path)?;
        disk.sync_dir(dir)?;
    }
    Ok(path)
}

/// Removes incomplete files from the directory. To be called when a member starts.
///
/// # Errors
/// Those of the disk.
pub fn remove_unfinished(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    for path in disk.read_dir(dir)? {
        let name = path.file_name().unwrap_or_default();
        if name.to_string_lossy().starts_with(UNFINISHED_PREFIX) {
            disk.remove_file(&path)?;
        }
    }
    Ok(())
}
