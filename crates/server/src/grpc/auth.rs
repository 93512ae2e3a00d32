//! Service `Auth`.
//!
//! Changes and questions alike go through the log and are judged there, in their sender's name: the one
//! exception is a login, which nobody has to be logged in for. Passwords never go through it, only their
//! hashes.

use std::rc::Rc;

use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::{InternalAuthenticateRequest, InternalRaftRequest, ResponseHeader};
use retcd_state::auth::{AuthError, AuthReply, check_form};
use retcd_state::machine::Reply;

use super::Framed;
use super::answer::{Answer, answer};
use super::encode::Plain;
use super::header::header;
use super::status::Status;
use super::wire::frame;
use crate::auth::Credentials;
use crate::auth::passwords::check_length;
use crate::metrics::Operation;
use crate::runtime::Local;

/// A change: a field of the log's request, and an answer that has a header and nothing else.
macro_rules! changes {
    ($($handler:ident: $request:ident -> $response:ident, $operation:ident as $field:ident,)*) => {
        $(
            #[doc = concat!("`", stringify!($operation), "`.")]
            pub async fn $handler(
                local: Rc<Local>,
                credentials: Credentials,
                request: pb::$request,
            ) -> Framed {
                let request = InternalRaftRequest {
                    $field: Some(request),
                    ..Default::default()
                };
                let (header, _) = ask(&local, &credentials, Operation::$operation, request).await?;
                frame(&pb::$response { header })
            }
        )*
    };
}

changes! {
    enable: AuthEnableRequest -> AuthEnableResponse, AuthEnable as auth_enable,
    disable: AuthDisableRequest -> AuthDisableResponse, AuthDisable as auth_disable,
    user_delete: AuthUserDeleteRequest -> AuthUserDeleteResponse, AuthUserDelete as auth_user_delete,
    user_grant_role: AuthUserGrantRoleRequest -> AuthUserGrantRoleResponse,
        AuthUserGrantRole as auth_user_grant_role,
    user_revoke_role: AuthUserRevokeRoleRequest -> AuthUserRevokeRoleResponse,
        AuthUserRevokeRole as auth_user_revoke_role,
    role_add: AuthRoleAddRequest -> AuthRoleAddResponse, AuthRoleAdd as auth_role_add,
    role_delete: AuthRoleDeleteRequest -> AuthRoleDeleteResponse, AuthRoleDelete as auth_role_delete,
    role_grant_permission: AuthRoleGrantPermissionRequest -> AuthRoleGrantPermissionResponse,
        AuthRoleGrantPermission as auth_role_grant_permission,
    role_revoke_permission: AuthRoleRevokePermissionRequest -> AuthRoleRevokePermissionResponse,
        AuthRoleRevokePermission as auth_role_revoke_permission,
}

/// Puts a request through the log; the header of the answer, and the answer.
async fn ask(
    local: &Local,
    credentials: &Credentials,
    operation: Operation,
    request: InternalRaftRequest,
) -> Result<(Option<ResponseHeader>, AuthReply), Status> {
    check_form(&request)?;
    match local.propose_as(credentials, operation, request).await? {
        Reply::Auth { revision, reply } => {
            Ok((Some(header(local.member.origin(), revision)), reply))
        }
        other => unreachable!("a request about users was answered with {other:?}"),
    }
}

/// `UserAdd`, with a password or without.
///
/// Who may not add users is refused before anything is hashed for it.
pub async fn user_add(
    local: Rc<Local>,
    credentials: Credentials,
    mut request: pb::AuthUserAddRequest,
) -> Framed {
    let password = std::mem::take(&mut request.password);
    let has_password = !request.options.is_some_and(|options| options.no_password);
    if has_password {
        check_length(&password)?;
    }
    local.require_admin(&credentials).await?;
    if has_password {
        let passwords = &local.member.authenticator.passwords;
        request.hashed_password = passwords.hash(password).await?;
    }
    let request = InternalRaftRequest {
        auth_user_add: Some(request),
        ..Default::default()
    };
    let (header, _) = ask(&local, &credentials, Operation::AuthUserAdd, request).await?;
    frame(&pb::AuthUserAddResponse { header })
}

/// `UserChangePassword`; an empty password is none, so that nobody can log in with it.
pub async fn user_change_password(
    local: Rc<Local>,
    credentials: Credentials,
    mut request: pb::AuthUserChangePasswordRequest,
) -> Framed {
    let password = std::mem::take(&mut request.password);
    check_length(&password)?;
    local.require_admin(&credentials).await?;
    if !password.is_empty() {
        let passwords = &local.member.authenticator.passwords;
        request.hashed_password = passwords.hash(password).await?;
    }
    let request = InternalRaftRequest {
        auth_user_change_password: Some(request),
        ..Default::default()
    };
    let operation = Operation::AuthUserChangePassword;
    let (header, _) = ask(&local, &credentials, operation, request).await?;
    frame(&pb::AuthUserChangePasswordResponse { header })
}

/// `AuthStatus`.
pub async fn status(
    local: Rc<Local>,
    credentials: Credentials,
    request: pb::AuthStatusRequest,
) -> Framed {
    let request = InternalRaftRequest {
        auth_status: Some(request),
        ..Default::default()
    };
    match ask(&local, &credentials, Operation::AuthStatus, request).await? {
        (header, AuthReply::Status { enabled, revision }) => frame(&pb::AuthStatusResponse {
            header,
            enabled,
            auth_revision: revision,
        }),
        other => unreachable!("a question for the status was answered with {other:?}"),
    }
}

