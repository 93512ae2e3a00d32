//! Who may do what, beside a naive model: random users, roles and ranges, random requests in the
//! name of everybody. Each decision of the machine is the model's, and no answer holds a key that
//! its reader may not read, whatever kind of request brought it up.
//!
//! The model knows no ranges: it looks at every key of a small world one by one. In the world each
//! word of letters is followed by a key that is no bound of any range, so that a gap of any width
//! in what a user may touch has a key in it, and behind all words there is one for ranges without
//! an end.

// For clippy, which lets tests unwrap.
#![cfg(test)]

use fastrand::Rng;
use prost::Message;
use retcd_proto::authpb::Permission;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    AuthDisableRequest, AuthEnableRequest, AuthRoleAddRequest, AuthRoleDeleteRequest,
    AuthRoleGetRequest, AuthRoleGrantPermissionRequest, AuthRoleRevokePermissionRequest,
    AuthUserAddRequest, AuthUserDeleteRequest, AuthUserGetRequest, AuthUserGrantRoleRequest,
    AuthUserListRequest, AuthUserRevokeRoleRequest, Compare, DeleteRangeRequest,
    InternalRaftRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RangeRequest,
    RequestHeader, RequestOp, TxnRequest,
};
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::Time;
use retcd_state::auth::{Access, AuthError, Caller};
use retcd_state::machine::{ApplyError, Machine, MachineOptions, Reply};
use retcd_state::mvcc::{Kvs, OpReply, Record};
use retcd_state::request;
use retcd_storage::backend::Backend;

const USERS: [&str; 5] = ["root", "u", "v", "w", "nobody"];
/// Who asks, mostly those of whom not everything is known.
const CALLERS: [&str; 9] = ["root", "u", "u", "u", "v", "v", "v", "w", "nobody"];
const ROLES: [&str; 4] = ["root", "r", "s", "t"];
const LEASES: [i64; 3] = [1, 2, 3];
const READ: i32 = 0;
const WRITE: i32 = 1;

type Key = Vec<u8>;

/// Kind, key and end of a permission.
type Granted = (i32, Key, Key);

/// Words of one and two letters.
fn words() -> Vec<Key> {
    let letters = b"abc";
    let mut words: Vec<Key> = letters.iter().map(|&letter| vec![letter]).collect();
    for a in letters {
        words.extend(letters.iter().map(|&b| vec![*a, b]));
    }
    words.sort();
    words
}

fn world() -> Vec<Key> {
    let mut world: Vec<Key> = Vec::new();
    for word in words() {
        let between = [&word[..], &[0, 7]].concat();
        world.extend([word, between]);
    }
    world.push(b"\xff".to_vec());
    world
}

fn is_in(key: &[u8], from: &[u8], end: &[u8]) -> bool {
    match end {
        [] => key == from,
        [0] => key >= from,
        end => key >= from && key < end,
    }
}

#[derive(Default)]
struct Model {
    enabled: bool,
    revision: u64,
    /// Name and roles.
    users: Vec<(String, Vec<String>)>,
    /// Name and permissions.
    roles: Vec<(String, Vec<Granted>)>,
}

type Decision = Result<(), AuthError>;

/// Who asks: user and revision.
type Who<'a> = (&'a str, u64);

impl Model {
    fn roles_of(&self, user: &str) -> Option<&Vec<String>> {
        let found = self.users.iter().find(|(name, _)| name == user);
        found.map(|(_, roles)| roles)
    }

    fn is_root(&self, user: &str) -> bool {
        self.roles_of(user)
            .is_some_and(|roles| roles.iter().any(|role| role == "root"))
    }

    fn admin(&self, (user, _): Who<'_>) -> Decision {
        if !self.enabled || self.is_root(user) {
            return Ok(());
        }
        Err(match (user, self.roles_of(user)) {
            ("", _) => AuthError::UserEmpty,
            (_, None) => AuthError::UserNotFound,
            (_, Some(_)) => AuthError::PermissionDenied,
        })
    }

