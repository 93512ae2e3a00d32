//! Termination signals.

use std::future::Future;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::run_async;
use crate::cli::Exit;

/// Installs handlers for SIGINT and SIGTERM and returns a future that resolves on either. The
/// signals no longer terminate the process.
///
/// # Errors
/// The handlers could not be installed.
pub(crate) fn stop_requested() -> Result<impl Future<Output = ()>, Exit> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
    })
}

/// Runs `work` until it is done, or SIGINT arrives, which is no failure. SIGTERM ends the process
/// as it does without a handler.
///
/// # Errors
/// Those of `work`, or the handler could not be installed.
pub(crate) fn until_interrupted(work: impl Future<Output = Result<(), Exit>>) -> Result<(), Exit> {
    run_async(async {
        let mut interrupt = listen(SignalKind::interrupt())?;
        tokio::select! {
            result = work => result,
            _ = interrupt.recv() => Ok(()),
        }
    })
}

fn listen(kind: SignalKind) -> Result<Signal, Exit> {
    signal(kind).map_err(|error| Exit::error(format!("cannot wait for signals: {error}")))
}
