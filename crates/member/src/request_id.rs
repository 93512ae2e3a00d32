//! Request ids.
//!
//! ```text
//! | member: 16 bits | thread: 8 bits | counter: 40 bits |
//! ```
//!
//! An id names its request in the log and routes the reply to the thread that waits for it. The
//! counter starts at the wall clock's milliseconds, shifted so that it runs ahead of no clock below
//! 32 requests per millisecond: a restarted member does not reuse the ids of requests that are
//! still in its log or on their way.

use std::cell::Cell;

const COUNTER_BITS: u32 = 40;
const THREAD_BITS: u32 = 8;
const PER_MILLISECOND_BITS: u32 = 5;
/// What is left for the member's id.
const MEMBER_BITS: u32 = 16;

const _: () = assert!(MEMBER_BITS + THREAD_BITS + COUNTER_BITS == u64::BITS);

/// The ids of one thread.
pub struct RequestIds {
    prefix: u64,
    counter: Cell<u64>,
}

impl RequestIds {
    /// The ids of thread `thread` of member `member`, started at `unix_ms`.
    pub fn new(member: u64, thread: u8, unix_ms: u64) -> RequestIds {
        let prefix =
            (member & 0xffff) << (COUNTER_BITS + THREAD_BITS) | u64::from(thread) << COUNTER_BITS;
        RequestIds {
            prefix,
            counter: Cell::new(unix_ms << PER_MILLISECOND_BITS),
        }
    }

    /// A new id; never 0.
    pub fn next(&self) -> u64 {
        const MASK: u64 = (1 << COUNTER_BITS) - 1;
        let mut counter = self.counter.get().wrapping_add(1);
        if counter & MASK == 0 {
            counter = counter.wrapping_add(1);
        }
        self.counter.set(counter);
        self.prefix | (counter & MASK)
    }
}

/// The first context of a member's reads. Go's members number their requests like this, and use the
/// numbers as contexts, too.
pub fn first_read_context(member: u64, unix_ms: u64) -> u64 {
    (member & 0xffff) << (COUNTER_BITS + THREAD_BITS)
        | (unix_ms & ((1 << COUNTER_BITS) - 1)) << THREAD_BITS
}

/// Whether `request` may be one of `member`'s: two members in 65,536 cannot be told apart, and
/// whoever waits compares the whole id.
pub fn is_of_member(request: u64, member: u64) -> bool {
    request >> (COUNTER_BITS + THREAD_BITS) == member & 0xffff
}

/// The thread that waits for `request`.
pub fn thread_of(request: u64) -> usize {
    (request >> COUNTER_BITS) as usize & ((1 << THREAD_BITS) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_leads_back_to_its_thread() {
        let ids = RequestIds::new(0xdead_beef_1234_5678, 3, u64::MAX);
        let (first, second) = (ids.next(), ids.next());
        assert_ne!(first, second);
        assert_eq!((thread_of(first), thread_of(second)), (3, 3));
        assert_eq!(first >> 48, 0x5678);
        assert!(is_of_member(first, 0xdead_beef_1234_5678));
        assert!(!is_of_member(first, 0xdead_beef_1234_5679));
    }
}
