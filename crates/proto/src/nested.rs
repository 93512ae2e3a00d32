//! Recursive messages.
//!
//! A transaction may contain transactions, and those may contain more: a request of one megabyte
//! can be nested a hundred thousand levels deep. Every traversal of such a message recurses once
//! per level, including drop, clone, comparison, formatting, decoding and encoding. [`Nested`] is
//! the only way to reach the next level, and it guarantees two things:
//!
//! - **Enough stack.** Before each step there are at least [`STACK_LEFT_MIN`] bytes of stack, or a
//!   new segment is allocated. Callers need no thread with a particular stack size.
//! - **Bounded depth.** As in Go's decoder, messages nested more than 10,000 deep do not decode.
//!   prost's own limit of 100 would reject what etcd has committed.

use std::cell::Cell;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;

use bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType};
use prost::{DecodeError, Message};

/// Stack, in bytes, that one level may use, including everything it calls before the next level.
const STACK_LEFT_MIN: usize = 256 << 10;
/// Size of a new stack segment in bytes.
const STACK_BYTES: usize = 4 << 20;

/// Up to this level, prost's recursion limit starts anew at each level. From here on its limit of
/// 100, two per level, ends where that of Go's decoder does: at 5,000 nested transactions, or 4,999
/// if the innermost contains an operation.
const LEVELS_MAX: usize = 4_949;

/// A message nested within a message of the same type.
pub struct Nested<T> {
    /// `None` only during drop.
    message: Option<Box<T>>,
    /// The encoded length, cached: every enclosing level needs it, which would take quadratic time.
    encoded_len: OnceLock<usize>,
}

/// Calls `visit` with enough stack for one level. For recursion that follows a message's nesting
/// without going through [`Nested`].
pub fn with_stack<R>(visit: impl FnOnce() -> R) -> R {
    stacker::maybe_grow(STACK_LEFT_MIN, STACK_BYTES, visit)
}

impl<T> Nested<T> {
    /// Nests `message` one level deeper.
    pub fn new(message: T) -> Nested<T> {
        Nested {
            message: Some(Box::new(message)),
            encoded_len: OnceLock::new(),
        }
    }

    fn message(&self) -> &T {
        self.message.as_ref().expect("it is not being dropped")
    }

    /// Calls `visit` with the message, on a stack with enough space.
    pub fn visit<'a, R>(&'a self, visit: impl FnOnce(&'a T) -> R) -> R {
        with_stack(|| visit(self.message()))
    }

    /// Returns the message. Consume it level by level: dropping the result recurses on the caller's
    /// stack only for one level.
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
    /// The nesting level that this thread is decoding.
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
