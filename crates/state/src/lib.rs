//! The replicated state machine: pure and deterministic.
//!
//! The same entries give the same state on every member. Nothing in here names a clock, a thread, a
//! file, the environment or a source of randomness; time is an argument.

pub mod mvcc;
pub mod watch;
