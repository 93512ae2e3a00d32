//! What goes wrong when: a plan that is made from the seed before anything happens.
//!
//! Each run has some kinds of faults, not all: what hides behind one kind shows in runs without it.

use std::time::Duration;

use fastrand::Rng;

use crate::clock::RATE_PPM_MAX;
use crate::faults::Fault;
use crate::network::Weather;

/// How long a leader sleeps: its successor has given all leases their time again by then, and some
/// of them have not run out by the sleeper's clock.
const SLEEP_MS: std::ops::Range<u64> = 3_500..6_500;

/// What goes wrong in a run, by time.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The faults.
    pub faults: Vec<(Duration, Fault)>,
    /// When everything is mended.
    pub heal_at: Duration,
    /// Whether members are added and removed.
    pub operated: bool,
    /// Whether there are users, and who may do what is asked.
    pub has_users: bool,
    /// Whether somebody puts strange things into the log.
    pub is_harassed: bool,
    /// Hosts whose program is an old one, and when they get the new one.
    pub old: Vec<(usize, Duration)>,
    /// From when on clients use API v2, if they do.
    pub tree_from: Option<Duration>,
    /// Whether API v2 has users, and who may do what is asked.
    pub has_tree_users: bool,
    /// When something of what a member holds is turned over behind its back, and where.
    pub corruption: Option<(Duration, usize)>,
}

/// Kinds of faults; a run has some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// Loss of power, of one host or all.
    Power,
    /// Killed processes.
    Kill,
    /// A wire cut in one direction.
    Wire,
    /// A cut between two sides.
    Split,
    /// Loss, delay and doubling of packets.
    Storm,
    /// Hosts that stand still, now and then those that lead.
    Freeze,
    /// Slow syncs.
    SlowDisk,
    /// Slow machines.
    SlowApply,
    /// A database that is committed rarely.
    LazyCommit,
    /// Killed leaders and voters.
    Ambush,
    /// Clocks that run fast or slow, and wall clocks that jump.
    Clock,
    /// Failing writes and syncs.
    Failing,
    /// Full disks.
    Full,
    /// Bits that turn over.
    Decay,
}

impl Kind {
    /// Whether a member may have to be replaced.
    fn loses(self) -> bool {
        matches!(self, Kind::Decay | Kind::Failing)
    }

    const ALL: [Kind; 14] = [
        Kind::Power,
        Kind::Kill,
        Kind::Wire,
        Kind::Split,
        Kind::Storm,
        Kind::Freeze,
        Kind::SlowDisk,
        Kind::SlowApply,
        Kind::LazyCommit,
        Kind::Ambush,
        Kind::Clock,
        Kind::Failing,
        Kind::Full,
        Kind::Decay,
    ];
}

impl Plan {
    /// A plan for so many hosts, with faults of these kinds only if there are any in `only`.
    pub fn new(
        rng: &mut Rng,
        hosts: usize,
        spare: usize,
        heal_at: Duration,
        only: &[Kind],
    ) -> Plan {
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|kind| rng.u8(..5) < 2 || only.contains(kind));
        kinds.retain(|kind| only.is_empty() || only.contains(kind));
        // A member that lost its log has to be replaced.
        let operated = rng.u8(..3) == 0 || kinds.iter().any(|kind| kind.loses());
        let corruption = (rng.u8(..8) == 0 && hosts > 2)
            .then(|| (heal_at.mul_f64(rng.f64() * 0.6), rng.usize(..hosts)));
        let operated = operated || corruption.is_some();
        let founders = hosts;
        let hosts = if operated { hosts + spare } else { hosts };
        if hosts == 1 {
            kinds.retain(|kind| !matches!(kind, Kind::Wire | Kind::Split));
        }
        let mut faults = Vec::new();
        if !kinds.is_empty() {
            let pause_ms = rng.u64(500..6_000);
            let mut at = Duration::from_millis(rng.u64(500..3_000));
            while at < heal_at {
                let kind = kinds[rng.usize(..kinds.len())];
                faults.push((at, fault(kind, rng, hosts)));
                at += Duration::from_millis(rng.u64(1..=pause_ms * 2));
            }
        }
        Plan {
            faults,
            heal_at,
            operated,
            // The last draws, so that the faults of a seed are the same with users and without.
            has_users: rng.bool(),
            is_harassed: rng.u8(..3) == 0,
            old: old_hosts(rng, founders, heal_at),
            corruption,
            tree_from: tree_from(rng, heal_at),
            has_tree_users: rng.bool(),
        }
    }
}

