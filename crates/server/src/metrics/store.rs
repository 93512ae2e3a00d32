//! Handles of the rooms that store: log, database, snapshot files, keyspace, leases, watches.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntGauge};

use super::family::{Buckets, Families, MILLISECONDS};

/// The write-ahead log. Times are in seconds.
pub struct Wal {
    /// One fsync.
    pub fsync: Histogram,
    /// One write.
    pub write: Histogram,
    /// Bytes written.
    pub write_bytes: IntGauge,
}

impl Wal {
    pub(super) fn new(families: &Families<'_>) -> Wal {
        Wal {
            fsync: families.histogram(
                "etcd_disk_wal_fsync_duration_seconds",
                "Seconds for one fsync of the write-ahead log.",
                MILLISECONDS,
            ),
            write: families.histogram(
                "etcd_disk_wal_write_duration_seconds",
                "Seconds for one write to the write-ahead log.",
                MILLISECONDS,
            ),
            write_bytes: families.gauge(
                "etcd_disk_wal_write_bytes_total",
                "Bytes written to the write-ahead log.",
            ),
        }
    }
}

/// The database's file. Times are in seconds.
pub struct Backend {
    /// One commit.
    pub commit: Histogram,
    /// The part of a commit that merges sparse pages.
    pub commit_rebalance: Histogram,
    /// The part of a commit that lays changed nodes out on pages.
    pub commit_spill: Histogram,
    /// The part of a commit that writes and syncs.
    pub commit_write: Histogram,
    /// One defragmentation.
    pub defrag: Histogram,
    /// One snapshot sent to a client or member.
    pub snapshot: Histogram,
}

impl Backend {
    pub(super) fn new(families: &Families<'_>) -> Backend {
        let part = |part: &str, help: &str| {
            let name = format!("etcd_debugging_disk_backend_commit_{part}_duration_seconds");
            families.histogram(&name, help, MILLISECONDS)
        };
        Backend {
            commit: families.histogram(
                "etcd_disk_backend_commit_duration_seconds",
                "Seconds for one commit of the database.",
                MILLISECONDS,
            ),
            commit_rebalance: part("rebalance", "Seconds of a commit for merging sparse pages."),
            commit_spill: part(
                "spill",
                "Seconds of a commit for laying changes out on pages.",
            ),
            commit_write: part(
                "write",
                "Seconds of a commit for writing and syncing pages.",
            ),
            defrag: families.histogram(
                "etcd_disk_backend_defrag_duration_seconds",
                "Seconds for one defragmentation of the database.",
                Buckets::powers_of_two(0.1, 13),
            ),
            snapshot: families.histogram(
                "etcd_disk_backend_snapshot_duration_seconds",
                "Seconds for sending one snapshot of the database.",
                Buckets::powers_of_two(0.01, 17),
            ),
        }
    }
}

/// Snapshot files. Times are in seconds.
pub struct Snap {
    /// The fsync of a `.snap` file.
    pub fsync: Histogram,
    /// Encoding a `.snap` file.
    pub marshal: Histogram,
    /// Encoding, writing and syncing a `.snap` file.
    pub save: Histogram,
    /// The fsync of a database that came from the leader.
    pub db_fsync: Histogram,
    /// Receiving, writing and syncing a database from the leader.
    pub db_save: Histogram,
}

impl Snap {
    pub(super) fn new(families: &Families<'_>) -> Snap {
        Snap {
            fsync: families.histogram(
                "etcd_snap_fsync_duration_seconds",
                "Seconds for the fsync of a snapshot file.",
                MILLISECONDS,
            ),
            marshal: families.histogram(
                "etcd_debugging_snap_save_marshalling_duration_seconds",
                "Seconds for encoding a snapshot file.",
                MILLISECONDS,
            ),
            save: families.histogram(
                "etcd_debugging_snap_save_total_duration_seconds",
                "Seconds for encoding and storing a snapshot file.",
                MILLISECONDS,
            ),
            db_fsync: families.histogram(
                "etcd_snap_db_fsync_duration_seconds",
                "Seconds for the fsync of a database received from the leader.",
                MILLISECONDS,
            ),
            db_save: families.histogram(
                "etcd_snap_db_save_total_duration_seconds",
                "Seconds for storing a database received from the leader.",
                Buckets::powers_of_two(0.1, 10),
            ),
        }
    }
}

/// The keyspace.
pub struct Mvcc {
    /// Puts, those inside of transactions too.
    pub puts: IntCounter,
    /// Deletes asked for, whatever number of keys each removed, and those inside of transactions.
    pub deletes: IntCounter,
    /// Ranges read, those inside of transactions too.
    pub ranges: IntCounter,
    /// Transactions of more than one operation, counted when they end.
    pub txns: IntCounter,
    /// Bytes of keys and values put, without what the store adds to them.
    pub put_bytes: IntGauge,
    /// Seconds for hashing the whole store.
    pub hash: Histogram,
    /// Seconds for hashing the store up to a revision.
    pub hash_revision: Histogram,
}

