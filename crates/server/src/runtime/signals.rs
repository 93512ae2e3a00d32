//! The signals that end a server.

use signal_hook::consts::{SIGINT, SIGTERM};
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

/// Resolves with the first signal that asks to stop.
///
/// # Errors
/// The handlers could not be installed.
pub async fn stop_signal() -> std::io::Result<StopSignal> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => Ok(StopSignal::Interrupt),
        _ = terminate.recv() => Ok(StopSignal::Terminate),
    }
}
