//! Messages that hold messages of their own kind.
//!
//! A transaction may hold transactions, and those hold more: a request of a megabyte can be a hundred thousand levels deep. Whatever
//! walks such a message calls itself once a level, also what drops, clones, compares, prints, decodes and encodes it. [`Nested`] is the one
//! way to the next level, and it sees to two things:
//!
//! - **The stack suffices.** Before each step there are [`STACK_LEFT_MIN`] bytes of it, or a new one is taken for what is below. So
//!   whoever visits a message needs no thread of a certain size.
//! - **The depth is bounded** as it is in Go's decoder, at 10,000 messages within each other: what is deeper does not
//!   decode. prost's own bound of 100 would refuse what etcd has committed.

use std::cell::Cell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};

/// What one level may use of the stack, in bytes, with all that it calls until the next one.
const STACK_LEFT_MIN: usize = 256 << 10;
/// The size of a further stack in bytes.
const STACK_BYTES: usize = 4 << 20;

/// Up to this level prost starts counting anew at each. Its count of 100 from there on, two for a level, ends where Go's decoder does:
/// 5,000 transactions within each other, or 4,999 if the innermost does something.
const LEVELS_MAX: usize = 4_949;

/// A message within another of its kind.
pub struct Nested<T> {
    /// Absent only while it is dropped.
    message: Option<Box<T>>,
    /// Its encoded length, which every level above asks for, and those above that again.
    encoded_len: OnceLock<usize>,
}

/// Calls `visit` with enough stack for one level, for what goes as deep as a message without being one.
pub fn with_stack<R>(visit: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(STACK_LEFT_MIN, STACK_BYTES, visit)
}

impl<T> Nested<T> {
    /// A level more.
    pub fn new(message: T) -> Nested<T> {
        Nested {
            message: Some(Box::new(message)),
            encoded_len: OnceLock::new(),
        }
    }

    fn message(&self) -> &T {
        self.message.as_ref().expect("it is not being dropped")
    }

    /// Calls `visit` with the message.
    pub fn visit<'a, R>(&'a self, visit: impl FnOnce(&'a T) -> R) -> R {
        with_stack(|| visit(self.message()))
    }

    /// The message. To be let go of level by level: who keeps it, walks it as it is.
    pub fn into_inner(mut self) -> T {
        *self.message.take().expect("it is not being dropped")
    }
}

impl<T> Drop for Nested<T> {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            with_stack(|| drop(message));
        }
    }
}

impl<T: Default> Default for Nested<T> {
    fn default() -> Nested<T> {
        Nested::new(T::default())
    }
}

impl<T> From<T> for Nested<T> {
    fn from(message: T) -> Nested<T> {
        Nested::new(message)
    }
}

impl<T: Clone> Clone for Nested<T> {
    fn clone(&self) -> Nested<T> {
        self.visit(|message| Nested::new(message.clone()))
    }
}

impl<T: PartialEq> PartialEq for Nested<T> {
    fn eq(&self, other: &Nested<T>) -> bool {
        self.visit(|message| message == other.message())
    }
}

impl<T: Eq> Eq for Nested<T> {}

impl<T: Hash> Hash for Nested<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.visit(|message| message.hash(state));
    }
}

impl<T: fmt::Debug> fmt::Debug for Nested<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.visit(|message| message.fmt(f))
    }
}

thread_local! {
    /// At which level this thread is decoding.
    static LEVEL: Cell<usize> = const { Cell::new(0) };
}

impl<T: Message + Default> Message for Nested<T> {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        self.visit(|message| message.encode_raw(buf));
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        let level = LEVEL.get() + 1;
        let context = match level <= LEVELS_MAX {
            true => DecodeContext::default(),
            false => context,
        };
        self.encoded_len = OnceLock::new();
        let message = self.message.get_or_insert_default();
        LEVEL.set(level);
        let merged = with_stack(|| message.merge_field(tag, wire_type, buf, context));
        LEVEL.set(level - 1);
        merged
    }

    fn encoded_len(&self) -> usize {
        let len = || self.visit(Message::encoded_len);
        *self.encoded_len.get_or_init(len)
    }

    fn clear(&mut self) {
        *self = Nested::default();
    }
}
