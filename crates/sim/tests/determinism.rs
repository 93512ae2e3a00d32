//! The same seed gives the same run, bit for bit, wherever and whenever it runs.
//!
//! The digest is over every event, every message's bytes and every applied entry. The crate `raft` draws its
//! election timeouts from the thread's random source; that this does not show proves that `Node` overrides it.

#![cfg(test)]

use retcd_sim::{Options, run};

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
    let other = std::thread::spawn(digests);
    let first = digests();
    assert_eq!(first, other.join().unwrap());
    let mut distinct = first.clone();
    distinct.dedup();
    assert_eq!(distinct.len(), first.len(), "seeds make a difference");
}