    /// Whether `user` may touch this one key.
    fn may(&self, user: &str, access: i32, key: &[u8]) -> bool {
        let Some(granted) = self.roles_of(user) else {
            return false;
        };
        self.is_root(user)
            || self
                .roles
                .iter()
                .filter(|(role, _)| granted.contains(role))
                .flat_map(|(_, permissions)| permissions)
                .any(|(kind, from, end)| (*kind == access || *kind == 2) && is_in(key, from, end))
    }

    fn keys(&self, who: Who<'_>, access: i32, from: &[u8], end: &[u8]) -> Decision {
        let (user, revision) = who;
        if !self.enabled {
            Ok(())
        } else if revision == 0 {
            Err(AuthError::UserEmpty)
        } else if revision < self.revision {
            Err(AuthError::OldRevision)
        } else if self.may(user, access, from)
            && world()
                .iter()
                .filter(|key| is_in(key, from, end))
                .all(|key| self.may(user, access, key))
        {
            Ok(())
        } else {
            Err(AuthError::PermissionDenied)
        }
    }

    fn lease(&self, who: Who<'_>, access: i32, attached: &[Key]) -> Decision {
        if self.admin(who).is_ok() {
            return Ok(());
        }
        attached
            .iter()
            .try_for_each(|key| self.keys(who, access, key, b""))
    }

    fn put(&self, who: Who<'_>, put: &PutRequest, attached: &Attached) -> Decision {
        self.keys(who, WRITE, &put.key, b"")?;
        self.lease(who, WRITE, &attached(put.lease))?;
        if put.prev_kv {
            self.keys(who, READ, &put.key, b"")?;
        }
        Ok(())
    }

    fn delete(&self, who: Who<'_>, delete: &DeleteRangeRequest) -> Decision {
        self.keys(who, WRITE, &delete.key, &delete.range_end)?;
        if delete.prev_kv {
            self.keys(who, READ, &delete.key, &delete.range_end)?;
        }
        Ok(())
    }

    fn txn(&self, who: Who<'_>, txn: &TxnRequest, attached: &Attached) -> Decision {
        for compare in &txn.compare {
            self.keys(who, READ, &compare.key, &compare.range_end)?;
        }
        for op in txn.success.iter().chain(&txn.failure) {
            match op.request.as_ref().unwrap() {
                Request::RequestRange(r) => self.keys(who, READ, &r.key, &r.range_end)?,
                Request::RequestPut(put) => self.put(who, put, attached)?,
                Request::RequestDeleteRange(delete) => self.delete(who, delete)?,
                Request::RequestTxn(txn) => txn.visit(|txn| self.txn(who, txn, attached))?,
            }
        }
        Ok(())
    }

    fn decide(&self, who: Who<'_>, r: &InternalRaftRequest, attached: &Attached) -> Decision {
        if let Some(range) = &r.range {
            self.keys(who, READ, &range.key, &range.range_end)
        } else if let Some(put) = &r.put {
            self.put(who, put, attached)
        } else if let Some(delete) = &r.delete_range {
            self.delete(who, delete)
        } else if let Some(txn) = &r.txn {
            self.txn(who, txn, attached)
        } else if let Some(revoke) = &r.lease_revoke {
            self.lease(who, WRITE, &attached(revoke.id))
        } else if r.lease_grant.is_some() {
            Ok(())
        } else if let Some(get) = &r.auth_user_get {
            let own = get.name == who.0;
            self.admin(who).or_else(|e| own.then_some(()).ok_or(e))
        } else if let Some(get) = &r.auth_role_get {
            let own = self.roles_of(who.0);
            let own = own.is_some_and(|roles| roles.contains(&get.role));
            self.admin(who).or_else(|e| own.then_some(()).ok_or(e))
        } else {
            self.admin(who)
        }
    }

