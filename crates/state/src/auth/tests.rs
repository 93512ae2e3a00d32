//! The store beside a naive model: the same answers, the same rows, and what is refused changes
//! nothing. The model writes its rows byte by byte, and knows nothing of sorting but bubbles.

use retcd_proto::authpb::UserAddOptions;
use retcd_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest, AuthUserAddRequest,
    AuthUserChangePasswordRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest,
    AuthUserRevokeRoleRequest, InternalRaftRequest,
};
use retcd_storage::backend::Backend;

use super::*;

/// A change, as the model sees it.
#[derive(Clone, Debug)]
enum Change {
    Enable,
    Disable,
    UserAdd(String, Option<UserAddOptions>, &'static str),
    UserDelete(String),
    Password(String, &'static str),
    Grant(String, String),
    Revoke(String, String),
    RoleAdd(String),
    RoleDelete(String),
    Permit(String, Option<Permission>),
    Forbid(String, Vec<u8>, Vec<u8>),
}

impl Change {
    fn request(&self) -> InternalRaftRequest {
        let mut r = InternalRaftRequest::default();
        match self.clone() {
            Change::Enable => r.auth_enable = Some(AuthEnableRequest {}),
            Change::Disable => r.auth_disable = Some(AuthDisableRequest {}),
            Change::UserAdd(name, options, hash) => {
                r.auth_user_add = Some(AuthUserAddRequest {
                    name,
                    options,
                    password: String::new(),
                    hashed_password: hash.into(),
                });
            }
            Change::UserDelete(name) => r.auth_user_delete = Some(AuthUserDeleteRequest { name }),
            Change::Password(name, hash) => {
                r.auth_user_change_password = Some(AuthUserChangePasswordRequest {
                    name,
                    password: String::new(),
                    hashed_password: hash.into(),
                });
            }
            Change::Grant(user, role) => {
                r.auth_user_grant_role = Some(AuthUserGrantRoleRequest { user, role });
            }
            Change::Revoke(name, role) => {
                r.auth_user_revoke_role = Some(AuthUserRevokeRoleRequest { name, role });
            }
            Change::RoleAdd(name) => r.auth_role_add = Some(AuthRoleAddRequest { name }),
            Change::RoleDelete(role) => {
                r.auth_role_delete = Some(AuthRoleDeleteRequest { role });
            }
            Change::Permit(name, perm) => {
                r.auth_role_grant_permission = Some(AuthRoleGrantPermissionRequest { name, perm });
            }
            Change::Forbid(role, key, range_end) => {
                r.auth_role_revoke_permission = Some(AuthRoleRevokePermissionRequest {
                    role,
                    key: key.into(),
                    range_end: range_end.into(),
                });
            }
        }
        r
    }
}

struct ModelUser {
    name: String,
    password: &'static [u8],
    roles: Vec<String>,
    options: Option<bool>,
}

struct ModelRole {
    name: String,
    /// Type, key and end.
    permissions: Vec<(i32, Vec<u8>, Vec<u8>)>,
}

#[derive(Default)]
struct Model {
    enabled: Option<bool>,
    revision: u64,
    users: Vec<ModelUser>,
    roles: Vec<ModelRole>,
}

/// What the hashes in the requests decode to.
fn decoded(hash: &str) -> Result<&'static [u8], AuthError> {
    match hash {
        "" => Ok(b""),
        "aGFzaA==" => Ok(b"hash"),
        "b3RoZXI=" => Ok(b"other"),
        _ => Err(AuthError::BadPasswordHash),
    }
}

impl Model {
    /// Whether the change has changed anything that counts.
    fn change(&mut self, change: &Change) -> Result<bool, AuthError> {
        let on = self.enabled == Some(true);
        match change {
            Change::Enable => {
                if on {
                    return Ok(false);
                }
                let root = self.user("root").ok_or(AuthError::RootUserNotFound)?;
                if !self.users[root].roles.iter().any(|role| role == "root") {
                    return Err(AuthError::RootRoleNotGranted);
                }
                self.enabled = Some(true);
                Ok(false)
            }
            Change::Disable => {
                if on {
                    self.enabled = Some(false);
                }
                Ok(on)
            }
            Change::UserAdd(name, options, hash) => {
                if name.is_empty() {
                    return Err(AuthError::UserEmpty);
                } else if self.user(name).is_some() {
                    return Err(AuthError::UserExists);
                }
                let no_password = options.is_some_and(|options| options.no_password);
                let password = if no_password { b"" } else { decoded(hash)? };
                let (name, options) = (name.clone(), Some(no_password));
                self.users.push(ModelUser {
                    name,
                    password,
                    roles: Vec::new(),
                    options,
                });
                bubble(&mut self.users, |user| user.name.clone().into_bytes());
                Ok(true)
            }
            Change::UserDelete(name) => {
                if on && name == "root" {
                    return Err(AuthError::InvalidManagement);
                }
                let user = self.user(name).ok_or(AuthError::UserNotFound)?;
                self.users.remove(user);
                Ok(true)
            }
            Change::Password(name, hash) => {
                let user = self.user(name).ok_or(AuthError::UserNotFound)?;
                if self.users[user].options != Some(true) {
                    self.users[user].password = decoded(hash)?;
                }
                Ok(true)
            }
            Change::Grant(name, role) => {
                let user = self.user(name).ok_or(AuthError::UserNotFound)?;
                if role != "root" && self.role(role).is_none() {
                    return Err(AuthError::RoleNotFound);
                }
                let roles = &mut self.users[user].roles;
                if roles.contains(role) {
                    return Ok(false);
                }
                roles.push(role.clone());
                bubble(roles, |role| role.clone().into_bytes());
                Ok(true)
            }
            Change::Revoke(name, role) => {
                if on && name == "root" && role == "root" {
                    return Err(AuthError::InvalidManagement);
                }
                let user = self.user(name).ok_or(AuthError::UserNotFound)?;
                let roles = &mut self.users[user].roles;
                let at = roles.iter().position(|granted| granted == role);
                roles.remove(at.ok_or(AuthError::RoleNotGranted)?);
                Ok(true)
            }
            Change::RoleAdd(name) => {
                if name.is_empty() {
                    return Err(AuthError::RoleEmpty);
                } else if self.role(name).is_some() {
                    return Err(AuthError::RoleExists);
                }
                let (name, permissions) = (name.clone(), Vec::new());
                self.roles.push(ModelRole { name, permissions });
                bubble(&mut self.roles, |role| role.name.clone().into_bytes());
                Ok(true)
            }
            Change::RoleDelete(name) => {
                if on && name == "root" {
                    return Err(AuthError::InvalidManagement);
                }
                let role = self.role(name).ok_or(AuthError::RoleNotFound)?;
                self.roles.remove(role);
                for user in &mut self.users {
                    user.roles.retain(|granted| granted != name);
                }
                Ok(true)
            }
            Change::Permit(name, permission) => self.permit(name, permission.as_ref()),
            Change::Forbid(name, key, end) => {
                let role = self.role(name).ok_or(AuthError::RoleNotFound)?;
                let permissions = &mut self.roles[role].permissions;
                let before = permissions.len();
                permissions.retain(|(_, k, e)| (k, e) != (key, end));
                if permissions.len() == before {
                    return Err(AuthError::PermissionNotGranted);
                }
                Ok(true)
            }
        }
    }

