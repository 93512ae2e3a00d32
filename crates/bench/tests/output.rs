//! `retcd-bench … | head`: when standard output is closed, it exits like other tools.

#![cfg(test)]

use std::io::pipe;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Far beyond what it takes on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

#[test]
fn closed_output_ends_the_tool() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    // The first line is printed before the server, which does not exist, is contacted.
    let child = Command::new(env!("CARGO_BIN_EXE_retcd-bench"))
        .args(["load", "--endpoint=127.0.0.1:1", "put"])
        .stdout(writer)
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (ended, output) = channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    let output = output.recv_timeout(TIMEOUT).expect("an end").unwrap();
    let complaint = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), complaint.as_str()), (Some(141), ""));
}
