//! Reading secrets without echo.
//!
//! While echo is off, a handler for the terminating signals first restores the terminal, which
//! would otherwise stay without echo in the user's shell. The handlers stay installed: afterwards
//! they apply the default action of each signal, from a thread.

use std::io::{self, BufRead, Write};
use std::process;
use std::sync::{Mutex, Once};
use std::thread;

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use signal_hook::consts::{SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;

/// The exit code of etcd's tool when it is interrupted while prompting.
const INTERRUPTED: i32 = 255;

/// The terminal settings to restore, while echo is off.
static SHOWN: Mutex<Option<Termios>> = Mutex::new(None);

/// Prints `prompt` to stdout and reads a line from stdin, without echo on a terminal. Surrounding
/// whitespace is removed.
///
/// # Errors
/// Reading stdin or writing stdout failed.
pub(crate) fn ask(prompt: &str) -> io::Result<String> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(prompt.as_bytes())?;
    stdout.flush()?;
    hide()?;
    let read = read_secret(&mut io::stdin().lock());
    show()?;
    stdout.write_all(b"\n")?;
    read
}

fn read_secret(input: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    Ok(line.trim().to_owned())
}

/// Turns echo off if stdin is a terminal.
fn hide() -> io::Result<()> {
    let stdin = io::stdin();
    let Ok(shown) = tcgetattr(&stdin) else {
        return Ok(());
    };
    show_on_signals()?;
    let mut hidden = shown.clone();
    hidden.local_modes.remove(LocalModes::ECHO);
    let mut saved = SHOWN.lock().expect("no code panics while holding the lock");
    tcsetattr(&stdin, OptionalActions::Now, &hidden)?;
    *saved = Some(shown);
    Ok(())
}

/// Restores the terminal; returns whether echo was off.
fn show() -> io::Result<bool> {
    let mut saved = SHOWN.lock().expect("no code panics while holding the lock");
    let Some(shown) = saved.take() else {
        return Ok(false);
    };
    tcsetattr(io::stdin(), OptionalActions::Now, &shown)?;
    Ok(true)
}

fn show_on_signals() -> io::Result<()> {
    static STARTED: Once = Once::new();
    let mut started = Ok(());
    STARTED.call_once(|| {
        started = Signals::new([SIGINT, SIGQUIT, SIGTERM]).and_then(|mut signals| {
            let watch = move || signals.forever().for_each(end_by);
            thread::Builder::new().spawn(watch).map(drop)
        });
    });
    started
}

fn end_by(signal: i32) {
    if matches!(show(), Ok(false)) {
        // No prompt is active.
        let _ = emulate_default_handler(signal);
    }
    process::exit(INTERRUPTED);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_a_line_without_the_space_around_it() {
        let mut input: &[u8] = b" one two \t\r\nthree\n\nfour";
        let mut next = || read_secret(&mut input).unwrap();
        assert_eq!(
            [next(), next(), next(), next(), next()],
            ["one two", "three", "", "four", ""]
        );
    }
}
