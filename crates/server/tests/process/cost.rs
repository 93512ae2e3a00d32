//! What a request costs: what is refused is refused in the order of the effort, and what was done is counted.

use bytes::Bytes;
use prost::Message;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::request_op::Request;
use tonic::Code;

use super::place::{Place, Server};
use super::raw::{Answer, Connection, call, encoded, framed};

const TXN: &str = "/etcdserverpb.KV/Txn";

async fn answer<T: Message>(server: &Server, path: &str, request: &T) -> Answer {
    send(server, path, encoded(request)).await
}

async fn send(server: &Server, path: &str, body: Bytes) -> Answer {
    let connection = Connection::open(server).await;
    let answer = connection.send(call(path), body).await;
    answer.expect("the call is answered")
}

/// Two puts of one key, with values of `bytes` bytes together.
fn duplicates(bytes: usize) -> pb::TxnRequest {
    let put = |bytes| pb::RequestOp {
        request: Some(Request::RequestPut(pb::PutRequest {
            key: "k".into(),
            value: vec![b'v'; bytes].into(),
            ..Default::default()
        })),
    };
    pb::TxnRequest {
        success: vec![put(bytes / 2), put(bytes / 2)],
        ..Default::default()
    }
}

/// Size first, then who asks, and only then whether keys are named twice.
#[tokio::test]
async fn a_transaction_is_refused_for_what_is_cheapest_to_see() {
    const DUPLICATE: &str = "etcdserver: duplicate key given in txn request";
    let place = Place::new();
    let server = place.start(&["--max-request-bytes=10000"]);
    let small = answer(&server, TXN, &duplicates(100)).await;
    small.assert(Code::InvalidArgument, DUPLICATE);
    let large = answer(&server, TXN, &duplicates(20_000)).await;
    large.assert(Code::InvalidArgument, "etcdserver: request is too large");

    let auth = "/etcdserverpb.Auth";
    let root = pb::AuthUserAddRequest {
        name: "root".into(),
        password: "p".into(),
        ..Default::default()
    };
    let grant = pb::AuthUserGrantRoleRequest {
        user: "root".into(),
        role: "root".into(),
    };
    let steps = [
        (format!("{auth}/UserAdd"), encoded(&root)),
        (format!("{auth}/UserGrantRole"), encoded(&grant)),
        (format!("{auth}/AuthEnable"), framed(0, b"")),
    ];
    for (path, body) in steps {
        send(&server, &path, body).await.assert(Code::Ok, "");
    }
    let nobody = answer(&server, TXN, &duplicates(100)).await;
    nobody.assert(Code::InvalidArgument, "etcdserver: user name is empty");
}

/// As etcd's dashboards show them.
#[tokio::test]
async fn reads_are_counted_like_writes() {
    let place = Place::new();
    let server = place.start(&[]);
    let range = pb::RangeRequest {
        key: "k".into(),
        ..Default::default()
    };
    let read = pb::RequestOp {
        request: Some(Request::RequestRange(range.clone())),
    };
    let txn = pb::TxnRequest {
        success: vec![read],
        ..Default::default()
    };
    answer(&server, "/etcdserverpb.KV/Range", &range)
        .await
        .assert(Code::Ok, "");
    answer(&server, TXN, &txn).await.assert(Code::Ok, "");
    let page = server.page("/metrics");
    for kind in ["Range", "ReadonlyTxn"] {
        let line = format!(
            r#"etcd_server_request_duration_seconds_count{{success="true",type="{kind}"}} 1"#
        );
        assert!(page.contains(&line), "no {line} in\n{page}");
    }
}
