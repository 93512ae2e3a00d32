//! What a request costs is bounded by its size, whatever is in it.
//!
//! The requests here are as large as requests can be. Work that grows with the square of that would
//! take minutes, which is how these tests fail.

// For clippy, which lets tests unwrap.
#![cfg(test)]

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use prost::Message;
use retcd_proto::authpb::Permission;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    AuthEnableRequest, AuthRoleAddRequest, AuthRoleGrantPermissionRequest, AuthUserAddRequest,
    AuthUserGrantRoleRequest, DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest,
    PutRequest, RequestHeader, RequestOp, TxnRequest,
};
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::Time;
use retcd_state::auth::AuthError;
use retcd_state::machine::{Applied, ApplyError, Machine, MachineOptions, Reply};
use retcd_state::mvcc::{EventKind, Prev};
use retcd_storage::backend::Backend;

fn open() -> Machine {
    Machine::open(Backend::default(), MachineOptions::default()).unwrap()
}

fn apply(machine: &mut Machine, request: InternalRaftRequest) -> Applied {
    let entry = Entry {
        index: Some(machine.applied().index + 1),
        term: Some(2),
        r#type: Some(EntryType::EntryNormal as i32),
        data: Some(request.encode_to_vec().into()),
    };
    machine.apply(Time::default(), &[entry]).unwrap()
}

fn reply(applied: Applied) -> Result<Reply, ApplyError> {
    let [(_, reply)] = <[_; 1]>::try_from(applied.replies).unwrap();
    reply
}

fn put(number: usize, lease: i64) -> RequestOp {
    let request = Request::RequestPut(PutRequest {
        key: format!("k{number:06}").into(),
        lease,
        ..Default::default()
    });
    RequestOp {
        request: Some(request),
    }
}

fn delete_all() -> RequestOp {
    let request = Request::RequestDeleteRange(DeleteRangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        ..Default::default()
    });
    RequestOp {
        request: Some(request),
    }
}

fn branch(success: Vec<RequestOp>) -> TxnRequest {
    TxnRequest {
        success,
        ..Default::default()
    }
}

/// As clients get around the limit of operations per level.
fn nested(mut ops: Vec<RequestOp>) -> TxnRequest {
    const WIDTH: usize = 30;
    while ops.len() > WIDTH {
        let level = ops.chunks(WIDTH).map(|ops| RequestOp {
            request: Some(Request::RequestTxn(branch(ops.to_vec()).into())),
        });
        ops = level.collect();
    }
    branch(ops)
}

fn txn(txn: TxnRequest) -> InternalRaftRequest {
    InternalRaftRequest {
        txn: Some(txn),
        ..Default::default()
    }
}

fn grant(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_grant: Some(LeaseGrantRequest { id, ttl: 1000 }),
        ..Default::default()
    }
}

#[test]
fn puts_of_new_keys() {
    const PUTS: usize = 160_000;
    let mut machine = open();
    let applied = apply(
        &mut machine,
        txn(nested((0..PUTS).map(|n| put(n, 0)).collect())),
    );
    assert_eq!(applied.events[0].1.len(), PUTS);
    assert!(
        applied.events[0]
            .1
            .iter()
            .all(|event| event.prev == Prev::Absent)
    );
}

/// To watchers each event shows what the key held before the transaction, however often it was
/// changed.
#[test]
fn keys_that_are_deleted_and_put_again() {
    const KEYS: usize = 60_000;
    let mut machine = open();
    apply(
        &mut machine,
        txn(nested((0..KEYS).map(|n| put(n, 0)).collect())),
    );
    let mut ops = vec![delete_all()];
    // One that was there is put again after one that was not: both are told from each other.
    ops.extend((0..2 * KEYS).rev().map(|n| put(n, 0)));
    let applied = apply(&mut machine, txn(branch(ops)));
    let [(3, events)] = &applied.events[..] else {
        panic!("{:?}", applied.events.len());
    };
    assert_eq!(events.len(), 3 * KEYS);
    for event in events.iter() {
        let before = event.prev.attributes().map(|prev| prev.mod_revision());
        let existed = event.record.key() < format!("k{KEYS:06}").as_bytes();
        assert_eq!(before, existed.then_some(2), "{event:?}");
    }
    let deletions = events
        .iter()
        .filter(|event| event.kind == EventKind::Delete);
    assert_eq!(deletions.count(), KEYS);
}

