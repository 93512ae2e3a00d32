//! A command at a terminal.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, tcgetattr};

use super::{TIMEOUT, wait};

/// A pseudoterminal and the command that runs on it.
pub struct Terminal {
    pub keyboard: File,
    /// Keeps the terminal open after the command exits.
    line: File,
    shown: Receiver<u8>,
    pub command: Child,
}

impl Terminal {
    pub fn run(args: &[&str]) -> Terminal {
        let mut command = Command::new(env!("CARGO_BIN_EXE_etcdctl"));
        command.args(args).env_clear();
        Terminal::start(command)
    }

    pub fn start(mut command: Command) -> Terminal {
        let keyboard = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&keyboard).unwrap();
        unlockpt(&keyboard).unwrap();
        let name = ptsname(&keyboard, Vec::new()).unwrap();
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        let line = options.open(name.to_str().unwrap()).unwrap();
        let end = || Stdio::from(line.try_clone().unwrap());
        let command = command
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
    pub fn expect(&self, text: &str) -> String {
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
    pub fn wait_until_hidden(&mut self) {
        let deadline = Instant::now() + TIMEOUT;
        while self.echoes() {
            assert_eq!(self.command.try_wait().unwrap(), None);
            assert!(Instant::now() < deadline, "what is typed is not hidden");
            thread::yield_now();
        }
    }

    pub fn type_secret(&mut self, text: &str) {
        self.wait_until_hidden();
        self.keyboard.write_all(text.as_bytes()).unwrap();
    }

    pub fn echoes(&self) -> bool {
        let modes = tcgetattr(&self.line).unwrap().local_modes;
        modes.contains(LocalModes::ECHO)
    }

    pub fn end(&mut self) -> ExitStatus {
        wait(&mut self.command, "the command at the terminal")
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // It has usually exited by now.
        let _ = self.command.kill();
    }
}
