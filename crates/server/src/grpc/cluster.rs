//! Service `Cluster`.
//!
//! Headers carry no revision here, as etcd's do not.

use std::rc::Rc;

use retcd_proto::etcdserverpb::{
    Member as MemberMessage, MemberAddRequest, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
};

use retcd_state::membership::Member;

use super::Framed;
use super::status::{self, Status};
use super::wire::frame;
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
    Ok(frame(&MemberListResponse {
        header: Some(local.member.header_at(0)),
        members,
    }))
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

/// `MemberAdd`.
pub async fn member_add(_local: Rc<Local>, _request: MemberAddRequest) -> Framed {
    Err(changes_unsupported())
}

/// `MemberRemove`.
pub async fn member_remove(local: Rc<Local>, request: MemberRemoveRequest) -> Framed {
    known(&local, request.id)?;
    Err(changes_unsupported())
}

/// `MemberUpdate`.
pub async fn member_update(local: Rc<Local>, request: MemberUpdateRequest) -> Framed {
    known(&local, request.id)?;
    Err(changes_unsupported())
}

/// `MemberPromote`; the only member there is votes already.
pub async fn member_promote(local: Rc<Local>, request: MemberPromoteRequest) -> Framed {
    known(&local, request.id)?;
    Err(status::MEMBER_NOT_LEARNER)
}

fn known(local: &Local, id: u64) -> Result<(), Status> {
    if local.member.membership.read().member(id).is_some() {
        Ok(())
    } else {
        Err(status::MEMBER_NOT_FOUND)
    }
}

fn changes_unsupported() -> Status {
    Status::unsupported("changes of the membership are")
}
