//! A number of things that are under way.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// Counts what has been entered and not left yet.
#[derive(Debug, Default)]
pub struct Gauge(AtomicUsize);

impl Gauge {
    /// Counts one more until the result is dropped, also when the client that it is for goes away.
    pub fn enter(&self) -> Entered<'_> {
        self.0.fetch_add(1, Relaxed);
        Entered(&self.0)
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.0.load(Relaxed)
    }
}

/// See [`Gauge::enter`].
#[must_use]
pub struct Entered<'a>(&'a AtomicUsize);

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        let before = self.0.fetch_sub(1, Relaxed);
        assert!(before > 0, "left more often than entered");
    }
}
