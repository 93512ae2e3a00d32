//! Whether a peer can be talked to, as the health checks of membership changes ask, and as the log tells.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::log::{self, Hex};
use crate::metrics::Metrics;

/// The state of the connections with one peer, over all of its ways.
pub(super) struct Status {
    local: u64,
    peer: u64,
    metrics: Arc<Metrics>,
    active_since: Mutex<Option<Instant>>,
}

impl Status {
    /// A peer that was not reached yet.
    pub fn new(local: u64, peer: u64, metrics: Arc<Metrics>) -> Status {
        Status {
            local,
            peer,
            metrics,
            active_since: Mutex::new(None),
        }
    }

    /// Something got through.
    pub fn activate(&self) {
        let mut since = self.active_since.lock();
        if since.is_none() {
            log::info!("peer became active"; "peer-id" => Hex(self.peer));
            *since = Some(Instant::now());
            self.metrics
                .peer
                .handles(self.local, self.peer)
                .active()
                .inc();
        }
    }

    /// `action` failed on the way named `source`.
    pub fn deactivate(&self, action: &str, source: &str, reason: impl Display) {
        let text = || {
            let peer = self.peer;
            format!("failed to {action} {peer:x} on {source} ({reason})")
        };
        if self.end() {
            log::warn!("peer became inactive (message send to peer failed)";
                "peer-id" => Hex(self.peer), "error" => text());
        } else {
            log::debug!("peer deactivated again"; "peer-id" => Hex(self.peer), "error" => text());
        }
    }

    /// Ends an active time without a line in the log; `false` if there was none.
    pub fn end(&self) -> bool {
        let was_active = self.active_since.lock().take().is_some();
        if was_active {
            let handles = self.metrics.peer.handles(self.local, self.peer);
            handles.active().dec();
            handles.disconnected().inc();
        }
        was_active
    }

    /// Since when it has been active without a break.
    pub fn active_since(&self) -> Option<Instant> {
        *self.active_since.lock()
    }

    /// Whether it is active.
    pub fn is_active(&self) -> bool {
        self.active_since().is_some()
    }
}
