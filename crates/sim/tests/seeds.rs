//! Whole runs: all promises are kept, by a fixed set of seeds and by every seed that ever failed.

#![cfg(test)]

use clap::ValueEnum;
use retcd_sim::{Kind, Options, run};

/// Seeds that run with every test.
const SEEDS: std::ops::Range<u64> = 1000..1012;

fn check(options: Options) {
    let seed = options.seed;
    let run = run(options);
    assert!(run.violation.is_none(), "{}", run.report());
    assert!(
        run.entries > 20,
        "seed {seed}: {} entries only",
        run.entries
    );
}

#[test]
fn a_fixed_set_keeps_all_promises() {
    SEEDS.map(Options::new).for_each(check);
}

#[test]
fn seeds_that_failed_once_do_so_no_more() {
    let listed = include_str!("seeds.txt").lines();
    let seeds = listed.filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in seeds {
        let mut words = line.split_whitespace();
        let seed = words.next().and_then(|seed| seed.parse().ok());
        let mut options = Options::new(seed.expect("a line begins with a seed"));
        let only = words.next().and_then(|word| word.strip_prefix("only="));
        options.only = only.map(|kind| Kind::from_str(kind, true).expect("a kind of fault"));
        check(options);
    }
}
