//! Snapshots of the database, for members that need entries which the log no longer has.
//!
//! ```text
//! POST /raft/snapshot     u64 length | raftpb.Message (MsgSnap) | the database's file, to the end
//! ```
//! Part of a database must not be mistaken for the whole. The sender breaks the connection when it
//! cannot continue. The receiver keeps a file only if the body is complete and a sound database of
//! the length in its own header, and has been synced. Only then is the node notified.

mod receive;
mod send;

use prometheus::IntGauge;

pub(super) use receive::receive;
pub use receive::remove_unfinished;
pub(super) use send::send;

/// Counts a transfer in a gauge until dropped.
struct TransferGuard(IntGauge);

impl TransferGuard {
    fn new(gauge: IntGauge) -> TransferGuard {
        gauge.inc();
        TransferGuard(gauge)
    }
}

impl Drop for TransferGuard {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A human-readable size, as etcd logs it beside the exact one: `4.1 kB`, `25 kB`.
fn human(bytes: u64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    if bytes < 10 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog10() / 3) as usize;
    let value = (bytes as f64 / 1000f64.powi(power as i32) * 10.0 + 0.5).floor() / 10.0;
    let unit = UNITS[power];
    if value < 10.0 {
        format!("{value:.1} {unit}")
    } else {
        format!("{value:.0} {unit}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_as_go_shows_them() {
        for (bytes, expected) in [
            (0, "0 B"),
            (9, "9 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (4_096, "4.1 kB"),
            (24_576, "25 kB"),
            (20_971_520, "21 MB"),
            (8_589_934_592, "8.6 GB"),
            (u64::MAX, "18 EB"),
        ] {
            assert_eq!(human(bytes), expected);
        }
    }
}
