//! Requests that could stop a member for good, if one that cannot be applied were committed: each
//! has etcd's answer, and the member starts again with them in its log.

use bytes::{BufMut, Bytes, BytesMut};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    AuthRoleAddRequest, MemberListRequest, MemberListResponse, MemberRemoveRequest, PutRequest,
    RequestOp, TxnRequest,
};
use rustix::process::Signal;
use tonic::Code;

use super::place::{Place, Server};
use super::raw::{Answer, Connection, PUT, call, encoded, framed};

async fn answer(server: &Server, path: &str, body: Bytes) -> Answer {
    let connection = Connection::open(server).await;
    let answer = connection.send(call(path), body).await;
    answer.expect("the call is answered")
}

/// So many transactions within each other, the innermost with a put.
fn nested(depth: usize) -> TxnRequest {
    let put = PutRequest {
        key: "deep".into(),
        ..Default::default()
    };
    let txn = |request| TxnRequest {
        success: vec![RequestOp {
            request: Some(request),
        }],
        ..Default::default()
    };
    let innermost = txn(Request::RequestPut(put));
    (1..depth).fold(innermost, |inner, _| txn(Request::RequestTxn(inner.into())))
}

/// It starts again on the same directory, and serves.
async fn restarts(place: &Place, server: Server, flags: &[&str]) {
    server.end_with(Signal::KILL);
    let server = place.start(flags);
    assert!(server.kv().await.get("deep").await.is_some());
    server.assert_well();
}

#[tokio::test]
async fn transactions_within_each_other_are_applied_or_refused() {
    let place = Place::new();
    let server = place.start(&[]);
    for (depths, code, text) in [
        (vec![1, 48, 49, 50, 100, 128], Code::Ok, ""),
        (
            vec![129, 200, 1_000, 4_999],
            Code::InvalidArgument,
            "etcdserver: too many operations in txn request",
        ),
        (
            vec![5_000, 100_000],
            Code::Internal,
            "grpc: error unmarshalling request: proto: exceeded maximum recursion depth",
        ),
    ] {
        for depth in depths {
            let answer = answer(&server, "/etcdserverpb.KV/Txn", encoded(&nested(depth))).await;
            answer.assert(code, text);
        }
    }
    restarts(&place, server, &[]).await;
}

#[tokio::test]
async fn what_nobody_knows_in_a_request_is_passed_over() {
    let place = Place::new();
    let server = place.start(&[]);
    let groups = |levels| [b"\x93\x03".repeat(levels), b"\x94\x03".repeat(levels)].concat();
    let put = |unknown: &[u8]| {
        let mut put = BytesMut::from(&b"\x0a\x04deep"[..]);
        put.put_slice(unknown);
        framed(0, &put)
    };
    for unknown in [b"\x1a\x011".to_vec(), b"\x08\x01".to_vec(), groups(10_001)] {
        answer(&server, PUT, put(&unknown))
            .await
            .assert(Code::Ok, "");
    }
    let malformed =
        "grpc: error unmarshalling request: proto: cannot parse invalid wire-format data";
    let refused = answer(&server, PUT, put(&groups(10_002))).await;
    refused.assert(Code::Internal, malformed);
    let long = AuthRoleAddRequest {
        name: "n".repeat(32_769),
    };
    let refused = answer(&server, "/etcdserverpb.Auth/RoleAdd", encoded(&long)).await;
    refused.assert(Code::InvalidArgument, "etcdserver: request is too large");
    let no_text = framed(0, b"\x0a\x02\xff\xfe");
    let refused = answer(&server, "/etcdserverpb.Auth/UserAdd", no_text).await;
    let text = "grpc: error unmarshalling request: string field contains invalid UTF-8";
    refused.assert(Code::Internal, text);
    restarts(&place, server, &[]).await;
}

#[tokio::test]
async fn the_last_voter_is_not_removed() {
    let flags = ["--strict-reconfig-check=false"];
    let place = Place::new();
    let server = place.start(&flags);
    let list = encoded(&MemberListRequest::default());
    let list = answer(&server, "/etcdserverpb.Cluster/MemberList", list).await;
    let list: MemberListResponse = prost::Message::decode(list.body.slice(5..)).unwrap();
    let remove = encoded(&MemberRemoveRequest {
        id: list.members[0].id,
    });
    let refused = answer(&server, "/etcdserverpb.Cluster/MemberRemove", remove).await;
    refused.assert(
        Code::Unknown,
        "etcdserver: re-configuration failed due to not enough started members",
    );
    let put = encoded(&PutRequest {
        key: "deep".into(),
        ..Default::default()
    });
    answer(&server, PUT, put).await.assert(Code::Ok, "");
    restarts(&place, server, &flags).await;
}
