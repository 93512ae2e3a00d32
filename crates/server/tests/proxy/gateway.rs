//! `etcd gateway start`, before servers that only say who they are.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::place::{Server, free_port, program};

const PATIENCE: Duration = Duration::from_secs(60);

fn start(flags: &[&str]) -> Server {
    let port = free_port();
    let mut command = Command::new(program());
    command
        .args(["gateway", "start", "--listen-addr"])
        .arg(format!("127.0.0.1:{port}"))
        .args(flags);
    let gateway = Server::spawn(command, port);
    gateway.wait_for("ready to proxy client requests");
    gateway
}

/// Answers each connection on `port` with a name and whatever it is sent, and closes it when the
/// client has sent a line.
fn serve(name: &'static str, listener: TcpListener) {
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let Ok(mut socket) = socket else { return };
            std::thread::spawn(move || {
                let _ = socket.write_all(name.as_bytes());
                let mut byte = [0];
                while let Ok(1) = socket.read(&mut byte) {
                    let _ = socket.write_all(&byte);
                    if byte[0] == b'\n' {
                        return;
                    }
                }
            });
        }
    });
}

fn listen(port: u16) -> TcpListener {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).expect("the port is free")
}

fn server(name: &'static str) -> String {
    let port = free_port();
    serve(name, listen(port));
    format!("127.0.0.1:{port}")
}

/// What the server behind one connection says.
fn talk(gateway: &Server) -> String {
    let mut socket = gateway.socket();
    // There is nobody to answer if it was closed at once.
    let _ = socket.write_all(b"hello\n");
    let mut said = Vec::new();
    let _ = socket.read_to_end(&mut said);
    String::from_utf8(said).expect("text")
}

#[test]
fn connections_take_turns_and_pass_over_who_is_down() {
    let (one, two) = (server("one "), server("two "));
    let dead = format!("127.0.0.1:{}", free_port());
    let endpoints = format!("http://{one},{dead},{two}");
    let gateway = start(&["--endpoints", &endpoints, "extra"]);
    let mut said: Vec<String> = (0..4).map(|_| talk(&gateway)).collect();
    said.sort();
    assert_eq!(
        said,
        ["one hello\n", "one hello\n", "two hello\n", "two hello\n"]
    );
    let down = format!(
        r#""address":"{dead}","interval":"1m0s","error":"dial tcp {dead}: connect: connection refused""#
    );
    gateway.line(&["deactivated endpoint", &down]);
    let log = gateway.log();
    assert_eq!(log.matches(&down).count(), 1, "{log}");
    let targets = format!(r#""endpoints":["{one}","{dead}","{two}"]"#);
    assert!(log.contains(&targets), "{log}");
    let ended = gateway.end_with(Signal::TERM);
    assert_eq!(ended.shell_status(), 128 + 15, "{}", ended.log);
}

#[test]
fn whoever_comes_back_is_used_again() {
    let port = free_port();
    let gateway = start(&[
        "--endpoints",
        &format!("127.0.0.1:{port}"),
        "--retry-delay=20ms",
    ]);
    assert_eq!(talk(&gateway), "");
    gateway.wait_for("deactivated endpoint");
    gateway.wait_for("failed to activate endpoint (stay inactive for another interval)");
    serve("back ", listen(port));
    gateway.wait_for(&format!(
        r#""msg":"activated","address":"127.0.0.1:{port}""#
    ));
    assert_eq!(talk(&gateway), "back hello\n");
}

/// A server that closes its half has closed the connection, as far as etcd's gateway is concerned.
#[test]
fn the_end_of_one_direction_is_the_end_of_both() {
    let port = free_port();
    let listener = listen(port);
    let gateway = start(&["--endpoints", &format!("127.0.0.1:{port}")]);
    let client = gateway.socket();
    let (server, _) = listener.accept().expect("the gateway connects");
    server
        .shutdown(std::net::Shutdown::Write)
        .expect("connected");
    assert_ends(client);
    let client = gateway.socket();
    let (server, _) = listener.accept().expect("the gateway connects");
    client
        .shutdown(std::net::Shutdown::Write)
        .expect("connected");
    assert_ends(server);
}

fn assert_ends(mut socket: TcpStream) {
    socket.set_read_timeout(Some(PATIENCE)).expect("connected");
    assert_eq!(socket.read(&mut [0]).expect("it is closed"), 0);
    // Both directions are: what is written is refused sooner or later.
    let started = Instant::now();
    while socket.write_all(b"x").is_ok() {
        assert!(started.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}
