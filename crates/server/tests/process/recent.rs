//! `/debug/requests` and `/debug/events` as 3.7.1 serves them: to clients, with `--log-level=debug`. The
//! texts of families, links and events are those that it showed.

use std::io::Write;

use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use tokio_stream::StreamExt;

use super::auth::Client;
use super::place::{Place, Server, free_port};

const REQUESTS: &str = "/debug/requests?fam=grpc.Recv.etcdserverpb";

#[track_caller]
fn assert_in_order(page: &str, texts: &[&str]) {
    let mut rest = page;
    for text in texts {
        let at = rest.find(text);
        let at = at.unwrap_or_else(|| panic!("no {text:?} (in this order) in\n{page}"));
        rest = &rest[at + text.len()..];
    }
}

#[tokio::test]
async fn calls_are_shown_with_what_became_of_them() {
    let place = Place::new();
    let server = place.start(&["--log-level=debug"]);
    let empty = server.page("/debug/requests");
    assert!(
        empty.contains("<h1>/debug/requests</h1>") && !empty.contains("grpc."),
        "{empty}"
    );
    assert!(
        empty
            .to_lowercase()
            .contains("content-type: text/html; charset=utf-8"),
        "{empty}"
    );

    let client = Client::of(&server).await;
    let mut kv = server.kv().await;
    kv.put("foo", "hidden").await.unwrap();
    let mut bounded = tonic::Request::new(pb::RangeRequest {
        key: "foo".into(),
        ..Default::default()
    });
    bounded.set_timeout(std::time::Duration::from_secs(3600));
    kv.0.range(bounded).await.unwrap();
    kv.0.range(pb::RangeRequest::default()).await.unwrap_err();
    let user = pb::AuthUserAddRequest {
        name: "root".to_owned(),
        password: "hidden".to_owned(),
        ..Default::default()
    };
    let mut auth = pb::auth_client::AuthClient::new(client.channel.clone());
    auth.user_add(user).await.unwrap();

    // One call that goes on: a watch that has shown an event.
    let create = pb::WatchCreateRequest {
        key: "foo".into(),
        ..Default::default()
    };
    let (requests, messages) = tokio::sync::mpsc::unbounded_channel();
    let request = |union| pb::WatchRequest {
        request_union: Some(union),
    };
    requests
        .send(request(RequestUnion::CreateRequest(create)))
        .unwrap();
    let messages = tokio_stream::wrappers::UnboundedReceiverStream::new(messages);
    let mut watches = pb::watch_client::WatchClient::new(client.channel.clone());
    let mut responses = watches.watch(messages).await.unwrap().into_inner();
    responses.next().await.unwrap().unwrap();
    kv.put("foo", "hidden").await.unwrap();
    responses.next().await.unwrap().unwrap();

    let page = server.page("/debug/requests");
    assert_in_order(
        &page,
        &[
            "grpc.Recv.etcdserverpb.Auth<",
            "[0 active]",
            "?fam=grpc.Recv.etcdserverpb.Auth&amp;b=0\">[≥0s]",
            "class=\"empty\">[errors]",
            "&amp;b=9\">[minute]",
            "grpc.Recv.etcdserverpb.KV<",
            "?fam=grpc.Recv.etcdserverpb.KV&amp;b=8\">[errors]",
            "grpc.Recv.etcdserverpb.Watch<",
            "?fam=grpc.Recv.etcdserverpb.Watch&amp;b=-1\">[1 active]",
            "class=\"empty\">[≥0s]",
            "[≥0.05s]",
            "[≥100s]",
        ],
    );
    let page = server.page(&format!("{REQUESTS}.KV&b=0&exp=1"));
    assert_in_order(
        &page,
        &[
            "Family: grpc.Recv.etcdserverpb.KV",
            "Completed Requests",
            "/etcdserverpb.KV/Put",
            "/etcdserverpb.KV/Range",
            "... RPC: from 127.0.0.1:",
            " deadline:none",
            "... etcdserver: key is not provided",
            "... rpc error: code = InvalidArgument desc = etcdserver: key is not provided",
            "/etcdserverpb.KV/Range",
            " deadline:1h0m0s",
            "... recv: key:&#34;foo&#34;<",
            "... OK",
            "... sent: header:{cluster_id:",
            "/etcdserverpb.KV/Put",
            "... recv: key:&#34;foo&#34; value_size:6<",
        ],
    );
    let page = server.page(&format!("{REQUESTS}.KV&b=8"));
    assert_eq!(page.matches("/etcdserverpb.KV/").count(), 1, "{page}");
    let page = server.page(&format!("{REQUESTS}.KV&b=11"));
    assert_in_order(
        &page,
        &[
            "Latency (&micro;s) of grpc.Recv.etcdserverpb.KV over all time",
            "Count: 4<",
        ],
    );
    let page = server.page(&format!("{REQUESTS}.Watch&b=-1&exp=1"));
    assert_in_order(
        &page,
        &[
            "Active Requests",
            "/etcdserverpb.Watch/Watch",
            "... recv: create_request:{key:&#34;foo&#34;}",
            "... sent: header:{cluster_id:",
            "... sent: header:{cluster_id:",
        ],
    );
    assert!(!page.contains("... OK"), "{page}");
    let page = server.page(&format!("{REQUESTS}.Auth&b=0&exp=1"));
    assert_in_order(&page, &["... recv: name:&#34;root&#34;<"]);
    let page = server.page(&format!("{REQUESTS}.Auth&b=0&exp=1&show_sensitive=0"));
    assert!(
        page.contains("<em>[redacted]</em>") && !page.contains("root"),
        "{page}"
    );

    // The client ends its watch by hanging up on it.
    drop((requests, responses));
    let ended = async || {
        let page = server.page(&format!("{REQUESTS}.Watch&b=8&exp=1"));
        page.contains("... rpc error: code = Canceled desc = ")
    };
    super::place::until("the end of the watch", ended).await;
    for path in ["/debug/requests", "/debug/events"] {
        for query in ["", "?fam=grpc.Recv.etcdserverpb.KV&b=0&exp=1"] {
            let page = server.page(&format!("{path}{query}"));
            assert!(!page.contains("hidden"), "{page}");
        }
    }
}