    /// What a change that succeeded has changed.
    fn change(&mut self, r: &InternalRaftRequest) {
        let before = format!("{:?}", (&self.users, &self.roles));
        let mut again = false;
        if r.auth_enable.is_some() {
            self.enabled = true;
        } else if r.auth_disable.is_some() {
            self.revision += u64::from(self.enabled);
            self.enabled = false;
        } else if let Some(r) = &r.auth_user_add {
            self.users.push((r.name.clone(), Vec::new()));
        } else if let Some(r) = &r.auth_user_delete {
            self.users.retain(|(name, _)| *name != r.name);
        } else if let Some(r) = &r.auth_user_grant_role {
            let user = self.users.iter_mut().find(|(name, _)| *name == r.user);
            let roles = &mut user.unwrap().1;
            if !roles.contains(&r.role) {
                roles.push(r.role.clone());
            }
        } else if let Some(r) = &r.auth_user_revoke_role {
            let user = self.users.iter_mut().find(|(name, _)| *name == r.name);
            user.unwrap().1.retain(|role| *role != r.role);
        } else if let Some(r) = &r.auth_role_add {
            self.roles.push((r.name.clone(), Vec::new()));
        } else if let Some(r) = &r.auth_role_delete {
            self.roles.retain(|(name, _)| *name != r.role);
            for (_, roles) in &mut self.users {
                roles.retain(|role| *role != r.role);
            }
        } else if let Some(r) = &r.auth_role_grant_permission {
            let perm = r.perm.as_ref().unwrap();
            let role = self.roles.iter_mut().find(|(name, _)| *name == r.name);
            let permissions = &mut role.unwrap().1;
            let (key, end) = (perm.key.to_vec(), perm.range_end.to_vec());
            // Only the first with the key is ever replaced (a rule of the store, tested with it).
            let at = permissions.iter().position(|(_, k, _)| *k == key);
            match at.filter(|&at| permissions[at].2 == end) {
                Some(at) => permissions[at].0 = perm.perm_type,
                None => permissions.push((perm.perm_type, key, end)),
            }
            permissions.sort_by(|a, b| a.1.cmp(&b.1));
            again = true;
        } else if let Some(r) = &r.auth_role_revoke_permission {
            let role = self.roles.iter_mut().find(|(name, _)| *name == r.role);
            let keep =
                |(_, k, e): &(i32, Key, Key)| (&k[..], &e[..]) != (&r.key[..], &r.range_end[..]);
            role.unwrap().1.retain(keep);
        } else {
            return;
        }
        let changed = before != format!("{:?}", (&self.users, &self.roles));
        self.revision += u64::from(changed || again);
    }
}

/// The keys of a lease.
type Attached<'a> = dyn Fn(i64) -> Vec<Key> + 'a;

/// What requests are made of.
struct Dice(Rng);

