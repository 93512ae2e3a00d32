//! Signals that ask a command to come to an end.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Exit;

/// Waits for SIGINT or SIGTERM. From now on they do not end the process by themselves.
///
/// # Errors
/// The system refuses.
pub fn stop_requested() -> Result<impl Future<Output = ()>, Exit> {
    let listen = |kind| {
        signal(kind).map_err(|error| Exit::error(format!("cannot wait for signals: {error}")))
    };
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}
