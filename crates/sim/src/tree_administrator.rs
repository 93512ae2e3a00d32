//! Who looks after users and roles of API v2: sets them up, switches authentication on, and goes on
//! changing them.

use std::time::Duration;

use fastrand::Rng;
use retcd_member::v2::{Patterns, Permissions, RoleChange, UserChange};

use crate::client::any_host;
use crate::context::{Context, Event};
use crate::history::OperationId;
use crate::model::tree::Tree;
use crate::request::Request;
use crate::request::tree::UsersRequest;
use crate::users::{self, Credentials, NAMES, PASSWORDS, ROLES};

/// The client number that its operations have.
pub const TREE_ADMINISTRATOR: usize = usize::MAX - 3;
const ROOT: &str = "root";
const GUEST: &str = "guest";
/// How `root` logs in; nobody changes that.
pub const ROOT_LOGIN: Credentials = Credentials::Password(ROOT, PASSWORDS[0]);
const PATIENCE: Duration = Duration::from_secs(4);

/// What roles allow: some of what clients ask for, some of it in two ways.
const PATTERNS: [&str; 9] = [
    "/*", "/k*", "/k0", "/k1", "/d0*", "/d0/*", "/d1*", "/q*", "/_h",
];

/// The administrator.
#[derive(Default)]
pub struct TreeAdministrator {
    /// The change under way.
    waiting_for: Option<OperationId>,
}

impl TreeAdministrator {
    /// Looks at users and roles, and changes something.
    pub fn administrate(&mut self, cx: &mut Context) {
        let missing = missing(cx.log.tree.model(), &mut cx.rng);
        let is_set_up = missing.is_none();
        if self.waiting_for.is_none() {
            let repairs = cx.rng.u8(..3) != 0;
            let request = missing.filter(|_| repairs);
            let request = request.unwrap_or_else(|| any_change(&mut cx.rng));
            let (host, request) = (any_host(cx), Request::TreeUsers(Box::new(request)));
            let operation = cx.ask(TREE_ADMINISTRATOR, host, request, ROOT_LOGIN, PATIENCE);
            self.waiting_for = Some(operation);
        }
        let pause = match is_set_up {
            true => cx.between_us(10_000, 900_000),
            false => cx.between_us(1_000, 40_000),
        };
        cx.after(pause, Event::AdministrateTree);
    }

    /// Hears how a change ended.
    pub fn returned(&mut self, operation: OperationId) {
        if self.waiting_for == Some(operation) {
            self.waiting_for = None;
        }
    }
}

/// The first thing that is missing; in the end, that authentication is on.
fn missing(tree: &Tree, rng: &mut Rng) -> Option<UsersRequest> {
    let has = |path: String| tree.value(&path, tree.index()).is_some();
    if !has(format!("/2/users/{ROOT}")) {
        return Some(UsersRequest::PutUser(ROOT, with_password(PASSWORDS[0])));
    }
    let mut roles = ROLES.into_iter().chain([GUEST]);
    if let Some(role) = roles.find(|role| !has(format!("/2/roles/{role}"))) {
        return Some(create(role, rng));
    }
    let mut names = NAMES.into_iter();
    if let Some(name) = names.find(|name| !has(format!("/2/users/{name}"))) {
        let user = UserChange {
            roles: Some(vec![users::any(rng, &ROLES).to_owned()]),
            ..with_password(any_password(rng))
        };
        return Some(UsersRequest::PutUser(name, user));
    }
    let enabled = tree.value("/2/enabled", tree.index());
    (enabled != Some("true")).then_some(UsersRequest::Enable)
}

/// Something, which may be foolish.
fn any_change(rng: &mut Rng) -> UsersRequest {
    let name = users::any(rng, &NAMES);
    let role = users::any(rng, &[&ROLES[..], &[GUEST, ROOT]].concat());
    let roles = |role: &str| vec![role.to_owned()];
    match rng.u8(..100) {
        0..25 => UsersRequest::PutRole(
            role,
            RoleChange::Update {
                grant: any_permissions(rng),
                revoke: Permissions::default(),
            },
        ),
        25..45 => UsersRequest::PutRole(
            role,
            RoleChange::Update {
                grant: Permissions::default(),
                revoke: any_permissions(rng),
            },
        ),
        45..60 => UsersRequest::PutUser(
            name,
            UserChange {
                grant: roles(role),
                ..UserChange::default()
            },
        ),
        60..72 => UsersRequest::PutUser(
            name,
            UserChange {
                revoke: roles(role),
                ..UserChange::default()
            },
        ),
        72..82 => UsersRequest::PutUser(name, with_password(any_password(rng))),
        82..88 => UsersRequest::DeleteUser(name),
        88..92 => UsersRequest::DeleteRole(role),
        92..95 => create(role, rng),
        95..98 => UsersRequest::Disable,
        _ => UsersRequest::Enable,
    }
}

fn with_password(password: &str) -> UserChange {
    UserChange {
        password: password.to_owned(),
        ..UserChange::default()
    }
}

/// Most often the one that clients try most often.
pub fn any_password(rng: &mut Rng) -> &'static str {
    match rng.u8(..4) {
        0 => users::any(rng, &PASSWORDS),
        _ => PASSWORDS[0],
    }
}

fn create(role: &'static str, rng: &mut Rng) -> UsersRequest {
    UsersRequest::PutRole(role, RoleChange::Create(any_permissions(rng)))
}

fn any_permissions(rng: &mut Rng) -> Permissions {
    let mut list = || {
        let number = rng.usize(..3);
        let patterns = (0..number).map(|_| users::any(rng, &PATTERNS).to_owned());
        Some(patterns.collect())
    };
    Permissions {
        kv: Patterns {
            read: list(),
            write: list(),
        },
    }
}
