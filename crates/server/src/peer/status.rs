//! Whether a peer is active: for the log, and for the checks before changes of the membership.
//!
//! Any success makes a peer active. A failure makes it inactive only while no stream is being read
//! from it: streams carry heartbeats, so one that is read is alive, and a single failed connection
//! beside it is no reason to refuse a change. (In etcd any failure counts, and the next success
//! restarts the time.)

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::log::{self, Hex};
use crate::metrics::Metrics;

/// The state of all connections with one peer.
pub(super) struct Status {
    local: u64,
    peer: u64,
    metrics: Arc<Metrics>,
    /// Streams that are being read.
    read: Mutex<usize>,
    /// Changes only while `read` is locked.
    active_since: watch::Sender<Option<Instant>>,
}

impl Status {
    /// Not active.
    pub(super) fn new(local: u64, peer: u64, metrics: Arc<Metrics>) -> Status {
        Status {
            local,
            peer,
            metrics,
            read: Mutex::default(),
            active_since: watch::Sender::default(),
        }
    }

    /// Reports a success.
    pub(super) fn activate(&self) {
        let _unchanged = self.read.lock();
        self.activate_locked();
    }

    /// Reports that a stream is being read, until [`Status::stream_lost`].
    pub(super) fn stream_read(&self) {
        let mut read = self.read.lock();
        *read += 1;
        self.activate_locked();
    }

    /// Reports that a stream is no longer read.
    pub(super) fn stream_lost(&self) {
        *self.read.lock() -= 1;
    }

    fn activate_locked(&self) {
        if !self.is_active() {
            log::info!("peer became active"; "peer-id" => Hex(self.peer));
            self.active_since.send_replace(Some(Instant::now()));
            let handles = self.metrics.peer.handles(self.local, self.peer);
            handles.active().inc();
        }
    }

    /// Reports that `action` has failed on the stream or pipeline `source`.
    pub(super) fn deactivate(&self, action: &str, source: &str, reason: impl Display) {
        let text = || {
            let peer = self.peer;
            format!("failed to {action} {peer:x} on {source} ({reason})")
        };
        let read = self.read.lock();
        if *read == 0 && self.end_locked() {
            log::warn!("peer became inactive (message send to peer failed)";
                "peer-id" => Hex(self.peer), "error" => text());
        } else {
            log::debug!("peer deactivated again"; "peer-id" => Hex(self.peer), "error" => text());
        }
    }

    /// Makes the peer inactive because it was removed.
    pub(super) fn end(&self) {
        let _unchanged = self.read.lock();
        self.end_locked();
    }

    /// False if it was not active.
    fn end_locked(&self) -> bool {
        let ended = self.active_since.send_replace(None).is_some();
        if ended {
            self.count_end();
        }
        ended
    }

    fn count_end(&self) {
        let handles = self.metrics.peer.handles(self.local, self.peer);
        handles.active().dec();
        handles.disconnected().inc();
    }

    /// Since when it has been active without interruption.
    pub(super) fn active_since(&self) -> Option<Instant> {
        *self.active_since.borrow()
    }

    /// Waits until it is not active.
    pub(super) async fn inactive(&self) {
        let mut active_since = self.active_since.subscribe();
        // The sender lives as long as `self`.
        let _ = active_since.wait_for(Option::is_none).await;
    }

    /// Whether it is active.
    pub(super) fn is_active(&self) -> bool {
        self.active_since().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Detail;

    #[test]
    fn a_failure_counts_while_no_stream_is_read() {
        let status = Status::new(1, 2, Arc::new(Metrics::new(Detail::Basic)));
        assert!(!status.is_active());
        status.activate();
        let since = status.active_since();
        assert!(since.is_some());
        status.stream_read();
        status.stream_read();
        status.deactivate("write", "pipeline", "closed");
        status.stream_lost();
        status.deactivate("dial", "stream Message", "refused");
        assert_eq!(status.active_since(), since);
        status.stream_lost();
        assert!(
            status.is_active(),
            "a stream that ends is dialed again first"
        );
        status.deactivate("dial", "stream Message", "refused");
        assert!(!status.is_active());
        status.activate();
        assert!(status.is_active());
        status.end();
        assert!(!status.is_active());
    }
}
