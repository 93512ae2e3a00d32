//! The threads that make TLS handshakes.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::watch;
use tokio::task::LocalSet;

use crate::accept::HandshakePool;
use crate::workers::Workers;

const THREADS_MAX: usize = 8;

/// Starts a thread for every two of `processors`, none for 0. They end when the member stops.
///
/// # Errors
/// The operating system refused a thread.
pub(crate) fn start(
    processors: usize,
    workers: Workers,
    stopping: &watch::Receiver<bool>,
) -> io::Result<(HandshakePool, Vec<JoinHandle<()>>)> {
    let count = processors.div_ceil(2).min(THREADS_MAX);
    let (pool, queues) = HandshakePool::new(count, workers);
    let mut threads = Vec::new();
    for (number, queue) in queues.into_iter().enumerate() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let stopping = stopping.clone();
        let run = move || LocalSet::new().block_on(&runtime, queue.run(stopping));
        let named = std::thread::Builder::new().name(format!("tls-{number}"));
        threads.push(named.spawn(run)?);
    }
    Ok((pool, threads))
}
