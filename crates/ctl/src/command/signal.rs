//! Termination signals.

use std::future::Future;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::low_level::emulate_default_handler;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::run_async;
use crate::cli::Exit;

/// Installs handlers for SIGINT and SIGTERM and returns a future that resolves on either. The
/// signals no longer terminate the process.
///
/// # Errors
/// The handlers could not be installed.
pub(crate) fn stop_requested() -> Result<impl Future<Output = ()>, Exit> {
    let stop = stop_signal()?;
    Ok(async move {
        stop.await;
    })
}

/// The same, but resolves with the signal.
///
/// # Errors
/// As [`stop_requested`].
pub(crate) fn stop_signal() -> Result<impl Future<Output = Stop>, Exit> {
    let mut interrupt = listen(SignalKind::interrupt())?;
    let mut terminate = listen(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => Stop(SIGINT),
            _ = terminate.recv() => Stop(SIGTERM),
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

/// Has the next signal end the process: for the time after one that asked for an orderly end, which
/// may take long.
pub(crate) fn end_on_next_signal() {
    if let Ok(stop) = stop_signal() {
        tokio::spawn(async move { stop.await.end_process() });
    }
}

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stop(i32);

impl Stop {
    /// Ends the process as if nobody had handled the signal.
    pub(crate) fn end_process(self) -> ! {
        // Failing that, the status still says that it did not end by itself.
        let _ = emulate_default_handler(self.0);
        std::process::exit(128 + self.0)
    }
}
