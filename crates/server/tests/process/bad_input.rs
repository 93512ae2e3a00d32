//! Nonsense on the wire: a clear answer, and the server goes on for everybody else.

use std::io::Write;

use bytes::Bytes;
use retcd_proto::etcdserverpb::{PutRequest, RangeRequest};
use tonic::Code;

use super::place::{Place, Server};
use super::raw::{Answer, Connection, PUT, call, call_with, encoded, framed};

fn put() -> Bytes {
    encoded(&PutRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    })
}

/// The answer to one call, and proof that the same connection and new ones still serve.
async fn answer(server: &Server, request: http::Request<()>, body: Bytes) -> Answer {
    let connection = Connection::open(server).await;
    let answer = connection
        .send(request, body)
        .await
        .expect("the call is answered");
    let next = connection
        .send(call(PUT), put())
        .await
        .expect("the connection lives on");
    next.assert(Code::Ok, "");
    server.assert_well();
    answer
}

#[tokio::test]
async fn messages_that_are_no_messages_are_named() {
    let place = Place::new();
    let server = place.start(&[]);
    let malformed = [
        &b"\x0a\xff\xff\xff\xff\x0f"[..],
        b"\xff\xff\xff",
        b"\x0a\x7fk",
        b"\x0b",
        b"\x02\x00",
    ];
    for message in malformed {
        let answer = answer(&server, call(PUT), framed(0, message)).await;
        answer.assert_prefix(Code::Internal, "grpc: error unmarshalling request: ");
    }
    let compressed = answer(&server, call(PUT), framed(1, b"")).await;
    compressed.assert(
        Code::Internal,
        "grpc: compressed flag set with identity or empty encoding",
    );
    let cut = answer(&server, call(PUT), put().slice(..put().len() - 1)).await;
    cut.assert(Code::Unknown, "unexpected EOF");
    let cut_prefix = answer(&server, call(PUT), put().slice(..3)).await;
    cut_prefix.assert(Code::Unknown, "EOF");
    let nothing = answer(&server, call(PUT), Bytes::new()).await;
    nothing.assert(Code::Unknown, "EOF");
    // grpc-go has other words where the answer is a stream.
    for method in ["/etcdserverpb.KV/RangeStream", "/etcdserverpb.Watch/Watch"] {
        let answer = answer(&server, call(method), framed(0, b"\xff")).await;
        let text = "grpc: failed to unmarshal the received message: ";
        answer.assert_prefix(Code::Internal, text);
    }
    let nothing = answer(
        &server,
        call("/etcdserverpb.Maintenance/Snapshot"),
        Bytes::new(),
    )
    .await;
    nothing.assert(
        Code::Internal,
        "cardinality violation: received no request message from non-client-streaming RPC",
    );
}

/// etcd's server understands gzip because its exporter of traces links it in.
#[tokio::test]
async fn gzip_is_understood() {
    // A put of `v` to `k`.
    const COMPRESSED: &[u8] = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x02\x03\xe3\x62\xcc\x16\x62\x2c\x03\x00\x21\x49\xc1\x7e\x06\x00\x00\x00";
    let place = Place::new();
    let server = place.start(&[]);
    let put = answer(
        &server,
        call_with(PUT, "grpc-encoding", b"gzip"),
        framed(1, COMPRESSED),
    )
    .await;
    put.assert(Code::Ok, "");
    let broken = answer(
        &server,
        call_with(PUT, "grpc-encoding", b"gzip"),
        framed(1, b"x"),
    )
    .await;
    broken.assert_prefix(Code::Internal, "grpc: failed to decompress the message: ");
}

#[tokio::test]
async fn sizes_have_limits() {
    let place = Place::new();
    let server = place.start(&["--max-request-bytes=10000"]);
    let value = |bytes: usize| {
        encoded(&PutRequest {
            key: "k".into(),
            value: vec![7; bytes].into(),
            ..Default::default()
        })
    };
    let small = answer(&server, call(PUT), value(9_000)).await;
    small.assert(Code::Ok, "");
    let refused = answer(&server, call(PUT), value(10_000)).await;
    refused.assert(Code::InvalidArgument, "etcdserver: request is too large");
    let body = value(600_000);
    let length = body.len() - 5;
    let huge = answer(&server, call(PUT), body).await;
    huge.assert(
        Code::ResourceExhausted,
        &format!("grpc: received message larger than max ({length} vs. 534288)"),
    );
    // A length alone reserves nothing.
    let claimed = answer(
        &server,
        call(PUT),
        Bytes::from_static(b"\0\xff\xff\xff\xff"),
    )
    .await;
    claimed.assert(
        Code::ResourceExhausted,
        "grpc: received message larger than max (4294967295 vs. 534288)",
    );
}

#[tokio::test]
async fn paths_and_methods_that_lead_nowhere_are_named() {
    let place = Place::new();
    let server = place.start(&[]);
    let cases = [
        (
            "/etcdserverpb.KV/Nope",
            "unknown method Nope for service etcdserverpb.KV",
        ),
        (
            "/etcdserverpb.Nope/Put",
            "unknown service etcdserverpb.Nope",
        ),
        (
            "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "unknown service grpc.reflection.v1.ServerReflection",
        ),
        ("/nothing", "malformed method name: \"/nothing\""),
    ];
    for (path, message) in cases {
        answer(&server, call(path), put())
            .await
            .assert(Code::Unimplemented, message);
    }
    let mut get = call(PUT);
    *get.method_mut() = http::Method::GET;
    let get = answer(&server, get, put()).await;
    assert_eq!(get.http_status, 405, "{get:?}");
    get.assert(
        Code::Internal,
        "Received a HEADERS frame with :method \"GET\" which should be POST",
    );
}

