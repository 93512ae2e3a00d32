//! What the disk itself takes while servers are measured on it.
//!
//! A put cannot be faster than the disk lets its log be synced, and a disk that is busy with whatever
//! else the servers write makes everybody wait. So a thread of the generator syncs a small append to a
//! file of its own all the time: what a put took beyond the longest of these syncs meanwhile, the
//! server has added.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::table::Sample;
use crate::disk::Appender;
use crate::error::Error;
use crate::stats::Latencies;

/// The pause between two syncs: short against the waits of interest, and long enough to be no load.
const PAUSE: Duration = Duration::from_millis(5);

/// A sync of the generator's own.
#[derive(Debug, Clone, Copy)]
struct Sync {
    began: Instant,
    ended: Instant,
}

/// The thread that syncs. It ends with the value.
pub(super) struct DiskBeside {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<Result<(), Error>>>,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    /// In their order.
    syncs: Mutex<Vec<Sync>>,
}

impl Shared {
    fn syncs(&self) -> MutexGuard<'_, Vec<Sync>> {
        self.syncs.lock().expect("a panic ends the process")
    }
}

impl DiskBeside {
    /// Begins to sync a new file in `directory`.
    ///
    /// # Errors
    /// [`Error::Io`] if it cannot be created.
    pub(super) fn start(directory: &Path) -> Result<Self, Error> {
        let mut appender = Appender::new(directory)?;
        let shared = Arc::new(Shared::default());
        let theirs = Arc::clone(&shared);
        let thread = thread::spawn(move || {
            while !theirs.stop.load(Ordering::Relaxed) {
                let began = Instant::now();
                let ended = began + appender.append()?;
                theirs.syncs().push(Sync { began, ended });
                thread::sleep(PAUSE);
            }
            Ok(())
        });
        Ok(Self {
            shared,
            thread: Some(thread),
        })
    }

    /// The syncs so far.
    pub(super) fn syncs(&self) -> Syncs {
        Syncs(self.shared.syncs().clone())
    }

    /// Ends the thread; returns all syncs.
    ///
    /// # Errors
    /// [`Error::Io`] if one of them has failed.
    pub(super) fn stop(mut self) -> Result<Syncs, Error> {
        self.shared.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("`self` is consumed");
        thread.join().expect("a panic ends the process")?;
        Ok(self.syncs())
    }
}

impl Drop for DiskBeside {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
    }
}

/// The syncs of a while, in their order.
pub(super) struct Syncs(Vec<Sync>);

impl Syncs {
    /// Those that were under way between the two times.
    fn between(&self, from: Instant, until: Instant) -> impl Iterator<Item = &Sync> {
        let first = self.0.partition_point(|sync| sync.ended <= from);
        let overlap = move |sync: &&Sync| sync.began < until;
        self.0[first..].iter().take_while(overlap)
    }

    /// How long the longest of them was under way in that time.
    pub(super) fn longest(&self, from: Instant, until: Instant) -> Duration {
        let shared = |sync: &Sync| sync.ended.min(until) - sync.began.max(from);
        let longest = self.between(from, until).map(shared).max();
        longest.unwrap_or_default()
    }

    /// What they took in that time, as rows.
    pub(super) fn describe(&self, from: Instant, until: Instant) -> [Sample; 2] {
        let mut latencies = Latencies::default();
        for sync in self.between(from, until) {
            latencies.record(sync.ended - sync.began);
        }
        [
            Sample::millis("p99.9 of an fdatasync beside", latencies.percentile(99.9)),
            Sample::millis("longest fdatasync beside", latencies.max()),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::super::steady::tests::ms;
    use super::*;

    impl Syncs {
        /// Syncs from and until so many milliseconds after `origin`.
        pub(in crate::compare) fn of(origin: Instant, times: &[(u64, u64)]) -> Syncs {
            let sync = |(began, ended): &(u64, u64)| Sync {
                began: origin + ms(*began),
                ended: origin + ms(*ended),
            };
            Syncs(times.iter().map(sync).collect())
        }
    }

    #[test]
    fn only_what_was_under_way_counts() {
        let origin = Instant::now();
        let syncs = Syncs::of(origin, &[(0, 100), (110, 120), (130, 190), (200, 300)]);
        let longest = |from, until| syncs.longest(origin + ms(from), origin + ms(until));
        assert_eq!(longest(100, 200), ms(60));
        assert_eq!(longest(90, 125), ms(10));
        assert_eq!(longest(150, 1_000), ms(100));
        assert_eq!(longest(100, 110), ms(0));
        assert_eq!(longest(300, 400), ms(0));
        let rows = syncs.describe(origin + ms(105), origin + ms(195));
        assert!((rows[1].value() - 60.0).abs() < 0.1, "{}", rows[1].value());
    }

    #[test]
    fn it_syncs_until_it_is_stopped() {
        let directory = tempfile::tempdir().unwrap();
        let beside = DiskBeside::start(directory.path()).unwrap();
        let from = Instant::now();
        while beside.syncs().longest(from, Instant::now()).is_zero() {
            thread::yield_now();
        }
        let syncs = beside.stop().unwrap();
        assert!(!syncs.0.is_empty());
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
