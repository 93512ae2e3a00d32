//! Watches that nobody reads, that end, and that are many.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use rustix::process::Signal;

use super::client::Request;
use super::place::{Place, until};

const PATIENCE: Duration = Duration::from_secs(60);

fn put(port: u16, key: &str, value: &str) {
    let put = Request::new("PUT", &format!("/v2/keys{key}")).form(&format!("value={value}"));
    let answer = put.answer(port);
    assert!(matches!(answer.status, 200 | 201), "{answer:?}");
}

fn watchers(port: u16) -> String {
    let counts = Request::new("GET", "/v2/stats/store").answer(port).body;
    let (_, watchers) = counts.rsplit_once(':').expect("the last count");
    watchers.trim_end_matches('}').to_owned()
}

#[tokio::test]
async fn a_stream_tells_each_event_in_a_line() {
    let place = Place::new();
    let _server = place.start(&[]);
    let port = place.client_port;
    let watch = Request::new("GET", "/v2/keys/a?wait=true&recursive=true&stream=true");
    let mut stream = watch.send(port);
    assert_eq!(watchers(port), "1");
    for value in ["1", "2"] {
        put(port, "/a/b", value);
        let line = stream.line(PATIENCE).expect("an event");
        assert!(line.contains(&format!("\"value\":\"{value}\"")), "{line}");
    }
    drop(stream);
    until("the end of the watch", async || watchers(port) == "0").await;
}

/// Neither writes nor other watchers wait for a client that does not read. It gets what there was
/// room for, and then the end.
#[test]
fn who_does_not_read_holds_up_nobody() {
    let place = Place::new();
    let _server = place.start(&[]);
    let port = place.client_port;
    let watch = Request::new("GET", "/v2/keys/a?wait=true&stream=true");
    let mut slow = watch.send(port);
    let mut quick = watch.send(port);
    let value = "v".repeat(80_000);
    const WRITES: usize = 250;
    for _ in 0..WRITES {
        put(port, "/a", &value);
        quick.line(PATIENCE).expect("an event");
    }
    let mut events = 0;
    while slow.part(PATIENCE).is_some() {
        events += 1;
    }
    assert!(slow.ended, "after {events} events");
    assert!((100..WRITES).contains(&events), "{events} events");
}

#[test]
fn watches_end_with_the_member() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut poll = Request::new("GET", "/v2/keys/a?wait=true").send(place.client_port);
    let watch = Request::new("GET", "/v2/keys/a?wait=true&stream=true");
    let mut stream = watch.send(place.client_port);
    server.signal(Signal::TERM);
    for watch in [&mut poll, &mut stream] {
        assert_eq!(watch.part(PATIENCE), None);
        assert!(watch.ended, "the answer is whole");
    }
    server.wait().assert(143, "closed etcd server");
}

/// Over HTTP/2, all on one connection.
#[tokio::test]
async fn thousands_of_watches_hear_of_one_write() {
    const WATCHES: usize = 3000;
    let place = Place::new();
    let server = place.start(&[]);
    let socket = server.socket();
    socket.set_nonblocking(true).unwrap();
    let socket = tokio::net::TcpStream::from_std(socket).unwrap();
    let mut client = h2::client::Builder::new();
    // For all answers at once.
    client.initial_connection_window_size(8 << 20);
    let (sender, connection) = client.handshake::<_, Bytes>(socket).await.unwrap();
    tokio::spawn(connection);
    let watch = async |_| {
        let mut sender = sender.clone().ready().await.unwrap();
        let uri = "http://localhost/v2/keys/a?wait=true";
        let request = http::Request::get(uri).body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let response = response.await.unwrap();
        assert_eq!(response.headers()["x-etcd-index"], "3");
        response.into_body()
    };
    let bodies = join_all((0..WATCHES).map(watch)).await;
    let port = place.client_port;
    assert_eq!(watchers(port), WATCHES.to_string());
    put(port, "/a", "now");
    for mut body in bodies {
        let line = body.data().await.expect("an event").unwrap();
        assert!(line.starts_with(b"{\"action\":\"set\""), "{line:?}");
        assert!(body.data().await.is_none());
    }
    assert_eq!(watchers(port), "0");
    server.assert_well();
}