impl Dice {
    fn of<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.0.usize(..from.len())].clone()
    }

    fn key(&mut self) -> Key {
        self.of(&words())
    }

    fn end(&mut self, key: &[u8]) -> Key {
        match self.0.u8(..8) {
            0..=2 => Vec::new(),
            3 => b"\0".to_vec(),
            4 => [key, b"\0"].concat(),
            // What ends before it starts is for no key, of which this model knows nothing.
            _ => self.key().max([key, b"\0"].concat()),
        }
    }

    fn range(&mut self) -> RangeRequest {
        let key = self.key();
        RangeRequest {
            range_end: self.end(&key).into(),
            key: key.into(),
            ..Default::default()
        }
    }

    fn put(&mut self) -> PutRequest {
        PutRequest {
            key: self.key().into(),
            value: b"v".to_vec().into(),
            lease: if self.0.u8(..3) == 0 {
                self.of(&LEASES)
            } else {
                0
            },
            prev_kv: self.0.bool(),
            ..Default::default()
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let key = self.key();
        DeleteRangeRequest {
            range_end: self.end(&key).into(),
            key: key.into(),
            prev_kv: self.0.bool(),
        }
    }

    fn txn(&mut self, depth: u8) -> TxnRequest {
        let compare = (0..self.0.usize(..2)).map(|_| {
            let range = self.range();
            Compare {
                key: range.key,
                range_end: range.range_end,
                // "Version greater than 0": the keys exist.
                result: 1,
                ..Default::default()
            }
        });
        let compare = compare.collect();
        let mut branch = || {
            let ops = (0..self.0.usize(..3)).map(|_| {
                let request = match self.0.u8(..5) {
                    0 | 1 => Request::RequestRange(self.range()),
                    2 => Request::RequestPut(self.put()),
                    3 => Request::RequestDeleteRange(self.delete()),
                    _ if depth > 0 => Request::RequestTxn(self.txn(depth - 1).into()),
                    _ => Request::RequestRange(self.range()),
                };
                RequestOp {
                    request: Some(request),
                }
            });
            ops.collect()
        };
        TxnRequest {
            compare,
            success: branch(),
            failure: branch(),
        }
    }

    /// A transaction that would get past the checks before the log.
    fn valid_txn(&mut self) -> TxnRequest {
        loop {
            let txn = self.txn(2);
            if request::check_txn(&txn, 128).is_ok() && request::check_duplicates(&txn).is_ok() {
                return txn;
            }
        }
    }

    fn request(&mut self) -> InternalRaftRequest {
        let mut r = InternalRaftRequest::default();
        match self.0.u8(..40) {
            0..=5 => r.range = Some(self.range()),
            6..=19 => r.put = Some(self.put()),
            20..=23 => r.delete_range = Some(self.delete()),
            24..=35 => r.txn = Some(self.valid_txn()),
            36 => {
                let id = self.of(&LEASES);
                r.lease_grant = Some(LeaseGrantRequest { id, ttl: 100 });
            }
            37 => {
                r.lease_revoke = Some(LeaseRevokeRequest {
                    id: self.of(&LEASES),
                })
            }
            _ => match self.0.u8(..3) {
                0 => {
                    let name = self.of(&USERS).into();
                    r.auth_user_get = Some(AuthUserGetRequest { name });
                }
                1 => {
                    let role = self.of(&ROLES).into();
                    r.auth_role_get = Some(AuthRoleGetRequest { role });
                }
                _ => r.auth_user_list = Some(AuthUserListRequest {}),
            },
        }
        r
    }

    /// A change of users and roles.
    fn change(&mut self, model: &Model) -> InternalRaftRequest {
        let (user, role) = (self.of(&USERS[..4]).to_owned(), self.of(&ROLES).to_owned());
        let key = self.key();
        let range_end = self.end(&key);
        // Mostly something that is there to be taken back.
        let permissions = |(role, permissions): &(String, Vec<Granted>)| {
            let of_role = |(_, key, end): &Granted| (role.clone(), key.clone(), end.clone());
            permissions.iter().map(of_role).collect::<Vec<_>>()
        };
        let mut granted: Vec<_> = model.roles.iter().flat_map(permissions).collect();
        granted.push((role.clone(), key.clone(), range_end.clone()));
        let mut r = InternalRaftRequest::default();
        match self.0.u8(..60) {
            0 => r.auth_disable = Some(AuthDisableRequest {}),
            1..=3 => r.auth_enable = Some(AuthEnableRequest {}),
            4 => r.auth_user_delete = Some(AuthUserDeleteRequest { name: user }),
            5..=7 => {
                r.auth_user_add = Some(AuthUserAddRequest {
                    name: user,
                    ..Default::default()
                });
            }
            8..=12 => r.auth_user_grant_role = Some(AuthUserGrantRoleRequest { user, role }),
            13..=14 => {
                r.auth_user_revoke_role = Some(AuthUserRevokeRoleRequest { name: user, role });
            }
            15..=16 => r.auth_role_add = Some(AuthRoleAddRequest { name: role }),
            17 => r.auth_role_delete = Some(AuthRoleDeleteRequest { role }),
            18..=20 => {
                let (role, key, range_end) = self.of(&granted);
                r.auth_role_revoke_permission = Some(AuthRoleRevokePermissionRequest {
                    role,
                    key: key.into(),
                    range_end: range_end.into(),
                });
            }
            _ => {
                let perm = Permission {
                    perm_type: self.0.i32(0..3),
                    key: key.into(),
                    range_end: range_end.into(),
                };
                let perm = Some(perm);
                r.auth_role_grant_permission =
                    Some(AuthRoleGrantPermissionRequest { name: role, perm });
            }
        }
        r
    }
}