/// In half of the runs clients use API v2, in some of them not from the beginning: until somebody
/// does, the tree follows from the membership.
fn tree_from(rng: &mut Rng, heal_at: Duration) -> Option<Duration> {
    let (is_used, is_late, share) = (rng.bool(), rng.bool(), rng.f64());
    let late = if is_late { share * 0.7 } else { 0.0 };
    is_used.then(|| heal_at.mul_f64(late))
}

/// In a quarter of the runs some of the founders begin with an old program.
fn old_hosts(rng: &mut Rng, founders: usize, heal_at: Duration) -> Vec<(usize, Duration)> {
    let some = rng.u8(..4) == 0;
    let hosts = (0..founders).filter_map(|host| {
        let (is_old, share) = (rng.bool(), rng.f64());
        (some && is_old).then(|| (host, heal_at.mul_f64(share)))
    });
    hosts.collect()
}

fn fault(kind: Kind, rng: &mut Rng, hosts: usize) -> Fault {
    let host = rng.usize(..hosts);
    let lasts = Duration::from_millis(match rng.u8(..4) {
        0 => rng.u64(10..400),
        1 | 2 => rng.u64(400..3_000),
        _ => rng.u64(3_000..10_000),
    });
    match kind {
        Kind::Power if rng.u8(..4) == 0 => Fault::CutAllPower { lasts },
        Kind::Power => Fault::CutPower { host, lasts },
        Kind::Kill => Fault::Kill { host, lasts },
        Kind::Wire => Fault::CutWire {
            from: host,
            to: (host + rng.usize(1..hosts)) % hosts,
            lasts,
        },
        Kind::Split => Fault::Split {
            side: side(rng, hosts),
            lasts,
        },
        Kind::Storm => Fault::Storm {
            weather: storm(rng),
            lasts,
        },
        Kind::Freeze if rng.bool() => Fault::Sleep {
            lasts: Duration::from_millis(rng.u64(SLEEP_MS)),
            deaf: Duration::from_millis([0, 3_000][rng.usize(..2)]),
        },
        Kind::Freeze => Fault::Freeze { host, lasts },
        Kind::SlowDisk => Fault::SlowDisk {
            host,
            sync_us: [20_000, 200_000, 3_000_000][rng.usize(..3)],
            lasts,
        },
        Kind::SlowApply => Fault::SlowApply {
            host,
            apply_us: [5_000, 100_000, 1_000_000][rng.usize(..3)],
            lasts,
        },
        Kind::LazyCommit => Fault::LazyCommit {
            host,
            every: Duration::from_millis([100, 1_000, 10_000][rng.usize(..3)]),
        },
        Kind::Ambush => Fault::Ambush {
            center: host,
            lasts: lasts * 2,
        },
        Kind::Failing if rng.bool() => Fault::FailWrite {
            host,
            nth: rng.u64(1..200),
        },
        Kind::Failing => Fault::FailSync {
            host,
            nth: rng.u64(1..200),
        },
        Kind::Full => Fault::Full {
            host,
            free: rng.u64(..100_000),
            lasts,
        },
        Kind::Decay => Fault::FlipBit { host },
        Kind::Clock if rng.bool() => Fault::ClockRate {
            host,
            ppm: rng.i64(-RATE_PPM_MAX..=RATE_PPM_MAX),
        },
        Kind::Clock => Fault::WallJump {
            host,
            ms: rng.i64(-100_000..100_000),
        },
    }
}

fn side(rng: &mut Rng, hosts: usize) -> Vec<usize> {
    // Most often one alone, which may be the leader.
    if rng.bool() {
        return vec![rng.usize(..hosts)];
    }
    let mut all: Vec<usize> = (0..hosts).collect();
    rng.shuffle(&mut all);
    all.truncate(rng.usize(1..hosts));
    all.sort_unstable();
    all
}

fn storm(rng: &mut Rng) -> Weather {
    let pick = |rng: &mut Rng, of: [u32; 4]| of[rng.usize(..4)];
    Weather {
        lost: pick(rng, [0, 20, 100, 300]),
        doubled: pick(rng, [0, 0, 50, 300]),
        delayed: pick(rng, [10, 100, 300, 800]),
        delay_max: Duration::from_millis(u64::from(pick(rng, [5, 50, 300, 1_500]))),
    }
}
