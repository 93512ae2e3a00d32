//! bcrypt, off the connection threads.
//!
//! A hash takes tens of milliseconds of a processor on purpose. It is made by the workers, without
//! any lock, and on half of the processors at most; the others stay free for clients that are
//! logged in. A login that has to wait too long, or behind too many others, fails like any other
//! request to an overloaded member.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use retcd_member::{Error, Workers};
use retcd_state::auth::password;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Requests that may wait for a hash, here or at work.
const WAITING_MAX: usize = 1024;

/// Makes and compares hashes.
pub(crate) struct Passwords {
    cost: u32,
    wait_max: Duration,
    waiting: Arc<Semaphore>,
    working: Arc<Semaphore>,
    workers: Workers,
}

impl Passwords {
    /// Hashes of `cost` (`--bcrypt-cost`), for each of which a request waits at most for
    /// `wait_max`.
    pub(crate) fn new(cost: u32, wait_max: Duration, workers: Workers) -> Passwords {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Passwords {
            cost,
            wait_max,
            waiting: Arc::new(Semaphore::new(WAITING_MAX)),
            working: Arc::new(Semaphore::new((processors / 2).max(1))),
            workers,
        }
    }

    /// The hash to be kept of a new password, in base64.
    ///
    /// # Panics
    /// The operating system has no randomness: there is no going on without it.
    ///
    /// # Errors
    /// Overload; the member stops.
    pub(crate) async fn hash(&self, password: String) -> Result<String, Error> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).expect("the operating system gives random bytes");
        let cost = self.cost;
        self.work(move || password::encode(&password::hash(password.as_bytes(), cost, salt)))
            .await
    }

    /// Whether `password` is the one that `stored` was made of.
    ///
    /// # Errors
    /// Overload; the member stops.
    pub(crate) async fn verify(&self, password: String, stored: Bytes) -> Result<bool, Error> {
        self.work(move || password::verify(password.as_bytes(), &stored))
            .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let waiting = Arc::clone(&self.waiting).try_acquire_owned();
        let waiting = waiting.map_err(|_| Error::Overloaded)?;
        let working = Arc::clone(&self.working).acquire_owned();
        let working = tokio::time::timeout(self.wait_max, working)
            .await
            .map_err(|_| Error::TIMED_OUT)?
            .map_err(|_| Error::Stopped)?;
        // Whether or not the client still waits, the processor is busy until the end.
        let permits: [OwnedSemaphorePermit; 2] = [waiting, working];
        let work = move || {
            let done = work();
            drop(permits);
            done
        };
        self.workers.run(work).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn workers() -> Workers {
        crate::workers::Workers::start().unwrap().queue().clone()
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_hash_fits_its_password() {
        run(async {
            let passwords = Passwords::new(4, Duration::from_secs(60), workers());
            let hash = passwords.hash("pw".into()).await.unwrap();
            assert_ne!(passwords.hash("pw".into()).await.unwrap(), hash);
            // "$2a$04$" in base64.
            assert!(hash.starts_with("JDJhJDA0J"), "{hash}");
        });
    }

    #[test]
    fn who_cannot_have_a_processor_is_told_so() {
        run(async {
            let passwords = Passwords::new(4, Duration::from_millis(1), workers());
            let processors = passwords.working.available_permits() as u32;
            let busy = passwords.working.acquire_many(processors).await.unwrap();
            let refused = passwords.verify("pw".into(), Bytes::new()).await;
            assert_eq!(refused, Err(Error::TIMED_OUT));
            let queue = passwords.waiting.acquire_many(WAITING_MAX as u32);
            let queue = queue.await.unwrap();
            let refused = passwords.verify("pw".into(), Bytes::new()).await;
            assert_eq!(refused, Err(Error::Overloaded));
            drop((busy, queue));
            let answered = passwords.verify("pw".into(), Bytes::new()).await;
            assert_eq!(answered, Ok(false));
        });
    }
}