/// Every record in a reply.
fn records(reply: &Reply) -> Vec<Record> {
    match reply {
        Reply::Range(reply) => whole(&reply.kvs),
        Reply::Put(reply) => whole(&reply.prev),
        Reply::DeleteRange(reply) => whole(&reply.prevs),
        Reply::Txn(reply) => reply.replies.iter().flat_map(op_records).collect(),
        _ => Vec::new(),
    }
}

fn op_records(reply: &OpReply) -> Vec<Record> {
    match reply {
        OpReply::Range(reply) => whole(&reply.kvs),
        OpReply::Put(reply) => whole(&reply.prev),
        OpReply::DeleteRange(reply) => whole(&reply.prevs),
        OpReply::Txn(reply) => {
            reply.visit(|reply| reply.replies.iter().flat_map(op_records).collect())
        }
        OpReply::Empty => Vec::new(),
    }
}

fn whole(kvs: &Kvs) -> Vec<Record> {
    let records = kvs.iter().map(|record| record.unwrap().into_owned());
    records.collect()
}

struct Bench {
    machine: Machine,
    model: Model,
    /// How often each decision was taken, and records were seen.
    counts: [u32; 5],
}

impl Bench {
    /// Everything that can be granted exists, and authentication is on.
    fn new() -> Bench {
        let machine = Machine::open(Backend::default(), MachineOptions::default()).unwrap();
        let model = Model {
            revision: 1,
            ..Default::default()
        };
        let mut bench = Bench {
            machine,
            model,
            counts: [0; 5],
        };
        for name in &USERS[..4] {
            bench.change(&InternalRaftRequest {
                auth_user_add: Some(AuthUserAddRequest {
                    name: (*name).into(),
                    ..Default::default()
                }),
                ..Default::default()
            });
        }
        for name in ROLES {
            bench.change(&InternalRaftRequest {
                auth_role_add: Some(AuthRoleAddRequest { name: name.into() }),
                ..Default::default()
            });
        }
        for (user, role) in [("root", "root"), ("u", "r"), ("v", "s"), ("v", "t")] {
            let (user, role) = (user.into(), role.into());
            bench.change(&InternalRaftRequest {
                auth_user_grant_role: Some(AuthUserGrantRoleRequest { user, role }),
                ..Default::default()
            });
        }
        for id in LEASES {
            let r = InternalRaftRequest {
                lease_grant: Some(LeaseGrantRequest { id, ttl: 100 }),
                ..Default::default()
            };
            bench.apply(("root", 1), &r).unwrap();
        }
        bench.change(&InternalRaftRequest {
            auth_enable: Some(AuthEnableRequest {}),
            ..Default::default()
        });
        bench
    }

    fn apply(&mut self, who: Who<'_>, r: &InternalRaftRequest) -> Result<Reply, ApplyError> {
        let (username, auth_revision) = (who.0.to_owned(), who.1);
        let r = InternalRaftRequest {
            header: Some(RequestHeader {
                id: 1,
                username,
                auth_revision,
            }),
            ..r.clone()
        };
        let entry = Entry {
            index: Some(self.machine.applied().index + 1),
            term: Some(1),
            r#type: Some(EntryType::EntryNormal as i32),
            data: Some(r.encode_to_vec().into()),
        };
        let applied = self.machine.apply(Time::default(), &[entry]).unwrap();
        let [(_, reply)] = <[_; 1]>::try_from(applied.replies).unwrap();
        reply
    }

    /// Makes a change as root.
    fn change(&mut self, r: &InternalRaftRequest) {
        let reply = self.apply(("root", 1), r);
        if reply.is_ok() {
            self.model.change(r);
        }
        let auth = self.machine.auth_store();
        let state = (auth.read().is_enabled(), auth.read().revision());
        assert_eq!(state, (self.model.enabled, self.model.revision), "{r:?}");
    }

