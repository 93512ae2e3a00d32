//! Whole runs: all promises are kept, by a fixed set of seeds and by every seed that ever failed.

#![cfg(test)]

use retcd_sim::{Options, run};

/// Seeds that run with every test.
const SEEDS: std::ops::Range<u64> = 1000..1012;

fn check(seed: u64) {
    let run = run(Options::new(seed));
    assert!(run.violation.is_none(), "{}", run.report());
    assert!(
        run.entries > 20,
        "seed {seed}: {} entries only",
        run.entries
    );
}

#[test]
fn a_fixed_set_keeps_all_promises() {
    SEEDS.for_each(check);
}

#[test]
fn seeds_that_failed_once_do_so_no_more() {
    let listed = include_str!("seeds.txt").lines();
    let seeds = listed.filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in seeds {
        let seed = line
            .split_whitespace()
            .next()
            .and_then(|seed| seed.parse().ok());
        check(seed.expect("a line begins with a seed"));
    }
}
