//! What is too long, and what is nonsense.

use super::client::{Request, Whole};
use super::place::Place;

const FORM: &str = "Content-Type: application/x-www-form-urlencoded";

#[track_caller]
fn assert_cause(answer: &Whole, cause: &str) {
    assert_eq!(answer.status, 400, "{answer:?}");
    let cause =
        format!("\"errorCode\":210,\"message\":\"Invalid POST form\",\"cause\":\"{cause}\"");
    assert!(answer.body.contains(&cause), "{answer:?}");
}

#[test]
fn long_requests_are_refused() {
    let place = Place::new();
    let server = place.start(&[]);
    let port = place.client_port;
    let put = |bytes: usize| {
        let value = "v".repeat(bytes);
        let put = Request::new("PUT", "/v2/keys/a?noValueOnSuccess=true");
        put.form(&format!("value={value}")).answer(port)
    };
    assert_eq!(put(1 << 20).status, 201);
    // Larger than an entry of the log may be.
    assert_cause(&put(2 << 20), "etcdserver: request is too large");
    assert_cause(&put(10 << 20), "http: POST too large");
    let mut members = Request::new("POST", "/v2/members");
    members
        .headers
        .push("Content-Type: application/json".to_owned());
    members.body = vec![b' '; (10 << 20) + 1];
    let answer = members.answer(port);
    assert_eq!(answer.status, 400, "{answer:?}");
    server.assert_well();
}

#[test]
fn a_broken_body_is_not_called_too_large() {
    let place = Place::new();
    let server = place.start(&[]);
    let broken = format!(
        "PUT /v2/keys/a HTTP/1.1\r\nHost: localhost\r\n{FORM}\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nvalue=1\r\n"
    );
    let answer = server.exchange(broken.as_bytes());
    let answer = String::from_utf8(answer).expect("an answer is text");
    assert!(answer.contains(r#""cause":"unexpected EOF""#), "{answer}");
    let nothing = Request::new("GET", "/v2/keys/a").answer(place.client_port);
    assert_eq!(nothing.status, 404, "{nothing:?}");
}

/// An answer with all that there is comes whole, and its length is told before.
#[test]
fn long_answers_arrive() {
    let place = Place::new();
    let _server = place.start(&[]);
    let port = place.client_port;
    let value = "v".repeat(100_000);
    for i in 0..30 {
        let put = Request::new("PUT", &format!("/v2/keys/d/{i:02}"));
        assert_eq!(put.form(&format!("value={value}")).answer(port).status, 201);
    }
    let all = Request::new("GET", "/v2/keys/?recursive=true").answer(port);
    assert_eq!(all.status, 200);
    assert_eq!(all.body.matches(&value).count(), 30);
    let length = all.body.len().to_string();
    assert_eq!(all.header("Content-Length"), Some(length.as_str()));
    let head = Request::new("HEAD", "/v2/keys/?recursive=true").answer(port);
    assert_eq!(head.header("Content-Length"), Some(length.as_str()));
}

#[test]
fn nonsense_stops_nobody() {
    let place = Place::new();
    let server = place.start(&[]);
    let port = place.client_port;
    let long = "/a".repeat(3000);
    let paths = [
        "/v2/keys/%",
        "/v2/keys/%00%0a%ff?value=%00",
        "/v2/keys/%2e%2e/%2e%2e/2/enabled?value=true",
        "/v2/keys/a?ttl=9223372036854775807&value=1",
        "/v2/keys/a?ttl=18446744073709551615&dir=true",
        "/v2/keys/a?wait=true&waitIndex=18446744073709551615&stream=t&x",
        "/v2/keys/a;b?=&=&&;;%3d",
        "/v2/members/ffffffffffffffffffff",
        "/v2/members/%ff",
        "/v2/auth/users/%00",
        "/v2/auth/roles/..%2f..",
        "/v2/stats/",
        &format!("/v2/keys{long}?value=1"),
    ];
    let bodies: [(&str, &[u8]); 6] = [
        (FORM, b"value=%"),
        (FORM, b"\xff\xfe=\x00&ttl=-"),
        (
            "Content-Type: application/json",
            b"{\"peerURLs\":[\"http://\\u0000:1\"]}",
        ),
        ("Content-Type: application/json", b"[[[[[[[[{"),
        ("Content-Type: ;;;=", b"{\"user\":null,\"role\":1}"),
        ("Authorization: Basic ////", b""),
    ];
    for path in paths {
        for method in ["GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "FOO"] {
            for (header, body) in &bodies {
                let mut request = Request::new(method, path);
                request.headers.push((*header).to_owned());
                request.body = body.to_vec();
                // A watch may go on: its head is enough.
                request.send(port);
            }
        }
    }
    server.assert_well();
}

#[test]
fn paths_that_are_not_clean_lead_elsewhere() {
    let place = Place::new();
    let _server = place.start(&[]);
    let moved = Request::new("GET", "/v2/keys//a%2F%2Fb%0A?x=%3Cy").answer(place.client_port);
    assert_eq!(moved.status, 301);
    assert_eq!(moved.header("Location"), Some("/v2/keys/a/b%0A?x=%3Cy"));
}

/// As etcd 3.3.25 refuses them.
#[test]
fn bodies_that_are_no_members_are_told_in_words_of_go() {
    let place = Place::new();
    let _server = place.start(&[]);
    for (body, text) in [
        ("{} x", "invalid character 'x' after top-level value"),
        (
            "nope",
            "invalid character 'o' in literal null (expecting 'u')",
        ),
        (
            r#"{"peerURLs":[1]}"#,
            "json: cannot unmarshal number into Go struct field .peerURLs of type string",
        ),
        (
            "[]",
            r#"json: cannot unmarshal array into Go value of type struct { PeerURLs []string \"json:\\\"peerURLs\\\"\" }"#,
        ),
    ] {
        let mut post = Request::new("POST", "/v2/members");
        let content_type = "Content-Type: application/json";
        post.headers.push(content_type.to_owned());
        post.body = body.as_bytes().to_vec();
        let answer = post.answer(place.client_port);
        assert_eq!(answer.status, 400, "{body}");
        assert_eq!(answer.body, format!("{{\"message\":\"{text}\"}}"), "{body}");
    }
}
