//! Whole databases, for members that the log no longer reaches back to.
//!
//! ```text
//! POST /raft/snapshot     u64 length | raftpb.Message (MsgSnap) | the database's file, to the end
//! ```
//! A part must not be taken for the whole: the sender breaks the connection when it cannot go on, and the
//! receiver keeps a file only if the body was complete, is a sound database of the length that it says
//! itself, and is durable. The node hears of it after that.

mod receive;
mod send;

use prometheus::IntGauge;

pub(super) use receive::receive;
pub use receive::remove_unfinished;
pub(super) use send::send;

/// Counts a transfer as under way, until dropped.
struct UnderWay(IntGauge);

impl UnderWay {
    fn new(gauge: IntGauge) -> UnderWay {
        gauge.inc();
        UnderWay(gauge)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// A number of bytes for people: `4.1 kB`, `25 kB`, as etcd shows it beside the exact number.
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
