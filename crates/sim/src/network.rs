//! The wires between hosts: they lose, delay, duplicate and reorder, and can be cut in one
//! direction.

use std::time::Duration;

use fastrand::Rng;

/// How a network treats what it carries. Probabilities in thousandths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weather {
    /// Lost.
    pub lost: u32,
    /// Delivered twice.
    pub doubled: u32,
    /// Held up for up to `delay_max`.
    pub delayed: u32,
    /// The longest delay of those.
    pub delay_max: Duration,
}

impl Weather {
    /// A quiet day.
    pub const FAIR: Weather = Weather {
        lost: 0,
        doubled: 0,
        delayed: 10,
        delay_max: Duration::from_millis(5),
    };
}

/// What becomes of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It arrives after this time.
    Arrives(Duration),
    /// It arrives twice.
    ArrivesTwice(Duration, Duration),
    /// It does not.
    Lost,
}

impl Fate {
    /// When it arrives for the first time, if it does.
    pub fn first(self) -> Option<Duration> {
        match self {
            Fate::Arrives(delay) | Fate::ArrivesTwice(delay, _) => Some(delay),
            Fate::Lost => None,
        }
    }
}

/// All wires.
pub struct Network {
    /// How many cuts there are, by sender and receiver.
    cuts: Vec<Vec<u32>>,
    /// How everything is treated.
    pub weather: Weather,
}

impl Network {
    /// A network between so many hosts.
    pub fn new(hosts: usize) -> Network {
        Network {
            cuts: vec![vec![0; hosts]; hosts],
            weather: Weather::FAIR,
        }
    }

    /// Cuts the wire from one host to another, or takes a cut back.
    pub fn cut(&mut self, from: usize, to: usize, cut: bool) {
        let cuts = &mut self.cuts[from][to];
        *cuts = match cut {
            true => *cuts + 1,
            false => cuts.saturating_sub(1),
        };
    }

    /// Makes everything whole.
    pub fn heal(&mut self) {
        self.cuts.iter_mut().flatten().for_each(|cuts| *cuts = 0);
        self.weather = Weather::FAIR;
    }

    /// Whether the wire is cut.
    pub fn is_cut(&self, from: usize, to: usize) -> bool {
        self.cuts[from][to] > 0
    }

    /// Decides about a packet.
    pub fn fate(&self, from: usize, to: usize, rng: &mut Rng) -> Fate {
        let weather = self.weather;
        if self.is_cut(from, to) || rng.u32(..1000) < weather.lost {
            return Fate::Lost;
        }
        let first = self.delay(rng);
        match rng.u32(..1000) < weather.doubled {
            true => Fate::ArrivesTwice(first, self.delay(rng)),
            false => Fate::Arrives(first),
        }
    }

    /// How long a packet takes.
    pub fn delay(&self, rng: &mut Rng) -> Duration {
        let base = Duration::from_micros(rng.u64(100..800));
        match rng.u32(..1000) < self.weather.delayed {
            true => {
                base + Duration::from_micros(rng.u64(..=self.weather.delay_max.as_micros() as u64))
            }
            false => base,
        }
    }
}
