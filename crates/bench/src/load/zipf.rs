//! Ranks by Zipf's law: the rank k is drawn in proportion to 1/k^s.
//!
//! By rejection-inversion (Hörmann, Derflinger: Rejection-inversion to generate variates from
//! monotone discrete distributions, 1996), which needs no table of the ranks.

use fastrand::Rng;

/// The exponent s, that of the YCSB benchmark.
const EXPONENT: f64 = 0.99;

/// The distribution over ranks 1 to n.
#[derive(Debug, Clone, Copy)]
pub(super) struct Zipf {
    count: f64,
    /// The integral below 1.5 less the whole mass of rank 1, and the integral of all ranks.
    low: f64,
    high: f64,
    /// Ranks this close to the inverted value need no further look.
    near: f64,
}

impl Zipf {
    /// For `count` ranks, at least one.
    pub(super) fn new(count: u64) -> Self {
        let count = count as f64;
        Self {
            count,
            low: integral(1.5) - 1.0,
            high: integral(count + 0.5),
            near: 2.0 - inverse(integral(2.5) - mass(2.0)),
        }
    }

    /// A rank.
    pub(super) fn rank(&self, rng: &mut Rng) -> u64 {
        loop {
            let under = self.high + rng.f64() * (self.low - self.high);
            let exact = inverse(under);
            let rank = exact.round().clamp(1.0, self.count);
            if rank - exact <= self.near || under >= integral(rank + 0.5) - mass(rank) {
                return rank as u64;
            }
        }
    }
}

/// 1/x^s.
fn mass(x: f64) -> f64 {
    x.powf(-EXPONENT)
}

/// The integral of [`mass`] from 1 to x.
fn integral(x: f64) -> f64 {
    (x.powf(1.0 - EXPONENT) - 1.0) / (1.0 - EXPONENT)
}

/// The x of an [`integral`].
fn inverse(integral: f64) -> f64 {
    (1.0 + integral * (1.0 - EXPONENT)).powf(1.0 / (1.0 - EXPONENT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_have_their_shares() {
        const RANKS: u64 = 100;
        const DRAWN: u64 = 2_000_000;
        let (zipf, mut rng) = (Zipf::new(RANKS), Rng::with_seed(3));
        let mut counts = [0_u64; RANKS as usize + 1];
        for _ in 0..DRAWN {
            counts[zipf.rank(&mut rng) as usize] += 1;
        }
        let whole: f64 = (1..=RANKS).map(|rank| mass(rank as f64)).sum();
        for rank in [1_u32, 2, 3, 10, 50, 100] {
            let expected = mass(rank.into()) / whole * DRAWN as f64;
            let got = counts[rank as usize] as f64;
            // Four standard deviations; the seed is always the same.
            assert!(
                (got - expected).abs() < 4.0 * expected.sqrt(),
                "{rank}: {got}, not {expected}"
            );
        }
        assert_eq!(counts[0], 0);
    }

    #[test]
    fn one_rank_is_all_there_is() {
        let mut rng = Rng::with_seed(3);
        assert!((0..100).all(|_| Zipf::new(1).rank(&mut rng) == 1));
    }
}
