//! TLS as clients and members meet it: the built `etcd` program, certificates made on the spot,
//! handshakes over sockets.
//!
//! What is guarded: who gets in and who does not, and that the log and the client are told why, in
//! the words that operators know. Each case has a directory, ports and processes of its own; what
//! is awaited is always an event.

#![cfg(test)]

mod access;
mod client;
mod cluster;
mod flood;
mod gateway;
mod grpc;
#[path = "../../../tls/tests/issuer/mod.rs"]
mod issuer;
mod kubeadm;
mod listeners;
mod member;
#[path = "../process/place.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod place;
mod reload;
mod start;
mod v2;
