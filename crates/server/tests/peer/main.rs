//! The transport between members: its bytes against recorded traffic of Go's etcd, and members that
//! talk to each other over loopback.

#![allow(clippy::unwrap_used)]

mod client;
mod codec;
mod handler;
mod member;
mod recorded;
mod snapshots;
mod traffic;
