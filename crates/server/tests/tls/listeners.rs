//! Protocols and kinds of listeners.

use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::client::Client;
use crate::member::Setting;

#[test]
fn one_port_speaks_http_1_and_2() {
    let setting = Setting::new();
    let _member = setting.start(&[]);
    let port = setting.port();
    assert_eq!(setting.client().assert_in(port).alpn, None);
    let http1 = setting.client().alpn("http/1.1").assert_in(port);
    assert_eq!(http1.alpn.as_deref(), Some("http/1.1"));
    // HTTP/2 begins with other words; the gRPC tests speak it.
    let http2 = setting.client().alpn("h2").get(port, "/version").unwrap();
    assert_eq!(http2.alpn.as_deref(), Some("h2"));
    setting
        .client()
        .alpn("spdy/1")
        .assert_out(port, "NoApplicationProtocol");
}

#[test]
fn metrics_may_be_plain_beside_encrypted_clients_or_encrypted_themselves() {
    let setting = Setting::new();
    let (plain, encrypted) = (setting.place.beside(), setting.place.beside());
    let urls = format!(
        "--listen-metrics-urls=http://127.0.0.1:{},https://127.0.0.1:{}",
        plain.client_port, encrypted.client_port
    );
    let _member = setting.start(&[&urls]);
    let socket = std::net::TcpStream::connect(("127.0.0.1", plain.client_port)).unwrap();
    let page = raw_get(socket, "/health");
    assert!(page.contains(r#""health":"true""#), "{page}");
    let client = setting.client();
    let page = client.get(encrypted.client_port, "/metrics").unwrap().text;
    assert!(page.contains("etcd_server_has_leader 1"), "{page}");
    Client::of(&setting.ca).assert_out(encrypted.client_port, "CertificateRequired");
}

fn raw_get(mut socket: std::net::TcpStream, path: &str) -> String {
    use std::io::{Read, Write};
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).unwrap();
    let mut page = String::new();
    socket.read_to_string(&mut page).unwrap();
    page
}

#[test]
fn http_may_have_a_listener_of_its_own() {
    let setting = Setting::new();
    let http = setting.place.beside().client_port;
    let url = format!("--listen-client-http-urls=https://127.0.0.1:{http}");
    let _member = setting.start(&[&url]);
    setting.client().assert_in(http);
    let refused = setting.client().get(setting.port(), "/version").unwrap();
    assert!(refused.text.starts_with("HTTP/1.1 415"), "{}", refused.text);
}

#[test]
fn one_port_may_be_both_plain_and_encrypted() {
    let setting = Setting::new();
    let port = setting.port();
    let urls = format!("--listen-client-urls=http://127.0.0.1:{port},https://127.0.0.1:{port}");
    let member = setting.start(&[&urls]);
    setting.client().assert_in(port);
    member.assert_well();
}

/// The system acknowledges what needs no answer after 40 ms at the earliest, unless it is told to.
#[test]
fn a_first_request_is_not_held_up() {
    let setting = Setting::new();
    let _member = setting.start(&[]);
    let took = |_| {
        let begin = Instant::now();
        setting.client().assert_in(setting.port());
        begin.elapsed()
    };
    let quickest = (0..20).map(took).min().unwrap();
    assert!(quickest < Duration::from_millis(35), "{quickest:?}");
}

#[test]
fn sockets_in_the_file_system_are_encrypted_too() {
    let setting = Setting::new();
    let path = setting.dir().join("client.sock");
    let url = format!("--listen-client-urls=unixs://{}", path.display());
    let _member = setting.start(&[&url]);
    let socket = UnixStream::connect(&path).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    let client = Client {
        host: "localhost",
        ..setting.client()
    };
    let answer = client.get_over(socket, "/version").unwrap();
    assert!(answer.text.contains("etcdserver"), "{}", answer.text);
}
