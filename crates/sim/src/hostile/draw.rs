//! Random entries, honest, strange and broken: for the simulator, for the tests of the machine
//! beside it, and for whoever looks for a corpus to fuzz with.

use fastrand::Rng;
use prost::Message;
use retcd_proto::authpb::{Permission, UserAddOptions};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::*;
use retcd_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use retcd_proto::raftpb::{ConfChange, EntryType};

/// An entry as a log could hold it, its kind and its data.
pub fn entry(rng: &mut Rng) -> (EntryType, Vec<u8>) {
    let (kind, honest) = match rng.u8(..10) {
        0 => (EntryType::EntryConfChange, conf_change(rng).encode_to_vec()),
        1 => (EntryType::EntryNormal, v2(rng).encode_to_vec()),
        2 => (EntryType::EntryNormal, Vec::new()),
        3 if rng.u8(..20) == 0 => (EntryType::EntryConfChangeV2, Vec::new()),
        _ => {
            let mut request = InternalRaftRequest {
                header: Some(header(rng)),
                ..Default::default()
            };
            // Now and then more than one.
            for _ in 0..pick(rng, [0, 1, 1, 1, 1, 1, 2, 3]) {
                set(&mut request, rng);
            }
            if rng.u8(..10) == 0 {
                set_of_members(&mut request, rng);
            }
            (EntryType::EntryNormal, request.encode_to_vec())
        }
    };
    (kind, damaged(honest, rng))
}

/// A request as the bytes in which a member finds it, in the field of the log's request that it
/// would go to.
pub fn client_request(rng: &mut Rng) -> Vec<u8> {
    let mut request = InternalRaftRequest::default();
    set(&mut request, rng);
    damaged(request.encode_to_vec(), rng)
}

/// Whether damage has not made something else of it than clients can ask for.
pub fn is_of_client(request: &InternalRaftRequest) -> bool {
    let others = request.v2.is_some()
        || request.cluster_version_set.is_some()
        || request.cluster_member_attr_set.is_some()
        || request.downgrade_info_set.is_some();
    let nothing = InternalRaftRequest {
        id: request.id,
        header: request.header.clone(),
        ..Default::default()
    };
    let ids = request.id == 0 && request.header.is_none();
    ids && !others && *request != nothing
}

fn pick<T: Copy, const N: usize>(rng: &mut Rng, of: [T; N]) -> T {
    of[rng.usize(..N)]
}

pub(super) fn header(rng: &mut Rng) -> RequestHeader {
    RequestHeader {
        id: rng.u64(..),
        username: name(rng),
        auth_revision: rng.u64(..9),
    }
}

fn number(rng: &mut Rng) -> i64 {
    pick(rng, [0, 1, 1, 2, 3, 5, 9, -1, -2, i64::MIN, i64::MAX])
}

fn bytes(rng: &mut Rng) -> Vec<u8> {
    match rng.u8(..12) {
        0 => Vec::new(),
        1 => vec![0],
        2 => vec![0xff; 3],
        3 => vec![b'k'; rng.usize(32_760..32_780)],
        _ => vec![rng.u8(b'a'..b'f')],
    }
}

fn name(rng: &mut Rng) -> String {
    match rng.u8(..9) {
        0 => String::new(),
        1 => "n".repeat(rng.usize(32_760..32_780)),
        2 => "root".to_owned(),
        _ => char::from(rng.u8(b'a'..b'd')).to_string(),
    }
}

fn put(rng: &mut Rng) -> PutRequest {
    PutRequest {
        key: bytes(rng).into(),
        value: bytes(rng).into(),
        lease: pick(rng, [0, 0, 0, 1, -1, 7]),
        prev_kv: rng.bool(),
        ignore_value: rng.u8(..5) == 0,
        ignore_lease: rng.u8(..5) == 0,
    }
}

fn delete(rng: &mut Rng) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: bytes(rng).into(),
        range_end: bytes(rng).into(),
        prev_kv: rng.bool(),
    }
}

fn range(rng: &mut Rng) -> RangeRequest {
    RangeRequest {
        key: bytes(rng).into(),
        range_end: bytes(rng).into(),
        limit: number(rng),
        revision: number(rng),
        sort_order: rng.i32(-1..4),
        sort_target: rng.i32(-1..6),
        count_only: rng.bool(),
        keys_only: rng.bool(),
        max_mod_revision: number(rng),
        ..Default::default()
    }
}

