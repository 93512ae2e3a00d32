//! What is guarded: what is asked of whom, and what comes of the answers. The servers are sockets of the test.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use retcd_dns::{Resolver, Service};

/// What a server says to a question for a name.
type Script = fn(&str) -> Says;

enum Says {
    /// Records' data, of the type that was asked for.
    Records(Vec<Vec<u8>>),
    Code(u8),
    /// Over UDP it is cut.
    OnlyOverTcp(Vec<Vec<u8>>),
    Silence,
    /// A reply with another number before the right one.
    ForgeryFirst(Vec<Vec<u8>>),
}

struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Server {
    fn start(script: Script) -> Server {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = tcp.local_addr().unwrap();
        let udp = UdpSocket::bind(address).unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let names = Arc::clone(&asked);
        thread::spawn(move || {
            let mut buffer = [0; 512];
            while let Ok((length, from)) = udp.recv_from(&mut buffer) {
                let question = &buffer[..length];
                let name = name_in(question);
                names.lock().unwrap().push(name.clone());
                let reply = match script(&name) {
                    Says::Records(data) => reply(question, 0, &data),
                    Says::Code(code) => reply(question, code, &[]),
                    Says::OnlyOverTcp(_) => {
                        let mut cut = reply(question, 0, &[]);
                        cut[2] |= 2;
                        cut
                    }
                    Says::Silence => continue,
                    Says::ForgeryFirst(data) => {
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
                if let Says::OnlyOverTcp(data) = script(&name_in(&question)) {
                    let reply = reply(&question, 0, &data);
                    let length = (reply.len() as u16).to_be_bytes();
                    socket.write_all(&[&length[..], &reply].concat()).unwrap();
                }
            }
        });
        Server { address, asked }
    }
}

fn name_in(question: &[u8]) -> String {
    let mut labels = Vec::new();
    let mut rest = &question[12..];
    while rest[0] != 0 {
        let (label, others) = rest[1..].split_at(usize::from(rest[0]));
        labels.push(String::from_utf8(label.to_vec()).unwrap());
        rest = others;
    }
    labels.join(".")
}

/// Repeats the question and adds records for its name.
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

fn service(priority: u8, weight: u8, port: u16, target: &str) -> Vec<u8> {
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

fn targets(services: &[Service]) -> Vec<String> {
    let text = |service: &Service| format!("{}:{}", service.target, service.port);
    services.iter().map(text).collect()
}

#[test]
fn services_come_in_their_order() {
    let server = Server::start(|_| {
        Says::Records(vec![
            service(2, 0, 3, "c.example"),
            service(1, 5, 2, "b.example"),
            service(1, 9, 1, "a.example"),
        ])
    });
    let found = resolver(&[&server]).services("_x._tcp.example").unwrap();
    assert_eq!(
        targets(&found),
        ["a.example.:1", "b.example.:2", "c.example.:3"]
    );
}

#[test]
fn answers_that_are_cut_or_forged_do_no_harm() {
    let cut = Server::start(|_| Says::OnlyOverTcp(vec![service(0, 0, 1, "a")]));
    let forged = Server::start(|_| Says::ForgeryFirst(vec![service(0, 0, 1, "a")]));
    for server in [cut, forged] {
        let found = resolver(&[&server]).services("_x._tcp.example").unwrap();
        assert_eq!(targets(&found), ["a.:1"]);
    }
}

#[test]
fn the_next_server_is_asked_if_one_cannot_say() {
    let broken = Server::start(|_| Says::Code(2));
    let silent = Server::start(|_| Says::Silence);
    let good = Server::start(|_| Says::Records(vec![encoded("a.example")]));
    let mut resolver = resolver(&[&silent, &broken, &good]);
    resolver.timeout = Duration::from_millis(50);
    let address = "10.0.0.1".parse().unwrap();
    assert_eq!(resolver.names(address).unwrap(), ["a.example"]);
    assert_eq!(*good.asked.lock().unwrap(), ["1.0.0.10.in-addr.arpa"]);
    resolver.servers.pop();
    let error = resolver.names(address).unwrap_err().to_string();
    let text = format!(
        "lookup 1.0.0.10.in-addr.arpa on {}: server misbehaving",
        broken.address
    );
    assert_eq!(error, text);
    assert_eq!(
        broken.asked.lock().unwrap().len(),
        3,
        "once, then in both attempts"
    );
}

#[test]
fn a_name_that_is_not_there_is_not_asked_for_again() {
    for code in [3, 0] {
        let server = match code {
            3 => Server::start(|_| Says::Code(3)),
            _ => Server::start(|_| Says::Code(0)),
        };
        let error = resolver(&[&server]).services("_x._tcp.a").unwrap_err();
        let text = format!("lookup _x._tcp.a on {}: no such host", server.address);
        assert_eq!(error.to_string(), text);
        assert_eq!(server.asked.lock().unwrap().len(), 1);
    }
}

#[test]
fn domains_of_the_search_list_are_tried() {
    let script: Script = |name| {
        if name == "_x._tcp.a.two.example" {
            Says::Records(vec![service(0, 0, 1, "a")])
        } else {
            Says::Code(3)
        }
    };
    let server = Server::start(script);
    let mut resolver = resolver(&[&server]);
    resolver.search = vec!["one.example".to_owned(), "two.example".to_owned()];
    resolver.services("_x._tcp.a").unwrap();
    let as_it_is_first = [
        "_x._tcp.a",
        "_x._tcp.a.one.example",
        "_x._tcp.a.two.example",
    ];
    assert_eq!(*server.asked.lock().unwrap(), as_it_is_first);
    server.asked.lock().unwrap().clear();
    resolver.dots = 5;
    resolver.services("_x._tcp.a").unwrap();
    assert_eq!(*server.asked.lock().unwrap(), as_it_is_first[1..]);
    assert!(resolver.services("_x._tcp.a.").is_err());
}

#[test]
fn the_file_of_hosts_comes_first() {
    let server = Server::start(|_| Says::Silence);
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
    let names = resolver.names("10.0.0.1".parse().unwrap()).unwrap();
    std::fs::remove_file(hosts).unwrap();
    assert_eq!(names, ["a.example", "a", "d"]);
}
