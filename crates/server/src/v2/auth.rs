//! `/v2/auth`: users, roles, and whether they count.

use http::StatusCode;
use retcd_member::v2::{
    Auth, AuthError, Patterns, Permissions, Refusal, Role, RoleChange, UserChange,
};
use retcd_proto::go_json::{self, JsonError, Object};
use serde::Serialize;
use serde_json::Value;

use super::Context;
use super::credentials::login_of;
use super::document::to_json;
use super::form::read_all;
use super::reply::{self, Response, message};

const NO_JSON: &str = "Invalid JSON in request body.";

/// A user as it is shown, with what its roles allow.
#[derive(Serialize)]
struct UserDocument {
    user: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<Role>,
}

/// `null` if there are none.
#[derive(Serialize)]
struct UsersDocument {
    users: Option<Vec<UserDocument>>,
}

#[derive(Serialize)]
struct RolesDocument {
    roles: Vec<Role>,
}

/// A user after a change.
#[derive(Serialize)]
struct ChangedUser {
    user: String,
    roles: Option<Vec<String>>,
}

#[derive(Serialize)]
struct Enabled {
    enabled: bool,
}

/// An answer, or one that says why not.
type Result = std::result::Result<Response, Response>;

/// `/v2/auth/enable`.
pub(super) async fn enable(context: &Context<'_>) -> Response {
    let methods = &["GET", "PUT", "DELETE"];
    if let Some(refusal) = reply::refuse_method(context.method(), methods) {
        return refusal;
    }
    let method = context.method().as_str();
    if method != "GET"
        && let Err(refusal) = require_root(context).await
    {
        return refusal;
    }
    let auth = context.thread.member.v2.auth();
    let changed = match method {
        "GET" => {
            let enabled = auth.is_enabled();
            return shown(context, document(StatusCode::OK, &Enabled { enabled }));
        }
        "PUT" => auth.enable().await,
        _ => auth.disable().await,
    };
    shown(context, done(changed))
}

/// `/v2/auth/users`, or one of them.
pub(super) async fn users(mut context: Context<'_>, name: Option<String>) -> Response {
    let Some(name) = name else {
        return list(&context, |auth| {
            let users: Vec<UserDocument> = auth
                .users()
                .iter()
                .filter_map(|name| user_document(auth, name, Dangling::LeftOut).ok())
                .collect();
            let users = Some(users).filter(|users| !users.is_empty());
            document(StatusCode::OK, &UsersDocument { users })
        })
        .await;
    };
    let answer = async |context: &mut Context<'_>| {
        let auth = context.thread.member.v2.auth();
        match context.method().as_str() {
            "GET" => {
                let user = user_document(auth, &name, Dangling::Refused);
                let user = user.map_err(|error| refused(error.into()))?;
                Ok(document(StatusCode::OK, &user))
            }
            "PUT" => {
                let change = user_change(&name, &body(context).await?).map_err(bad)?;
                let (user, created) = auth.put_user(&name, change).await.map_err(refused)?;
                let status = match created {
                    true => StatusCode::CREATED,
                    false => StatusCode::OK,
                };
                let user = ChangedUser {
                    user: user.user,
                    roles: user.roles,
                };
                Ok(document(status, &user))
            }
            _ => Ok(done(auth.delete_user(&name).await)),
        }
    };
    one(&mut context, answer).await
}

/// `/v2/auth/roles`, or one of them.
pub(super) async fn roles(mut context: Context<'_>, name: Option<String>) -> Response {
    let Some(name) = name else {
        return list(&context, |auth| {
            let names = auth.roles();
            let roles = names.iter().filter_map(|name| auth.role(name).ok());
            let roles = roles.collect();
            document(StatusCode::OK, &RolesDocument { roles })
        })
        .await;
    };
    let answer = async |context: &mut Context<'_>| {
        let auth = context.thread.member.v2.auth();
        match context.method().as_str() {
            "GET" => {
                let role = auth.role(&name);
                let role = role.map_err(|error| refused(error.into()))?;
                Ok(document(StatusCode::OK, &role))
            }
            "PUT" => {
                let change = role_change(&name, &body(context).await?).map_err(bad)?;
                let status = match change {
                    RoleChange::Create(_) => StatusCode::CREATED,
                    RoleChange::Update { .. } => StatusCode::OK,
                };
                let role = auth.put_role(&name, change).await.map_err(refused)?;
                Ok(document(status, &role))
            }
            _ => Ok(done(auth.delete_role(&name).await)),
        }
    };
    one(&mut context, answer).await
}

