//! Service `Cluster`. Its responses carry no revision, as in etcd.

use std::rc::Rc;

use retcd_member::access::Credentials;
use retcd_proto::etcdserverpb::{
    Member as MemberMessage, MemberAddRequest, MemberAddResponse, MemberListRequest,
    MemberListResponse, MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest,
    MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use retcd_state::membership::Member;

use super::encode::Plain;
use super::header::without_revision;
use crate::server::ServerThread;
use crate::status::Status;

/// `MemberList`.
pub(super) async fn member_list(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: MemberListRequest,
) -> Result<Plain<MemberListResponse>, Status> {
    let cluster = &thread.member.cluster;
    let members = cluster.list(&credentials, request.linearizable).await?;
    Ok(Plain(MemberListResponse {
        header: Some(without_revision(thread.server.member.origin())),
        members: messages(&members),
    }))
}

/// `MemberAdd`.
pub(super) async fn member_add(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: MemberAddRequest,
) -> Result<Plain<MemberAddResponse>, Status> {
    let MemberAddRequest {
        peer_ur_ls,
        is_learner,
    } = request;
    let cluster = &thread.member.cluster;
    let (member, members) = cluster.add(&credentials, &peer_ur_ls, is_learner).await?;
    Ok(Plain(MemberAddResponse {
        header: Some(without_revision(thread.server.member.origin())),
        member: Some(message(&member)),
        members: messages(&members),
    }))
}

/// `MemberRemove`.
pub(super) async fn member_remove(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: MemberRemoveRequest,
) -> Result<Plain<MemberRemoveResponse>, Status> {
    let cluster = &thread.member.cluster;
    let members = cluster.remove(&credentials, request.id).await?;
    Ok(Plain(MemberRemoveResponse {
        header: Some(without_revision(thread.server.member.origin())),
        members: messages(&members),
    }))
}

/// `MemberUpdate`.
pub(super) async fn member_update(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: MemberUpdateRequest,
) -> Result<Plain<MemberUpdateResponse>, Status> {
    let MemberUpdateRequest { id, peer_ur_ls } = request;
    let cluster = &thread.member.cluster;
    let members = cluster.update(&credentials, id, peer_ur_ls).await?;
    Ok(Plain(MemberUpdateResponse {
        header: Some(without_revision(thread.server.member.origin())),
        members: messages(&members),
    }))
}

/// `MemberPromote`.
pub(super) async fn member_promote(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: MemberPromoteRequest,
) -> Result<Plain<MemberPromoteResponse>, Status> {
    let cluster = &thread.member.cluster;
    let members = cluster.promote(&credentials, request.id).await?;
    Ok(Plain(MemberPromoteResponse {
        header: Some(without_revision(thread.server.member.origin())),
        members: messages(&members),
    }))
}

/// A member as clients see it.
fn message(member: &Member) -> MemberMessage {
    MemberMessage {
        id: member.id,
        name: member.name.clone(),
        peer_ur_ls: member.peer_urls().to_vec(),
        client_ur_ls: member.client_urls().to_vec(),
        is_learner: member.is_learner,
    }
}

fn messages(members: &[Member]) -> Vec<MemberMessage> {
    members.iter().map(message).collect()
}
