//! `retcd-sim … | head`: when nobody reads any more, it ends as other tools do.

#![cfg(test)]

use std::io::pipe;
use std::process::{Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

/// Far beyond what it takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// The exit code of a short run whose output nobody reads, and what it complains of.
fn run(arguments: &[&str], stderr: Stdio) -> (Option<i32>, String) {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let child = Command::new(env!("CARGO_BIN_EXE_retcd-sim"))
        .args(["--seed=1", "--seconds=1"])
        .args(arguments)
        .stdout(writer)
        .stderr(stderr)
        .spawn()
        .unwrap();
    let (ended, output) = channel();
    thread::spawn(move || ended.send(child.wait_with_output()));
    let output = output.recv_timeout(PATIENCE).expect("an end").unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
fn nobody_reads_the_results() {
    assert_eq!(run(&[], Stdio::piped()), (Some(141), String::new()));
}

#[test]
fn nobody_reads_what_happens_either() {
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    assert_eq!(run(&["--verbose"], writer.into()).0, Some(141));
}
