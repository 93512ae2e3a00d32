//! Which endpoint the next connection goes to.
//!
//! Of the active endpoints those with the lowest priority number take part. Among them, weights are
//! shares of the connections, and endpoints without weight, beside others that have some, get one
//! connection in a hundred. Where nobody has a weight they take turns.

/// An endpoint and whether it has accepted connections lately.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    /// `host:port`.
    pub(super) address: String,
    pub(super) priority: u16,
    pub(super) weight: u16,
    pub(super) is_active: bool,
}

/// All endpoints.
#[derive(Debug)]
pub(super) struct Balance {
    endpoints: Vec<Endpoint>,
    turn: usize,
}

impl Balance {
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Balance {
        Balance { endpoints, turn: 0 }
    }

    /// The number of the endpoint for a connection; none if no endpoint is active. `random` draws
    /// a number below its argument, which is not 0.
    pub(super) fn pick(&mut self, mut random: impl FnMut(u32) -> u32) -> Option<usize> {
        let active = || (0..self.endpoints.len()).filter(|at| self.endpoints[*at].is_active);
        let best = active().map(|at| self.endpoints[at].priority).min()?;
        let (weighted, unweighted): (Vec<usize>, Vec<usize>) = active()
            .filter(|at| self.endpoints[*at].priority == best)
            .partition(|at| self.endpoints[*at].weight > 0);
        if weighted.is_empty() || (!unweighted.is_empty() && random(100) == 0) {
            return Some(self.in_turn(&unweighted));
        }
        let weight = |at: &usize| u32::from(self.endpoints[*at].weight);
        let mut left = random(weighted.iter().map(weight).sum());
        weighted.into_iter().find(|at| {
            let weight = weight(at);
            let chosen = left < weight;
            left = left.saturating_sub(weight);
            chosen
        })
    }

    /// The next of `candidates`, counted over all endpoints, so that one that is down does not hand
    /// its turn to always the same other.
    fn in_turn(&mut self, candidates: &[usize]) -> usize {
        let all = self.endpoints.len();
        loop {
            let at = self.turn % all;
            self.turn += 1;
            if candidates.contains(&at) {
                return at;
            }
        }
    }

    pub(super) fn address(&self, at: usize) -> &str {
        &self.endpoints[at].address
    }

    pub(super) fn set_active(&mut self, at: usize, is_active: bool) {
        self.endpoints[at].is_active = is_active;
    }

    pub(super) fn inactive(&self) -> Vec<usize> {
        let all = 0..self.endpoints.len();
        all.filter(|at| !self.endpoints[*at].is_active).collect()
    }

    pub(super) fn addresses(&self) -> Vec<String> {
        let endpoints = self.endpoints.iter();
        endpoints.map(|endpoint| endpoint.address.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `priority/weight`, followed by `-` if it is not active.
    fn balance(text: &str) -> Balance {
        let endpoint = |text: &str| {
            let (numbers, is_active) = match text.strip_suffix('-') {
                Some(numbers) => (numbers, false),
                None => (text, true),
            };
            let (priority, weight) = numbers.split_once('/').unwrap();
            Endpoint {
                address: text.to_owned(),
                priority: priority.parse().unwrap(),
                weight: weight.parse().unwrap(),
                is_active,
            }
        };
        Balance::new(text.split(' ').map(endpoint).collect())
    }

    /// How many of so many connections each endpoint gets.
    fn shares(text: &str, connections: usize) -> Vec<usize> {
        let mut balance = balance(text);
        let mut random = fastrand::Rng::with_seed(1);
        let mut shares = vec![0; balance.endpoints.len()];
        for _ in 0..connections {
            let picked = balance.pick(|below| random.u32(0..below));
            shares[picked.expect("one is active")] += 1;
        }
        shares
    }

    #[test]
    fn endpoints_without_weights_take_turns() {
        assert_eq!(shares("0/0 0/0 0/0", 9), [3, 3, 3]);
        assert_eq!(shares("0/0 0/0- 0/0 0/0", 6), [2, 0, 2, 2]);
        assert_eq!(balance("0/0- 1/5-").pick(|_| 0), None);
    }

    #[test]
    fn the_best_priority_takes_all() {
        assert_eq!(shares("2/0 1/0 1/0", 4), [0, 2, 2]);
        assert_eq!(shares("1/0- 2/9 3/9", 5), [0, 5, 0]);
        // The worst there can be.
        assert_eq!(shares("65535/0", 2), [2]);
    }

    #[test]
    fn weights_are_shares() {
        let [none, one, three] = shares("0/0 0/10 0/30", 10_000)[..] else {
            panic!("three endpoints");
        };
        assert!((50..200).contains(&none), "{none}");
        assert!((2200..2800).contains(&one), "{one}");
        assert!((7000..7700).contains(&three), "{three}");
    }
}
