//! The tokio runtime of one thread.

use tokio::runtime::Runtime;
use tokio::task::LocalSet;

/// Runs `future` on a runtime of this thread's own.
pub(super) fn run_on_thread<F: Future>(future: F) -> std::io::Result<F::Output> {
    Ok(LocalSet::new().block_on(&current_thread_runtime()?, future))
}

pub(super) fn current_thread_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}
