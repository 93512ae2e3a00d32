//! What goes wrong, and when: a plan that is made from the seed before anything happens.

use std::fmt;
use std::time::Duration;

use fastrand::Rng;

use crate::clock::RATE_PPM_MAX;
use crate::network::Weather;

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A host loses power: what was not synced is lost, torn or kept.
    CutPower {
        /// Which.
        host: usize,
        /// Until it is back.
        lasts: Duration,
    },
    /// All hosts lose power at once.
    CutAllPower {
        /// Until they are back.
        lasts: Duration,
    },
    /// A process is killed.
    Kill {
        /// Where.
        host: usize,
        /// Until it is started again.
        lasts: Duration,
    },
    /// Nothing goes from one host to another.
    CutWire {
        /// From here.
        from: usize,
        /// To there.
        to: usize,
        /// Until it is mended.
        lasts: Duration,
    },
    /// Some hosts cannot talk to the others.
    Split {
        /// Those on one side.
        side: Vec<usize>,
        /// Until it is mended.
        lasts: Duration,
    },
    /// Packets are lost, doubled, delayed.
    Storm {
        /// How much.
        weather: Weather,
        /// Until it is over.
        lasts: Duration,
    },
    /// A host stands still.
    Freeze {
        /// Which.
        host: usize,
        /// Until it goes on.
        lasts: Duration,
    },
    /// A host's disk is slow.
    SlowDisk {
        /// Which.
        host: usize,
        /// How long a sync takes at most, in microseconds.
        sync_us: u64,
        /// Until it is fast again.
        lasts: Duration,
    },
    /// A host's machine applies slowly.
    SlowApply {
        /// Which.
        host: usize,
        /// How long a batch takes at most, in microseconds.
        apply_us: u64,
        /// Until it is fast again.
        lasts: Duration,
    },
    /// A host's database is committed rarely.
    LazyCommit {
        /// Which.
        host: usize,
        /// Between two commits.
        every: Duration,
    },
    /// The leader is killed, and so are some of those that vote for the next one. Meanwhile the others hear of
    /// each other through one host alone.
    Ambush {
        /// Whom all hosts can talk to.
        center: usize,
        /// Until votes are safe again.
        lasts: Duration,
    },
    /// Some write to come fails.
    FailWrite {
        /// Whose.
        host: usize,
        /// Which of those to come.
        nth: u64,
    },
    /// Some sync to come fails; what it was to make durable never is.
    FailSync {
        /// Whose.
        host: usize,
        /// Which of those to come.
        nth: u64,
    },
    /// A disk is full.
    Full {
        /// Whose.
        host: usize,
        /// Bytes that are still free.
        free: u64,
        /// Until there is room again.
        lasts: Duration,
    },
    /// A bit of the log turns over while the host is down.
    FlipBit {
        /// Whose.
        host: usize,
    },
    /// A clock changes its pace.
    ClockRate {
        /// Whose.
        host: usize,
        /// Millionths faster than true.
        ppm: i64,
    },
    /// A wall clock jumps.
    WallJump {
        /// Whose.
        host: usize,
        /// By how much.
        ms: i64,
    },
}

/// What goes wrong in a run, by time.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The faults.
    pub faults: Vec<(Duration, Fault)>,
    /// When everything is mended.
    pub heal_at: Duration,
    /// Whether members are added and removed.
    pub operated: bool,
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
    /// Hosts that stand still.
    Freeze,
    /// Slow syncs.
    SlowDisk,
    /// Slow machines.
    SlowApply,
    /// A database that is committed rarely.
    LazyCommit,
    /// Killed leaders and voters.
    Ambush,
    /// Clocks.
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
    /// A plan for so many hosts, with faults of one kind `only` if there is one.
    pub fn new(
        rng: &mut Rng,
        hosts: usize,
        spare: usize,
        heal_at: Duration,
        only: Option<Kind>,
    ) -> Plan {
        let mut kinds = Kind::ALL.to_vec();
        kinds.retain(|kind| rng.u8(..5) < 2 || only == Some(*kind));
        kinds.retain(|kind| only.is_none_or(|only| only == *kind));
        // A member that lost its log has to be replaced.
        let operated = rng.u8(..3) == 0 || kinds.iter().any(|kind| kind.loses());
        let hosts = if operated { hosts + spare } else { hosts };
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
        }
    }
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

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::CutPower { host, lasts } => write!(f, "host {host} loses power for {lasts:?}"),
            Fault::CutAllPower { lasts } => write!(f, "all hosts lose power for {lasts:?}"),
            Fault::Kill { host, lasts } => write!(f, "host {host} is killed for {lasts:?}"),
            Fault::CutWire { from, to, lasts } => {
                write!(f, "nothing goes from host {from} to {to} for {lasts:?}")
            }
            Fault::Split { side, lasts } => {
                write!(
                    f,
                    "hosts {side:?} are cut off from the others for {lasts:?}"
                )
            }
            Fault::Storm { weather, lasts } => {
                let Weather {
                    lost,
                    doubled,
                    delayed,
                    delay_max,
                } = weather;
                write!(
                    f,
                    "of 1000 packets {lost} are lost, {doubled} doubled, {delayed} delayed up to \
                     {delay_max:?} for {lasts:?}"
                )
            }
            Fault::Freeze { host, lasts } => write!(f, "host {host} stands still for {lasts:?}"),
            Fault::SlowDisk {
                host,
                sync_us,
                lasts,
            } => write!(f, "host {host} syncs in up to {sync_us} µs for {lasts:?}"),
            Fault::SlowApply {
                host,
                apply_us,
                lasts,
            } => write!(
                f,
                "host {host} applies in up to {apply_us} µs for {lasts:?}"
            ),
            Fault::LazyCommit { host, every } => {
                write!(f, "host {host} commits its database every {every:?}")
            }
            Fault::Ambush { center, lasts } => {
                write!(
                    f,
                    "leaders and voters are killed, and talk to host {center} only, for {lasts:?}"
                )
            }
            Fault::FailWrite { host, nth } => write!(f, "host {host}'s {nth}th write will fail"),
            Fault::FailSync { host, nth } => write!(f, "host {host}'s {nth}th sync will fail"),
            Fault::Full { host, free, lasts } => {
                write!(f, "host {host} has {free} bytes free for {lasts:?}")
            }
            Fault::FlipBit { host } => write!(f, "a bit of host {host}'s log turns over"),
            Fault::ClockRate { host, ppm } => write!(f, "host {host}'s clock goes {ppm} ppm fast"),
            Fault::WallJump { host, ms } => write!(f, "host {host}'s wall clock jumps by {ms} ms"),
        }
    }
}