/// `UserGet`.
pub async fn user_get(
    local: Rc<Local>,
    credentials: Credentials,
    request: pb::AuthUserGetRequest,
) -> Result<Answer, Status> {
    let request = InternalRaftRequest {
        auth_user_get: Some(request),
        ..Default::default()
    };
    match ask(&local, &credentials, Operation::AuthUserGet, request).await? {
        (header, AuthReply::User(roles)) => {
            answer(&local, Plain(pb::AuthUserGetResponse { header, roles })).await
        }
        other => unreachable!("a question for a user was answered with {other:?}"),
    }
}

/// `UserList`.
pub async fn user_list(
    local: Rc<Local>,
    credentials: Credentials,
    request: pb::AuthUserListRequest,
) -> Result<Answer, Status> {
    let request = InternalRaftRequest {
        auth_user_list: Some(request),
        ..Default::default()
    };
    match ask(&local, &credentials, Operation::AuthUserList, request).await? {
        (header, AuthReply::Users(users)) => {
            answer(&local, Plain(pb::AuthUserListResponse { header, users })).await
        }
        other => unreachable!("a question for all users was answered with {other:?}"),
    }
}

/// `RoleGet`.
pub async fn role_get(
    local: Rc<Local>,
    credentials: Credentials,
    request: pb::AuthRoleGetRequest,
) -> Result<Answer, Status> {
    let request = InternalRaftRequest {
        auth_role_get: Some(request),
        ..Default::default()
    };
    match ask(&local, &credentials, Operation::AuthRoleGet, request).await? {
        (header, AuthReply::Role(perm)) => {
            answer(&local, Plain(pb::AuthRoleGetResponse { header, perm })).await
        }
        other => unreachable!("a question for a role was answered with {other:?}"),
    }
}

/// `RoleList`.
pub async fn role_list(
    local: Rc<Local>,
    credentials: Credentials,
    request: pb::AuthRoleListRequest,
) -> Result<Answer, Status> {
    let request = InternalRaftRequest {
        auth_role_list: Some(request),
        ..Default::default()
    };
    match ask(&local, &credentials, Operation::AuthRoleList, request).await? {
        (header, AuthReply::Roles(roles)) => {
            answer(&local, Plain(pb::AuthRoleListResponse { header, roles })).await
        }
        other => unreachable!("a question for all roles was answered with {other:?}"),
    }
}

/// `Authenticate`: a token for a name and its password.
///
/// The password is compared here, with what the member knows of it once it is up to date, and the login is
/// then put into the log, so that all members hear of the token. If users have changed meanwhile, the
/// password may have, too, and everything is done again.
pub async fn authenticate(
    local: Rc<Local>,
    _credentials: Credentials,
    request: pb::AuthenticateRequest,
) -> Framed {
    let pb::AuthenticateRequest { name, password } = request;
    local.linearizable().await?;
    let authenticator = &local.member.authenticator;
    loop {
        let checked = check_password(&local, &name, &password).await?;
        let (header, token, revision) = log_in(&local, &name).await?;
        if checked == revision {
            let token = authenticator.token(&name, token, revision).await?;
            return frame(&pb::AuthenticateResponse { header, token });
        }
        crate::info!("revision when password checked became stale; retrying");
    }
}

/// The revision of users and roles at which the password was the user's.
async fn check_password(local: &Local, name: &str, password: &str) -> Result<u64, Status> {
    let found = stored_password(local, name);
    let checked = match found {
        Ok((stored, revision)) => {
            let passwords = &local.member.authenticator.passwords;
            let fits = passwords.verify(password.to_owned(), stored).await?;
            fits.then_some(revision).ok_or(AuthError::Failed)
        }
        Err(AuthError::NotEnabled) => return Err(AuthError::NotEnabled.into()),
        Err(error) => Err(error),
    };
    checked.map_err(|error| {
        crate::warn!("invalid authentication was requested"; "user" => name, "error" => &format!("auth: {error}"));
        error.into()
    })
}

/// What is kept of a user's password, and the revision that it is of.
fn stored_password(local: &Local, name: &str) -> Result<(bytes::Bytes, u64), AuthError> {
    let store = local.member.auth.read();
    if !store.is_enabled() {
        return Err(AuthError::NotEnabled);
    }
    let user = store.user(name).ok_or(AuthError::Failed)?;
    if user.options.is_some_and(|options| options.no_password) {
        return Err(AuthError::NoPasswordUser);
    }
    Ok((user.password.clone(), store.revision()))
}

/// The header of the answer, the simple token, if tokens are, and the revision of users and roles at the login.
async fn log_in(
    local: &Local,
    name: &str,
) -> Result<(Option<ResponseHeader>, String, u64), Status> {
    let request = InternalAuthenticateRequest {
        name: name.to_owned(),
        simple_token: local.member.authenticator.draw_token()?,
        ..Default::default()
    };
    let request = InternalRaftRequest {
        authenticate: Some(request),
        ..Default::default()
    };
    let nobody = Credentials::default();
    match ask(local, &nobody, Operation::Authenticate, request).await? {
        (header, AuthReply::LoggedIn { token, revision }) => Ok((header, token, revision)),
        other => unreachable!("a login was answered with {other:?}"),
    }
}
