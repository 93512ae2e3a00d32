//! Service `Maintenance`.

use std::io::Read;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::{Bytes, BytesMut};
use hyper::Response;
use hyper::body::Incoming;
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::downgrade_request::DowngradeAction;
use retcd_proto::etcdserverpb::{
    AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse, DowngradeInfo,
    DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest, HashResponse,
    InternalRaftRequest, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse,
};
use retcd_state::machine::Reply;
use retcd_state::version::{self, Version};
use retcd_state::watch::Origin;
use retcd_storage::backend::{Backend, BackendError, HashInPieces};
use retcd_storage::bolt::FileCopy;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::answer::UNREAD_MAX;
use super::header::header;
use super::status::{self, Code, Status};
use super::wire::{MessageReader, ResponseBody, frame, stream_response};
use super::{Context, Framed};
use crate::auth::Credentials;
use crate::metrics::Operation;
use crate::runtime::{self, Local, versions};

/// Data per message of a snapshot, as etcd has it.
const SNAPSHOT_CHUNK_BYTES: u64 = 32 << 10;
/// Bytes of a snapshot that are read in one turn of the workers.
const SNAPSHOT_PIECE_BYTES: usize = 64 << 10;
/// Pieces of a snapshot that wait for the client: with the one that the connection holds, all that a snapshot costs which
/// nobody reads.
const SNAPSHOT_BACKLOG: usize = 1;
/// `Alarm`; also a mere look at the alarms goes through the log.
pub async fn alarm(local: Rc<Local>, credentials: Credentials, request: AlarmRequest) -> Framed {
    match AlarmAction::try_from(request.action) {
        Ok(AlarmAction::Get) => local.require_user(&credentials).await?,
        Ok(_) => local.require_admin(&credentials).await?,
        Err(_) => {
            local.require_admin(&credentials).await?;
            return Err(status::UNKNOWN_METHOD);
        }
    }
    let request = InternalRaftRequest {
        alarm: Some(request),
        ..Default::default()
    };
    match local
        .propose_as(&credentials, Operation::Alarm, request)
        .await?
    {
        Reply::Alarm { revision, alarms } => frame(&AlarmResponse {
            header: Some(header(local.member.origin(), revision)),
            alarms,
        }),
        other => unreachable!("an alarm request was answered with {other:?}"),
    }
}

/// `Status`, of this member alone.
pub async fn status(local: Rc<Local>, _request: StatusRequest) -> Framed {
    let member = &local.member;
    // What was applied is looked at before what is committed, which is never less.
    let view = member.reader.view();
    let (db_size, db_size_in_use) = view.file_bytes();
    let (revision, applied) = (view.revision(), view.log_index());
    drop(view);
    let raft = local.inspect().await?.status;
    let origin = Origin {
        raft_term: raft.term,
        ..member.origin()
    };
    let downgrade = member.membership.read().downgrade();
    let mut errors = Vec::new();
    if raft.leader == 0 {
        errors.push(status::NO_LEADER.message.into_owned());
    }
    errors.extend(
        member
            .alarms
            .read()
            .list(AlarmType::None as i32)
            .iter()
            .map(|alarm| {
                let kind = AlarmType::try_from(alarm.alarm);
                let kind = kind.map_or(alarm.alarm.to_string(), |kind| kind.as_str_name().into());
                format!("memberID:{}  alarm:{kind}", alarm.member_id)
            }),
    );
    frame(&StatusResponse {
        header: Some(header(origin, revision)),
        version: crate::VERSION.to_owned(),
        db_size: db_size as i64,
        db_size_in_use: db_size_in_use as i64,
        leader: raft.leader,
        raft_index: raft.committed,
        raft_applied_index: applied,
        raft_term: raft.term,
        errors,
        is_learner: member.is_learner(),
        storage_version: member
            .storage_version()
            .map_or_else(String::new, |version| version.to_string()),
        db_size_quota: member.config.quota_backend_bytes,
        downgrade_info: Some(DowngradeInfo {
            enabled: downgrade.enabled,
            target_version: downgrade.target_version,
        }),
    })
}

