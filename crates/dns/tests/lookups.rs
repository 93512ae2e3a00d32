//! Guards which queries are sent to which servers, and how replies are interpreted. The servers are
//! sockets of the test process.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use retcd_dns::{Resolver, SrvRecord};

/// Maps a queried name to the server's response.
type Script = fn(&str) -> Response;

enum Response {
    /// The data of records of the requested type.
    Records(Vec<Vec<u8>>),
    Code(u8),
    /// Truncated over UDP.
    OnlyOverTcp(Vec<Vec<u8>>),
    Silence,
    /// A reply with the wrong id precedes the right one.
    ForgeryFirst(Vec<Vec<u8>>),
}

struct Server {
    address: SocketAddr,
    queries: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(script: Script) -> Server {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let queries = Arc::new(Mutex::new(Vec::new()));
        let names = Arc::clone(&queries);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let question = &buffer[..length];
                let name = queried_name(question);
                names.lock().unwrap().push(name.clone());
                let reply = match script(&name) {
                    Response::Records(data) => reply(question, 0, &data),
                    Response::Code(code) => reply(question, code, &[]),
                    Response::OnlyOverTcp(_) => {
                        let mut cut = reply(question, 0, &[]);
                        cut[2] |= 2;
                        cut
                    }
                    Response::Silence => continue,
                    Response::ForgeryFirst(data) => {
                        let mut forged = reply(question, 3, &[]);
                        forged[1] ^= 1;
                        udp.send_to(&forged, from).unwrap();
                        reply(question, 0, &data)
                    }
                };
                udp.send_to(&reply, from).unwrap();
            }
        });
        thread::spawn(move || {
            while let Ok((mut socket, _)) = tcp.accept() {
                let mut length = [0; 2];
                socket.read_exact(&mut length).unwrap();
                let mut question = vec![0; usize::from(u16::from_be_bytes(length))];
                socket.read_exact(&mut question).unwrap();
                if let Response::OnlyOverTcp(data) = script(&queried_name(&question)) {
                    let reply = reply(&question, 0, &data);
                    let length = (reply.len() as u16).to_be_bytes();
                    socket.write_all(&[&length[..], &reply].concat()).unwrap();
                }
            }
        });
        Server { address, queries }
    }
}

fn queried_name(question: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = &question[12..];
    while rest[0] != 0 {
        let (label, others) = rest[1..].split_at(usize::from(rest[0]));
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        rest = others;
    }
    labels.join(".")
}

/// Repeats the query and appends answer records for its name.
fn reply(question: &[u8], code: u8, data: &[Vec<u8>]) -> Vec<u8> {
    let mut reply = question.to_vec();
    reply[2] |= 0x80;
    reply[3] = code;
    reply[7] = data.len() as u8;
    let kind = question[question.len() - 4..].to_vec();
    for data in data {
        reply.extend([0xc0, 12]);
        reply.extend(&kind);
        reply.extend([0, 0, 0, 60]);
        reply.extend((data.len() as u16).to_be_bytes());
        reply.extend(data);
    }
    reply
}

fn encoded(name: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for label in name.split('.') {
        bytes.push(label.len() as u8);
        bytes.extend(label.as_bytes());
    }
    bytes.push(0);
    bytes
}

fn srv(priority: u8, weight: u8, port: u16, target: &str) -> Vec<u8> {
    let mut data = vec![0, priority, 0, weight];
    data.extend(port.to_be_bytes());
    data.extend(encoded(target));
    data
}

fn resolver(servers: &[&Server]) -> Resolver {
    Resolver {
        servers: servers.iter().map(|server| server.address).collect(),
        timeout: Duration::from_secs(60),
        hosts: PathBuf::from("/nonexistent"),
        ..Resolver::parse("")
    }
}

fn targets(services: &[SrvRecord]) -> Vec<String> {
    let text = |service: &SrvRecord| format!("{}:{}", service.target, service.port);
    services.iter().map(text).collect()
}