    /// Compares the decision about a request, and looks at what is in its answer.
    fn check(&mut self, who: Who<'_>, r: &InternalRaftRequest) {
        let lessor = self.machine.lessor();
        let attached = |id| {
            lessor
                .lock()
                .keys(id)
                .iter()
                .map(|key| key.to_vec())
                .collect()
        };
        let expected = self.model.decide(who, r, &attached);
        let reply = self.apply(who, r);
        let decision = match &reply {
            Err(ApplyError::Auth(AuthError::UserNotFound | AuthError::RoleNotFound))
                if expected.is_ok() =>
            {
                Ok(()) // A question that was answered.
            }
            Err(ApplyError::Auth(error)) => Err(*error),
            _ => Ok(()),
        };
        assert_eq!(decision, expected, "{who:?} {r:?}");
        let kind = match expected {
            Ok(()) => 0,
            Err(AuthError::PermissionDenied) => 1,
            Err(AuthError::OldRevision) => 2,
            Err(_) => 3,
        };
        self.counts[kind] += 1;
        let Ok(reply) = &reply else { return };
        for record in records(reply) {
            self.counts[4] += 1;
            let may = !self.model.enabled || self.model.may(who.0, READ, record.key());
            assert!(may, "{who:?} was shown {:?} by {r:?}", record.key());
        }
    }

    /// What does not go through the log: ranges, watches and leases are checked with these alone.
    fn check_reads(&mut self, who: Who<'_>, dice: &mut Dice) {
        let auth = self.machine.auth_store();
        let auth = auth.read();
        let caller = Caller {
            user: who.0,
            revision: who.1,
        };
        let lessor = self.machine.lessor();
        for (access, kind) in [(Access::Read, READ), (Access::Write, WRITE)] {
            let RangeRequest { key, range_end, .. } = dice.range();
            let decision = auth.check_keys(caller, access, &key, &range_end);
            let expected = self.model.keys(who, kind, &key, &range_end);
            assert_eq!(decision, expected, "{who:?} {key:?} {range_end:?}");
            let lease = dice.of(&LEASES);
            let attached: Vec<Key> = lessor
                .lock()
                .keys(lease)
                .iter()
                .map(|key| key.to_vec())
                .collect();
            assert_eq!(
                auth.check_lease(caller, access, lease, &lessor),
                self.model.lease(who, kind, &attached)
            );
        }
        assert_eq!(auth.check_admin(caller), self.model.admin(who));
        let txn = dice.valid_txn();
        let attached = |id| {
            lessor
                .lock()
                .keys(id)
                .iter()
                .map(|key| key.to_vec())
                .collect()
        };
        let expected = match self.model.enabled {
            true => self.model.txn(who, &txn, &attached),
            false => Ok(()),
        };
        assert_eq!(auth.check_txn(caller, &txn, &lessor), expected);
    }
}

#[test]
fn every_decision_is_the_models_and_no_answer_tells_too_much() {
    let mut counts = [0; 5];
    for seed in 0..40 {
        let mut dice = Dice(Rng::with_seed(seed));
        let mut bench = Bench::new();
        for _ in 0..600 {
            let (user, revision) = (dice.of(&CALLERS), bench.model.revision);
            let who = match dice.0.u8(..12) {
                0 => ("", 0),
                1 => (user, revision - 1),
                2 => (user, 0),
                _ => (user, revision),
            };
            match dice.0.u8(..16) {
                0 => bench.change(&dice.change(&bench.model)),
                1 => bench.check_reads(who, &mut dice),
                _ => bench.check(who, &dice.request()),
            }
        }
        for (all, one) in counts.iter_mut().zip(bench.counts) {
            *all += one;
        }
    }
    // The dice reach everything often.
    assert!(counts.iter().all(|&count| count > 300), "{counts:?}");
}
