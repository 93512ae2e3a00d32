//! The built `etcd` program as its users meet it: started by a shell, fed nonsense, killed, started
//! again.
//!
//! Each case has a directory, ports and processes of its own. What is awaited is always an event (a
//! line of the log, an answer, the end of a process), never a span of time.

#![cfg(test)]

mod auth;
mod bad_input;
mod cost;
mod durability;
mod elections;
mod health;
mod hostile;
mod launch;
mod limits;
mod locks;
mod metrics;
mod moments;
#[expect(dead_code, reason = "other tests share it and need more of it")]
mod place;
mod profiles;
mod raw;
mod recent;
mod refusals;
mod resources;
mod small_disk;
mod stages;
mod switches;
mod tracing;