    fn permit(&mut self, name: &str, new: Option<&Permission>) -> Result<bool, AuthError> {
        let new = new.ok_or(AuthError::PermissionNotGiven)?;
        let (kind, key, end) = (new.perm_type, new.key.to_vec(), new.range_end.to_vec());
        let one_key = end.is_empty();
        let to_the_end = end == [0];
        if key.is_empty() || !(one_key || to_the_end || key < end) {
            return Err(AuthError::InvalidManagement);
        }
        let role = self.role(name).ok_or(AuthError::RoleNotFound)?;
        let permissions = &mut self.roles[role].permissions;
        // Only the first with the key counts.
        match permissions.iter_mut().find(|(_, k, _)| *k == key) {
            Some((granted, _, e)) if *e == end => *granted = kind,
            _ => permissions.push((kind, key, end)),
        }
        bubble(permissions, |(_, key, _)| key.clone());
        Ok(true)
    }

    fn user(&self, name: &str) -> Option<usize> {
        self.users.iter().position(|user| user.name == name)
    }

    fn role(&self, name: &str) -> Option<usize> {
        self.roles.iter().position(|role| role.name == name)
    }

    fn rows(&self) -> Vec<(Bucket, Vec<u8>, Vec<u8>)> {
        let mut rows = Vec::new();
        if let Some(enabled) = self.enabled {
            rows.push((Bucket::Auth, ENABLED.to_vec(), vec![enabled.into()]));
        }
        let revision = self.revision.to_be_bytes().to_vec();
        rows.push((Bucket::Auth, REVISION.to_vec(), revision));
        for user in &self.users {
            let mut row = field(1, user.name.as_bytes());
            row.extend(field(2, user.password));
            for role in &user.roles {
                row.extend(field(3, role.as_bytes()));
            }
            match user.options {
                None => {}
                Some(false) => row.extend(b"\x22\x00"),
                Some(true) => row.extend(b"\x22\x02\x08\x01"),
            }
            rows.push((Bucket::AuthUsers, user.name.clone().into(), row));
        }
        for role in &self.roles {
            let mut row = field(1, role.name.as_bytes());
            for (kind, key, end) in &role.permissions {
                let mut permission = match kind {
                    0 => Vec::new(),
                    _ => vec![0x08, *kind as u8],
                };
                permission.extend(field(2, key));
                permission.extend(field(3, end));
                row.extend(field(2, &permission));
            }
            rows.push((Bucket::AuthRoles, role.name.clone().into(), row));
        }
        rows
    }
}

/// A short field of bytes; nothing if it is empty.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    assert!(bytes.len() < 128, "{}", bytes.len());
    if bytes.is_empty() {
        return Vec::new();
    }
    [&[number << 3 | 2, bytes.len() as u8], bytes].concat()
}

