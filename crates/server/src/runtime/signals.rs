//! Signals: those that stop the member, SIGHUP, which asks for new log files, and SIGXFSZ, which
//! must not stop it.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;
use tokio::signal::unix::{SignalKind, signal};

use crate::log::Text;

/// A signal that stops the member.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StopSignal {
    Interrupt,
    Terminate,
}

impl StopSignal {
    /// As Go prints it.
    pub(super) fn name(self) -> &'static str {
        match self {
            StopSignal::Interrupt => "interrupt",
            StopSignal::Terminate => "terminated",
        }
    }

    /// Ends the process by the signal's default action, so that its parent sees why it ended.
    /// Returns in the first process of a container, for which the kernel ignores default actions.
    pub(super) fn raise_again(self) {
        if std::process::id() == 1 {
            return;
        }
        let number = match self {
            StopSignal::Interrupt => SIGINT,
            StopSignal::Terminate => SIGTERM,
        };
        if let Err(error) = emulate_default_handler(number) {
            crate::warn!("cannot end by the signal that asked for it"; "error" => Text(error));
        }
    }
}

/// Makes writes beyond `ulimit -f` fail, as on a full disk, instead of killing the process.
///
/// # Errors
/// The handler could not be installed.
pub(super) fn survive_file_limit() -> io::Result<()> {
    // The flag is never read. A handler is enough for the signal not to kill the process.
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Opens the files of the log anew at each SIGHUP, as programs that rotate logs expect. Without
/// such files the signal ends the process, as it ends etcd.
///
/// # Errors
/// The handler could not be installed.
pub(super) async fn reopen_log_files() -> io::Result<Infallible> {
    if !crate::log::goes_to_files() {
        return pending().await;
    }
    let mut hangup = signal(SignalKind::hangup())?;
    loop {
        if hangup.recv().await.is_none() {
            return pending().await;
        }
        match crate::log::reopen() {
            Ok(()) => crate::info!("opened the log files anew"; "signal" => "hangup"),
            Err(error) => {
                crate::error!("failed to open a log file anew; lines go on where they went";
                "error" => Text(error))
            }
        }
    }
}

/// Waits for the first signal that stops the member.
///
/// # Errors
/// The handlers could not be installed.
pub(super) async fn stop_signal() -> io::Result<StopSignal> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(StopSignal::Interrupt),
        _ = terminate.recv() => Ok(StopSignal::Terminate),
    }
}
