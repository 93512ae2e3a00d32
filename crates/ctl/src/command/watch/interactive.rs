//! `watch --interactive`: each line of standard input starts a watch or requests progress.

use std::io::BufRead;

use tokio::sync::mpsc;

use super::super::context::Context;
use super::super::words;
use super::arguments::{self, Environment};
use super::stream::Stream;
use crate::cli::{Exit, ExitKind};
use crate::stderr;

/// Capacity of the queue between the reader thread and the command.
const QUEUED_LINES: usize = 16;

/// Runs until standard input ends, which is an error.
///
/// # Errors
/// Standard input ended, or a line is invalid.
pub(crate) async fn run(context: &Context, environment: &Environment) -> Result<(), Exit> {
    let client = context.client().await?;
    let mut lines = read_lines();
    let mut stream = Stream::new(&client);
    loop {
        tokio::select! {
            line = lines.recv() => {
                let ended = || Exit::new(ExitKind::InvalidInput, "error reading watch request line: EOF");
                handle_line(&line.ok_or_else(ended)?, &mut stream, environment)?;
            }
            outcome = stream.next(context), if stream.has_watches() => {
                // When a watch ends, the others continue.
                outcome?;
            }
        }
    }
}

/// Reads lines on a thread, because standard input cannot be polled together with a connection.
/// Like etcdctl, ignores a last line without a newline.
fn read_lines() -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(QUEUED_LINES);
    std::thread::spawn(move || {
        let mut stdin = std::io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = stdin.read_until(b'\n', &mut line);
            if read.is_err() || line.pop() != Some(b'\n') {
                return;
            }
            if sender
                .blocking_send(String::from_utf8_lossy(&line).into_owned())
                .is_err()
            {
                return;
            }
        }
    });
    receiver
}

fn handle_line(line: &str, stream: &mut Stream, environment: &Environment) -> Result<(), Exit> {
    let words = words::split(line)?;
    match words.first().map(Vec::as_slice) {
        None => stderr::write_line(format_args!(
            "Invalid command: {line} (watch and progress supported)"
        )),
        Some(b"watch") if words.len() < 2 && environment.is_empty() => {
            stderr::write_line(format_args!(
                "Invalid command {line} (command type or key is not provided)"
            ));
        }
        Some(b"watch") => match arguments::parse_line(&words[1..], environment)?.into_watch() {
            Ok(watch) => stream.add(watch),
            Err(text) => stderr::write_line(format_args!("Invalid command {line} ({text})")),
        },
        Some(b"progress") => stream.request_progress(),
        Some(_) => stderr::write_line(format_args!("Invalid command {line} (only support watch)")),
    }
    Ok(())
}
