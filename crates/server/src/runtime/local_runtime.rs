//! The tokio runtime of one thread.

use std::io;
use std::thread::{self, JoinHandle};

use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// Runs `future` on a runtime of this thread's own.
pub(crate) fn run_on_thread<F: Future>(future: F) -> io::Result<F::Output> {
    Ok(LocalSet::new().block_on(&current_thread_runtime()?, future))
}

/// Starts a thread that runs what `begin` returns on a runtime of its own.
///
/// # Errors
/// The operating system refused the thread, or its runtime a file descriptor.
pub(crate) fn spawn_runtime_thread<F: Future<Output = ()>>(
    name: String,
    begin: impl FnOnce() -> F + Send + 'static,
) -> io::Result<JoinHandle<()>> {
    let runtime = current_thread_runtime()?;
    let run = move || LocalSet::new().block_on(&runtime, async { begin().await });
    thread::Builder::new().name(name).spawn(run)
}

pub(crate) fn current_thread_runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
