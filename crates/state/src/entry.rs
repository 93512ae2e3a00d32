//! What an entry of the log asks for.

use prost::bytes::Bytes;
use retcd_proto::etcdserverpb::{InternalRaftRequest, Request};
use retcd_proto::raftpb::Entry;
use retcd_proto::wire::{self, WireError};

/// A request of the log.
#[derive(Clone, Debug, PartialEq)]
pub enum LoggedRequest {
    /// Of API v3, or of the cluster.
    V3(Box<InternalRaftRequest>),
    /// Of API v2.
    V2(Box<Request>),
}

impl LoggedRequest {
    /// The request in a normal entry that is not empty. Before 3.5 those of API v2 were entries of
    /// their own.
    ///
    /// # Errors
    /// etcd cannot decode it either.
    pub fn of(entry: &Entry) -> Result<LoggedRequest, WireError> {
        let data = entry.data.clone().unwrap_or_default();
        let request = match wire::decode::<InternalRaftRequest>(data.clone()) {
            Ok(request) => request,
            Err(error) => return of_its_own(data).ok_or(error),
        };
        match v2_alone(&request) {
            _ if is_sync(&request) => of_its_own(data).ok_or(WireError::Malformed),
            None => Ok(LoggedRequest::V3(Box::new(request))),
            Some(v2) => Ok(LoggedRequest::V2(Box::new(wire::decode_proto2(v2)?))),
        }
    }
}

/// The request of API v2 that an entry is. Each names its method; without that any bytes could pass
/// for one that has nothing but fields that are unknown. Its strings are whatever clients of Go's
/// etcd have sent.
fn of_its_own(data: Bytes) -> Option<LoggedRequest> {
    let request: Request = wire::decode_proto2(data).ok()?;
    (!request.method().is_empty()).then(|| LoggedRequest::V2(Box::new(request)))
}

/// Whether what was decoded as a request of API v3 is a `SYNC` that is an entry of its own. The path
/// of any other such request fits no message; a `SYNC` has none, or an empty one, which passes for a
/// range. Its method is where API v3 has requests of API v2, and is none of these.
fn is_sync(request: &InternalRaftRequest) -> bool {
    request.v2.as_deref() == Some(b"SYNC")
}

/// The request of API v2 in one of API v3, if it is what counts.
fn v2_alone(request: &InternalRaftRequest) -> Option<Bytes> {
    request.v2.as_ref()?;
    let mut request = request.clone();
    keep_one(&mut request);
    request.v2
}

/// Of several requests in one, which nobody honest writes, one counts: what is executed by etcd's
/// members that were not asked (v3.7: `server/etcdserver/apply/apply.go`, `noSideEffect`;
/// `uber_applier.go`, `dispatch`). They pass over an entry with a question in it, whatever else it
/// says; otherwise they take the first, in the order in which they look.
pub(crate) fn keep_one(request: &mut InternalRaftRequest) {
    macro_rules! keep_first {
        ($($field:ident)*) => {
            let mut found = false;
            $(if found {
                request.$field = None;
            }
            found |= request.$field.is_some();)*
            let _ = found;
        };
    }
    keep_first!(
        range auth_user_get auth_role_get auth_status
        cluster_version_set cluster_member_attr_set downgrade_info_set downgrade_version_test
        put delete_range txn compaction lease_grant lease_revoke lease_checkpoint alarm
        authenticate auth_enable auth_disable auth_user_add auth_user_delete
        auth_user_change_password auth_user_grant_role auth_user_revoke_role
        auth_role_add auth_role_grant_permission auth_role_revoke_permission
        auth_role_delete auth_user_list auth_role_list v2
    );
}
