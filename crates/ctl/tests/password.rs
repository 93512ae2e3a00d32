//! Password prompts: input is not echoed, and the terminal is restored afterwards.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod harness;

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use harness::TIMEOUT;

/// A pseudoterminal and the command that runs on it.
struct Terminal {
    keyboard: File,
    /// Keeps the terminal open after the command exits.
    line: File,
    shown: Receiver<u8>,
    command: Child,
}

impl Terminal {
    fn run(args: &[&str]) -> Terminal {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let line = options.open(name.to_str().unwrap()).unwrap();
        let end = || Stdio::from(line.try_clone().unwrap());
        let command = Command::new(env!("CARGO_BIN_EXE_etcdctl"))
            .args(args)
            .env_clear()
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let keyboard = File::from(keyboard);
        let mut screen = keyboard.try_clone().unwrap();
        let (sender, shown) = mpsc::channel();
        thread::spawn(move || {
            let mut byte = [0];
            while screen.read_exact(&mut byte).is_ok() && sender.send(byte[0]).is_ok() {}
        });
        Terminal {
            keyboard,
            line,
            shown,
            command,
        }
    }

    /// Waits until the output ends with `text`; returns the output since the last call.
    fn expect(&self, text: &str) -> String {
        let mut seen = String::new();
        while !seen.ends_with(text) {
            let byte = self.shown.recv_timeout(TIMEOUT);
            seen.push(
                byte.unwrap_or_else(|_| panic!("{text:?} after {seen:?}"))
                    .into(),
            );
        }
        seen
    }

    /// The prompt appears before echo is turned off.
    fn wait_until_hidden(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.echoes() {
            assert_eq!(self.command.try_wait().unwrap(), None);
            assert!(Instant::now() < deadline, "what is typed is not hidden");
            thread::yield_now();
        }
    }

    fn type_secret(&mut self, text: &str) {
        self.wait_until_hidden();
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.line).unwrap().local_modes;
        modes.contains(LocalModes::ECHO)
    }

    fn end(&mut self) -> ExitStatus {
        harness::wait(&mut self.command, "the command at the terminal")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has usually exited by now.
        let _ = self.command.kill();
    }
}

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
