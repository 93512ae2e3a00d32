//! Service `Maintenance`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use retcd_member::access::Credentials;
use retcd_member::maintenance::StatusAnswer;
use retcd_member::{DatabasePiece, DatabaseStream};
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::downgrade_request::DowngradeAction;
use retcd_proto::etcdserverpb::{
    AlarmMember, AlarmRequest, AlarmResponse, AlarmType, DefragmentRequest, DefragmentResponse,
    DowngradeInfo, DowngradeRequest, DowngradeResponse, HashKvRequest, HashKvResponse, HashRequest,
    HashResponse, MoveLeaderRequest, MoveLeaderResponse, SnapshotRequest, SnapshotResponse,
    StatusRequest, StatusResponse,
};
use retcd_state::version::Version;
use retcd_state::watch::Origin;

use super::Context;
use super::answer::UNREAD_MAX;
use super::encode::Plain;
use super::frames;
use super::header::header;
use super::reply::Reply;
use super::requests::Requests;
use super::wire::frame_into;
use crate::server::ServerThread;
use crate::status::{self, Code, Status};

/// Data per message of a snapshot, as etcd has it.
const SNAPSHOT_CHUNK_BYTES: usize = 32 << 10;
/// Bytes of a snapshot that are read in one turn of the workers.
const SNAPSHOT_PIECE_BYTES: usize = 64 << 10;
/// Pieces of a snapshot that wait for the client: with the one that the connection holds, all that
/// a snapshot costs which nobody reads.
const SNAPSHOT_BACKLOG: usize = 1;

/// `Alarm`; also a mere look at the alarms goes through the log.
pub(super) async fn alarm(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: AlarmRequest,
) -> Result<Plain<AlarmResponse>, Status> {
    let Ok(action) = AlarmAction::try_from(request.action) else {
        thread.member.access.require_admin(&credentials).await?;
        return Err(status::UNKNOWN_METHOD);
    };
    let maintenance = &thread.member.maintenance;
    let (alarms, revision) = maintenance.alarm(&credentials, action, request).await?;
    Ok(Plain(AlarmResponse {
        header: Some(header(thread.server.member.origin(), revision)),
        alarms,
    }))
}

/// `Status`, of this member alone.
pub(super) async fn status(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    _request: StatusRequest,
) -> Result<Plain<StatusResponse>, Status> {
    let answer = thread.member.maintenance.status(&credentials).await?;
    let StatusAnswer {
        revision,
        raft,
        downgrade,
        ..
    } = answer;
    let origin = Origin {
        raft_term: raft.term,
        ..thread.server.member.origin()
    };
    let no_leader = (raft.leader == 0).then(|| status::NO_LEADER.message.into_owned());
    let alarms = answer.alarms.iter().map(alarm_text);
    Ok(Plain(StatusResponse {
        header: Some(header(origin, revision)),
        version: crate::VERSION.to_owned(),
        db_size: answer.db_bytes.0 as i64,
        db_size_in_use: answer.db_bytes.1 as i64,
        leader: raft.leader,
        raft_index: raft.committed,
        raft_applied_index: answer.applied,
        raft_term: raft.term,
        errors: no_leader.into_iter().chain(alarms).collect(),
        is_learner: answer.is_learner,
        storage_version: answer
            .storage_version
            .map_or_else(String::new, |version| version.to_string()),
        db_size_quota: thread.server.config.quota_backend_bytes,
        downgrade_info: Some(DowngradeInfo {
            enabled: downgrade.enabled,
            target_version: downgrade.target_version,
        }),
    }))
}

/// As Go prints the message.
fn alarm_text(alarm: &AlarmMember) -> String {
    let kind = AlarmType::try_from(alarm.alarm);
    let kind = kind.map_or(alarm.alarm.to_string(), |kind| kind.as_str_name().into());
    format!("memberID:{}  alarm:{kind}", alarm.member_id)
}

/// `Defragment`: rewrites the database's file while reads and writes go on.
pub(super) async fn defragment(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    _request: DefragmentRequest,
) -> Result<Plain<DefragmentResponse>, Status> {
    thread.member.access.require_admin(&credentials).await?;
    let server = Arc::clone(&thread.server);
    let only_one = Arc::clone(&server.defragmentation).lock_owned().await;
    let defragment = move || {
        let result = crate::defragment::defragment(&server);
        // Not before, if the client leaves.
        drop(only_one);
        result
    };
    let result = thread.server.member.workers.run(defragment).await?;
    result.map_err(|error| not_defragmented(&error))?;
    Ok(Plain(DefragmentResponse { header: None }))
}

/// `Hash`: the sum of the whole database, for tests.
pub(super) async fn hash(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    _request: HashRequest,
) -> Result<Plain<HashResponse>, Status> {
    let (hash, revision) = thread.member.maintenance.hash(&credentials).await?;
    Ok(Plain(HashResponse {
        header: Some(header(thread.server.member.origin(), revision)),
        hash,
    }))
}

/// `HashKV`: the sum of the keyspace at a revision, equal on all members.
pub(super) async fn hash_kv(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: HashKvRequest,
) -> Result<Plain<HashKvResponse>, Status> {
    let maintenance = &thread.member.maintenance;
    let (hash, revision) = maintenance.hash_kv(&credentials, request.revision).await?;
    Ok(Plain(HashKvResponse {
        header: Some(header(thread.server.member.origin(), revision)),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.revision,
    }))
}