#[tokio::test]
async fn metadata_is_checked_before_the_call() {
    let place = Place::new();
    let server = place.start(&[]);
    let version = answer(
        &server,
        call_with(PUT, "client-api-version", b"3.\xff"),
        put(),
    )
    .await;
    version.assert(
        Code::InvalidArgument,
        "etcdserver: invalid client api version",
    );
    let leader = answer(&server, call_with(PUT, "hasleader", b"true"), put()).await;
    leader.assert(Code::Ok, "");
    let encoding = answer(
        &server,
        call_with(PUT, "grpc-encoding", b"snappy"),
        framed(1, b"x"),
    )
    .await;
    encoding.assert_prefix(
        Code::Unimplemented,
        "grpc: Decompressor is not installed for grpc-encoding \"snappy\"",
    );
}

#[tokio::test]
async fn requests_that_make_no_sense_say_why() {
    let place = Place::new();
    let server = place.start(&[]);
    let empty_key = answer(&server, call(PUT), encoded(&PutRequest::default())).await;
    empty_key.assert(Code::InvalidArgument, "etcdserver: key is not provided");
    let future = RangeRequest {
        key: "k".into(),
        revision: i64::MAX,
        ..Default::default()
    };
    let future = answer(&server, call("/etcdserverpb.KV/Range"), encoded(&future)).await;
    future.assert(
        Code::OutOfRange,
        "etcdserver: mvcc: required revision is a future revision",
    );
}

/// curl takes an answer for lost when its stream is reset while it is still sending.
#[tokio::test]
async fn pages_answer_first_and_then_let_the_body_go() {
    let place = Place::new();
    let server = place.start(&[]);
    let post = |path: &str| {
        let mut request = call(path);
        request.headers_mut().remove("content-type");
        request
    };
    let pages = [("/version", 405), ("/nosuch", 404), ("/metrics", 200)];
    for (path, status) in pages {
        let connection = Connection::open(&server).await;
        let (answer, reset) = connection
            .send_late(post(path), Bytes::from_static(b"hello=world"))
            .await
            .unwrap();
        assert_eq!((answer.http_status, reset), (status, None), "{path}");
        assert!(!answer.body.is_empty(), "{path}");
    }
    // Over HTTP/1.1, the connection stays as well.
    let body = "x".repeat(2 << 20);
    let length = body.len();
    let mut requests = String::new();
    for _ in 0..2 {
        requests += &format!(
            "POST /version HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\n{body}"
        );
    }
    requests += "GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let answers = String::from_utf8(server.exchange(requests.as_bytes())).unwrap();
    assert_eq!(
        answers.matches("405 Method Not Allowed").count(),
        2,
        "{answers}"
    );
    assert!(answers.contains("\"etcdserver\""), "{answers}");
    server.assert_well();
}

#[tokio::test]
async fn http_garbage_ends_only_its_connection() {
    let place = Place::new();
    let server = place.start(&[]);
    let long_header = format!(
        "GET /version HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n",
        "y".repeat(4 << 20)
    );
    let cases: [&[u8]; 5] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n",
        b"NONSENSE\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /version HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        long_header.as_bytes(),
    ];
    for bytes in cases {
        let answer = server.exchange(bytes);
        let text = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty() || text.starts_with("HTTP/1.1 4") || text.starts_with("HTTP/1.1 505"),
            "{text}"
        );
        server.assert_well();
    }
}

#[tokio::test]
async fn http2_garbage_ends_only_its_connection() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let place = Place::new();
    let server = place.start(&[]);
    let frames: [&[u8]; 5] = [
        // A frame of 16 MB, DATA on stream 0, HEADERS with a broken header block, SETTINGS of 5
        // bytes, noise.
        b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        b"\x00\x00\x01\x00\x00\x00\x00\x00\x00x",
        b"\x00\x00\x04\x01\x05\x00\x00\x00\x01\xff\xff\xff\xff",
        b"\x00\x00\x05\x04\x00\x00\x00\x00\x00abcde",
        b"this is no frame at all, whatever it says about itself",
    ];
    for frame in frames {
        server.exchange(&[PREFACE, b"\x00\x00\x00\x04\x00\x00\x00\x00\x00", frame].concat());
        server.assert_well();
    }
}

#[tokio::test]
async fn a_connection_cut_in_the_middle_leaves_nothing_behind() {
    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00";
    let place = Place::new();
    let server = place.start(&[]);
    for length in [1, 10, PREFACE.len() - 1, PREFACE.len()] {
        let mut socket = server.socket();
        socket.write_all(&PREFACE[..length]).unwrap();
        drop(socket);
        server.assert_well();
    }
    for request in ["GET /ver", "GET /version HTTP/1.1\r\nHo"] {
        let mut socket = server.socket();
        socket.write_all(request.as_bytes()).unwrap();
        drop(socket);
        server.assert_well();
    }
}

/// Proxies and meshes add what they like.
#[test]
fn a_request_may_have_many_headers() {
    let place = Place::new();
    let server = place.start(&[]);
    let headers: String = (0..300).map(|n| format!("X-{n}: y\r\n")).collect();
    let request =
        format!("GET /version HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{headers}\r\n");
    let answer = server.exchange(request.as_bytes());
    let answer = String::from_utf8(answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}