fn bubble<T>(items: &mut [T], key: impl Fn(&T) -> Vec<u8>) {
    for _ in 0..items.len() {
        for at in 1..items.len() {
            if key(&items[at]) < key(&items[at - 1]) {
                items.swap(at, at - 1);
            }
        }
    }
}

fn rows(backend: &Backend) -> Vec<(Bucket, Vec<u8>, Vec<u8>)> {
    let reader = backend.reader();
    let mut rows = Vec::new();
    for bucket in [Bucket::Auth, Bucket::AuthUsers, Bucket::AuthRoles] {
        for row in reader.range(bucket, b"", None) {
            let (key, value) = row.unwrap();
            rows.push((bucket, key.to_vec(), value.to_vec()));
        }
    }
    rows
}

fn choose<T: Clone>(rng: &mut fastrand::Rng, of: &[T]) -> T {
    of[rng.usize(..of.len())].clone()
}

fn random(rng: &mut fastrand::Rng) -> Change {
    let names = ["", "a", "b", "root", "root", "zz"];
    let user = choose(rng, &names).to_owned();
    let role = choose(rng, &names).to_owned();
    let hash = choose(rng, &["", "aGFzaA==", "b3RoZXI=", "?"]);
    let ends: [&[u8]; 7] = [b"", b"\0", b"j", b"k", b"k\0", b"l", b"n"];
    let (key, range_end) = (choose(rng, &ends[2..]), choose(rng, &ends));
    let permission = Permission {
        perm_type: rng.i32(0..3),
        key: if rng.u8(..10) == 0 { b"" } else { key }.to_vec().into(),
        range_end: range_end.to_vec().into(),
    };
    match rng.u8(..40) {
        0 | 1 => Change::Enable,
        2 => Change::Disable,
        3..=7 => {
            let no_password = rng.bool();
            let options = rng.bool().then_some(UserAddOptions { no_password });
            Change::UserAdd(user, options, hash)
        }
        8 => Change::UserDelete(user),
        9..=11 => Change::Password(user, hash),
        12..=17 => Change::Grant(user, role),
        18..=20 => Change::Revoke(user, role),
        21..=24 => Change::RoleAdd(role),
        25 => Change::RoleDelete(role),
        26..=35 => Change::Permit(role, (rng.u8(..10) > 0).then_some(permission)),
        _ => Change::Forbid(role, key.into(), range_end.into()),
    }
}

/// A store, its backend and its model.
struct Bench {
    backend: Backend,
    store: AuthStore,
    model: Model,
}

impl Bench {
    fn new() -> Bench {
        let backend = Backend::default();
        let mut store = AuthStore::open(&backend.reader()).unwrap();
        let mut batch = WriteBatch::default();
        store.initialize(&mut batch);
        backend.write(batch);
        let model = Model {
            revision: 1,
            ..Default::default()
        };
        Bench {
            backend,
            store,
            model,
        }
    }