impl Mvcc {
    pub(super) fn new(families: &Families<'_>) -> Mvcc {
        let hash = Buckets::powers_of_two(0.01, 15);
        Mvcc {
            puts: families.counter("etcd_mvcc_put_total", "Puts that this member applied."),
            deletes: families.counter(
                "etcd_mvcc_delete_total",
                "Deletes that this member applied.",
            ),
            ranges: families.counter("etcd_mvcc_range_total", "Ranges that this member read."),
            txns: families.counter(
                "etcd_mvcc_txn_total",
                "Transactions of more than one operation that this member ran.",
            ),
            put_bytes: families.gauge(
                "etcd_debugging_mvcc_total_put_size_in_bytes",
                "Bytes of all keys and values that this member put.",
            ),
            hash: families.histogram(
                "etcd_mvcc_hash_duration_seconds",
                "Seconds for hashing the whole store.",
                hash,
            ),
            hash_revision: families.histogram(
                "etcd_mvcc_hash_rev_duration_seconds",
                "Seconds for hashing the store up to a revision.",
                hash,
            ),
        }
    }
}

/// Compaction. Times are in milliseconds.
pub struct Compaction {
    /// How long the index was not available at a time.
    pub index_pause: Histogram,
    /// How long the database was not available at a time.
    pub db_pause: Histogram,
    /// One compaction of the database from beginning to end.
    pub db_total: Histogram,
    /// Revisions removed from the database.
    pub db_keys: IntCounter,
}

impl Compaction {
    pub(super) fn new(families: &Families<'_>) -> Compaction {
        let total = Buckets::powers_of_two(100.0, 14);
        Compaction {
            index_pause: families.histogram(
                "etcd_debugging_mvcc_index_compaction_pause_duration_milliseconds",
                "Milliseconds for which a compaction held the index.",
                Buckets::powers_of_two(0.5, 14),
            ),
            db_pause: families.histogram(
                "etcd_debugging_mvcc_db_compaction_pause_duration_milliseconds",
                "Milliseconds for which a compaction held the database.",
                Buckets::powers_of_two(1.0, 13),
            ),
            db_total: families.histogram(
                "etcd_debugging_mvcc_db_compaction_total_duration_milliseconds",
                "Milliseconds for a compaction of the database.",
                total,
            ),
            db_keys: families.counter(
                "etcd_debugging_mvcc_db_compaction_keys_total",
                "Revisions that compactions removed from the database.",
            ),
        }
    }
}

/// Leases.
pub struct Lease {
    /// Leases granted.
    pub granted: IntCounter,
    /// Leases revoked, by a client or because they expired.
    pub revoked: IntCounter,
    /// Keep-alives, counted by the leader.
    pub renewed: IntCounter,
    /// Leases that ran out.
    pub expired: IntCounter,
    /// Seconds of life that leases were granted.
    pub ttl: Histogram,
}

impl Lease {
    pub(super) fn new(families: &Families<'_>) -> Lease {
        Lease {
            granted: families.counter("etcd_debugging_lease_granted_total", "Leases granted."),
            revoked: families.counter("etcd_debugging_lease_revoked_total", "Leases revoked."),
            renewed: families.counter(
                "etcd_debugging_lease_renewed_total",
                "Leases that this leader renewed.",
            ),
            expired: families.counter(
                "etcd_debugging_server_lease_expired_total",
                "Leases that ran out.",
            ),
            ttl: families.histogram(
                "etcd_debugging_lease_ttl_total",
                "Seconds of life of the leases granted.",
                Buckets::powers_of_two(1.0, 24),
            ),
        }
    }
}

/// Watches. Times are in seconds.
pub struct Watch {
    /// Events sent to watchers.
    pub events: IntCounter,
    /// Sending one response with events.
    pub send: Histogram,
    /// The same, divided by the number of its events.
    pub send_per_event: Histogram,
    /// Answering a creation or cancellation.
    pub control: Histogram,
    /// Sending a progress notification.
    pub progress: Histogram,
}

impl Watch {
    pub(super) fn new(families: &Families<'_>) -> Watch {
        let send_loop = |part: &str, help: &str| {
            let name = format!("etcd_debugging_server_watch_send_loop_{part}_seconds");
            families.histogram(&name, help, MILLISECONDS)
        };
        Watch {
            events: families.counter(
                "etcd_debugging_mvcc_events_total",
                "Events sent to watchers.",
            ),
            send: send_loop(
                "watch_stream_duration",
                "Seconds for sending one response with events.",
            ),
            send_per_event: send_loop(
                "watch_stream_duration_per_event",
                "Seconds for sending a response, divided by the number of its events.",
            ),
            control: send_loop(
                "control_stream_duration",
                "Seconds for answering the creation or cancellation of a watch.",
            ),
            progress: send_loop(
                "progress_duration",
                "Seconds for sending a progress notification.",
            ),
        }
    }

    /// Records a response with `events` events, at least one, whose sending took `latency`.
    pub fn sent(&self, events: usize, latency: Duration) {
        let seconds = latency.as_secs_f64();
        self.events.inc_by(events as u64);
        self.send.observe(seconds);
        self.send_per_event.observe(seconds / events.max(1) as f64);
    }
}