/// `Defragment`: rewrites the database's file while reads and writes go on.
pub async fn defragment(local: Rc<Local>, _request: DefragmentRequest) -> Framed {
    let member = Arc::clone(&local.member);
    let only_one = Arc::clone(&member.defragmentation).lock_owned().await;
    let defragment = {
        let member = Arc::clone(&member);
        move || {
            let result = runtime::defragment(&member);
            // Not before, if the client leaves.
            drop(only_one);
            result
        }
    };
    let result = member.workers.run(defragment).await?;
    result.map_err(|error| storage_failure(&error))?;
    frame(&DefragmentResponse { header: None })
}

/// `Hash`: the sum of the whole database, for tests.
pub async fn hash(local: Rc<Local>, _request: HashRequest) -> Framed {
    let member = &local.member;
    let started = Instant::now();
    let view = member.reader.view();
    let begun = member.workers.run(move || view.begin_hash()).await?;
    let (hash, revision) = begun.map_err(|error| storage_failure(&error))?;
    let hash = member
        .workers
        .run_in_pieces(hash, HashInPieces::step)
        .await?
        .map_err(|error| storage_failure(&error))?;
    member
        .metrics
        .mvcc
        .hash
        .observe(started.elapsed().as_secs_f64());
    frame(&HashResponse {
        header: Some(header(member.origin(), revision)),
        hash,
    })
}

/// `HashKV`: the sum of the keyspace at a revision, equal on all members.
pub async fn hash_kv(local: Rc<Local>, request: HashKvRequest) -> Framed {
    let member = &local.member;
    let started = Instant::now();
    let (hash, revision) = member.hash_kv(request.revision).await?;
    member
        .metrics
        .mvcc
        .hash_revision
        .observe(started.elapsed().as_secs_f64());
    frame(&HashKvResponse {
        header: Some(header(member.origin(), revision)),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.revision,
    })
}

/// `Snapshot`: the database as a file, in pieces, then its SHA-256.
pub async fn snapshot(
    context: Context,
    mut reader: MessageReader<Incoming>,
) -> Response<ResponseBody> {
    let opened = async {
        context.read_request::<SnapshotRequest>(&mut reader).await?;
        context.check_access().await
    };
    if let Err(status) = opened.await {
        return context.fail(status);
    }
    let (sender, receiver) = mpsc::channel(SNAPSHOT_BACKLOG);
    tokio::task::spawn_local(async move {
        let started = Instant::now();
        let member = &context.local.member;
        let sent = send_snapshot(&context, &sender).await;
        member
            .metrics
            .backend
            .snapshot
            .observe(started.elapsed().as_secs_f64());
        context.end_stream(&sender, sent).await;
    });
    stream_response(receiver)
}

/// A client that leaves ends it early.
async fn send_snapshot(
    context: &Context,
    messages: &mpsc::Sender<Result<Bytes, Status>>,
) -> Result<(), Status> {
    let member = &context.local.member;
    let backend = member.backend.clone();
    let begin = member.workers.run(move || Snapshot::begin(&backend));
    let mut snapshot = begin.await?.map_err(|error| storage_failure(&error))?;
    loop {
        // Room first: what is read waits for nobody, and a client that does not read costs what is in its queue.
        let Some(place) = place_for_one(messages).await? else {
            return Ok(());
        };
        if snapshot.file.remaining_bytes() == 0 {
            place.send(snapshot.sum());
            return Ok(());
        }
        let mut room = member.answers.take(SNAPSHOT_PIECE_BYTES).await;
        let read = move || {
            let piece = snapshot.next_piece();
            (snapshot, piece)
        };
        let (rest, piece) = member.workers.run(read).await?;
        snapshot = rest;
        place.send(Ok(room.hold(piece?).hand_over(&context.connection)));
    }
}

