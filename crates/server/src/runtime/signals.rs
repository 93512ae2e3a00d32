//! The signals that end a server, and the one that must not.

use std::io;
use std::sync::Arc;

use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::flag;
use signal_hook::low_level::emulate_default_handler;
use tokio::signal::unix::{SignalKind, signal};

use crate::log::Text;

/// A signal that asks the server to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopSignal {
    /// SIGINT.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl StopSignal {
    /// The signal's name as Go prints it.
    pub fn name(self) -> &'static str {
        match self {
            StopSignal::Interrupt => "interrupt",
            StopSignal::Terminate => "terminated",
        }
    }

    /// Ends the process as the signal would have done, so that whoever waits for it sees why. As the
    /// first process of a container it returns: there the kernel ignores the default action.
    pub fn raise_again(self) {
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

/// From now on a write beyond what `ulimit -f` allows fails as on a full disk. Else it would end the process without a word.
///
/// # Errors
/// The handler could not be installed.
pub fn survive_file_limit() -> io::Result<()> {
    // Nobody looks whether the signal came: it is to have a handler.
    flag::register(SIGXFSZ, Arc::default()).map(drop)
}

/// Resolves with the first signal that asks to stop.
///
/// # Errors
/// The handlers could not be installed.
pub async fn stop_signal() -> io::Result<StopSignal> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(StopSignal::Interrupt),
        _ = terminate.recv() => Ok(StopSignal::Terminate),
    }
}
