//! A small pool of threads for work that would block connection threads: reading history and
//! snapshots, hashes, passwords, signatures, defragmentation, name lookups.
//!
//! All threads are made when the member starts, so that none can be refused later, and their number
//! does not depend on what clients ask for. Work waits in one queue, in order. Long work is done in
//! pieces of a few milliseconds, each queued anew, so that everybody gets on. Nothing waits on
//! these threads for a client, another member or a lock that is held for long; such waits happen
//! between the pieces, outside of the pool.
//!
//! The queue needs no bound of its own: whoever queues work waits for its result, so the queue is
//! no longer than the number of requests under way.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use parking_lot::Mutex;
use retcd_member::Work;

/// Threads at the least and at the most; between them, as many as there are processors.
const THREADS_MIN: usize = 2;
const THREADS_MAX: usize = 8;
/// One more, as a defragmentation keeps one for as long as it takes.
const THREADS_FOR_DEFRAGMENTATION: usize = 1;
/// Threads that ask name servers, and do nothing else: those may be silent for seconds.
const LOOKUP_THREADS: usize = 2;

/// The member stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the member stops")]
pub struct Stopped;

impl From<Stopped> for io::Error {
    fn from(stopped: Stopped) -> io::Error {
        io::Error::other(stopped)
    }
}

/// The threads and the queues before them; clones share them. They end when the last clone is gone.
#[derive(Clone, Debug)]
pub struct Workers {
    queue: retcd_member::Workers,
    lookups: retcd_member::Workers,
}

impl Workers {
    /// Makes the threads.
    ///
    /// # Errors
    /// The operating system refused one.
    pub fn start() -> io::Result<Workers> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        let threads = processors.clamp(THREADS_MIN, THREADS_MAX) + THREADS_FOR_DEFRAGMENTATION;
        Ok(Workers {
            queue: queue_to(spawn("work", threads)?),
            lookups: queue_to(spawn("lookup", LOOKUP_THREADS)?),
        })
    }

    /// Runs `work` when it is its turn. It is not done if the future is dropped before that.
    ///
    /// # Errors
    /// The member stops.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        run_on(&self.queue, work).await
    }

    /// The queue for all work but questions to name servers.
    pub fn queue(&self) -> &retcd_member::Workers {
        &self.queue
    }

    /// Runs `ask`, which waits for a name server.
    ///
    /// # Errors
    /// The member stops.
    pub async fn look_up<T: Send + 'static>(
        &self,
        ask: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Stopped> {
        run_on(&self.lookups, ask).await
    }

    /// The addresses of `HOST:PORT`.
    ///
    /// # Errors
    /// Those of the system's resolver.
    pub async fn addresses(&self, host_port: &str) -> io::Result<Vec<SocketAddr>> {
        if let Ok(address) = host_port.parse() {
            return Ok(vec![address]);
        }
        let host_port = host_port.to_owned();
        let ask = move || host_port.to_socket_addrs().map(Iterator::collect);
        self.look_up(ask).await?
    }
}

async fn run_on<T: Send + 'static>(
    workers: &retcd_member::Workers,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Stopped> {
    // Work gives no result only when it was dropped, as its threads have ended.
    workers.run(work).await.map_err(|_| Stopped)
}

fn queue_to(threads: Sender<Work>) -> retcd_member::Workers {
    // Work for threads that have ended is dropped.
    retcd_member::Workers::new(move |work| drop(threads.send(work)))
}

/// Makes the threads `NAME-0`, `NAME-1`, … and returns their queue.
fn spawn(name: &str, threads: usize) -> io::Result<Sender<Work>> {
    let (queue, waiting) = channel::<Work>();
    let waiting = Arc::new(Mutex::new(waiting));
    for number in 0..threads {
        let waiting = Arc::clone(&waiting);
        let named = std::thread::Builder::new().name(format!("{name}-{number}"));
        named.spawn(move || run(&waiting)).map_err(|error| {
            let text = format!("cannot make thread {name}-{number}: {error}");
            io::Error::new(error.kind(), text)
        })?;
    }
    Ok(queue)
}

fn run(waiting: &Mutex<Receiver<Work>>) {
    loop {
        // Others wait for the lock meanwhile, which is as good as waiting for work.
        let next = waiting.lock().recv();
        match next {
            Ok(work) => work(),
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(60);

    fn workers(name: &str, threads: usize) -> retcd_member::Workers {
        queue_to(spawn(name, threads).unwrap())
    }

    #[tokio::test]
    async fn pieces_of_long_work_let_others_have_their_turn() {
        let workers = workers("one", 1);
        let (others_done, wait) = channel::<()>();
        // Ends only when other work was done between its pieces.
        let long = workers.run_in_pieces(wait, |wait| match wait.try_recv() {
            Err(std::sync::mpsc::TryRecvError::Empty) => None,
            _ => Some("done"),
        });
        let other = workers.run(move || drop(others_done));
        let both = async { tokio::join!(long, other) };
        let (long, other) = tokio::time::timeout(DEADLINE, both).await.unwrap();
        assert_eq!((long, other), (Ok("done"), Ok(())));
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_is_not_done() {
        let workers = workers("one", 1);
        let (go_on, blocked) = channel::<()>();
        let first = workers.run(move || blocked.recv());
        let (touched, untouched) = channel::<()>();
        let dropped = workers.run(move || touched.send(()));
        {
            let (mut first, mut dropped) = (Box::pin(first), Box::pin(dropped));
            // Both are queued when they have been polled.
            futures_util::future::poll_fn(|cx| {
                assert!(first.as_mut().poll(cx).is_pending());
                assert!(dropped.as_mut().poll(cx).is_pending());
                std::task::Poll::Ready(())
            })
            .await;
            drop(dropped);
            go_on.send(()).unwrap();
            tokio::time::timeout(DEADLINE, first)
                .await
                .unwrap()
                .unwrap()
                .unwrap();
        }
        workers.run(|| ()).await.unwrap();
        assert!(untouched.recv().is_err(), "the sender is gone unused");
    }

    #[tokio::test]
    async fn a_thousand_requests_need_no_more_threads() {
        let named = || {
            let tasks = std::fs::read_dir("/proc/self/task").unwrap();
            let names = tasks
                .filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
            names.filter(|name| name.starts_with("thousand-")).count()
        };
        let workers = workers("thousand", 3);
        // A thread has its name from when it runs.
        let all_run = Arc::new(std::sync::Barrier::new(3));
        let begin = (0..3).map(|_| {
            let all_run = Arc::clone(&all_run);
            workers.run(move || all_run.wait().is_leader())
        });
        let begun = futures_util::future::join_all(begin);
        tokio::time::timeout(DEADLINE, begun).await.unwrap();
        let work = (0..1000).map(|number| workers.run(move || number));
        let results = futures_util::future::join_all(work);
        let results = tokio::time::timeout(DEADLINE, results).await.unwrap();
        assert_eq!(results.len(), 1000);
        assert!(
            results
                .into_iter()
                .enumerate()
                .all(|(n, result)| result == Ok(n))
        );
        assert_eq!(named(), 3);
    }
}
