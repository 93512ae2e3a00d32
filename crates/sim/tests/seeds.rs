//! Whole runs: all promises are kept, by a fixed set of seeds and by every seed that ever failed.

#![cfg(test)]

use clap::ValueEnum;
use retcd_sim::{Fared, Kind, Options, Run, run};

/// Seeds that run with every test.
const SEEDS: std::ops::Range<u64> = 1000..1040;

fn check(options: Options) -> Run {
    let seed = options.seed;
    let run = run(options);
    assert!(run.violation.is_none(), "{}", run.report());
    assert!(
        run.entries > 20,
        "seed {seed}: {} entries only",
        run.entries
    );
    run
}

#[test]
fn a_fixed_set_keeps_all_promises() {
    let mut fared = Fared::default();
    for seed in SEEDS {
        fared += check(Options::new(seed)).fared();
    }
    // A kind of load that is hardly there proves nothing. Each bound is about half of what these
    // seeds come to, so that a change of the simulator, which changes all runs, seldom touches it,
    // and load that goes missing does.
    let Fared {
        logins,
        served,
        denied,
        overtaken,
        without_token,
        strange,
        stayed: _,
        without_room,
        promoted,
        handed_over,
        compacted,
        found,
        upgraded,
        tree_served,
        tree_refused,
        tree_denied,
        tree_changes,
        tree_events,
        expired,
    } = fared;
    assert!(logins > 170 && served > 10_000, "{fared}");
    assert!(denied > 6_000 && overtaken > 40, "{fared}");
    assert!(without_token > 150 && strange > 170, "{fared}");
    assert!(without_room > 60 && compacted > 60, "{fared}");
    assert!(promoted > 10 && handed_over > 25, "{fared}");
    assert!(found > 3 && upgraded > 10, "{fared}");
    assert!(tree_served > 1_300 && tree_refused > 550, "{fared}");
    assert!(tree_events > 2_000 && expired > 140, "{fared}");
    assert!(tree_denied > 900 && tree_changes > 190, "{fared}");
}

/// A budget of nothing shows what memory hides: every value is read from the database.
#[test]
fn values_that_are_not_in_memory_keep_all_promises() {
    for (seed, bytes) in (2000..2012).zip([0, 0, 2000].into_iter().cycle()) {
        check(Options {
            value_cache_bytes: Some(bytes),
            ..Options::new(seed)
        });
    }
}

#[test]
fn the_last_voter_stays_whoever_asks_it_to_go() {
    let mut fared = Fared::default();
    for seed in 0..6 {
        let options = Options {
            members: Some(1),
            harassed: Some(true),
            ..Options::new(seed)
        };
        fared += check(options).fared();
    }
    assert!(fared.stayed > 20, "{fared}");
}

#[test]
fn seeds_that_failed_once_do_so_no_more() {
    let listed = include_str!("seeds.txt").lines();
    let seeds = listed.filter(|line| !line.starts_with('#') && !line.is_empty());
    for line in seeds {
        let mut words = line.split_whitespace();
        let seed = words.next().and_then(|seed| seed.parse().ok());
        let mut options = Options::new(seed.expect("a line begins with a seed"));
        let kind = |kind| Kind::from_str(kind, true).expect("a kind of fault");
        for (name, value) in words.map_while(|word| word.split_once('=')) {
            match name {
                "only" => options.only = value.split(',').map(kind).collect(),
                "members" => options.members = Some(value.parse().expect("a number")),
                "harassed" => options.harassed = Some(value.parse().expect("true or false")),
                "users" => options.users = Some(value.parse().expect("true or false")),
                "tree" => options.tree = Some(value.parse().expect("true or false")),
                other => panic!("{other}= means nothing"),
            }
        }
        check(options);
    }
}
