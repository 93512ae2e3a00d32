//! Profiles of this process, in the format of `go tool pprof`: where it spends its time ([`cpu`]),
//! where its memory was asked for ([`heap`]), and its [`threads`].
//!
//! ```text
//!   cpu ─────┐
//!   heap ────┼──▶ Samples ──▶ encode (pprof), text (debug=1)
//!   threads ─┘                   └── symbols: names and lines of addresses
//! ```
//!
//! Everything here may take a while (names of functions are looked up in the program's file), so it
//! is run by workers.
//!
//! Deliberately absent: contention of locks, which nothing here records, and Go's execution traces.

pub(crate) mod cpu;
mod encode;
pub(crate) mod heap;
mod symbols;
mod text;
pub(crate) mod threads;

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use crate::allocator;

pub(crate) use symbols::function_at;

/// Gives back what was kept to look names up, and the memory that profiles were made in: the threads
/// that took them need much, once, and ask for nothing afterwards.
pub(crate) fn forget() {
    symbols::forget();
    allocator::give_back();
}

/// What a number of a profile is: its name and its unit.
pub(crate) type ValueType = (&'static str, &'static str);

/// One place in a stack.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Frame {
    /// An instruction of the program.
    Address(u64),
    /// Something that has only a name.
    Name(String),
}

/// Stacks, the innermost frame first, and their numbers.
#[derive(Debug)]
pub(crate) struct Samples {
    /// The profile's name in headings.
    pub name: &'static str,
    /// What each number is.
    pub types: &'static [ValueType],
    /// The number that is shown first.
    pub shown: &'static str,
    /// What lies between two samples, and how much.
    pub period: (ValueType, i64),
    /// As many numbers for each stack as there are types.
    pub stacks: HashMap<Vec<Frame>, Vec<i64>>,
    /// When they were taken, or began to be.
    pub taken_at: SystemTime,
    /// For how long.
    pub duration: Duration,
}

impl Samples {
    /// An empty profile.
    pub(crate) fn new(
        name: &'static str,
        types: &'static [ValueType],
        period: (ValueType, i64),
    ) -> Samples {
        Samples {
            name,
            types,
            shown: types.last().map_or("", |(name, _)| name),
            period,
            stacks: HashMap::new(),
            taken_at: SystemTime::now(),
            duration: Duration::ZERO,
        }
    }

    /// Adds `values` to what `stack` has.
    pub(crate) fn add(&mut self, stack: Vec<Frame>, values: &[i64]) {
        let sums = self
            .stacks
            .entry(stack)
            .or_insert_with(|| vec![0; values.len()]);
        for (sum, value) in sums.iter_mut().zip(values) {
            *sum = sum.saturating_add(*value);
        }
    }

    /// What has been added since `earlier`.
    pub(crate) fn since(mut self, earlier: &Samples) -> Samples {
        for (stack, values) in &earlier.stacks {
            let negated: Vec<i64> = values.iter().map(|value| -value).collect();
            self.add(stack.clone(), &negated);
        }
        let changed = |values: &Vec<i64>| values.iter().any(|value| *value != 0);
        self.stacks.retain(|_, values| changed(values));
        self.duration = self
            .taken_at
            .duration_since(earlier.taken_at)
            .unwrap_or_default();
        self
    }

    /// The sum of the first number of all stacks.
    pub(crate) fn total(&self) -> i64 {
        self.stacks
            .values()
            .filter_map(|values| values.first())
            .sum()
    }

    /// As `go tool pprof` reads it: gzipped.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let encoded = encode::encode(self);
        forget();
        encoded
    }

    /// For people.
    pub(crate) fn text(&self) -> String {
        let text = text::text(self);
        forget();
        text
    }

    /// The stacks with the greatest numbers first.
    fn sorted(&self) -> Vec<(&Vec<Frame>, &Vec<i64>)> {
        let mut stacks: Vec<_> = self.stacks.iter().collect();
        stacks.sort_by(|a, b| b.1.cmp(a.1).then_with(|| a.0.cmp(b.0)));
        stacks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TYPES: &[ValueType] = &[("objects", "count"), ("space", "bytes")];

    fn samples(stacks: &[(&str, [i64; 2])]) -> Samples {
        let mut samples = Samples::new("heap", TYPES, (("space", "bytes"), 1));
        for (name, values) in stacks {
            samples.add(vec![Frame::Name((*name).to_owned())], values);
        }
        samples
    }

    #[test]
    fn a_difference_has_what_came_and_what_went() {
        let before = samples(&[("stays", [1, 10]), ("goes", [2, 20]), ("grows", [3, 30])]);
        let after = samples(&[("stays", [1, 10]), ("grows", [5, 50]), ("comes", [1, 5])]);
        let mut difference: Vec<_> = after.since(&before).stacks.into_iter().collect();
        difference.sort_by_key(|(stack, _)| format!("{stack:?}"));
        let named = |name: &str| vec![Frame::Name(name.to_owned())];
        assert_eq!(
            difference,
            [
                (named("comes"), vec![1, 5]),
                (named("goes"), vec![-2, -20]),
                (named("grows"), vec![2, 20]),
            ]
        );
    }
}