/// A list, for whom it may be shown to.
async fn list(context: &Context<'_>, show: impl FnOnce(Auth<'_>) -> Response) -> Response {
    if let Some(refusal) = reply::refuse_method(context.method(), &["GET"]) {
        return refusal;
    }
    match require_root(context).await {
        Ok(()) => shown(context, show(context.thread.member.v2.auth())),
        Err(refusal) => refusal,
    }
}

/// A user or a role, for whom it may be shown to or changed by.
async fn one(
    context: &mut Context<'_>,
    answer: impl AsyncFnOnce(&mut Context<'_>) -> Result,
) -> Response {
    let methods = &["GET", "PUT", "DELETE"];
    if let Some(refusal) = reply::refuse_method(context.method(), methods) {
        return refusal;
    }
    if let Err(refusal) = require_root(context).await {
        return refusal;
    }
    let answer = answer(context).await;
    shown(context, answer.unwrap_or_else(|refusal| refusal))
}

async fn require_root(context: &Context<'_>) -> std::result::Result<(), Response> {
    let login = login_of(context.head.headers(), context.head.extensions());
    match context.thread.member.v2.auth().is_root(&login).await {
        Ok(true) => Ok(()),
        Ok(false) => Err(reply::unauthorized()),
        Err(error) => Err(reply::failure(&error)),
    }
}

fn shown(context: &Context<'_>, response: Response) -> Response {
    reply::with_cluster(context.thread, response)
}

fn document(status: StatusCode, value: &impl Serialize) -> Response {
    reply::json(status, to_json(value) + "\n")
}

fn done(result: std::result::Result<(), Refusal>) -> Response {
    match result {
        Ok(()) => reply::json(StatusCode::OK, ""),
        Err(refusal) => refused(refusal),
    }
}

/// What becomes of a user's roles that do not exist.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Dangling {
    LeftOut,
    Refused,
}

fn user_document(
    auth: Auth<'_>,
    name: &str,
    dangling: Dangling,
) -> std::result::Result<UserDocument, AuthError> {
    let user = auth.user(name)?;
    let mut roles = Vec::new();
    for name in user.roles.iter().flatten() {
        match auth.role(name) {
            Ok(role) => roles.push(role),
            Err(_) if dangling == Dangling::LeftOut => {}
            Err(error) => return Err(error),
        }
    }
    let user = user.user;
    Ok(UserDocument { user, roles })
}

/// The first value in the body.
async fn body(context: &mut Context<'_>) -> std::result::Result<Value, Response> {
    let body = read_all(context.body).await;
    let value = body.ok().and_then(|body| go_json::parse_first(&body));
    value.ok_or_else(|| bad(NO_JSON))
}

fn bad(text: &str) -> Response {
    message(StatusCode::BAD_REQUEST, text)
}

fn user_change(name: &str, body: &Value) -> std::result::Result<UserChange, &'static str> {
    let (user, change) = parse_user_change(body).map_err(|_| NO_JSON)?;
    if user != name {
        return Err("User JSON name does not match the name in the URL");
    }
    let has_roles = change.roles.as_ref().is_some_and(|roles| !roles.is_empty());
    if has_roles && !(change.grant.is_empty() && change.revoke.is_empty()) {
        return Err("User JSON contains both roles and grant/revoke");
    }
    Ok(change)
}

fn parse_user_change(body: &Value) -> std::result::Result<(String, UserChange), JsonError> {
    let document = Object::of(body, "auth.User")?;
    let change = UserChange {
        password: document.string("password")?,
        roles: document.strings("roles")?,
        grant: document.strings("grant")?.unwrap_or_default(),
        revoke: document.strings("revoke")?.unwrap_or_default(),
    };
    Ok((document.string("user")?, change))
}

