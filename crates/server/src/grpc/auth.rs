//! Service `Auth`.

use std::rc::Rc;

use retcd_member::access::Credentials;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_state::auth::AuthReply;

use super::encode::Plain;
use super::header::header;
use crate::server::ServerThread;
use crate::status::Status;

/// A change: a field of the log's request, and an answer that has a header and nothing else.
macro_rules! changes {
    ($($handler:ident: $request:ident -> $response:ident, $method:literal as $field:ident,)*) => {
        $(
            #[doc = concat!("`", $method, "`.")]
            pub(super) async fn $handler(
                thread: Rc<ServerThread>,
                credentials: Credentials,
                request: pb::$request,
            ) -> Result<Plain<pb::$response>, Status> {
                let request = InternalRaftRequest {
                    $field: Some(request),
                    ..Default::default()
                };
                let (_, revision) = thread.member.auth.ask(&credentials, request).await?;
                let header = Some(header(thread.server.member.origin(), revision));
                Ok(Plain(pb::$response { header }))
            }
        )*
    };
}

changes! {
    enable: AuthEnableRequest -> AuthEnableResponse, "AuthEnable" as auth_enable,
    disable: AuthDisableRequest -> AuthDisableResponse, "AuthDisable" as auth_disable,
    user_delete: AuthUserDeleteRequest -> AuthUserDeleteResponse, "UserDelete" as auth_user_delete,
    user_grant_role: AuthUserGrantRoleRequest -> AuthUserGrantRoleResponse,
        "UserGrantRole" as auth_user_grant_role,
    user_revoke_role: AuthUserRevokeRoleRequest -> AuthUserRevokeRoleResponse,
        "UserRevokeRole" as auth_user_revoke_role,
    role_add: AuthRoleAddRequest -> AuthRoleAddResponse, "RoleAdd" as auth_role_add,
    role_delete: AuthRoleDeleteRequest -> AuthRoleDeleteResponse, "RoleDelete" as auth_role_delete,
    role_grant_permission: AuthRoleGrantPermissionRequest -> AuthRoleGrantPermissionResponse,
        "RoleGrantPermission" as auth_role_grant_permission,
    role_revoke_permission: AuthRoleRevokePermissionRequest -> AuthRoleRevokePermissionResponse,
        "RoleRevokePermission" as auth_role_revoke_permission,
}

/// A question: a field of the log's request, the reply that it is answered with, and the answer
/// that this makes.
macro_rules! questions {
    ($($handler:ident: $request:ident -> $response:ident, $method:literal as $field:ident,
        $reply:pat => { $($answer:ident: $value:expr),* },)*) => {
        $(
            #[doc = concat!("`", $method, "`.")]
            pub(super) async fn $handler(
                thread: Rc<ServerThread>,
                credentials: Credentials,
                request: pb::$request,
            ) -> Result<Plain<pb::$response>, Status> {
                let request = InternalRaftRequest {
                    $field: Some(request),
                    ..Default::default()
                };
                let (reply, revision) = thread.member.auth.ask(&credentials, request).await?;
                let header = Some(header(thread.server.member.origin(), revision));
                match reply {
                    $reply => Ok(Plain(pb::$response { header, $($answer: $value),* })),
                    other => unreachable!(concat!($method, " was answered with {:?}"), other),
                }
            }
        )*
    };
}

questions! {
    status: AuthStatusRequest -> AuthStatusResponse, "AuthStatus" as auth_status,
        AuthReply::Status { enabled, revision } => { enabled: enabled, auth_revision: revision },
    user_get: AuthUserGetRequest -> AuthUserGetResponse, "UserGet" as auth_user_get,
        AuthReply::User(roles) => { roles: roles },
    user_list: AuthUserListRequest -> AuthUserListResponse, "UserList" as auth_user_list,
        AuthReply::Users(users) => { users: users },
    role_get: AuthRoleGetRequest -> AuthRoleGetResponse, "RoleGet" as auth_role_get,
        AuthReply::Role(perm) => { perm: perm },
    role_list: AuthRoleListRequest -> AuthRoleListResponse, "RoleList" as auth_role_list,
        AuthReply::Roles(roles) => { roles: roles },
}

/// `UserAdd`.
pub(super) async fn user_add(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: pb::AuthUserAddRequest,
) -> Result<Plain<pb::AuthUserAddResponse>, Status> {
    let (_, revision) = thread.member.auth.add_user(&credentials, request).await?;
    let header = Some(header(thread.server.member.origin(), revision));
    Ok(Plain(pb::AuthUserAddResponse { header }))
}

/// `UserChangePassword`.
pub(super) async fn user_change_password(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: pb::AuthUserChangePasswordRequest,
) -> Result<Plain<pb::AuthUserChangePasswordResponse>, Status> {
    let auth = &thread.member.auth;
    let (_, revision) = auth.change_password(&credentials, request).await?;
    let header = Some(header(thread.server.member.origin(), revision));
    Ok(Plain(pb::AuthUserChangePasswordResponse { header }))
}

/// `Authenticate`.
pub(super) async fn authenticate(
    thread: Rc<ServerThread>,
    _credentials: Credentials,
    request: pb::AuthenticateRequest,
) -> Result<Plain<pb::AuthenticateResponse>, Status> {
    let pb::AuthenticateRequest { name, password } = request;
    let (token, revision) = thread.member.auth.authenticate(&name, &password).await?;
    let header = Some(header(thread.server.member.origin(), revision));
    Ok(Plain(pb::AuthenticateResponse { header, token }))
}
