//! What a request costs: what is refused is refused in the order of the effort, and what was done
//! is counted.

use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::watch_client::WatchClient;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use retcd_proto::mvccpb::KeyValue;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::place::{Place, Server, until};
use super::raw::{Answer, Connection, call, call_with, encoded, framed};

const TXN: &str = "/etcdserverpb.KV/Txn";
/// Far beyond what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

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
    let server = place.start(&["--max-request-bytes=30000", "--max-txn-ops=2000"]);
    let small = answer(&server, TXN, &duplicates(100)).await;
    small.assert(Code::InvalidArgument, DUPLICATE);
    let large = answer(&server, TXN, &duplicates(40_000)).await;
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
    // As etcd says; of many operations it would cost too much to say it to nobody.
    let nobody = answer(&server, TXN, &duplicates(100)).await;
    nobody.assert(Code::InvalidArgument, DUPLICATE);
    let mut many = duplicates(100);
    many.success = vec![many.success[0].clone(); 1200];
    for op in &mut many.success {
        if let Some(Request::RequestPut(put)) = &mut op.request {
            put.value = "".into();
        }
    }
    let nobody = answer(&server, TXN, &many).await;
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

fn put(key: String) -> pb::RequestOp {
    op(Request::RequestPut(pb::PutRequest {
        key: key.into(),
        ..Default::default()
    }))
}

/// As clients get around the limit of operations per level.
fn nested(mut ops: Vec<pb::RequestOp>) -> pb::TxnRequest {
    const WIDTH: usize = 30;
    let branch = |success| pb::TxnRequest {
        success,
        ..Default::default()
    };
    while ops.len() > WIDTH {
        let level = ops
            .chunks(WIDTH)
            .map(|ops| op(Request::RequestTxn(branch(ops.to_vec()).into())));
        ops = level.collect();
    }
    branch(ops)
}

/// A gauge that only grows would tell of a member that gets nothing done.
#[tokio::test]
async fn who_no_longer_waits_is_not_counted_among_those_who_do() {
    let place = Place::new();
    let server = place.start(&[]);
    let connection = Connection::open(&server).await;
    let large = nested(
        (0..30_000)
            .map(|number| put(format!("k{number}")))
            .collect(),
    );
    // However far the member has come by then.
    for timeout in ["1m", "5m", "10m", "20m", "40m", "80m", "160m"] {
        let impatient = call_with(TXN, "grpc-timeout", timeout.as_bytes());
        let answer = connection.send(impatient, encoded(&large)).await;
        let (code, _) = answer.expect("the call is answered").grpc.unwrap();
        assert!([Code::Ok as i32, Code::DeadlineExceeded as i32].contains(&code));
    }
    until("nothing to be pending", async || {
        let page = server.page("/metrics");
        page.contains("\netcd_server_proposals_pending 0\n")
    })
    .await;
}

const RANGE: &str = "/etcdserverpb.KV/Range";
const VALUES: usize = 36;

/// A database of 36 MiB.
async fn filled(place: &Place) -> Server {
    let server = place.start(&[]);
    let mut kv = server.kv().await;
    for number in 0..VALUES {
        kv.put(format!("k{number:02}"), vec![b'v'; 1 << 20])
            .await
            .unwrap();
    }
    server
}

fn everything() -> pb::RangeRequest {
    pb::RangeRequest {
        key: "k".into(),
        range_end: "l".into(),
        ..Default::default()
    }
}

fn op(request: Request) -> pb::RequestOp {
    pb::RequestOp {
        request: Some(request),
    }
}

/// The answer would be 4.5 GB: it is refused by its length, without being made.
#[tokio::test]
async fn an_answer_larger_than_a_message_is_refused() {
    let place = Place::new();
    let server = filled(&place).await;
    let mut txn = pb::TxnRequest {
        success: vec![op(Request::RequestRange(everything())); 120],
        ..Default::default()
    };
    let assert_refused = |answer: &Answer| {
        answer.assert_prefix(
            Code::ResourceExhausted,
            "grpc: trying to send message larger than max (2",
        );
        let (_, message) = answer.grpc.clone().unwrap();
        assert!(message.ends_with(" vs. 2147483647)"), "{message}");
    };
    assert_refused(&answer(&server, TXN, &txn).await);
    // With a write it is applied all the same, as in etcd.
    txn.success.push(op(Request::RequestPut(pb::PutRequest {
        key: "written".into(),
        ..Default::default()
    })));
    assert_refused(&answer(&server, TXN, &txn).await);
    assert_eq!(server.kv().await.get("written").await, Some(vec![]));
    server.assert_well();
}

