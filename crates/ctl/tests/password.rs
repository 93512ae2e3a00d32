//! Password prompts: input is not echoed, and the terminal is restored afterwards.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod harness;

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::sync::mpsc;
use std::thread;

use rustix::process::{Pid, Signal, kill_process};

use harness::TIMEOUT;
use harness::terminal::Terminal;

#[test]
fn input_is_not_echoed() {
    let mut terminal = Terminal::run(&["user", "add", "u"]);
    terminal.expect("Password of u: ");
    terminal.type_secret("one\n");
    let seen = terminal.expect("Type password of u again for confirmation: ");
    assert_eq!(seen, "\r\nType password of u again for confirmation: ");
    terminal.type_secret("two\n");
    let seen = terminal.expect("different\r\n");
    assert_eq!(seen, "\r\nError: given passwords are different\r\n");
    assert_eq!(terminal.end().code(), Some(128));
    assert!(terminal.echoes());
}

#[test]
fn an_interrupted_prompt_restores_echo() {
    for signal in [Signal::INT, Signal::QUIT, Signal::TERM] {
        let mut terminal = Terminal::run(&["--user=root", "get", "k"]);
        terminal.expect("Password: ");
        terminal.wait_until_hidden();
        let id = Pid::from_child(&terminal.command);
        kill_process(id, signal).unwrap();
        assert_eq!(terminal.end().code(), Some(255), "{signal:?}");
        assert!(terminal.echoes(), "{signal:?}");
    }
}

#[test]
fn a_signal_after_the_prompt_terminates_the_command() {
    // Accepts connections and never responds.
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let args = ["--dial-timeout=1h", "--user=root", "--endpoints", &address];
    let mut terminal = Terminal::run(&[&args[..], &["get", "k"]].concat());
    terminal.expect("Password: ");
    terminal.type_secret("pw\n");
    let _connection = server.accept().unwrap();
    assert!(terminal.echoes());
    kill_process(Pid::from_child(&terminal.command), Signal::TERM).unwrap();
    assert_eq!(terminal.end().signal(), Some(Signal::TERM.as_raw()));
}

#[test]
fn a_non_interactive_password_is_one_line() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    let args = ["--endpoints", &address, "user", "add", "u"];
    let mut terminal = Terminal::run(&[&args[..], &["--interactive=false"]].concat());
    // The input stays open, but the command continues.
    terminal.keyboard.write_all(b"pw\n").unwrap();
    let (sender, connected) = mpsc::channel();
    thread::spawn(move || sender.send(server.accept().map(drop)));
    connected.recv_timeout(TIMEOUT).unwrap().unwrap();
}