/// A place in the queue of a stream; nothing if the client is gone.
///
/// # Errors
/// The client has taken nothing for [`UNREAD_MAX`]. While a snapshot is open, no page of the database that it shows is written
/// again, so that the file grows. etcd waits for ever, if the client answers the pings of its connection
/// (`--grpc-keepalive-interval`); whoever stores a snapshot and stands still for this long has given up.
async fn place_for_one<'a>(
    messages: &'a mpsc::Sender<Result<Bytes, Status>>,
) -> Result<Option<mpsc::Permit<'a, Result<Bytes, Status>>>, Status> {
    match tokio::time::timeout(UNREAD_MAX, messages.reserve()).await {
        Ok(place) => Ok(place.ok()),
        Err(_) => Err(status::UNREAD),
    }
}

/// A snapshot on its way.
struct Snapshot {
    file: FileCopy,
    digest: Sha256,
    version: String,
}

impl Snapshot {
    fn begin(backend: &Backend) -> Result<Snapshot, BackendError> {
        let reader = backend.committed_reader()?;
        // A database without a version that is known has none to tell.
        let version = version::detect(&reader).ok().flatten();
        Ok(Snapshot {
            file: reader.committed().clone().copy(),
            digest: Sha256::new(),
            version: version.map_or_else(String::new, |version| version.to_string()),
        })
    }

    /// Messages with the next bytes of the file.
    fn next_piece(&mut self) -> Framed {
        let mut piece = BytesMut::new();
        while piece.len() < SNAPSHOT_PIECE_BYTES && self.file.remaining_bytes() > 0 {
            let bytes = self.file.remaining_bytes().min(SNAPSHOT_CHUNK_BYTES);
            let mut chunk = vec![0; bytes as usize];
            let read = self.file.read_exact(&mut chunk).map_err(BackendError::from);
            read.map_err(|error| storage_failure(&error))?;
            self.digest.update(&chunk);
            piece.extend_from_slice(&self.message(chunk.into())?);
        }
        Ok(piece.freeze())
    }

    /// The last message.
    fn sum(&self) -> Framed {
        let digest = self.digest.clone().finalize();
        self.message(Bytes::copy_from_slice(&digest))
    }

    fn message(&self, blob: Bytes) -> Framed {
        frame(&SnapshotResponse {
            header: None,
            remaining_bytes: self.file.remaining_bytes(),
            blob,
            version: self.version.clone(),
        })
    }
}

/// `MoveLeader`, asked of the leader.
pub async fn move_leader(local: Rc<Local>, request: MoveLeaderRequest) -> Framed {
    local.move_leader(request.target_id).await?;
    frame(&MoveLeaderResponse { header: None })
}

/// `Downgrade`: checks, begins or ends the way down to the minor version before the cluster's.
pub async fn downgrade(local: Rc<Local>, request: DowngradeRequest) -> Framed {
    let action = DowngradeAction::try_from(request.action).map_err(|_| status::UNKNOWN_METHOD)?;
    let target = parse_version(&request.version).ok_or(status::WRONG_DOWNGRADE_FORMAT);
    let (version, revision) = match action {
        DowngradeAction::Validate => versions::validate_downgrade(&local, target?).await?,
        DowngradeAction::Enable => versions::enable_downgrade(&local, target?).await?,
        DowngradeAction::Cancel => versions::cancel_downgrade(&local).await?,
    };
    frame(&DowngradeResponse {
        header: Some(header(local.member.origin(), revision)),
        version: version.major_minor(),
    })
}

/// `3.6` or `3.6.0` as a version.
fn parse_version(text: &str) -> Option<Version> {
    Version::parse(text.as_bytes()).or_else(|| Version::parse(format!("{text}.0").as_bytes()))
}

fn storage_failure(error: &(impl std::error::Error + ?Sized)) -> Status {
    crate::error!("the database could not be read"; "error" => &error.to_string());
    Status::new(Code::Unknown, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_has_two_numbers_or_three() {
        let version = Some(Version::new(3, 6, 0));
        assert_eq!([parse_version("3.6"), parse_version("3.6.0")], [version; 2]);
        assert_eq!(["", "3", "v3.6", "3.x"].map(parse_version), [None; 4]);
    }
}
