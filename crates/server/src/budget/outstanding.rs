//! What a connection has of the [budget](super) and has not let go of.
//!
//! A piece that was given to a connection is in its buffers until its client takes it, and nothing
//! short of an end of the connection brings it back. So a connection that holds on to one for
//! [`HELD_MAX`] is closed, if others wait for memory. Its client has stopped, or wants the memory.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedSemaphorePermit};
use tokio::time::{Instant, sleep, sleep_until};

use super::AnswerBudget;

/// A client that has not taken a piece for so long is cut off while others wait for memory. Pieces
/// are of some 256 KiB, or a record long.
const HELD_MAX: Duration = Duration::from_secs(20);
/// Pause before it is asked again whether somebody waits.
const AGAIN: Duration = Duration::from_secs(1);

/// The pieces of one connection; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Outstanding(Arc<Pieces>);

#[derive(Default)]
struct Pieces {
    held: Mutex<Held>,
    /// Told when the first piece comes.
    begun: Notify,
}

#[derive(Default)]
struct Held {
    /// Since when, and a number that tells those of one moment apart.
    since: BTreeSet<(Instant, u64)>,
    next: u64,
}

/// A piece's share of the budget, until the connection lets go of it.
pub(crate) struct Share {
    outstanding: Outstanding,
    since: (Instant, u64),
    _permit: OwnedSemaphorePermit,
}

impl Outstanding {
    /// Takes note of a piece that the connection is given now.
    pub(crate) fn enter(&self, permit: OwnedSemaphorePermit) -> Share {
        let mut held = self.0.held.lock();
        let since = (Instant::now(), held.next);
        held.next += 1;
        held.since.insert(since);
        drop(held);
        self.0.begun.notify_one();
        Share {
            outstanding: self.clone(),
            since,
            _permit: permit,
        }
    }

    /// Resolves when a piece has been held for too long, and others wait for memory.
    pub(crate) async fn stuck(&self, budget: &AnswerBudget) {
        loop {
            let Some(oldest) = self.oldest() else {
                self.0.begun.notified().await;
                continue;
            };
            if oldest.elapsed() < HELD_MAX {
                sleep_until(oldest + HELD_MAX).await;
            } else if budget.is_wanted() {
                return;
            } else {
                sleep(AGAIN).await;
            }
        }
    }

    fn oldest(&self) -> Option<Instant> {
        let held = self.0.held.lock();
        held.since.first().map(|(since, _)| *since)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.outstanding.0.held.lock().since.remove(&self.since);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    /// A piece of `bytes` that is with the connection.
    fn give(budget: &AnswerBudget, outstanding: &Outstanding, bytes: usize) -> Bytes {
        let mut reservation = budget.try_reserve(bytes).expect("it is free");
        reservation
            .hold(vec![0; bytes].into())
            .hand_over(outstanding)
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_keeps_what_others_wait_for_is_stuck() {
        let budget = AnswerBudget::of(4 * MIB);
        let outstanding = Outstanding::default();
        let stuck = outstanding.stuck(&budget);
        tokio::pin!(stuck);
        assert!((&mut stuck).now_or_never().is_none(), "it has nothing");
        let piece = give(&budget, &outstanding, 3 * MIB);
        let mut waiting = Box::pin(budget.reserve(2 * MIB));
        assert!((&mut waiting).now_or_never().is_none());
        assert!((&mut stuck).now_or_never().is_none(), "it was just given");
        let began = Instant::now();
        stuck.await;
        assert_eq!(began.elapsed(), HELD_MAX);
        // As when the connection is closed.
        drop(piece);
        waiting.await;
    }

    #[tokio::test(start_paused = true)]
    async fn nobody_is_cut_off_who_goes_on_or_whom_nobody_waits_for() {
        let (full, other) = (AnswerBudget::of(MIB), AnswerBudget::of(MIB));
        let outstanding = Outstanding::default();
        let stuck = outstanding.stuck(&full);
        tokio::pin!(stuck);
        let mut piece = give(&other, &outstanding, MIB);
        let ended = tokio::time::timeout(3 * HELD_MAX, &mut stuck).await;
        assert!(ended.is_err(), "nobody waits");
        // From now on somebody does.
        drop(piece);
        let _all = full.try_reserve(MIB).expect("it is free");
        let mut waiting = Box::pin(full.reserve(MIB));
        assert!((&mut waiting).now_or_never().is_none());
        for _ in 0..5 {
            piece = give(&other, &outstanding, MIB);
            let ended = tokio::time::timeout(HELD_MAX / 2, &mut stuck).await;
            assert!(
                ended.is_err(),
                "a slow client takes one piece after the other"
            );
            drop(piece);
        }
    }
}
