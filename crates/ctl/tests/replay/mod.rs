//! Replay of recorded transcripts.

pub mod entry;
pub mod group;
pub mod groups;
pub mod placeholders;
pub mod protobuf;
