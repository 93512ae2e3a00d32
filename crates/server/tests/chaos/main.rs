//! Three real members under faults: killed, frozen, cut off from each other, restarted one by one,
//! out of disk. A load of writers and readers runs all the while.
//!
//! What is guarded, whatever happens to a minority of the members:
//! - an acknowledged write is there afterwards, on every member, at the revision that was told;
//! - no answer shows an older state than one that was given before it was asked for;
//! - all members hold the same keyspace (`HashKV`);
//! - writes go on soon: with a leader's loss after an election, with a follower's at once.
//!
//! Each test has directories, ports and processes of its own. What is awaited is always an event,
//! by asking again and again; spans of time occur only where the time itself is the fault.

#![cfg(test)]

mod bad_peer;
mod cluster;
mod full_disk;
mod kills;
mod load;
mod partitions;
#[path = "../process/place.rs"]
#[expect(dead_code, reason = "these tests need only a part of it")]
mod place;
mod relay;
#[path = "../process/small_disk.rs"]
mod small_disk;