#[test]
fn deletions_of_what_is_deleted() {
    const KEYS: usize = 60_000;
    let mut machine = open();
    apply(
        &mut machine,
        txn(nested((0..KEYS).map(|n| put(n, 0)).collect())),
    );
    let deletions = (0..KEYS).map(|_| delete_all()).collect();
    let applied = apply(&mut machine, txn(nested(deletions)));
    assert_eq!(applied.events[0].1.len(), KEYS);
}

/// Other threads renew leases and look at them meanwhile: they find the lessor free between any two
/// operations, and so see the transaction half done.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "it is about what another thread finds"
)]
fn leases_are_not_locked_for_a_whole_transaction() {
    const PUTS: usize = 100_000;
    let mut machine = open();
    apply(&mut machine, grant(1));
    let lessor = machine.lessor();
    let is_over = Arc::new(AtomicBool::new(false));
    let looker = thread::spawn({
        let is_over = Arc::clone(&is_over);
        move || {
            let mut seen = BTreeSet::new();
            while !is_over.load(Ordering::Relaxed) {
                seen.insert(lessor.lock().keys(1).len());
                thread::yield_now();
            }
            seen
        }
    });
    apply(
        &mut machine,
        txn(nested((0..PUTS).map(|n| put(n, 1)).collect())),
    );
    is_over.store(true, Ordering::Relaxed);
    let seen = looker.join().unwrap();
    assert!(
        seen.iter().any(|&keys| 0 < keys && keys < PUTS),
        "the lessor was never free: {seen:?}"
    );
}

/// Whoever attaches a key to a lease must be able to write all of its keys, which is looked at once
/// per request and not once per put.
#[test]
fn puts_with_one_lease_by_a_user() {
    const PUTS: usize = 20_000;
    let mut machine = open();
    for request in [
        InternalRaftRequest {
            auth_user_add: Some(user_add("root")),
            ..Default::default()
        },
        InternalRaftRequest {
            auth_user_grant_role: Some(grant_role("root", "root")),
            ..Default::default()
        },
        InternalRaftRequest {
            auth_user_add: Some(user_add("u")),
            ..Default::default()
        },
        InternalRaftRequest {
            auth_role_add: Some(AuthRoleAddRequest { name: "r".into() }),
            ..Default::default()
        },
        InternalRaftRequest {
            auth_user_grant_role: Some(grant_role("u", "r")),
            ..Default::default()
        },
        InternalRaftRequest {
            auth_role_grant_permission: Some(AuthRoleGrantPermissionRequest {
                name: "r".into(),
                perm: Some(Permission {
                    perm_type: 1,
                    key: "k".into(),
                    range_end: "l".into(),
                }),
            }),
            ..Default::default()
        },
        grant(1),
        InternalRaftRequest {
            auth_enable: Some(AuthEnableRequest {}),
            ..Default::default()
        },
    ] {
        reply(apply(&mut machine, request)).unwrap();
    }
    let by_u = |mut ops: Vec<RequestOp>| {
        ops.push(put(PUTS + ops.len(), 2));
        InternalRaftRequest {
            header: Some(RequestHeader {
                id: 1,
                username: "u".into(),
                auth_revision: 7,
            }),
            ..txn(nested(ops))
        }
    };
    reply(apply(&mut machine, grant_by_root(2))).unwrap();
    let ops = || (0..PUTS).map(|n| put(n, 1)).collect();
    reply(apply(&mut machine, by_u(ops()))).unwrap();
    // Now the lease has as many keys as the request has puts.
    reply(apply(&mut machine, by_u(ops()))).unwrap();
    // A second lease is looked at, too, wherever it is named.
    let mut foreign = PutRequest {
        key: "other".into(),
        lease: 2,
        ..Default::default()
    };
    foreign.value = "v".into();
    let foreign = InternalRaftRequest {
        put: Some(foreign),
        ..root_header()
    };
    reply(apply(&mut machine, foreign)).unwrap();
    let refused = Err(ApplyError::Auth(AuthError::PermissionDenied));
    assert_eq!(reply(apply(&mut machine, by_u(ops()))), refused);
}

fn root_header() -> InternalRaftRequest {
    InternalRaftRequest {
        header: Some(RequestHeader {
            id: 1,
            username: "root".into(),
            auth_revision: 7,
        }),
        ..Default::default()
    }
}

fn grant_by_root(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        header: root_header().header,
        ..grant(id)
    }
}

fn user_add(name: &str) -> AuthUserAddRequest {
    AuthUserAddRequest {
        name: name.into(),
        ..Default::default()
    }
}

fn grant_role(user: &str, role: &str) -> AuthUserGrantRoleRequest {
    AuthUserGrantRoleRequest {
        user: user.into(),
        role: role.into(),
    }
}
