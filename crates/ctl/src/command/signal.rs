//! Termination signals.

use std::future::Future;

use tokio::signal::unix::{SignalKind, signal};

use crate::cli::Exit;

/// Installs handlers for SIGINT and SIGTERM and returns a future that resolves on either. The
/// signals no longer terminate the process.
///
/// # Errors
/// The handlers could not be installed.
pub(crate) fn stop_requested() -> Result<impl Future<Output = ()>, Exit> {
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
