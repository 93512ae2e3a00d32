//! The JSON gateway as its clients meet it, over real connections with the built `etcd` program.
//!
//! [`replay`] holds it against what etcd 3.7.1 answered; the others guard what a transcript cannot
//! show.

#![cfg(test)]

#[path = "../transcripts/client.rs"]
#[expect(dead_code, reason = "these tests need only a part of it")]
mod client;
mod conversations;
mod json;
mod limits;
#[path = "../transcripts/member.rs"]
mod member;
mod mutated;
#[path = "../process/place.rs"]
#[expect(dead_code, reason = "these tests need only a part of it")]
mod place;
mod replay;
mod switches;
#[path = "../transcripts/transcript.rs"]
#[expect(dead_code, reason = "these tests need only a part of it")]
mod transcript;
mod websocket;
