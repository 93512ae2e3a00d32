//! What clients do: mostly puts, gets and swaps on a few contended keys, and a little of everything
//! else.
//!
//! Values are unique. Keys with leases have a range of their own (`l…`), as they vanish by
//! themselves.

pub mod tree;

use bytes::Bytes;
use retcd_proto::etcdserverpb::alarm_request::AlarmAction;
use retcd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use retcd_proto::etcdserverpb::request_op::Request as Op;
use retcd_proto::etcdserverpb::{
    AlarmRequest, AlarmType, AuthRoleGetRequest, AuthRoleGrantPermissionRequest,
    AuthUserGetRequest, AuthUserGrantRoleRequest, AuthUserListRequest, CompactionRequest, Compare,
    DeleteRangeRequest, InternalRaftRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, RequestOp, TxnRequest,
};

use crate::client::Client;
use crate::context::Context;
use crate::request::Request;
use crate::users;

/// Keys that the search for an order looks at.
const REGISTERS: u8 = 6;
const LEASED: u8 = 4;
/// Leases of a client that holds some for their whole time.
const HELD: usize = 5;

/// Whether the key is a plain register.
pub fn is_register(key: &[u8]) -> bool {
    key.starts_with(b"k")
}

/// The next thing that `client` does.
pub fn next(client: &mut Client, cx: &mut Context) -> Request {
    if client.tree_from.is_some_and(|from| from <= cx.now) && cx.rng.u8(..5) < 2 {
        return tree::next(client, cx);
    }
    if client.without_space {
        client.without_space = cx.rng.bool();
        return alarm(AlarmAction::Deactivate, cx);
    }
    if cx.rng.u16(..1500) == 0 {
        return alarm(AlarmAction::Activate, cx);
    }
    if let Some(lease) = client.due_renewal(cx.now) {
        return Request::KeepAlive(lease);
    }
    if client.holds_some() && client.leases.len() < HELD {
        // Long enough to outlive the sleep of a leader.
        return grant(cx.rng.i64(8..18), cx);
    }
    if client.holds_many() {
        // Many leases, so that each is renewed now and then only.
        match cx.rng.u8(..8) {
            0 | 1 => return grant(cx.rng.i64(6..12), cx),
            2..6 => return keep_alive(client, cx),
            _ => {}
        }
    }
    match cx.rng.u8(..100) {
        0..30 => put(client, cx),
        30..56 => get(register(cx), cx),
        56..68 => swap(client, cx),
        68..72 => create(client, cx),
        72..77 => put_many(client, cx),
        77..80 => delete(cx),
        80..82 => list(0, cx),
        82..85 => list_otherwise(cx),
        85..87 => past(cx),
        87..89 => compact(cx),
        89..92 => grant_short(cx),
        92..95 => put_leased(client, cx),
        95..98 => keep_alive(client, cx),
        98 if cx.rng.bool() => Request::HashKv(hashed_at(cx)),
        98 => Request::Leases,
        _ => revoke(client, cx),
    }
}

/// The next thing that a client does who is a user: now and then what not everybody may do, or not
/// all of it.
pub fn next_of_user(client: &mut Client, cx: &mut Context) -> Request {
    match cx.rng.u8(..100) {
        0..5 => nested(client, cx),
        5..8 => delete_many(cx),
        8..10 => ask(cx),
        10 => usurp(cx),
        _ => next(client, cx),
    }
}

/// As deep as etcd lets clients go: each level is one of 128 operations, and some are needed above
/// and below.
const DEPTH_MAX: usize = 120;

/// Transactions within each other that look at registers, and write leased keys only. Every eighth
/// is very deep.
fn nested(client: &mut Client, cx: &mut Context) -> Request {
    let compare = |key: Bytes, version: i64| Compare {
        result: CompareResult::Greater as i32,
        target: CompareTarget::Version as i32,
        key,
        target_union: Some(TargetUnion::Version(version)),
        ..Default::default()
    };
    let op = |request| RequestOp {
        request: Some(request),
    };
    let first = cx.rng.u8(..LEASED - 1);
    let (one, other) = (format!("l{first}"), format!("l{}", first + 1));
    let inner = TxnRequest {
        compare: vec![compare(register(cx), cx.rng.i64(-1..3))],
        success: vec![
            put_op(one.clone().into(), value(client)),
            get_op(register(cx)),
        ],
        failure: vec![get_op(one.into())],
    };
    let levels = match client.values % 8 {
        0 => DEPTH_MAX,
        _ => 0,
    };
    let inner = (0..levels).fold(inner, |inner, _| TxnRequest {
        success: vec![op(Op::RequestTxn(inner.into()))],
        ..Default::default()
    });
    let delete = DeleteRangeRequest {
        key: other.clone().into(),
        prev_kv: cx.rng.bool(),
        ..Default::default()
    };
    let outer = vec![get_op(register(cx)), op(Op::RequestTxn(inner.into()))];
    let otherwise = vec![op(Op::RequestDeleteRange(delete)), get_op(register(cx))];
    txn(
        vec![compare(other.into(), cx.rng.i64(-1..3))],
        outer,
        otherwise,
    )
}

