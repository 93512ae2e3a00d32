//! The threads that make TLS handshakes.

use std::io;
use std::thread::JoinHandle;

use tokio::sync::watch;

use super::local_runtime::spawn_runtime_thread;
use crate::accept::HandshakePool;
use crate::workers::Workers;

const THREADS_MAX: usize = 8;

/// Starts a thread for every two of `processors`, none for 0. They end when `ended` turns true.
///
/// # Errors
/// The operating system refused a thread.
pub(crate) fn start(
    processors: usize,
    workers: Workers,
    ended: &watch::Receiver<bool>,
) -> io::Result<(HandshakePool, Vec<JoinHandle<()>>)> {
    let count = processors.div_ceil(2).min(THREADS_MAX);
    let (pool, queues) = HandshakePool::new(count, workers);
    let mut threads = Vec::new();
    for (number, queue) in queues.into_iter().enumerate() {
        let ended = ended.clone();
        let run = move || queue.run(ended);
        threads.push(spawn_runtime_thread(format!("tls-{number}"), run)?);
    }
    Ok((pool, threads))
}
