//! The gateway over WebSocket, with frames by hand.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use super::json::{Gateway, b64, text};
use super::place::{Place, Server};

const TEXT: u8 = 1;
const CLOSE: u8 = 8;
const PING: u8 = 9;
const PONG: u8 = 10;

struct Socket {
    reader: BufReader<TcpStream>,
    /// The head of the answer.
    head: String,
}

impl Socket {
    fn open(server: &Server, path: &str, headers: &str) -> Socket {
        let mut stream = server.socket();
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n{headers}\r\n"
        )
        .unwrap();
        let mut reader = BufReader::new(stream);
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
        }
        assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
        Socket { reader, head }
    }

    fn send(&mut self, kind: u8, payload: &[u8]) {
        const MASK: [u8; 4] = [1, 2, 3, 4];
        let mut frame = vec![0x80 | kind];
        match u8::try_from(payload.len()) {
            Ok(length @ 0..=125) => frame.push(0x80 | length),
            _ => {
                let length = u16::try_from(payload.len()).expect("requests are short");
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
        }
        frame.extend(MASK);
        let masked = payload.iter().zip(MASK.iter().cycle());
        frame.extend(masked.map(|(byte, mask)| byte ^ mask));
        self.reader.get_mut().write_all(&frame).unwrap();
    }

    fn say(&mut self, request: &Value) {
        self.send(TEXT, request.to_string().as_bytes());
    }

    /// The next message, of several frames perhaps; none if the server has closed the connection.
    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let (mut kind, mut message) = (None, Vec::new());
        loop {
            let mut head = [0; 2];
            match self.reader.read_exact(&mut head) {
                Ok(()) => {}
                Err(_) => return None,
            }
            let length = match head[1] {
                126 => {
                    let mut length = [0; 2];
                    self.reader.read_exact(&mut length).unwrap();
                    u64::from(u16::from_be_bytes(length))
                }
                127 => {
                    let mut length = [0; 8];
                    self.reader.read_exact(&mut length).unwrap();
                    u64::from_be_bytes(length)
                }
                length => length.into(),
            };
            let mut payload = vec![0; length.try_into().unwrap()];
            self.reader.read_exact(&mut payload).unwrap();
            message.extend(payload);
            let kind = *kind.get_or_insert(head[0] & 0xf);
            if head[0] & 0x80 != 0 {
                return Some((kind, message));
            }
        }
    }

    fn document(&mut self) -> Value {
        let (kind, message) = self.message().expect("the socket is open");
        assert_eq!(kind, TEXT);
        serde_json::from_slice(&message).unwrap()
    }

    fn result(&mut self) -> Value {
        let mut document = self.document();
        assert!(document["error"].is_null(), "{document}");
        document["result"].take()
    }

    #[track_caller]
    fn assert_closed(&mut self) {
        let (kind, _) = self.message().expect("the end is told");
        assert_eq!(kind, CLOSE);
        assert_eq!(self.message(), None);
    }
}