fn delete_many(cx: &mut Context) -> Request {
    let (key, end) = [("l", "m"), ("l0", "l2"), ("l1", "l3")][cx.rng.usize(..3)];
    let delete = DeleteRangeRequest {
        key: Bytes::from_static(key.as_bytes()),
        range_end: Bytes::from_static(end.as_bytes()),
        prev_kv: cx.rng.bool(),
    };
    write(InternalRaftRequest {
        delete_range: Some(delete),
        ..Default::default()
    })
}

/// Asks about a user or a role, which may be its own.
fn ask(cx: &mut Context) -> Request {
    let mut request = InternalRaftRequest::default();
    match cx.rng.bool() {
        true => {
            let name = users::any(&mut cx.rng, &users::NAMES).to_owned();
            request.auth_user_get = Some(AuthUserGetRequest { name });
        }
        false => {
            let role = users::any(&mut cx.rng, &users::ROLES).to_owned();
            request.auth_role_get = Some(AuthRoleGetRequest { role });
        }
    }
    write(request)
}

/// Tries to get more than it has.
fn usurp(cx: &mut Context) -> Request {
    let mut request = InternalRaftRequest::default();
    match cx.rng.u8(..3) {
        0 => {
            request.auth_user_grant_role = Some(AuthUserGrantRoleRequest {
                user: users::any(&mut cx.rng, &users::NAMES).to_owned(),
                role: users::any(&mut cx.rng, &users::ROLES).to_owned(),
            });
        }
        1 => {
            request.auth_role_grant_permission = Some(AuthRoleGrantPermissionRequest {
                name: users::any(&mut cx.rng, &users::ROLES).to_owned(),
                perm: Some(users::any_permission(&mut cx.rng)),
            });
        }
        _ => request.auth_user_list = Some(AuthUserListRequest::default()),
    }
    write(request)
}

fn register(cx: &mut Context) -> Bytes {
    // One key is asked for more often than the others.
    let number = cx.rng.u8(..REGISTERS).min(cx.rng.u8(..REGISTERS));
    Bytes::from(format!("k{number}"))
}

fn value(client: &mut Client) -> Bytes {
    client.values += 1;
    Bytes::from(format!("c{}-{}", client.number, client.values))
}

fn put_request(key: Bytes, value: Bytes) -> PutRequest {
    PutRequest {
        key,
        value,
        ..Default::default()
    }
}

fn put(client: &mut Client, cx: &mut Context) -> Request {
    let put = PutRequest {
        prev_kv: cx.rng.u8(..4) == 0,
        ..put_request(register(cx), value(client))
    };
    write(InternalRaftRequest {
        put: Some(put),
        ..Default::default()
    })
}

fn put_leased(client: &mut Client, cx: &mut Context) -> Request {
    let key = Bytes::from(format!("l{}", cx.rng.u8(..LEASED)));
    let lease = match client.leases.len() {
        0 => 0,
        len => client.leases[cx.rng.usize(..len)],
    };
    let put = PutRequest {
        lease,
        ..put_request(key, value(client))
    };
    write(InternalRaftRequest {
        put: Some(put),
        ..Default::default()
    })
}

fn get(key: Bytes, cx: &mut Context) -> Request {
    Request::Range(RangeRequest {
        key,
        serializable: cx.rng.u8(..8) == 0,
        ..Default::default()
    })
}

fn list(revision: i64, cx: &mut Context) -> Request {
    Request::Range(RangeRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"z"),
        serializable: cx.rng.u8(..4) == 0,
        limit: [0, 0, 3][cx.rng.usize(..3)],
        revision,
        ..Default::default()
    })
}

/// A list in another form: by stream, in a transaction, sorted, counted.
fn list_otherwise(cx: &mut Context) -> Request {
    let serializable = cx.rng.u8(..4) == 0;
    let mut any = || {
        let (key, range_end) = [("a", "z"), ("k", "l"), ("l", "m")][cx.rng.usize(..3)];
        let mut range = RangeRequest {
            key: Bytes::from_static(key.as_bytes()),
            range_end: Bytes::from_static(range_end.as_bytes()),
            serializable,
            limit: [0, 0, 3][cx.rng.usize(..3)],
            ..Default::default()
        };
        match cx.rng.u8(..4) {
            0 => range.count_only = true,
            1 => {
                let targets = [SortTarget::Version, SortTarget::Create, SortTarget::Mod];
                range.set_sort_target(targets[cx.rng.usize(..3)]);
                range.set_sort_order([SortOrder::Ascend, SortOrder::Descend][cx.rng.usize(..2)]);
            }
            _ => {}
        }
        range
    };
    match (any(), any()) {
        (range, other) if range.count_only == other.count_only => {
            Request::Lists(vec![range, other])
        }
        (range, _) => Request::Stream(range),
    }
}

fn past(cx: &mut Context) -> Request {
    let revision = some_revision(cx);
    list(revision, cx)
}

/// One of the last, which may be compacted, or one to come.
fn some_revision(cx: &mut Context) -> i64 {
    let newest = cx.log.floor.revision.max(2);
    cx.rng.i64(1.max(newest - 40)..newest + 2)
}

