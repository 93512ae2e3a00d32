//! What can go wrong.

use std::fmt;
use std::time::Duration;

use crate::network::Weather;

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A host loses power: what was not synced is lost, torn or kept.
    CutPower {
        /// The host, by its number.
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
        /// The host, by its number.
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
        /// What becomes of packets.
        weather: Weather,
        /// Until it is over.
        lasts: Duration,
    },
    /// A host stands still.
    Freeze {
        /// The host, by its number.
        host: usize,
        /// Until it goes on.
        lasts: Duration,
    },
    /// Whoever leads stands still, long enough that the others elect another leader.
    Sleep {
        /// Until it goes on.
        lasts: Duration,
        /// For how long it hears nothing of the others then.
        deaf: Duration,
    },
    /// A host's disk is slow.
    SlowDisk {
        /// The host, by its number.
        host: usize,
        /// How long a sync takes at most, in microseconds.
        sync_us: u64,
        /// Until it is fast again.
        lasts: Duration,
    },
    /// A host's machine applies slowly.
    SlowApply {
        /// The host, by its number.
        host: usize,
        /// How long a batch takes at most, in microseconds.
        apply_us: u64,
        /// Until it is fast again.
        lasts: Duration,
    },
    /// A host's database is committed rarely.
    LazyCommit {
        /// The host, by its number.
        host: usize,
        /// Between two commits.
        every: Duration,
    },
    /// The leader is killed, and so are some of those that vote for the next one. Meanwhile the
    /// others hear of each other through one host alone.
    Ambush {
        /// Whom all hosts can talk to.
        center: usize,
        /// Until votes are safe again.
        lasts: Duration,
    },
    /// Some write to come fails.
    FailWrite {
        /// The host, by its number.
        host: usize,
        /// Which of those to come.
        nth: u64,
    },
    /// Some sync to come fails; what it was to make durable never is.
    FailSync {
        /// The host, by its number.
        host: usize,
        /// Which of those to come.
        nth: u64,
    },
    /// A disk is full.
    Full {
        /// The host, by its number.
        host: usize,
        /// Bytes that are still free.
        free: u64,
        /// Until there is room again.
        lasts: Duration,
    },
    /// A bit of the log turns over while the host is down.
    FlipBit {
        /// The host, by its number.
        host: usize,
    },
    /// A clock changes its pace.
    ClockRate {
        /// The host, by its number.
        host: usize,
        /// Millionths faster than true.
        ppm: i64,
    },
    /// A wall clock jumps.
    WallJump {
        /// The host, by its number.
        host: usize,
        /// By so many milliseconds.
        ms: i64,
    },
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
            Fault::Sleep { lasts, deaf } => write!(
                f,
                "the leader stands still for {lasts:?}, and hears nothing for {deaf:?} then"
            ),
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