/// `Snapshot`: the database as a file, in pieces, then its SHA-256.
pub(super) async fn snapshot(context: Context, mut reader: Requests) -> Reply {
    let opened = async {
        context.read_request::<SnapshotRequest>(&mut reader).await?;
        let maintenance = &context.thread.member.maintenance;
        Ok::<_, Status>(maintenance.snapshot(&context.credentials).await?)
    };
    let database = match opened.await {
        Ok(database) => database,
        Err(status) => return context.fail(status),
    };
    let (sender, receiver) = frames::channel(SNAPSHOT_BACKLOG);
    tokio::task::spawn_local(async move {
        let started = Instant::now();
        let sent = send_snapshot(&context, database, &sender).await;
        let took = &context.thread.server.metrics.backend.snapshot;
        took.observe(started.elapsed().as_secs_f64());
        context.end_stream(&sender, sent).await;
    });
    Reply::Stream(receiver)
}

/// Sends all of `database`.
async fn send_snapshot(
    context: &Context,
    mut database: DatabaseStream,
    messages: &frames::Sender,
) -> Result<(), Status> {
    let server = &context.thread.server;
    let version = database.version();
    let version = version.map_or_else(String::new, |version| version.to_string());
    loop {
        // Room first: what is read waits for nobody, and a client that does not read costs what is
        // in its queue.
        wait_for_room(messages).await?;
        let mut reservation = server.answers.reserve(SNAPSHOT_PIECE_BYTES).await;
        let pieces = database
            .next(SNAPSHOT_PIECE_BYTES, SNAPSHOT_CHUNK_BYTES)
            .await?;
        let is_last = matches!(pieces.last(), Some(DatabasePiece::Digest(_)));
        let mut framed = BytesMut::new();
        for piece in pieces {
            let message = snapshot_message(piece, &version);
            context.count_sent(frame_into(&mut framed, &message)?);
        }
        context.recorded.sent(&framed);
        let framed = reservation.hold(framed.freeze());
        messages.push(Ok(framed.hand_over(&context.connection)));
        if is_last {
            return Ok(());
        }
    }
}

fn snapshot_message(piece: DatabasePiece, version: &str) -> SnapshotResponse {
    let (blob, remaining_bytes) = match piece {
        DatabasePiece::File {
            chunk,
            remaining_bytes,
        } => (chunk, remaining_bytes),
        DatabasePiece::Digest(digest) => (digest, 0),
    };
    SnapshotResponse {
        header: None,
        remaining_bytes,
        blob,
        version: version.to_owned(),
    }
}

/// Waits for room in the queue of a stream.
///
/// # Errors
/// The client is gone, or has taken nothing for [`UNREAD_MAX`]. While a snapshot is open, no page of the
/// database that it shows is written again, so that the file grows. etcd waits for ever, if the
/// client answers the pings of its connection (`--grpc-keepalive-interval`); whoever stores a
/// snapshot and stands still for this long has given up.
async fn wait_for_room(messages: &frames::Sender) -> Result<(), Status> {
    match tokio::time::timeout(UNREAD_MAX, messages.room()).await {
        Ok(room) => room.map_err(|_| status::CLIENT_GONE),
        Err(_) => Err(status::UNREAD),
    }
}

/// `MoveLeader`, asked of the leader.
pub(super) async fn move_leader(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: MoveLeaderRequest,
) -> Result<Plain<MoveLeaderResponse>, Status> {
    let transfer = &thread.member.transfer;
    transfer
        .move_leader(&credentials, request.target_id)
        .await?;
    Ok(Plain(MoveLeaderResponse { header: None }))
}

/// `Downgrade`: checks, begins or ends the way down to the minor version before the cluster's.
pub(super) async fn downgrade(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: DowngradeRequest,
) -> Result<Plain<DowngradeResponse>, Status> {
    // Before anything in the request is looked at.
    thread.member.access.require_admin(&credentials).await?;
    let versions = &thread.member.versions;
    let action = DowngradeAction::try_from(request.action).map_err(|_| status::UNKNOWN_METHOD)?;
    let target = parse_version(&request.version).ok_or(status::WRONG_DOWNGRADE_FORMAT);
    let (version, revision) = match action {
        DowngradeAction::Validate => versions.validate_downgrade(&credentials, target?).await?,
        DowngradeAction::Enable => versions.enable_downgrade(&credentials, target?).await?,
        DowngradeAction::Cancel => versions.cancel_downgrade(&credentials).await?,
    };
    Ok(Plain(DowngradeResponse {
        header: Some(header(thread.server.member.origin(), revision)),
        version: version.major_minor(),
    }))
}

/// `3.6` or `3.6.0` as a version.
fn parse_version(text: &str) -> Option<Version> {
    Version::parse(text.as_bytes()).or_else(|| Version::parse(format!("{text}.0").as_bytes()))
}

fn not_defragmented(error: &(impl std::error::Error + ?Sized)) -> Status {
    crate::error!("the database could not be defragmented; the member goes on with it as it is";
        "error" => &error.to_string());
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
