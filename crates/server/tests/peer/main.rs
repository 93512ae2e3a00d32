//! The transport between members: its bytes against recorded traffic of Go's etcd, and members that talk to each
//! other over loopback.

mod codec;
mod recorded;
