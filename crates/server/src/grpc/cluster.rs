//! Service `Cluster`.
//!
//! Headers carry no revision here, as etcd's do not.

use std::rc::Rc;

use retcd_proto::etcdserverpb::{
    Member as MemberMessage, MemberAddRequest, MemberAddResponse, MemberListRequest,
    MemberListResponse, MemberPromoteRequest, MemberPromoteResponse, MemberRemoveRequest,
    MemberRemoveResponse, MemberUpdateRequest, MemberUpdateResponse,
};
use retcd_state::membership::Member;

use super::Framed;
use super::header::without_revision;
use super::wire::frame;
use crate::auth::Credentials;
use crate::runtime::Local;

/// `MemberList`.
pub async fn member_list(local: Rc<Local>, request: MemberListRequest) -> Framed {
    if request.linearizable {
        local.linearizable().await?;
    }
    let members = local
        .member
        .membership
        .read()
        .members()
        .map(message)
        .collect();
    frame(&MemberListResponse {
        header: Some(without_revision(local.member.origin())),
        members,
    })
}

/// `MemberAdd`.
pub async fn member_add(local: Rc<Local>, request: MemberAddRequest) -> Framed {
    let added = local.add_member(&request.peer_ur_ls, request.is_learner);
    let (member, members) = added.await?;
    frame(&MemberAddResponse {
        header: Some(without_revision(local.member.origin())),
        member: Some(message(&member)),
        members: messages(&members),
    })
}

/// `MemberRemove`.
pub async fn member_remove(local: Rc<Local>, request: MemberRemoveRequest) -> Framed {
    let members = local.remove_member(request.id).await?;
    frame(&MemberRemoveResponse {
        header: Some(without_revision(local.member.origin())),
        members: messages(&members),
    })
}

/// `MemberUpdate`.
pub async fn member_update(local: Rc<Local>, request: MemberUpdateRequest) -> Framed {
    let members = local.update_member(request.id, request.peer_ur_ls).await?;
    frame(&MemberUpdateResponse {
        header: Some(without_revision(local.member.origin())),
        members: messages(&members),
    })
}

/// `MemberPromote`.
pub async fn member_promote(
    local: Rc<Local>,
    credentials: Credentials,
    request: MemberPromoteRequest,
) -> Framed {
    let members = local.promote_member(request.id, &credentials).await?;
    frame(&MemberPromoteResponse {
        header: Some(without_revision(local.member.origin())),
        members: messages(&members),
    })
}

/// A member as clients see it.
pub fn message(member: &Member) -> MemberMessage {
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
