//! Who looks after users and roles: sets them up, switches authentication on, and goes on changing
//! its mind.
//!
//! One change at a time. What is missing is put back more often than something is taken away, so
//! that most users may do something most of the time.

use std::time::Duration;

use fastrand::Rng;
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthRoleListRequest, AuthRoleRevokePermissionRequest,
    AuthStatusRequest, AuthUserAddRequest, AuthUserChangePasswordRequest, AuthUserDeleteRequest,
    AuthUserGrantRoleRequest, AuthUserListRequest, AuthUserRevokeRoleRequest, InternalRaftRequest,
};

use crate::client::any_host;
use crate::context::{Context, Event};
use crate::history::OperationId;
use crate::model::auth::Auth;
use crate::request::Request;
use crate::users::{self, Credentials, NAMES, PASSWORDS, ROLES};
use crate::workload;
use retcd_proto::authpb::UserAddOptions;

/// The client number that operations of the administrator have.
pub const ADMINISTRATOR: usize = usize::MAX - 1;
const ROOT: &str = "root";
/// How long the administrator waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// The administrator.
#[derive(Default)]
pub struct Administrator {
    /// The change under way.
    waiting_for: Option<OperationId>,
    /// Whether there was a time when nothing was missing.
    has_set_up: bool,
}

impl Administrator {
    /// Looks at users and roles and changes something.
    pub fn administrate(&mut self, cx: &mut Context) {
        let is_full = cx.log.model.full().next().is_some();
        if self.waiting_for.is_none() && is_full && cx.rng.bool() {
            let request = workload::alarm(AlarmAction::Deactivate, cx);
            self.ask(request, cx);
        }
        if self.waiting_for.is_none() {
            let auth = &cx.log.model.auth;
            let missing = missing(auth, &mut cx.rng);
            let repairs = !self.has_set_up || cx.rng.u8(..5) < 2;
            let request = match missing {
                Some(request) if repairs => request,
                missing => {
                    self.has_set_up |= missing.is_none();
                    any_change(auth, &mut cx.rng)
                }
            };
            self.ask(Request::Write(Box::new(request)), cx);
        }
        let pause = match self.has_set_up {
            true => cx.between_us(10_000, 700_000),
            false => cx.between_us(1_000, 40_000),
        };
        cx.after(pause, Event::Administrate);
    }

    /// Hears how a change ended.
    pub fn returned(&mut self, operation: OperationId) {
        if self.waiting_for == Some(operation) {
            self.waiting_for = None;
        }
    }

    fn ask(&mut self, request: Request, cx: &mut Context) {
        let host = any_host(cx);
        let root = Credentials::Certificate(ROOT);
        let operation = cx.ask(ADMINISTRATOR, host, request, root, PATIENCE);
        self.waiting_for = Some(operation);
    }
}

/// Puts back the first thing that is missing, and in the end switches authentication on.
fn missing(auth: &Auth, rng: &mut Rng) -> Option<InternalRaftRequest> {
    if let Some(role) = ROLES.iter().find(|role| !auth.roles.contains_key(**role)) {
        return Some(add_role(role));
    }
    for (role, permissions) in &auth.roles {
        if permissions.is_empty() {
            return Some(permit(role, rng));
        }
    }
    for name in [&[ROOT], &NAMES[..]].concat() {
        let Some(user) = auth.users.get(name) else {
            return Some(add_user(name, rng));
        };
        if user.roles.is_empty() {
            let role = match name {
                ROOT => ROOT,
                _ => users::any(rng, &ROLES),
            };
            return Some(grant(name, role));
        }
    }
    let root = auth.users.get(ROOT);
    if root.is_some_and(|root| !root.roles.contains(ROOT)) {
        return Some(grant(ROOT, ROOT));
    }
    (!auth.enabled).then(|| InternalRaftRequest {
        auth_enable: Some(AuthEnableRequest::default()),
        ..Default::default()
    })
}

/// Changes or asks something, which may be foolish.
fn any_change(auth: &Auth, rng: &mut Rng) -> InternalRaftRequest {
    let name = match rng.u8(..20) {
        0 => ROOT,
        _ => users::any(rng, &NAMES),
    };
    let role = match rng.u8(..30) {
        0 => ROOT,
        _ => users::any(rng, &ROLES),
    };
    let mut r = InternalRaftRequest::default();
    match rng.u8(..100) {
        0..25 => return permit(role, rng),
        25..40 => r.auth_role_revoke_permission = revoke_permission(auth, role, rng),
        40..55 => return grant(name, role),
        55..65 => {
            let (name, role) = (name.to_owned(), role.to_owned());
            r.auth_user_revoke_role = Some(AuthUserRevokeRoleRequest { name, role });
        }
        65..72 => {
            let name = name.to_owned();
            r.auth_user_delete = Some(AuthUserDeleteRequest { name });
        }
        72..76 => return add_user(name, rng),
        76..84 => {
            r.auth_user_change_password = Some(AuthUserChangePasswordRequest {
                name: name.to_owned(),
                hashed_password: users::hash(users::any(rng, &PASSWORDS)).to_owned(),
                ..Default::default()
            });
        }
        84..87 => {
            let role = role.to_owned();
            r.auth_role_delete = Some(AuthRoleDeleteRequest { role });
        }
        87..89 => return add_role(role),
        89..93 => r.auth_disable = Some(AuthDisableRequest::default()),
        93..95 => r.auth_enable = Some(AuthEnableRequest::default()),
        95 | 96 => r.auth_user_list = Some(AuthUserListRequest::default()),
        97 => r.auth_role_list = Some(AuthRoleListRequest::default()),
        _ => r.auth_status = Some(AuthStatusRequest::default()),
    }
    r
}

fn add_role(name: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        auth_role_add: Some(AuthRoleAddRequest {
            name: name.to_owned(),
        }),
        ..Default::default()
    }
}

fn add_user(name: &str, rng: &mut Rng) -> InternalRaftRequest {
    let no_password = rng.u8(..6) == 0;
    let hashed_password = match no_password {
        true => String::new(),
        false => users::hash(users::any(rng, &PASSWORDS)).to_owned(),
    };
    InternalRaftRequest {
        auth_user_add: Some(AuthUserAddRequest {
            name: name.to_owned(),
            hashed_password,
            options: Some(UserAddOptions { no_password }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn grant(user: &str, role: &str) -> InternalRaftRequest {
    InternalRaftRequest {
        auth_user_grant_role: Some(AuthUserGrantRoleRequest {
            user: user.to_owned(),
            role: role.to_owned(),
        }),
        ..Default::default()
    }
}

fn permit(role: &str, rng: &mut Rng) -> InternalRaftRequest {
    InternalRaftRequest {
        auth_role_grant_permission: Some(AuthRoleGrantPermissionRequest {
            name: role.to_owned(),
            perm: Some(users::any_permission(rng)),
        }),
        ..Default::default()
    }
}

/// Most often one that the role has.
fn revoke_permission(
    auth: &Auth,
    role: &str,
    rng: &mut Rng,
) -> Option<AuthRoleRevokePermissionRequest> {
    let granted = auth.roles.get(role).filter(|granted| !granted.is_empty());
    let permission = match granted {
        Some(granted) => granted[rng.usize(..granted.len())].clone(),
        None => users::any_permission(rng),
    };
    Some(AuthRoleRevokePermissionRequest {
        role: role.to_owned(),
        key: permission.key,
        range_end: permission.range_end,
    })
}
