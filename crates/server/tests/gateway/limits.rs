//! What is too long or too deep, what breaks off, and what a long answer costs.

use std::io::Write;

use serde_json::json;

use super::client::{Request, Whole};
use super::json::{Gateway, b64};
use super::place::{Place, until};

fn post(port: u16, path: &str, body: impl Into<Vec<u8>>) -> Whole {
    let mut request = Request::new("POST", path);
    request.body = body.into();
    request.answer(port)
}

#[track_caller]
fn assert_refused(answer: &Whole, status: u16, message: &str) {
    assert_eq!(answer.status, status, "{answer:?}");
    assert!(answer.body.contains(message), "{answer:?}");
}

#[test]
fn long_and_deep_requests_are_refused() {
    let place = Place::new();
    let server = place.start(&[]);
    let port = place.client_port;
    let put = |bytes: usize| {
        let value = b64(&"v".repeat(bytes));
        post(
            port,
            "/v3/kv/put",
            format!(r#"{{"key":"YQ==","value":"{value}"}}"#),
        )
    };
    assert_eq!(put(1 << 20).status, 200);
    assert_refused(&put(1_600_000), 400, "etcdserver: request is too large");
    // As long as the encoding would be.
    let text = "grpc: received message larger than max (3000008 vs. 2097152)";
    assert_refused(&put(3_000_000), 429, text);
    let padded = [b" ".repeat(17 << 20), b"{}".to_vec()].concat();
    let text = "grpc: received message larger than max";
    assert_refused(&post(port, "/v3/kv/put", padded), 429, text);
    let unknown = [b"{\"x\":\"".to_vec(), b"x".repeat(17 << 20)].concat();
    assert_refused(&post(port, "/v3/lease/keepalive", unknown), 429, text);

    let bomb = "[".repeat(1 << 20);
    let text = "invalid character '[' exceeded max depth";
    assert_refused(&post(port, "/v3/kv/range", bomb.clone()), 400, text);
    let bomb = post(port, "/v3/lease/keepalive", bomb);
    assert_eq!((bomb.status, bomb.body.as_str()), (200, ""));
    let levels = 3_332;
    let open = r#"{"success":[{"request_txn":"#.repeat(levels);
    let txn = format!("{open}{{}}{}", "}]}".repeat(levels));
    let text = "etcdserver: too many operations in txn request";
    assert_refused(&post(port, "/v3/kv/txn", txn), 400, text);
    server.assert_well();
}

/// As deep as operations may lie within each other, in both directions.
#[test]
fn transactions_lie_within_each_other() {
    let place = Place::new();
    let server = place.start(&["--max-txn-ops=100000"]);
    let levels = 3_000;
    let open = r#"{"success":[{"request_txn":"#.repeat(levels);
    let txn = format!("{open}{{}}{}", "}]}".repeat(levels));
    let answer = post(place.client_port, "/v3/kv/txn", txn);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body.matches("response_txn").count(), levels);
    server.assert_well();
}

/// A watch may wait for ever; its client does not.
#[tokio::test]
async fn clients_that_leave_are_noticed() {
    let place = Place::new();
    let mut server = place.start(&[]);
    let descriptors = format!("/proc/{}/fd", server.child().id());
    let bodies = [
        "Content-Length: 33\r\n\r\n{\"create_request\":{\"key\":\"YQ==\"}}",
        "Content-Length: 99\r\n\r\n{\"create_request\":{\"key\":\"YQ==\"}}",
        "Content-Length: 99\r\n\r\n{\"create_request\":",
        "Content-Length: 2\r\n\r\nxx",
        "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n",
        "Transfer-Encoding: chunked\r\n\r\nzz\r\n{}",
        "Content-Length: 0\r\n\r\n",
    ];
    let mut sockets = Vec::new();
    for path in ["/v3/watch", "/v3/lease/keepalive", "/v3/kv/put"] {
        for body in bodies {
            let mut socket = server.socket();
            let head = format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n");
            socket.write_all((head + body).as_bytes()).unwrap();
            sockets.push(socket);
        }
    }
    let open = || std::fs::read_dir(&descriptors).unwrap().count();
    let streams = || {
        let page = server.page("/metrics");
        let mut lines = page.lines();
        let name = "etcd_debugging_mvcc_watch_stream_total ";
        let line = lines.find_map(|line| line.strip_prefix(name));
        line.expect("watches are counted").parse::<usize>().unwrap()
    };
    until("the streams", async || streams() >= 4).await;
    let before = open();
    let clients = sockets.len();
    drop(sockets);
    until("the end of the streams", async || streams() == 0).await;
    until("the end of the connections", async || {
        open() + clients / 2 < before
    })
    .await;
    server.assert_well();
}

/// A client asks for all keys and reads slowly: its answer is made as it is taken.
#[test]
fn long_lists_are_written_in_pieces() {
    const KEYS: usize = 20_000;
    let place = Place::new();
    let server = place.start(&["--max-txn-ops=1000"]);
    let gateway = Gateway::new(place.client_port);
    for first in (0..KEYS).step_by(1000) {
        let puts = (first..first + 1000).map(|number| {
            let key = b64(&format!("key/{number:06}"));
            json!({"request_put": {"key": key, "value": b64(&"v".repeat(300))}})
        });
        let puts: Vec<_> = puts.collect();
        gateway.call("/v3/kv/txn", &json!({"success": puts}));
    }
    let range = json!({"key": "AA==", "range_end": "AA=="});
    let mut answer = gateway.request("/v3/kv/range", &range).send(gateway.port);
    assert_eq!(answer.status, 200);
    let mut text = Vec::new();
    let mut longest = 0;
    while let Some(part) = answer.part(std::time::Duration::from_secs(60)) {
        longest = longest.max(part.len());
        text.extend(part);
    }
    assert!(answer.ended);
    assert!(longest < 1 << 20, "a piece has {longest} bytes");
    let list: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(list["kvs"].as_array().map(Vec::len), Some(KEYS));
    assert_eq!(list["count"], json!(KEYS.to_string()));
    server.assert_well();
}
