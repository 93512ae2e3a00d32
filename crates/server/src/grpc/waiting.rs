//! Requests that wait for other clients, for longer than their own client may stay.
//!
//! hyper drops a handler whose client has left, and a handler that is dropped can do nothing more.
//! What has to be undone then runs in a task of its own, which hears that nobody waits for it.

use std::future::Future;

use tokio::sync::oneshot;

/// Runs `work` to its end, also if the caller is dropped: then the future that `work` was given
/// resolves.
pub(super) async fn outliving<T, F>(work: impl FnOnce(Abandoned) -> F) -> T
where
    T: 'static,
    F: Future<Output = T> + 'static,
{
    let (_caller, abandoned) = oneshot::channel();
    let work = tokio::task::spawn_local(work(Abandoned(abandoned)));
    // A panic anywhere ends the process.
    work.await.expect("nobody aborts it")
}

/// Resolves when nobody waits for the outcome any more.
pub(super) struct Abandoned(oneshot::Receiver<()>);

impl Abandoned {
    /// Waits until then; for good, if the outcome is waited for to the end.
    pub(super) async fn wait(self) {
        // Nothing is ever sent.
        let _ = self.0.await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::task::LocalSet;

    use super::*;

    #[tokio::test]
    async fn work_ends_though_the_caller_is_dropped() {
        let (done, was_done) = oneshot::channel();
        let (began, has_begun) = oneshot::channel();
        let caller = outliving(async move |abandoned| {
            began.send(()).unwrap();
            abandoned.wait().await;
            done.send("undone").unwrap();
        });
        let test = async {
            let caller = tokio::task::spawn_local(caller);
            has_begun.await.unwrap();
            caller.abort();
            assert_eq!(was_done.await, Ok("undone"));
        };
        LocalSet::new().run_until(test).await;
    }

    #[tokio::test]
    async fn the_outcome_is_handed_on() {
        let outcome = outliving(async |_| 7);
        assert_eq!(LocalSet::new().run_until(outcome).await, 7);
    }
}
