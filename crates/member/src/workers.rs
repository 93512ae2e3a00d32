//! Work that would hold up whoever waits for it: reading history, hashing, passwords.
//!
//! Where it is done is for the owner of the member to say: on a few threads in the server, at a
//! time of the seed's choosing in the simulator. Long work is done in pieces of a few milliseconds,
//! each queued anew.

use std::fmt;
use std::sync::Arc;

use tokio::sync::oneshot;

use crate::Error;

/// A piece of work.
pub type Work = Box<dyn FnOnce() + Send>;

/// A queue of work; clones share it.
///
/// It needs no bound of its own: who puts work into it waits for the result, so that it is no
/// longer than the number of requests under way, or of followers that are behind.
#[derive(Clone)]
pub struct Workers(Arc<dyn Fn(Work) + Send + Sync>);

impl fmt::Debug for Workers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Workers")
    }
}

impl Workers {
    /// A queue that `submit` puts work into. Work that it drops ends with [`Error::Stopped`].
    pub fn new(submit: impl Fn(Work) + Send + Sync + 'static) -> Workers {
        Workers(Arc::new(submit))
    }

    /// Runs `work` when it is its turn. It is not done if the future is dropped before that.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let (done, result) = oneshot::channel();
        (self.0)(Box::new(move || {
            if !done.is_closed() {
                let _ = done.send(work());
            }
        }));
        result.await.map_err(|_| Error::Stopped)
    }

    /// Does `work` when it is its turn.
    pub fn submit(&self, work: impl FnOnce() + Send + 'static) {
        (self.0)(Box::new(work));
    }

    /// Calls `step` on `state`, a turn each time, until it gives a result.
    ///
    /// # Errors
    /// [`Error::Stopped`].
    pub async fn run_in_pieces<S: Send + 'static, T: Send + 'static>(
        &self,
        mut state: S,
        step: fn(&mut S) -> Option<T>,
    ) -> Result<T, Error> {
        loop {
            // What is left of it is dropped there, too, which may be as much work as it was.
            let piece = move || match step(&mut state) {
                Some(result) => Piece::Last(result),
                None => Piece::Rest(state),
            };
            state = match self.run(piece).await? {
                Piece::Last(result) => return Ok(result),
                Piece::Rest(rest) => rest,
            };
        }
    }
}

/// What came of a piece of long work.
enum Piece<S, T> {
    Rest(S),
    Last(T),
}