fn hashed_at(cx: &mut Context) -> i64 {
    match cx.rng.bool() {
        true => 0,
        false => some_revision(cx),
    }
}

fn swap(client: &mut Client, cx: &mut Context) -> Request {
    let key = register(cx);
    let Some(expected) = client.seen.get(&key).cloned() else {
        return get(key, cx);
    };
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Value as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::Value(expected)),
        ..Default::default()
    };
    txn(
        vec![compare],
        vec![put_op(key.clone(), value(client))],
        vec![get_op(key)],
    )
}

fn create(client: &mut Client, cx: &mut Context) -> Request {
    let key = register(cx);
    let compare = Compare {
        result: CompareResult::Equal as i32,
        target: CompareTarget::Create as i32,
        key: key.clone(),
        target_union: Some(TargetUnion::CreateRevision(0)),
        ..Default::default()
    };
    txn(
        vec![compare],
        vec![put_op(key.clone(), value(client))],
        vec![get_op(key)],
    )
}

fn put_many(client: &mut Client, cx: &mut Context) -> Request {
    let first = register(cx);
    let second = register(cx);
    let mut ops = vec![put_op(first.clone(), value(client))];
    if second != first {
        ops.push(put_op(second, value(client)));
    }
    txn(vec![], ops, vec![])
}

fn delete(cx: &mut Context) -> Request {
    let delete = DeleteRangeRequest {
        key: register(cx),
        prev_kv: cx.rng.bool(),
        ..Default::default()
    };
    write(InternalRaftRequest {
        delete_range: Some(delete),
        ..Default::default()
    })
}

fn compact(cx: &mut Context) -> Request {
    let newest = cx.log.floor.revision;
    let revision = (newest - cx.rng.i64(0..50)).max(1);
    let compaction = Some(CompactionRequest {
        revision,
        physical: cx.rng.u8(..3) == 0,
    });
    write(InternalRaftRequest {
        compaction,
        ..Default::default()
    })
}

/// Compacts at a revision.
pub fn compact_at(revision: i64) -> Request {
    write(InternalRaftRequest {
        compaction: Some(CompactionRequest {
            revision,
            ..Default::default()
        }),
        ..Default::default()
    })
}

/// Puts a key that is kept for good.
pub fn keep(key: &'static [u8]) -> Request {
    write(InternalRaftRequest {
        put: Some(put_request(
            Bytes::from_static(key),
            Bytes::from_static(b"kept"),
        )),
        ..Default::default()
    })
}

fn grant_short(cx: &mut Context) -> Request {
    grant(cx.rng.i64(1..8), cx)
}

fn grant(ttl: i64, cx: &mut Context) -> Request {
    let lease_grant = Some(LeaseGrantRequest {
        id: cx.rng.i64(1..1 << 40),
        ttl,
    });
    write(InternalRaftRequest {
        lease_grant,
        ..Default::default()
    })
}

fn keep_alive(client: &mut Client, cx: &mut Context) -> Request {
    match client.leases.len() {
        0 => grant_short(cx),
        len => {
            let lease = client.leases[cx.rng.usize(..len)];
            match cx.rng.u8(..8) {
                0 => Request::TimeToLive(lease),
                _ => Request::KeepAlive(lease),
            }
        }
    }
}

fn revoke(client: &mut Client, cx: &mut Context) -> Request {
    let id = match client.leases.len() {
        0 => return grant_short(cx),
        len => client.leases[cx.rng.usize(..len)],
    };
    write(InternalRaftRequest {
        lease_revoke: Some(LeaseRevokeRequest { id }),
        ..Default::default()
    })
}

/// Raises an alarm for member 1, which is none, as an alarm outlives its member; or takes back what
/// was raised.
pub fn alarm(action: AlarmAction, cx: &Context) -> Request {
    let raised = match action {
        AlarmAction::Deactivate => cx.log.model.full().next(),
        _ => None,
    };
    alarm_for(raised.unwrap_or(1), action, AlarmType::Nospace)
}

/// Raises an alarm for a member, or takes it back.
pub fn alarm_for(member_id: u64, action: AlarmAction, alarm: AlarmType) -> Request {
    let alarm = Some(AlarmRequest {
        action: action as i32,
        member_id,
        alarm: alarm as i32,
    });
    write(InternalRaftRequest {
        alarm,
        ..Default::default()
    })
}

fn put_op(key: Bytes, value: Bytes) -> RequestOp {
    RequestOp {
        request: Some(Op::RequestPut(put_request(key, value))),
    }
}

fn get_op(key: Bytes) -> RequestOp {
    RequestOp {
        request: Some(Op::RequestRange(RangeRequest {
            key,
            ..Default::default()
        })),
    }
}

fn txn(compare: Vec<Compare>, success: Vec<RequestOp>, failure: Vec<RequestOp>) -> Request {
    let txn = TxnRequest {
        compare,
        success,
        failure,
    };
    write(InternalRaftRequest {
        txn: Some(txn),
        ..Default::default()
    })
}

fn write(request: InternalRaftRequest) -> Request {
    Request::Write(Box::new(request))
}