#[test]
fn the_gateways_calls_are_calls() {
    let place = Place::new();
    let server = place.start(&["--log-level=debug"]);
    let body = r#"{"key":"Zm9v"}"#;
    let request = format!(
        "POST /v3/kv/range HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    server.exchange(request.as_bytes());
    let page = server.page(&format!("{REQUESTS}.KV&b=0&exp=1"));
    let events = [
        "/KV/Range",
        "... RPC: from 127.0.0.1:",
        "... recv: key:&#34;foo&#34;<",
    ];
    let events = events.map(|event| event.replace("/KV/", "/etcdserverpb.KV/"));
    assert_in_order(&page, &events.each_ref().map(String::as_str));
}

#[tokio::test]
async fn the_servers_events_are_shown() {
    let place = Place::new();
    let server = place.start(&["--log-level=debug"]);
    let page = server.page("/debug/events");
    let counts = [
        "grpc.Server<",
        "?fam=grpc.Server&amp;b=0\">[1 total]",
        "class=\"empty\">[0 errs&lt;10s]",
        "class=\"empty\">[0 errs&lt;10h]",
        "class=\"empty\">[0 errors]",
    ];
    assert_in_order(&page, &counts);
    let page = server.page("/debug/events?fam=grpc.Server&b=0&exp=1");
    let url = format!("http://127.0.0.1:{}", server.port());
    assert_in_order(
        &page,
        &[
            "Family: grpc.Server",
            &url,
            "... RegisterService(&#34;etcdserverpb.KV&#34;)",
            "... RegisterService(&#34;v3lockpb.Lock&#34;)",
            "... serving",
        ],
    );
    // A client that does not know what it is talking about: HTTP/2's preface, and then nonsense.
    let mut socket = server.socket();
    socket
        .write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        .unwrap();
    socket.write_all(&[0xff; 64]).unwrap();
    let failed = async || {
        let page = server.page("/debug/events?fam=grpc.Server&b=1&exp=1");
        page.contains(".E. connection from 127.0.0.1:")
    };
    super::place::until("the broken connection", failed).await;
    let page = server.page("/debug/events");
    assert_in_order(
        &page,
        &["&amp;b=1\">[1 errs&lt;10s]", "&amp;b=6\">[1 errors]"],
    );
}

/// 3.7.1 has 404 then, and at the addresses for metrics in any case.
#[test]
fn the_pages_are_there_for_clients_of_a_member_that_is_debugged() {
    let pages = ["/debug/requests", "/debug/events"];
    let status = |server: &Server, path| server.page(path)[9..12].to_owned();
    for flag in ["--log-level=info", "--enable-pprof"] {
        let place = Place::new();
        let server = place.start(&[flag]);
        assert_eq!(
            pages.map(|path| status(&server, path)),
            ["404"; 2],
            "{flag}"
        );
    }
    let place = Place::new();
    let (http, metrics) = (free_port(), free_port());
    let urls = [
        "--log-level=debug".to_owned(),
        format!("--listen-client-http-urls=http://127.0.0.1:{http}"),
        format!("--listen-metrics-urls=http://127.0.0.1:{metrics}"),
    ];
    let server = place.start(&urls.each_ref().map(String::as_str));
    let at = |port: u16, path: &str| {
        let mut socket = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        write!(
            socket,
            "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        )
        .unwrap();
        let answer = std::io::read_to_string(socket).unwrap();
        answer[9..12].to_owned()
    };
    server.wait_for("serving client traffic insecurely");
    assert_eq!(pages.map(|path| at(http, path)), ["200"; 2]);
    assert_eq!(pages.map(|path| at(metrics, path)), ["404"; 2]);
}
