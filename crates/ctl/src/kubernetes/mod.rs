//! Values as Kubernetes' API server stores them, as the JSON that it shows for them.
//!
//! ```text
//! k8s\0 runtime.Unknown{typeMeta, raw}    protobuf: most kinds
//! {"kind": …, "apiVersion": …}            JSON: custom resources and their definitions
//! k8s:enc:PROVIDER:…                      encrypted at rest
//! ```
//!
//! Protobuf does not carry names, so [`types`] holds those of Kubernetes' own kinds. Kinds that it
//! does not know, and fields of newer versions, are shown by their numbers ([`generic`]).
//!
//! - `envelope`: which of these a value is. `message`: from protobuf to JSON, with the types.
//! - `convert`: objects that are shown in another version of the API than they are stored in.
//! - `scalar`: what has a JSON form of its own: times, quantities, durations.
//! - `wire`: fields of a message. `encrypted`: what the head of an encrypted value tells.

mod convert;
mod encrypted;
mod envelope;
mod generic;
mod message;
mod scalar;
mod types;
mod wire;

#[cfg(test)]
mod tests;

pub(crate) use envelope::{Decoded, decode};

/// Nesting of messages that are shown as such; deeper ones are shown as bytes.
const DEPTH_MAX: usize = 64;