fn role_change(name: &str, body: &Value) -> std::result::Result<RoleChange, &'static str> {
    let parse = || {
        let document = Object::of(body, "auth.Role")?;
        let role = document.string("role")?;
        let kinds = ["permissions", "grant", "revoke"].map(|kind| permissions(&document, kind));
        let [permissions, grant, revoke] = kinds;
        Ok::<_, JsonError>((role, permissions?, grant?, revoke?))
    };
    let (role, permissions, grant, revoke) = parse().map_err(|_| NO_JSON)?;
    if role != name {
        return Err("Role JSON name does not match the name in the URL");
    }
    if grant.kv.is_empty() && revoke.kv.is_empty() {
        return Ok(RoleChange::Create(permissions));
    }
    if !permissions.kv.is_empty() {
        return Err("Role JSON contains both permissions and grant/revoke");
    }
    Ok(RoleChange::Update { grant, revoke })
}

fn permissions(document: &Object<'_>, name: &str) -> std::result::Result<Permissions, JsonError> {
    let permissions = document.object(name, "auth.Permissions")?;
    let kv = permissions.object("kv", "auth.RWPermission")?;
    Ok(Permissions {
        kv: Patterns {
            read: kv.strings("read")?,
            write: kv.strings("write")?,
        },
    })
}

fn refused(refusal: Refusal) -> Response {
    match refusal {
        Refusal::Auth(error) => {
            let (status, text) = told(error);
            message(status, &format!("auth: {text}"))
        }
        Refusal::Tree(error) => {
            crate::warn!("the tree of API v2 refused a change of users or roles"; "error" => error.to_string());
            message(StatusCode::INTERNAL_SERVER_ERROR, "Internal Server Error")
        }
        Refusal::Member(error) => reply::failure(&error),
    }
}

/// Status and text, by which clients tell errors apart.
fn told(error: AuthError) -> (StatusCode, String) {
    let missing = StatusCode::NOT_FOUND;
    let conflict = StatusCode::CONFLICT;
    match error {
        AuthError::UserNotFound(name) => (missing, format!("User {name} does not exist.")),
        // Without a full stop.
        AuthError::UserNotFoundToDelete(name) => (missing, format!("User {name} does not exist")),
        AuthError::RoleNotFound(name) => (missing, format!("Role {name} does not exist.")),
        AuthError::RoleNotFoundToDelete(name) => (missing, format!("Role {name} doesn't exist.")),
        AuthError::UserExists(name) => (conflict, format!("User {name} already exists.")),
        AuthError::RoleExists(name) => (conflict, format!("Role {name} already exists.")),
        AuthError::RootRole => (
            StatusCode::FORBIDDEN,
            "Cannot modify role root: is root role.".to_owned(),
        ),
        AuthError::RootUserNeeded => (
            StatusCode::FORBIDDEN,
            "Cannot delete root user while auth is enabled.".to_owned(),
        ),
        AuthError::EmptyPassword(name) => (
            StatusCode::BAD_REQUEST,
            format!("Cannot create user {name} with an empty password"),
        ),
        AuthError::UserUnchanged => (
            StatusCode::BAD_REQUEST,
            "User not updated. Use grant/revoke/password to update the user.".to_owned(),
        ),
        AuthError::RoleUnchanged => (
            StatusCode::BAD_REQUEST,
            "Role not updated. Use grant/revoke to update the role.".to_owned(),
        ),
        AuthError::DuplicateRole { role, user } => (
            conflict,
            format!("Granting duplicate role {role} for user {user}"),
        ),
        AuthError::UngrantedRole { role, user } => (
            conflict,
            format!("Revoking ungranted role {role} for user {user}"),
        ),
        AuthError::DuplicatePermission { write, pattern } => {
            let kind = if write { "write" } else { "read" };
            let text = format!("Granting duplicate {kind} permission {pattern}");
            (conflict, text)
        }
        AuthError::AlreadyEnabled => (conflict, "already enabled".to_owned()),
        AuthError::AlreadyDisabled => (conflict, "already disabled".to_owned()),
        AuthError::NoRootUser => (
            conflict,
            "No root user available, please create one".to_owned(),
        ),
    }
}