#[test]
fn srv_records_are_sorted_by_priority_and_weight() {
    let server = Server::start(|_| {
        Response::Records(vec![
            srv(2, 0, 3, "c.example"),
            srv(1, 5, 2, "b.example"),
            srv(1, 9, 1, "a.example"),
        ])
    });
    let found = resolver(&[&server]).lookup_srv("_x._tcp.example").unwrap();
    assert_eq!(
        targets(&found),
        ["a.example.:1", "b.example.:2", "c.example.:3"]
    );
}

#[test]
fn truncated_and_forged_replies_are_not_used() {
    let cut = Server::start(|_| Response::OnlyOverTcp(vec![srv(0, 0, 1, "a")]));
    let forged = Server::start(|_| Response::ForgeryFirst(vec![srv(0, 0, 1, "a")]));
    for server in [cut, forged] {
        let found = resolver(&[&server]).lookup_srv("_x._tcp.example").unwrap();
        assert_eq!(targets(&found), ["a.:1"]);
    }
}

#[test]
fn the_next_server_is_tried_after_a_failure() {
    let broken = Server::start(|_| Response::Code(2));
    let silent = Server::start(|_| Response::Silence);
    let good = Server::start(|_| Response::Records(vec![encoded("a.example")]));
    let mut resolver = resolver(&[&silent, &broken, &good]);
    resolver.timeout = Duration::from_millis(50);
    let address = "10.0.0.1".parse().unwrap();
    assert_eq!(resolver.lookup_addr(address).unwrap(), ["a.example"]);
    assert_eq!(*good.queries.lock().unwrap(), ["1.0.0.10.in-addr.arpa"]);
    resolver.servers.pop();
    let error = resolver.lookup_addr(address).unwrap_err().to_string();
    let text = format!(
        "lookup 1.0.0.10.in-addr.arpa on {}: server misbehaving",
        broken.address
    );
    assert_eq!(error, text);
    assert_eq!(
        broken.queries.lock().unwrap().len(),
        3,
        "once, then in both attempts"
    );
}

#[test]
fn a_missing_name_is_not_queried_again() {
    for code in [3, 0] {
        let server = match code {
            3 => Server::start(|_| Response::Code(3)),
            _ => Server::start(|_| Response::Code(0)),
        };
        let error = resolver(&[&server]).lookup_srv("_x._tcp.a").unwrap_err();
        let text = format!("lookup _x._tcp.a on {}: no such host", server.address);
        assert_eq!(error.to_string(), text);
        assert_eq!(server.queries.lock().unwrap().len(), 1);
    }
}

#[test]
fn the_search_list_is_tried() {
    let script: Script = |name| {
        if name == "_x._tcp.a.two.example" {
            Response::Records(vec![srv(0, 0, 1, "a")])
        } else {
            Response::Code(3)
        }
    };
    let server = Server::start(script);
    let mut resolver = resolver(&[&server]);
    resolver.search = vec!["one.example".to_owned(), "two.example".to_owned()];
    resolver.lookup_srv("_x._tcp.a").unwrap();
    let unchanged_first = [
        "_x._tcp.a",
        "_x._tcp.a.one.example",
        "_x._tcp.a.two.example",
    ];
    assert_eq!(*server.queries.lock().unwrap(), unchanged_first);
    server.queries.lock().unwrap().clear();
    resolver.ndots = 5;
    resolver.lookup_srv("_x._tcp.a").unwrap();
    assert_eq!(*server.queries.lock().unwrap(), unchanged_first[1..]);
    assert!(resolver.lookup_srv("_x._tcp.a.").is_err());
}

#[test]
fn the_hosts_file_takes_precedence() {
    let server = Server::start(|_| Response::Silence);
    let hosts = std::env::temp_dir().join(format!("retcd-dns-hosts-{}", std::process::id()));
    std::fs::write(
        &hosts,
        "# x\n10.0.0.1 a.example a # b\n10.0.0.2 c\n10.0.0.1 d\n",
    )
    .unwrap();
    let resolver = Resolver {
        hosts: hosts.clone(),
        ..resolver(&[&server])
    };
    let names = resolver.lookup_addr("10.0.0.1".parse().unwrap()).unwrap();
    std::fs::remove_file(hosts).unwrap();
    assert_eq!(names, ["a.example", "a", "d"]);
}
