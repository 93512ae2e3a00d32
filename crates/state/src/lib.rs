//! The replicated state machine: pure and deterministic.
//!
//! The same entries give the same state on every member. Nothing in here names a clock, a thread, a
//! file, the environment or a source of randomness; time is an argument.
//!
//! - [`entry`]: what a log entry asks for.
//! - [`machine`]: executes log entries and answers them; owns all of the below.
//! - [`mvcc`]: the keyspace, its history, and how to read it.
//! - [`watch`]: who is told of which change.
//! - [`v2`]: the other store, of API v2.
//! - [`lease`], [`alarm`], [`auth`], [`membership`], [`version`], [`meta`]: the rest of the state.
//! - [`identity`]: the ids of members and clusters.
//! - [`request`], [`quota`]: what is checked before a request is proposed.

pub mod alarm;
pub mod auth;
pub mod entry;
pub mod identity;
mod jobs;
pub mod lease;
pub mod machine;
pub mod membership;
pub mod meta;
pub mod mvcc;
pub mod quota;
pub mod request;
mod time;
pub mod v2;
pub mod version;
pub mod watch;

pub use jobs::Jobs;
pub use time::Time;
