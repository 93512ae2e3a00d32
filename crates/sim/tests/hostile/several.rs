//! Entries with several requests in one, which nobody honest writes: what etcd's members make of
//! them.

use prost::Message;
use retcd_proto::authpb::UserAddOptions;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::*;
use retcd_proto::membershippb::ClusterVersionSetRequest;
use retcd_proto::raftpb::EntryType;
use retcd_state::Time;
use retcd_state::auth::AuthError;
use retcd_state::machine::{ApplyError, Reply};

use super::{Member, entry};

impl Member {
    fn request(&mut self, request: InternalRaftRequest) -> Result<Reply, ApplyError> {
        let index = self.machine.applied().index + 1;
        let entry = entry(index, EntryType::EntryNormal, &request.encode_to_vec());
        let mut applied = self.machine.apply(Time::default(), &[entry]).unwrap();
        applied.replies.pop().expect("a request is answered").1
    }

    fn has(&self, key: &str) -> bool {
        let keys = self.machine.reader().range(&RangeRequest {
            key: key.to_owned().into(),
            ..Default::default()
        });
        keys.unwrap().count == 1
    }
}

fn request() -> InternalRaftRequest {
    InternalRaftRequest::default()
}

fn put(key: &str) -> PutRequest {
    PutRequest {
        key: key.to_owned().into(),
        ..Default::default()
    }
}

#[test]
fn the_first_counts_in_the_order_of_etcd() {
    let mut member = Member::new();
    let delete_range = DeleteRangeRequest {
        key: "k".into(),
        ..Default::default()
    };
    let reply = member.request(InternalRaftRequest {
        put: Some(put("k")),
        delete_range: Some(delete_range),
        lease_grant: Some(LeaseGrantRequest { id: 7, ttl: 60 }),
        ..request()
    });
    assert!(matches!(reply, Ok(Reply::Put(_))));
    assert!(member.has("k"));
    assert!(!member.machine.lessor().lock().contains(7));
}

/// A member that was not asked has nobody to answer, and passes over the entry.
#[test]
fn an_entry_with_a_question_changes_nothing() {
    let questions = [
        InternalRaftRequest {
            range: Some(RangeRequest::default()),
            ..request()
        },
        InternalRaftRequest {
            auth_status: Some(AuthStatusRequest {}),
            ..request()
        },
        InternalRaftRequest {
            auth_user_get: Some(AuthUserGetRequest::default()),
            ..request()
        },
        InternalRaftRequest {
            auth_role_get: Some(AuthRoleGetRequest::default()),
            ..request()
        },
    ];
    for question in questions {
        let mut member = Member::new();
        let ver = "3.6.0".to_owned();
        let _ = member.request(InternalRaftRequest {
            put: Some(put("k")),
            cluster_version_set: Some(ClusterVersionSetRequest { ver }),
            ..question
        });
        assert!(!member.has("k"));
        let membership = member.machine.membership();
        assert_eq!(membership.read().cluster_version(), None);
    }
}

/// What only `root` may ask for is looked for before anything else: whatever stands beside it is
/// refused, too.
#[test]
fn a_request_for_administrators_is_checked_first() {
    let mut member = Member::new();
    let user_add = |name: &str| AuthUserAddRequest {
        name: name.to_owned(),
        options: Some(UserAddOptions { no_password: true }),
        ..Default::default()
    };
    let grant = |user: &str, role: &str| AuthUserGrantRoleRequest {
        user: user.to_owned(),
        role: role.to_owned(),
    };
    for request in [
        InternalRaftRequest {
            auth_user_add: Some(user_add("root")),
            ..request()
        },
        InternalRaftRequest {
            auth_role_add: Some(AuthRoleAddRequest {
                name: "root".into(),
            }),
            ..request()
        },
        InternalRaftRequest {
            auth_user_grant_role: Some(grant("root", "root")),
            ..request()
        },
        InternalRaftRequest {
            auth_enable: Some(AuthEnableRequest {}),
            ..request()
        },
    ] {
        member.request(request).unwrap();
    }
    let refused = Err(ApplyError::Auth(AuthError::UserEmpty));
    let ver = "3.6.0".to_owned();
    let by_nobody = InternalRaftRequest {
        cluster_version_set: Some(ClusterVersionSetRequest { ver }),
        auth_user_list: Some(AuthUserListRequest {}),
        ..request()
    };
    assert_eq!(member.request(by_nobody.clone()), refused);
    let membership = member.machine.membership();
    assert_eq!(membership.read().cluster_version(), None);
    let by_root = InternalRaftRequest {
        header: Some(RequestHeader {
            username: "root".into(),
            ..Default::default()
        }),
        ..by_nobody
    };
    member.request(by_root).unwrap();
    assert!(membership.read().cluster_version().is_some());
}

/// The field of requests of API v2 is one that etcd 3.7 does not know any more.
#[test]
fn a_request_of_api_v2_counts_only_alone() {
    let mut member = Member::new();
    let reply = member.request(InternalRaftRequest {
        v2: Some((&b"\xff no request"[..]).into()),
        put: Some(put("k")),
        ..request()
    });
    assert!(matches!(reply, Ok(Reply::Put(_))));
    assert!(member.has("k"));
}

/// Sort options that are none keep nobody from writing: etcd looks at them only for an answer.
#[test]
fn a_transaction_with_a_range_of_no_known_order_writes() {
    let mut member = Member::new();
    let range = RangeRequest {
        key: "k".into(),
        sort_order: 9,
        sort_target: -1,
        ..Default::default()
    };
    let ops = [Request::RequestPut(put("k")), Request::RequestRange(range)];
    let ops = ops.map(|op| RequestOp { request: Some(op) });
    let reply = member.request(InternalRaftRequest {
        txn: Some(TxnRequest {
            success: ops.into(),
            ..Default::default()
        }),
        ..request()
    });
    assert!(matches!(reply, Ok(Reply::Txn(_))), "{reply:?}");
    assert!(member.has("k"));
}
