//! The signals that end a server.

use tokio::signal::unix::{SignalKind, signal};

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
        let name = match self {
            StopSignal::Interrupt => rustix::process::Signal::INT,
            StopSignal::Terminate => rustix::process::Signal::TERM,
        };
        if std::process::id() == 1 {
            return;
        }
        // 128 + the signal's number is what a shell shows for it.
        std::process::exit(128 + name.as_raw())
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
