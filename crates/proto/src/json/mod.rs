//! protobuf's JSON mapping, in both directions, as Go's `encoding/json` and `protojson` have it.
//!
//! ```text
//! {"key":"Zm9v","limit":"1"}  ── decode ──▶  0a 03 66 6f 6f 18 01  ── prost ──▶  RangeRequest
//!                             ◀── Encoder ──
//! ```
//!
//! Both sides work on the wire format by the [`Schema`] of a message, so that nothing is written per
//! message and no tree of values is built. Neither recurses.
//!
//! - [`Values`] takes a stream of JSON values apart and checks their syntax; [`first_value`] does it for a
//!   whole text.
//! - [`decode`] makes the wire format of one of them, with the texts of Go's errors.
//! - [`Encoder`] writes JSON while pieces of a message arrive.
//!
//! Go puts a space behind some commas of whole programs, by chance of the build; there are none
//! here. Maps, extensions and the well-known types do not occur in etcd's API and are not there.

mod decode;
mod encode;
mod number;
mod values;

pub use crate::schema::{Method, Schema};
pub use decode::decode;
pub use encode::{Encoder, quote};
pub use values::{NESTING_MAX, Values, first_value};

/// Why a text is not a message. Displays the texts of Go's errors.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

#[cfg(test)]
mod tests;
