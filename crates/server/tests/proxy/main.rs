//! `etcd gateway` and `etcd grpc-proxy` as their users meet them: processes before processes.
//!
//! What is awaited is always an event, never a span of time.

#![cfg(test)]

mod gateway;
mod grpc;
#[expect(dead_code, reason = "other tests share it and need more of it")]
#[path = "../process/place.rs"]
mod place;
mod refusals;
