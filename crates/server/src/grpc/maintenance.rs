//! Service `Maintenance`.

use std::io::Read;
use std::rc::Rc;
use std::time::Instant;

use bytes::Bytes;
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
use retcd_state::version::Version;
use retcd_storage::backend::BackendError;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::header::header;
use super::status::{self, Code, Status};
use super::wire::{MessageReader, ResponseBody, frame, stream_response};
use super::{Context, Framed, read_request};
use crate::auth::Credentials;
use crate::metrics::Operation;
use crate::runtime::{Local, blocking, versions};

/// Data per message of a snapshot, as etcd has it.
const SNAPSHOT_CHUNK_BYTES: usize = 32 << 10;
/// Messages of a snapshot that wait for the client.
const SNAPSHOT_BACKLOG: usize = 8;

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
        Reply::Alarm { revision, alarms } => Ok(frame(&AlarmResponse {
            header: Some(header(local.member.origin(), revision)),
            alarms,
        })),
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
    let origin = member.origin();
    let leader = member.progress.leader();
    let downgrade = member.membership.read().downgrade();
    let mut errors = Vec::new();
    if leader == 0 {
        errors.push(status::NO_LEADER.message.into_owned());
    }
    errors.extend(
        member
            .alarms
            .read()
            .list(AlarmType::None as i32)
            .iter()
            .map(|alarm| {
                let kind =
                    AlarmType::try_from(alarm.alarm).map_or("UNKNOWN", |kind| kind.as_str_name());
                format!("memberID:{}  alarm:{kind}", alarm.member_id)
            }),
    );
    Ok(frame(&StatusResponse {
        header: Some(header(origin, revision)),
        version: crate::VERSION.to_owned(),
        db_size: db_size as i64,
        db_size_in_use: db_size_in_use as i64,
        leader,
        raft_index: member.progress.committed().max(applied),
        raft_applied_index: applied,
        raft_term: origin.raft_term,
        errors,
        is_learner: member.is_learner(),
        storage_version: member
            .storage_version()
            .map_or_else(String::new, |version| version.to_string()),
        db_size_quota: member.limits.quota_bytes.map_or(0, |bytes| bytes as i64),
        downgrade_info: Some(DowngradeInfo {
            enabled: downgrade.enabled,
            target_version: downgrade.target_version,
        }),
    }))
}

/// `Defragment`: rewrites the database's file while reads and writes go on.
pub async fn defragment(local: Rc<Local>, _request: DefragmentRequest) -> Framed {
    let member = &local.member;
    let backend = member.backend.clone();
    let started = Instant::now();
    crate::info!("starting defragmentation");
    let in_flight = member.defragmenting.enter();
    let result = blocking(move || backend.defragment()).await?;
    drop(in_flight);
    result.map_err(|error| storage_failure(&error))?;
    member
        .metrics
        .backend
        .defrag
        .observe(started.elapsed().as_secs_f64());
    crate::info!("finished defragmentation"; "took" => started.elapsed(),
        "current-db-size-bytes" => member.backend.size_bytes());
    Ok(frame(&DefragmentResponse { header: None }))
}

/// `Hash`: the sum of the whole database, for tests.
pub async fn hash(local: Rc<Local>, _request: HashRequest) -> Framed {
    let member = &local.member;
    member.commit_backend().await;
    let view = member.reader.view();
    let started = Instant::now();
    let (hash, revision) = blocking(move || view.hash())
        .await?
        .map_err(|error| storage_failure(&error))?;
    member
        .metrics
        .mvcc
        .hash
        .observe(started.elapsed().as_secs_f64());
    Ok(frame(&HashResponse {
        header: Some(header(member.origin(), revision)),
        hash,
    }))
}

/// `HashKV`: the sum of the keyspace at a revision, equal on all members.
pub async fn hash_kv(local: Rc<Local>, request: HashKvRequest) -> Framed {
    let member = &local.member;
    let reader = member.reader.clone();
    let started = Instant::now();
    let (hash, revision) = blocking(move || reader.hash_kv(request.revision)).await??;
    member
        .metrics
        .mvcc
        .hash_revision
        .observe(started.elapsed().as_secs_f64());
    Ok(frame(&HashKvResponse {
        header: Some(header(member.origin(), revision)),
        hash: hash.hash,
        compact_revision: hash.compact_revision,
        hash_revision: hash.revision,
    }))
}

/// `Snapshot`: the database as a file, in pieces, then its SHA-256.
pub async fn snapshot(
    context: Context,
    mut reader: MessageReader<Incoming>,
) -> Response<ResponseBody> {
    let opened = async {
        let request: SnapshotRequest = read_request(&mut reader).await?;
        context.count_received(&request);
        context.check_access().await
    };
    if let Err(status) = opened.await {
        return context.fail(status);
    }
    let (sender, receiver) = mpsc::channel(SNAPSHOT_BACKLOG);
    tokio::task::spawn_local(async move {
        let started = Instant::now();
        let member = &context.local.member;
        member.commit_backend().await;
        let backend = member.backend.clone();
        let version = member
            .storage_version()
            .map_or_else(String::new, |version| version.to_string());
        let messages = sender.clone();
        let sent = blocking(move || send_snapshot(&backend, &version, &messages)).await;
        member
            .metrics
            .backend
            .snapshot
            .observe(started.elapsed().as_secs_f64());
        let ended = sent.and_then(|sent| sent.map_err(|error| storage_failure(&error)));
        context.end_stream(&sender, ended).await;
    });
    stream_response(receiver)
}

/// Runs where blocking is allowed; a client that leaves ends it early.
fn send_snapshot(
    backend: &retcd_storage::backend::Backend,
    version: &str,
    messages: &mpsc::Sender<Result<Bytes, Status>>,
) -> Result<(), BackendError> {
    let mut snapshot = backend.snapshot()?;
    let mut remaining = snapshot.len();
    let mut digest = Sha256::new();
    let send = |blob: Bytes, remaining_bytes| {
        let version = version.to_owned();
        let message = SnapshotResponse {
            header: None,
            remaining_bytes,
            blob,
            version,
        };
        messages.blocking_send(Ok(frame(&message))).is_ok()
    };
    while remaining > 0 {
        let mut chunk = vec![0; SNAPSHOT_CHUNK_BYTES.min(remaining as usize)];
        snapshot.read_exact(&mut chunk)?;
        digest.update(&chunk);
        remaining -= chunk.len() as u64;
        if !send(chunk.into(), remaining) {
            return Ok(());
        }
    }
    send(Bytes::copy_from_slice(&digest.finalize()), 0);
    Ok(())
}

/// `MoveLeader`, asked of the leader.
pub async fn move_leader(local: Rc<Local>, request: MoveLeaderRequest) -> Framed {
    if !local.member.progress.is_leader() {
        return Err(status::NOT_LEADER);
    }
    local.move_leader(request.target_id).await?;
    Ok(frame(&MoveLeaderResponse { header: None }))
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
    Ok(frame(&DowngradeResponse {
        header: Some(header(local.member.origin(), revision)),
        version: version.major_minor(),
    }))
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