fn txn(rng: &mut Rng, depth: usize) -> TxnRequest {
    let compare = (0..rng.usize(..3)).map(|_| Compare {
        result: rng.i32(-1..5),
        target: rng.i32(-1..6),
        key: bytes(rng).into(),
        range_end: bytes(rng).into(),
        target_union: Some(compare::TargetUnion::Version(number(rng))).filter(|_| rng.bool()),
    });
    let compare = compare.collect();
    let mut branch = || {
        let ops = (0..rng.usize(..3)).map(|_| {
            let request = match rng.u8(..6) {
                0 | 1 if depth > 0 => Some(Request::RequestTxn(txn(rng, depth - 1).into())),
                0 | 2 => Some(Request::RequestPut(put(rng))),
                3 => Some(Request::RequestDeleteRange(delete(rng))),
                4 => None,
                _ => Some(Request::RequestRange(range(rng))),
            };
            RequestOp { request }
        });
        ops.collect()
    };
    TxnRequest {
        compare,
        success: branch(),
        failure: branch(),
    }
}

/// Sets one of the requests that clients, and members on behalf of clients, make.
fn set(r: &mut InternalRaftRequest, rng: &mut Rng) {
    match rng.u8(..24) {
        0..4 => r.put = Some(put(rng)),
        4 => r.delete_range = Some(delete(rng)),
        5 => r.range = Some(range(rng)),
        6..9 => r.txn = Some(txn(rng, 5)),
        9 => {
            r.compaction = Some(CompactionRequest {
                revision: number(rng),
                physical: rng.bool(),
            });
        }
        10 | 11 => {
            r.lease_grant = Some(LeaseGrantRequest {
                id: pick(rng, [0, 1, 7, -1, i64::MIN]),
                ttl: pick(rng, [0, -1, 1, 60, 9_000_000_001, i64::MAX]),
            });
        }
        12 => r.lease_revoke = Some(LeaseRevokeRequest { id: number(rng) }),
        13 => {
            let checkpoint = LeaseCheckpoint {
                id: number(rng),
                remaining_ttl: number(rng),
            };
            let checkpoints = vec![checkpoint; rng.usize(..3)];
            r.lease_checkpoint = Some(LeaseCheckpointRequest { checkpoints });
        }
        14 => {
            r.alarm = Some(AlarmRequest {
                action: rng.i32(-1..4),
                member_id: rng.u64(..3),
                alarm: pick(rng, [0, 0, 7, -1]),
            });
        }
        _ => set_of_users(r, rng),
    }
}

fn set_of_users(r: &mut InternalRaftRequest, rng: &mut Rng) {
    let hashed = |rng: &mut Rng| pick(rng, ["", "JDJh", "no base64!"]).to_owned();
    match rng.u8(..12) {
        0 if rng.u8(..6) == 0 => r.auth_enable = Some(AuthEnableRequest {}),
        1 => r.auth_disable = Some(AuthDisableRequest {}),
        2 => r.auth_status = Some(AuthStatusRequest {}),
        3 | 4 => {
            r.auth_user_add = Some(AuthUserAddRequest {
                name: name(rng),
                hashed_password: hashed(rng),
                options: Some(UserAddOptions {
                    no_password: rng.bool(),
                })
                .filter(|_| rng.bool()),
                ..Default::default()
            });
        }
        5 => r.auth_user_delete = Some(AuthUserDeleteRequest { name: name(rng) }),
        6 => {
            r.auth_user_change_password = Some(AuthUserChangePasswordRequest {
                name: name(rng),
                hashed_password: hashed(rng),
                ..Default::default()
            });
        }
        7 => {
            r.auth_user_grant_role = Some(AuthUserGrantRoleRequest {
                user: name(rng),
                role: name(rng),
            });
        }
        8 => {
            r.authenticate = Some(InternalAuthenticateRequest {
                name: name(rng),
                simple_token: name(rng),
                ..Default::default()
            });
        }
        9 => r.auth_role_add = Some(AuthRoleAddRequest { name: name(rng) }),
        10 => {
            let perm = Permission {
                perm_type: rng.i32(-1..4),
                key: bytes(rng).into(),
                range_end: bytes(rng).into(),
            };
            r.auth_role_grant_permission = Some(AuthRoleGrantPermissionRequest {
                name: name(rng),
                perm: Some(perm).filter(|_| rng.u8(..5) > 0),
            });
        }
        _ => r.auth_role_delete = Some(AuthRoleDeleteRequest { role: name(rng) }),
    }
}

