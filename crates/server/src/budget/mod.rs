//! The memory that answers may hold until their clients have taken them.
//!
//! A short request can ask for a long answer, and a client need not read what it gets. So every
//! answer of [`COUNTED_FROM`] bytes or more reserves its memory from one budget of the process
//! before it is encoded, and releases it piece by piece as the connection sends the pieces, or at
//! once when the client goes away. An answer that does not fit waits in order, which is better than
//! running out of memory.
//!
//! It cannot deadlock: an answer makes one reservation for all of its bytes, and nobody who waits
//! for another answer makes one. An answer larger than the budget waits for all of it and is then
//! alone. Nor can clients that do not read hold memory for ever: an answer of which nothing was
//! taken for [`STALLED_AFTER`] is given up when others wait ([`AnswerBudget::is_wanted`]). Those
//! wait no longer than for any other answer. For what a connection has already been given see
//! `outstanding`.

mod outstanding;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
pub(crate) use outstanding::Outstanding;
use outstanding::Share;
use retcd_member::Gauge;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Shorter answers are not counted: with what hyper holds for a request they weigh about the same.
pub(crate) const COUNTED_FROM: usize = 64 << 10;
/// A client that has taken nothing for so long is not waited for while others wait.
pub(crate) const STALLED_AFTER: Duration = Duration::from_secs(10);
/// All answers in flight together. Twice as many clients as a cluster of Kubernetes has components
/// can take lists of 16 MiB at once.
const BYTES_MAX: usize = 1 << 30;
/// What the budget is counted in: a semaphore's permits are 32 bits.
const UNIT: usize = 4 << 10;

/// See the [module](self).
pub(crate) struct AnswerBudget {
    units: Arc<Semaphore>,
    units_max: usize,
    waiting: Gauge,
}

impl Default for AnswerBudget {
    fn default() -> AnswerBudget {
        AnswerBudget::of(BYTES_MAX)
    }
}

impl AnswerBudget {
    /// A budget of so many bytes.
    pub(crate) fn of(bytes_max: usize) -> AnswerBudget {
        let units_max = bytes_max / UNIT;
        AnswerBudget {
            units: Arc::new(Semaphore::new(units_max)),
            units_max,
            waiting: Gauge::default(),
        }
    }

    /// Reserves `bytes` for an answer, if they are free and nobody waits for them.
    pub(crate) fn try_reserve(&self, bytes: usize) -> Option<Reservation> {
        if bytes < COUNTED_FROM {
            return Some(Reservation(None));
        }
        let units = Arc::clone(&self.units).try_acquire_many_owned(self.units(bytes));
        units.ok().map(|units| Reservation(Some(units)))
    }

    /// Reserves `bytes` for an answer, behind those who came before.
    pub(crate) async fn reserve(&self, bytes: usize) -> Reservation {
        if let Some(reservation) = self.try_reserve(bytes) {
            return reservation;
        }
        let _waiting = self.waiting.enter();
        let units = Arc::clone(&self.units).acquire_many_owned(self.units(bytes));
        Reservation(Some(units.await.expect("the budget is never closed")))
    }

    /// Whether anybody waits for memory.
    pub(crate) fn is_wanted(&self) -> bool {
        self.waiting.count() > 0
    }

    fn units(&self, bytes: usize) -> u32 {
        let units = bytes.div_ceil(UNIT).min(self.units_max);
        u32::try_from(units).expect("the budget is far below 4 G units")
    }
}

/// A share of the budget; dropping it gives it back.
pub(crate) struct Reservation(Option<OwnedSemaphorePermit>);

impl Reservation {
    /// Gives `bytes` their share of it.
    pub(crate) fn hold(&mut self, bytes: Bytes) -> Piece {
        let share = self.0.as_mut().and_then(|rest| {
            // The last piece may find less, since each takes whole units.
            rest.split(bytes.len().div_ceil(UNIT).min(rest.num_permits()))
        });
        Piece { bytes, share }
    }
}

/// A piece of an answer and its part of the reservation, if it is counted.
#[derive(Debug)]
pub(crate) struct Piece {
    bytes: Bytes,
    share: Option<OwnedSemaphorePermit>,
}

impl From<Bytes> for Piece {
    fn from(bytes: Bytes) -> Piece {
        Piece { bytes, share: None }
    }
}

impl Piece {
    /// Length in bytes.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// The bytes, to look at.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes, for a connection to send. Their memory is free when the last clone or slice of
    /// them is gone.
    pub(crate) fn hand_over(self, connection: &Outstanding) -> Bytes {
        let Piece { bytes, share } = self;
        match share {
            None => bytes,
            Some(permit) => Bytes::from_owner(Held {
                bytes,
                _share: connection.enter(permit),
            }),
        }
    }
}

/// Bytes that a connection has.
struct Held {
    bytes: Bytes,
    _share: Share,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    const MIB: usize = 1 << 20;

    fn bytes(len: usize) -> Bytes {
        vec![0; len].into()
    }

    #[test]
    fn memory_is_released_piece_by_piece() {
        let budget = AnswerBudget::of(4 * MIB);
        let mut reservation = budget.try_reserve(3 * MIB).expect("it is free");
        assert!(budget.try_reserve(2 * MIB).is_none());
        let connection = Outstanding::default();
        let first = reservation.hold(bytes(MIB)).hand_over(&connection);
        let (part, copy) = (first.slice(..10), first.clone());
        let second = reservation.hold(bytes(2 * MIB));
        drop((reservation, first, copy));
        assert!(budget.try_reserve(2 * MIB).is_none(), "a slice is left");
        drop(part);
        let other = budget
            .try_reserve(2 * MIB)
            .expect("the first piece is gone");
        drop(second);
        assert!(budget.try_reserve(2 * MIB).is_some());
        drop(other);
        assert_eq!(budget.units.available_permits(), budget.units_max);
    }

    #[test]
    fn reservations_wait_in_order() {
        let budget = AnswerBudget::of(4 * MIB);
        let held = budget.try_reserve(3 * MIB).expect("it is free");
        let mut large = Box::pin(budget.reserve(100 * MIB));
        assert!((&mut large).now_or_never().is_none());
        assert!(budget.is_wanted());
        assert!(budget.try_reserve(MIB).is_none(), "it is the other's turn");
        drop(held);
        let all = large
            .now_or_never()
            .expect("an answer above the budget is alone");
        assert!(!budget.is_wanted() && budget.try_reserve(MIB).is_none());
        drop(all);
        assert!(budget.try_reserve(4 * MIB).is_some());
    }

    #[test]
    fn a_dropped_reservation_no_longer_waits() {
        let budget = AnswerBudget::of(MIB);
        let held = budget.try_reserve(MIB).expect("it is free");
        let mut gone = Box::pin(budget.reserve(MIB));
        assert!((&mut gone).now_or_never().is_none());
        drop(gone);
        assert!(!budget.is_wanted());
        drop(held);
        assert!(budget.try_reserve(MIB).is_some());
    }
}
