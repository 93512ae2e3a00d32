//! The same seed gives the same run, bit for bit, wherever and whenever it runs.
//!
//! The digest is over every event, every message's bytes and every applied entry. The crate `raft`
//! draws its election timeouts from the thread's random source; that this does not show proves that
//! `Node` overrides it.

#![cfg(test)]

use std::sync::mpsc::channel;
use std::time::Duration;

use retcd_sim::{Options, run};

/// Far beyond what so few seeds take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

fn digests() -> Vec<(u64, u64)> {
    (2000..2004)
        .map(|seed| {
            let run = run(Options::new(seed));
            (run.digest, run.events)
        })
        .collect()
}

#[test]
fn a_run_repeats_in_another_thread() {
    let (done, other) = channel();
    std::thread::spawn(move || done.send(digests()));
    let first = digests();
    let other = other.recv_timeout(PATIENCE);
    assert_eq!(first, other.expect("the other thread runs as long"));
    let mut distinct = first.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), first.len(), "seeds make a difference");
}
