//! When the next snapshot is due.
//!
//! As in etcd, that is when more than `snapshot_count` entries have been applied since the last one:
//! it lets their part of the log go. A snapshot that holds the tree of API v2 can be far larger than
//! these entries. Then it waits until the log that it replaces is as large as the last snapshot was,
//! so that of what is written no more than half is snapshots, but for [`DELAY_MAX`] times the count at
//! most, which bounds what is read at a start.

/// The times of the count at which a snapshot is due, however large it will be.
const DELAY_MAX: u64 = 10;
/// Bytes of a snapshot that is never too large.
const SMALL_BYTES: u64 = 1 << 20;
/// What an entry weighs besides its data, about.
const ENTRY_BYTES: u64 = 16;

/// What counts besides the entries.
#[derive(Debug, Default)]
pub(crate) struct SnapshotRule {
    /// Bytes of the newest snapshot that this member has written.
    snapshot_bytes: u64,
    /// Bytes of the entries since the newest one.
    log_bytes: u64,
}

impl SnapshotRule {
    /// An entry with so much data is to be applied.
    pub(crate) fn add_entry(&mut self, data_bytes: usize) {
        self.log_bytes += data_bytes as u64 + ENTRY_BYTES;
    }

    /// A snapshot begins.
    pub(crate) fn begin(&mut self) {
        self.log_bytes = 0;
    }

    /// A snapshot with so much data is durable.
    pub(crate) fn written(&mut self, bytes: u64) {
        self.snapshot_bytes = bytes;
    }

    /// Whether one is due after so many entries.
    pub(crate) fn is_due(&self, entries: u64, snapshot_count: u64) -> bool {
        let is_cheap = self.snapshot_bytes <= self.log_bytes.max(SMALL_BYTES);
        let limit = match is_cheap {
            true => snapshot_count,
            false => snapshot_count.saturating_mul(DELAY_MAX),
        };
        entries > limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_snapshots_wait_for_as_much_log() {
        let mut rule = SnapshotRule::default();
        assert!(!rule.is_due(100, 100) && rule.is_due(101, 100));
        rule.written(SMALL_BYTES);
        assert!(rule.is_due(101, 100));
        rule.written(2 * SMALL_BYTES);
        assert!(!rule.is_due(101, 100) && !rule.is_due(1000, 100));
        assert!(rule.is_due(1001, 100));
        (0..2).for_each(|_| rule.add_entry(SMALL_BYTES as usize));
        assert!(!rule.is_due(100, 100) && rule.is_due(101, 100));
        rule.begin();
        assert!(!rule.is_due(101, 100));
        assert!(!rule.is_due(u64::MAX, u64::MAX));
    }
}
