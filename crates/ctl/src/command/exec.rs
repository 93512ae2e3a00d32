//! Running the commands given to `watch` and `lock`, and their exit status in Go's words.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, ExitStatus, Stdio};

use retcd_log::go_io_error;
use tokio::sync::oneshot;

use crate::cli::Arg;
use crate::go::quote::quote;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum Problem {
    /// It could not be started.
    Start {
        /// The command.
        name: Arg,
        /// The error of the operating system.
        error: io::Error,
    },
    /// It exited with this status.
    Status(ExitStatus),
}

impl Problem {
    /// The exit code to pass on: the command's own, 255 if a signal killed it, 1 if it could not be
    /// started.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Problem::Start { .. } => 1,
            Problem::Status(status) => status
                .code()
                .and_then(|code| u8::try_from(code).ok())
                .unwrap_or(255),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Start { name, error }
                if error.kind() == io::ErrorKind::NotFound && !name.contains(&b'/') =>
            {
                let name = quote(name);
                write!(f, "exec: {name}: executable file not found in $PATH")
            }
            Problem::Start { name, error } => {
                let name = String::from_utf8_lossy(name);
                write!(f, "fork/exec {name}: {}", go_io_error(error))
            }
            Problem::Status(status) => match (status.code(), status.signal()) {
                (Some(code), _) => write!(f, "exit status {code}"),
                (None, Some(signal)) => {
                    write!(f, "signal: {}", signal_name(signal))?;
                    let dumped = status.core_dumped();
                    f.write_str(if dumped { " (core dumped)" } else { "" })
                }
                (None, None) => write!(f, "{status}"),
            },
        }
    }
}

/// Runs a command without input and waits for it. `variables` are added to its environment.
///
/// # Errors
/// It could not be started, or failed.
pub(crate) fn run<const N: usize>(
    command: &[Arg],
    variables: [(&'static str, Vec<u8>); N],
) -> Result<(), Problem> {
    let Some((name, args)) = command.split_first() else {
        return Ok(());
    };
    let result = Command::new(OsStr::from_bytes(name))
        .args(args.iter().map(|arg| OsString::from_vec(arg.clone())))
        .envs(variables.map(|(name, value)| (name, OsString::from_vec(value))))
        .stdin(Stdio::null())
        .status();
    match result {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Problem::Status(status)),
        Err(error) => Err(Problem::Start {
            name: name.clone(),
            error,
        }),
    }
}

/// [`run`] on another thread, so that connections are served meanwhile.
///
/// # Errors
/// As [`run`].
pub(crate) async fn run_in_background<const N: usize>(
    command: &[Arg],
    variables: [(&'static str, Vec<u8>); N],
) -> Result<(), Problem> {
    let (ended, end) = oneshot::channel();
    let command = command.to_vec();
    std::thread::spawn(move || {
        // The receiver is gone when the tool exits.
        let _ = ended.send(run(&command, variables));
    });
    end.await.expect("the thread sends before it ends")
}

/// Go's name of a signal (syscall, zerrors_linux_amd64.go).
fn signal_name(signal: i32) -> String {
    let name = match signal {
        1 => "hangup",
        2 => "interrupt",
        3 => "quit",
        4 => "illegal instruction",
        5 => "trace/breakpoint trap",
        6 => "aborted",
        7 => "bus error",
        8 => "floating point exception",
        9 => "killed",
        10 => "user defined signal 1",
        11 => "segmentation fault",
        12 => "user defined signal 2",
        13 => "broken pipe",
        14 => "alarm clock",
        15 => "terminated",
        _ => return format!("signal {signal}"),
    };
    name.to_owned()
}
