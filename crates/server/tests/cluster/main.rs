//! Several real processes as one cluster: founded, joined, changed, left, and ended.
//!
//! Each case has a directory, ports and processes of its own. What is awaited is always an event
//! (an answer, a line of the log, the end of a process), never a span of time, but where a cluster
//! has to stay quiet for etcd's five seconds.

#![cfg(test)]

#[path = "../process/stderr.rs"]
mod stderr;

#[path = "../transcripts/client.rs"]
#[expect(dead_code, reason = "these tests need only a part of it")]
mod client;
mod data;
mod founding;
mod leadership;
mod leases;
mod members;
mod membership;
mod v2;
mod versions;
