//! Who gets to the gateway, and on which listener.

use super::client::Request;
use super::place::{Place, free_port};

fn status(port: u16, headers: &[&str]) -> u16 {
    let mut request = Request::new("POST", "/v3/kv/range");
    request.headers = headers.iter().map(ToString::to_string).collect();
    request.body = br#"{"key":"YQ=="}"#.to_vec();
    request.answer(port).status
}

#[test]
fn names_and_origins_are_checked() {
    let place = Place::new();
    let _server = place.start(&[
        "--host-whitelist=127.0.0.1",
        "--cors=http://good.example:80",
    ]);
    let port = place.client_port;
    assert_eq!(status(port, &[]), 200);
    assert_eq!(status(port, &["Host: bad.example"]), 421);
    let shared = |origin: &str| {
        let mut request = Request::new("POST", "/v3/kv/range");
        request.headers = vec![format!("Origin: {origin}")];
        request.body = br#"{"key":"YQ=="}"#.to_vec();
        let answer = request.answer(port);
        let origin = answer.header("Access-Control-Allow-Origin");
        origin.map(ToOwned::to_owned)
    };
    assert_eq!(
        shared("http://good.example:80").as_deref(),
        Some("http://good.example:80")
    );
    assert_eq!(shared("http://bad.example:80"), None);
    let asked = Request::new("OPTIONS", "/v3/kv/range").answer(port);
    assert_eq!((asked.status, asked.body.as_str()), (200, ""));
}

#[test]
fn listeners_may_be_split() {
    let place = Place::new();
    let http = free_port();
    let flag = format!("--listen-client-http-urls=http://127.0.0.1:{http}");
    let _server = place.start(&[&flag]);
    assert_eq!(status(http, &[]), 200);
    // The other one speaks gRPC alone.
    assert_eq!(status(place.client_port, &[]), 415);
}
