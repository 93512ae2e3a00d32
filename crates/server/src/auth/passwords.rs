//! bcrypt, where it hurts nobody.
//!
//! A hash takes tens of milliseconds of a processor on purpose. It is made by the workers, without
//! any lock, and at most on half of the processors at a time: the rest is for those who are logged in. Who
//! has to wait too long for it, or behind too many others, is told so, as etcd tells of overload elsewhere.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use retcd_state::auth::password;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::grpc::status::{self, Code, Status};
use crate::workers::Workers;

/// Requests that may wait for a hash, here or at work.
const WAITING_MAX: usize = 1024;

/// Whether bcrypt looks at all of a new password.
///
/// # Errors
/// Go's words that it does not.
pub fn check_length(password: &str) -> Result<(), Status> {
    if password.len() > password::PASSWORD_BYTES_MAX {
        const TOO_LONG: &str = "bcrypt: password length exceeds 72 bytes";
        return Err(Status::new(Code::Unknown, TOO_LONG));
    }
    Ok(())
}

/// Makes and compares hashes.
pub struct Passwords {
    cost: u32,
    wait_max: Duration,
    waiting: Arc<Semaphore>,
    working: Arc<Semaphore>,
    workers: Workers,
}

impl Passwords {
    /// Hashes of `cost` (`--bcrypt-cost`), for each of which a request waits at most for `wait_max`.
    pub fn new(cost: u32, wait_max: Duration, workers: Workers) -> Passwords {
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
    /// # Errors
    /// As [`check_length`]; overload; the member stops.
    pub async fn hash(&self, password: String) -> Result<String, Status> {
        check_length(&password)?;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt)
            .map_err(|error| Status::new(Code::Unknown, error.to_string()))?;
        let cost = self.cost;
        self.work(move || password::encode(&password::hash(password.as_bytes(), cost, salt)))
            .await
    }

    /// Whether `password` is the one that `stored` was made of.
    ///
    /// # Errors
    /// Overload; the member stops.
    pub async fn verify(&self, password: String, stored: Bytes) -> Result<bool, Status> {
        self.work(move || password::verify(password.as_bytes(), &stored))
            .await
    }

    async fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Status> {
        let waiting = Arc::clone(&self.waiting).try_acquire_owned();
        let waiting = waiting.map_err(|_| status::TOO_MANY_REQUESTS)?;
        let working = Arc::clone(&self.working).acquire_owned();
        let working = tokio::time::timeout(self.wait_max, working)
            .await
            .map_err(|_| status::TIMEOUT)?
            .map_err(|_| status::STOPPED)?;
        // Whether or not the client still waits, the processor is busy until the end.
        let permits: [OwnedSemaphorePermit; 2] = [waiting, working];
        let work = move || {
            let done = work();
            drop(permits);
            done
        };
        Ok(self.workers.run(work).await?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            let passwords = Passwords::new(4, Duration::from_secs(60), Workers::start().unwrap());
            let hash = passwords.hash("pw".into()).await.unwrap();
            assert_ne!(passwords.hash("pw".into()).await.unwrap(), hash);
            // "$2a$04$" in base64.
            assert!(hash.starts_with("JDJhJDA0J"), "{hash}");
            let long = passwords.hash("x".repeat(73)).await.unwrap_err();
            assert_eq!(long.message, "bcrypt: password length exceeds 72 bytes");
            assert!(passwords.hash("x".repeat(72)).await.is_ok());
        });
    }

    #[test]
    fn who_cannot_have_a_processor_is_told_so() {
        run(async {
            let passwords = Passwords::new(4, Duration::from_millis(1), Workers::start().unwrap());
            let processors = passwords.working.available_permits() as u32;
            let busy = passwords.working.acquire_many(processors).await.unwrap();
            let refused = passwords.verify("pw".into(), Bytes::new()).await;
            assert_eq!(refused, Err(status::TIMEOUT));
            let queue = passwords.waiting.acquire_many(WAITING_MAX as u32);
            let queue = queue.await.unwrap();
            let refused = passwords.verify("pw".into(), Bytes::new()).await;
            assert_eq!(refused, Err(status::TOO_MANY_REQUESTS));
            drop((busy, queue));
            let answered = passwords.verify("pw".into(), Bytes::new()).await;
            assert_eq!(answered, Ok(false));
        });
    }
}