/// Sets one of those that members make.
pub(super) fn set_of_members(r: &mut InternalRaftRequest, rng: &mut Rng) {
    let versions = ["3.6.0", "3.7.0", "", "three", "3.7", "99999999999.0.0"];
    let ver = pick(rng, versions).to_owned();
    match rng.u8(..4) {
        0 => r.cluster_version_set = Some(ClusterVersionSetRequest { ver }),
        1 => {
            let enabled = rng.bool();
            r.downgrade_info_set = Some(DowngradeInfoSetRequest { enabled, ver });
        }
        2 => r.v2 = Some(damaged(v2(rng).encode_to_vec(), rng).into()),
        _ => {
            let attributes = Attributes {
                name: name(rng),
                client_urls: vec![name(rng)],
            };
            r.cluster_member_attr_set = Some(ClusterMemberAttrSetRequest {
                member_id: rng.u64(..5),
                member_attributes: Some(attributes).filter(|_| rng.bool()),
            });
        }
    }
}

pub(super) fn v2(rng: &mut Rng) -> retcd_proto::etcdserverpb::Request {
    let text = |rng: &mut Rng, texts: &[&str]| Some(texts[rng.usize(..texts.len())].to_owned());
    let paths = [
        "/0/version",
        "/0/members/1/attributes",
        "/0/members/zz/attributes",
        "/1/a",
        "",
    ];
    let values = ["3.5.0", "x", "", r#"{"name":"n","clientURLs":null}"#];
    retcd_proto::etcdserverpb::Request {
        id: Some(rng.u64(..)),
        method: text(rng, &["PUT", "SYNC", "QGET", "DELETE", "", "junk"]),
        path: text(rng, &paths),
        val: text(rng, &values),
        ..Default::default()
    }
}

pub(super) fn conf_change(rng: &mut Rng) -> ConfChange {
    let id = rng.u64(..5);
    let context = match rng.u8(..8) {
        0 => String::new(),
        1 => "[]".to_owned(),
        2 => r#"{"id":9}"#.to_owned(),
        3 => format!(r#"{{"ID":{id},"peerURLs":null,"isPromote":true}}"#),
        4 => format!(r#"{{"id":{id},"isPromote":true,"later":[1]}}"#),
        _ => {
            let learner = rng.bool();
            let url = rng.u8(..4);
            format!(r#"{{"id":{id},"peerURLs":["http://{url}"],"isLearner":{learner}}}"#)
        }
    };
    ConfChange {
        id: Some(rng.u64(..)),
        r#type: Some(pick(rng, [0, 0, 0, 1, 1, 2, 3, 3, 4, -1])),
        node_id: Some(id),
        context: Some(context.into_bytes().into()).filter(|_| rng.u8(..9) > 0),
    }
}

/// The same bytes, or what could have become of them.
pub(super) fn damaged(mut bytes: Vec<u8>, rng: &mut Rng) -> Vec<u8> {
    let at = rng.usize(..=bytes.len());
    let group = |levels| [[0x8b, 0x7d].repeat(levels), [0x8c, 0x7d].repeat(levels)].concat();
    match rng.u8(..16) {
        0 => bytes.truncate(at),
        1 if at < bytes.len() => bytes[at] = rng.u8(..),
        2 => bytes.insert(at, rng.u8(..)),
        3 => bytes = (0..rng.usize(1..40)).map(|_| rng.u8(..)).collect(),
        // Fields that nobody knows yet.
        4 => bytes.extend(b"\x9a\x7d\x02hi"),
        5 => bytes.extend(group(rng.usize(1..300))),
        // Known ones of another type.
        6 => bytes.extend(b"\x20\x01\x30\x07"),
        // A request twice: its parts are merged.
        7 => bytes.extend(bytes.clone()),
        _ => {}
    }
    bytes
}