/// What is sent in pieces is the same message.
#[tokio::test]
async fn a_long_answer_arrives_whole() {
    let place = Place::new();
    let server = filled(&place).await;
    let list = answer(&server, RANGE, &everything()).await;
    list.assert(Code::Ok, "");
    let list = pb::RangeResponse::decode(&list.body[5..]).unwrap();
    assert_eq!((list.count, list.kvs.len()), (36, VALUES));
    for (number, kv) in list.kvs.iter().enumerate() {
        assert_eq!(kv.key, format!("k{number:02}"));
        assert_eq!(kv.value.len(), 1 << 20);
    }
    let twice = pb::TxnRequest {
        success: vec![op(Request::RequestRange(everything())); 2],
        ..Default::default()
    };
    let twice = answer(&server, TXN, &twice).await;
    twice.assert(Code::Ok, "");
    let twice = pb::TxnResponse::decode(&twice.body[5..]).unwrap();
    let lists = twice.responses.iter().map(|op| match &op.response {
        Some(pb::response_op::Response::ResponseRange(list)) => list.kvs.len(),
        other => panic!("{other:?}"),
    });
    assert_eq!(lists.collect::<Vec<_>>(), [VALUES; 2]);
}

/// What a watch tells of large values, before and after, comes piece by piece.
#[tokio::test]
async fn a_watch_tells_large_values_with_those_before() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut kv = server.kv().await;
    let mut watch = WatchClient::new(server.channel().await).max_decoding_message_size(usize::MAX);
    let create = pb::WatchCreateRequest {
        key: "k".into(),
        prev_kv: true,
        ..Default::default()
    };
    let create = pb::WatchRequest {
        request_union: Some(RequestUnion::CreateRequest(create)),
    };
    let (requests, outgoing) = tokio::sync::mpsc::channel(1);
    requests.send(create).await.unwrap();
    let responses = watch.watch(ReceiverStream::new(outgoing)).await;
    let mut responses = responses.unwrap().into_inner();
    assert!(responses.message().await.unwrap().unwrap().created);
    for round in 0..20_u8 {
        kv.put("k", vec![round; 1 << 20]).await.unwrap();
    }
    let mut told = 0_u8;
    while told < 20 {
        let response = tokio::time::timeout(PATIENCE, responses.message()).await;
        for event in response.expect("it is told").unwrap().unwrap().events {
            let value = |kv: Option<KeyValue>| kv.map(|kv| kv.value);
            let expected = |round: u8| Some(Bytes::from(vec![round; 1 << 20]));
            assert!(value(event.kv) == expected(told), "at {told}");
            assert!(value(event.prev_kv) == told.checked_sub(1).and_then(expected));
            told += 1;
        }
    }
}

#[tokio::test]
async fn deadlines_are_read_as_by_etcd() {
    let place = Place::new();
    let server = place.start(&[]);
    let connection = Connection::open(&server).await;
    let with_timeout = async |timeout: &str| {
        let request = call_with(RANGE, "grpc-timeout", timeout.as_bytes());
        let answer = connection.send(request, encoded(&everything())).await;
        answer.expect("the call is answered")
    };
    with_timeout("20S").await.assert(Code::Ok, "");
    for passed in ["0n", "00000000S"] {
        let answer = with_timeout(passed).await;
        answer.assert(Code::DeadlineExceeded, "context deadline exceeded");
        assert_eq!(answer.http_status, 200);
    }
    let malformed = with_timeout("5").await;
    malformed.assert(
        Code::Internal,
        "malformed grpc-timeout: transport: timeout string is too short: \"5\"",
    );
    assert_eq!(malformed.http_status, 400);
}

/// A token may be long.
#[tokio::test]
async fn headers_may_be_as_long_as_at_etcd() {
    let place = Place::new();
    let server = place.start(&[]);
    let connection = Connection::open(&server).await;
    let token = vec![b'a'; 500_000];
    let request = call_with(RANGE, "token", &token);
    let answer = connection.send(request, encoded(&everything())).await;
    answer.expect("the call is answered").assert(Code::Ok, "");
}