    /// Makes a change in both and compares them; the answer.
    fn check(&mut self, change: &Change) -> Result<AuthReply, AuthError> {
        let before = self.store.clone();
        let mut batch = WriteBatch::default();
        let answer = self.store.apply(5, &change.request(), &mut batch);
        let answer = answer.expect("each change is about authentication");
        let expected = self.model.change(change).map(|counts| {
            self.model.revision += u64::from(counts);
            AuthReply::Done
        });
        assert_eq!(answer, expected, "{change:?}");
        if answer.is_err() {
            assert_eq!(self.store, before, "{change:?}");
            assert!(batch.is_empty(), "{change:?}");
        }
        self.backend.write(batch);
        assert_eq!(rows(&self.backend), self.model.rows(), "{change:?}");
        assert_eq!(self.store.revision(), self.model.revision);
        assert_eq!(self.store.is_enabled(), self.model.enabled == Some(true));
        answer
    }
}

#[test]
fn the_store_is_as_its_model() {
    let mut outcomes = std::collections::BTreeMap::new();
    for seed in 0..40 {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut bench = Bench::new();
        for _ in 0..250 {
            let change = random(&mut rng);
            let answer = bench.check(&change);
            *outcomes.entry(format!("{answer:?}")).or_insert(0) += 1;
        }
        let reopened = AuthStore::open(&bench.backend.reader()).unwrap();
        assert_eq!(reopened, bench.store);
    }
    // The dice reach every answer but those of questions and of names that no key can hold.
    assert_eq!(outcomes.len(), 14, "{outcomes:?}");
    assert!(outcomes.values().all(|&times| times > 3), "{outcomes:?}");
}

fn permit(from: &[u8], to: &[u8], perm_type: i32) -> Change {
    let permission = Permission {
        perm_type,
        key: from.to_vec().into(),
        range_end: to.to_vec().into(),
    };
    Change::Permit("r".into(), Some(permission))
}

/// The odd rule, in the open: of permissions with the same key the first is updated, others pile
/// up.
#[test]
fn permissions_with_the_same_key_pile_up() {
    let mut bench = Bench::new();
    bench.check(&Change::RoleAdd("r".into())).unwrap();
    for (end, kind) in [(b"b", 0), (b"c", 0), (b"b", 1), (b"c", 1)] {
        bench.check(&permit(b"a", end, kind)).unwrap();
    }
    let permissions = &bench.store.role("r").unwrap().key_permission;
    let seen: Vec<_> = permissions
        .iter()
        .map(|permission| (&permission.range_end[..], permission.perm_type))
        .collect();
    assert_eq!(seen, [(&b"b"[..], 1), (b"c", 0), (b"c", 1)]);
    let forbid = Change::Forbid("r".into(), b"a".to_vec(), b"c".to_vec());
    bench.check(&forbid).unwrap();
    assert_eq!(bench.store.role("r").unwrap().key_permission.len(), 1);
}

#[test]
fn a_user_from_before_options_has_none_afterwards() {
    let mut bench = Bench::new();
    let mut batch = WriteBatch::default();
    batch.put(
        Bucket::AuthUsers,
        b"old",
        b"\x0a\x03old\x12\x01x"[..].into(),
    );
    bench.backend.write(batch);
    bench.store = AuthStore::open(&bench.backend.reader()).unwrap();
    bench.model.users.push(ModelUser {
        name: "old".into(),
        password: b"x",
        roles: Vec::new(),
        options: None,
    });
    bench
        .check(&Change::Password("old".into(), "aGFzaA=="))
        .unwrap();
    bench
        .check(&Change::Grant("old".into(), "root".into()))
        .unwrap();
    assert_eq!(bench.store.user("old").unwrap().options, None);
}

#[test]
fn root_is_protected_while_authentication_is_on() {
    let root = || "root".to_owned();
    let mut bench = Bench::new();
    let ways_out = [
        Change::UserDelete(root()),
        Change::Revoke(root(), root()),
        Change::RoleDelete(root()),
    ];
    for change in [
        Change::UserAdd(root(), None, ""),
        Change::RoleAdd(root()),
        Change::Grant(root(), root()),
        Change::Enable,
    ] {
        bench.check(&change).unwrap();
    }
    // Neither the switching on nor what is refused counts.
    for change in &ways_out {
        let answer = bench.check(change);
        assert_eq!(answer, Err(AuthError::InvalidManagement));
    }
    assert_eq!(bench.store.revision(), 4);
    bench.check(&Change::Disable).unwrap();
    assert_eq!(bench.store.revision(), 5);
    bench.check(&ways_out[1]).unwrap();
}
