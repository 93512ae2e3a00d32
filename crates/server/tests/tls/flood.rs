//! Whoever knocks in numbers keeps nobody out, and takes nothing from those who are in.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::client::Client;
use crate::issuer::Authority;
use crate::member::Setting;
use crate::place::{Server, program};

fn connect(port: u16) -> TcpStream {
    let socket = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    let patience = Some(Duration::from_secs(60));
    socket.set_read_timeout(patience).unwrap();
    socket
}

#[test]
fn idle_connections_keep_nobody_out() {
    let setting = Setting::new();
    let _member = setting.start(&[]);
    // More than there are places for handshakes on all threads.
    let idle: Vec<TcpStream> = (0..1100).map(|_| connect(setting.port())).collect();
    setting.client().assert_in(setting.port());
    let mut first = &idle[0];
    // It was given up: closed or reset.
    let mut byte = [0];
    assert!(matches!(first.read(&mut byte), Ok(0) | Err(_)));
}

#[test]
fn a_storm_of_strangers_keeps_nobody_out() {
    let setting = Setting::new();
    let member = setting.start(&[]);
    let stranger = Authority::new("ca").issue("alice", |_| {});
    let stranger = Client::of(&setting.ca).with(&stranger);
    let (over, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    assert!(stranger.get(setting.port(), "/version").is_err());
                    refused.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        for _ in 0..20 {
            setting.client().assert_in(setting.port());
        }
        member.wait_for("x509: certificate signed by unknown authority");
        over.store(true, Ordering::Relaxed);
    });
    assert!(refused.load(Ordering::Relaxed) > 0);
    setting.client().assert_in(setting.port());
}

/// Starts a member that may open so many files.
fn start_with_descriptors(setting: &Setting, limit: u32, flags: &[&str]) -> Server {
    let mut command = Command::new("sh");
    command
        .args(["-c", &format!("ulimit -n {limit} && exec \"$0\" \"$@\"")])
        .arg(program())
        .args(setting.place.arguments())
        .args(flags);
    Server::spawn(command, setting.port())
}

#[test]
fn clients_leave_a_member_the_descriptors_that_it_needs() {
    let setting = Setting::new();
    let metrics = setting.place.beside().client_port;
    let url = format!("--listen-metrics-urls=http://127.0.0.1:{metrics}");
    let member = start_with_descriptors(&setting, 200, &[&url]);
    member.wait_until_serving();
    let idle: Vec<TcpStream> = (0..300).map(|_| connect(setting.port())).collect();
    let mut page = String::new();
    let mut socket = connect(metrics);
    socket
        .write_all(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        .unwrap();
    socket.read_to_string(&mut page).unwrap();
    assert!(page.contains(r#""health":"true""#), "{page}");
    drop(idle);
    member.assert_well();
    assert!(!member.log().contains("cannot accept a connection"));
}

#[test]
fn too_few_descriptors_are_noticed_at_start() {
    let setting = Setting::new();
    let ended = start_with_descriptors(&setting, 150, &[]).wait();
    ended.assert(
        1,
        "file descriptor limit of etcd process is too low; please set higher",
    );
}
