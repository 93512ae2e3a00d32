//! What is going to happen, by time. Events of one moment come in the order in which they were
//! added.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;
use std::time::Duration;

struct Item<E> {
    at: Duration,
    number: u64,
    event: E,
}

/// Events that wait for their time.
pub struct Queue<E> {
    heap: BinaryHeap<Reverse<Item<E>>>,
    added: u64,
}

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue {
            heap: BinaryHeap::new(),
            added: 0,
        }
    }
}

impl<E> Queue<E> {
    /// Adds an event.
    pub fn push(&mut self, at: Duration, event: E) {
        self.added += 1;
        let number = self.added;
        self.heap.push(Reverse(Item { at, number, event }));
    }

    /// Takes out the next event and its time.
    pub fn pop(&mut self) -> Option<(Duration, E)> {
        let Reverse(item) = self.heap.pop()?;
        Some((item.at, item.event))
    }
}

impl<E> Item<E> {
    fn place(&self) -> (Duration, u64) {
        (self.at, self.number)
    }
}

impl<E> PartialEq for Item<E> {
    fn eq(&self, other: &Self) -> bool {
        self.place() == other.place()
    }
}

impl<E> Eq for Item<E> {}

impl<E> PartialOrd for Item<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> Ord for Item<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.place().cmp(&other.place())
    }
}