#[test]
fn watches_and_renewals_go_both_ways() {
    let place = Place::new();
    let server = place.start(&[]);
    let gateway = Gateway::new(place.client_port);
    let mut watch = Socket::open(&server, "/v3/watch", "");
    let accepted = "Sec-Websocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";
    assert!(watch.head.contains(accepted), "{}", watch.head);
    watch.say(&json!({"create_request": {"key": b64("a")}}));
    assert_eq!(watch.result()["created"], json!(true));
    gateway.put("a", "1");
    assert_eq!(text(&watch.result()["events"][0]["kv"]["value"]), "1");
    // Another request, in two messages, while the first is still being answered.
    watch.send(TEXT, br#"{"create_request":"#);
    watch.send(TEXT, br#"{"key":"Yg=="}}"#);
    assert_eq!(watch.result()["watch_id"], json!("1"));
    gateway.put("b", "2");
    assert_eq!(text(&watch.result()["events"][0]["kv"]["value"]), "2");
    watch.say(&json!({"cancel_request": {"watch_id": 0}}));
    assert_eq!(watch.result()["canceled"], json!(true));
    watch.send(PING, b"hello");
    assert_eq!(watch.message(), Some((PONG, b"hello".to_vec())));
    watch.send(CLOSE, &1000u16.to_be_bytes());
    watch.assert_closed();

    let lease = gateway.call("/v3/lease/grant", &json!({"TTL": 60, "ID": "5"}));
    assert_eq!(lease["ID"], "5");
    let mut renewals = Socket::open(&server, "/v3/lease/keepalive", "");
    for id in ["5", "6", "5"] {
        renewals.say(&json!({"ID": id}));
        let renewal = renewals.result();
        assert_eq!(renewal["ID"], id);
        assert_eq!(renewal["TTL"].is_null(), id == "6", "{renewal}");
    }
    renewals.send(TEXT, b"nonsense");
    renewals.assert_closed();
}

#[test]
fn one_answer_ends_the_socket() {
    let place = Place::new();
    let server = place.start(&[]);
    let gateway = Gateway::new(place.client_port);
    gateway.put("a", &"v".repeat(300_000));
    let mut range = Socket::open(&server, "/v3/kv/range", "");
    range.say(&json!({"key": b64("a")}));
    let answer = range.document();
    assert_eq!(text(&answer["kvs"][0]["value"]).len(), 300_000);
    range.assert_closed();
    let mut lost = Socket::open(&server, "/v3/nothing", "");
    assert_eq!(lost.document(), json!({"code": 5, "message": "Not Found"}));
    lost.assert_closed();
}

#[test]
fn tokens_come_with_the_handshake() {
    let place = Place::new();
    let server = place.start(&["--bcrypt-cost=4"]);
    let gateway = Gateway::new(place.client_port);
    gateway.call(
        "/v3/auth/user/add",
        &json!({"name": "root", "password": "r"}),
    );
    gateway.call("/v3/auth/role/add", &json!({"name": "root"}));
    gateway.call(
        "/v3/auth/user/grant",
        &json!({"user": "root", "role": "root"}),
    );
    gateway.call("/v3/auth/enable", &json!({}));
    let login = gateway.call(
        "/v3/auth/authenticate",
        &json!({"name": "root", "password": "r"}),
    );
    let token = login["token"].as_str().expect("a token");
    let created = |headers: &str| {
        let mut watch = Socket::open(&server, "/v3/watch", headers);
        let is_bearer = watch.head.contains("Sec-Websocket-Protocol: Bearer\r\n");
        assert_eq!(is_bearer, headers.contains("Bearer,"), "{}", watch.head);
        watch.say(&json!({"create_request": {"key": b64("a")}}));
        watch.result()["canceled"].is_null()
    };
    assert!(created(&format!(
        "Sec-WebSocket-Protocol: Bearer, {token}\r\n"
    )));
    assert!(created(&format!("Cookie: a=b; token={token}\r\n")));
    assert!(!created("Sec-WebSocket-Protocol: Bearer, other.1\r\n"));
    assert!(!created(&format!("Authorization: {token}\r\n")));
    assert!(!created(""));
}

#[test]
fn handshakes_that_are_none_are_refused() {
    let place = Place::new();
    let server = place.start(&[]);
    let refused = |request: &str| {
        let request = format!(
            "{request}\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n\r\n"
        );
        let answer = server.exchange(request.as_bytes());
        String::from_utf8(answer).expect("an answer is text")
    };
    let unnamed = refused("GET /v3/watch HTTP/1.1");
    assert!(
        unnamed.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{unnamed}"
    );
    let posted = refused("POST /v3/watch HTTP/1.1\r\nSec-WebSocket-Version: 13");
    assert!(posted.starts_with("HTTP/1.1 405 "), "{posted}");
    // Only the gateway has sockets.
    let page = refused("GET /version HTTP/1.1\r\nSec-WebSocket-Version: 13");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    server.assert_well();
}
