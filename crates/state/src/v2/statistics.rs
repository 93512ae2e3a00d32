//! How often what was asked for, and with what success.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident = $json:literal;)*) => {
        /// What is counted.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// All, in the order of the JSON form.
            pub const ALL: [Counter; COUNTERS] = [$(Counter::$name,)*];

            /// The name in JSON.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Counter::$name => $json,)*
                }
            }
        }
    };
}

const COUNTERS: usize = 15;

counters! {
    /// Reads that found their node.
    GetsSuccess = "getsSuccess";
    /// Reads that did not.
    GetsFail = "getsFail";
    /// Sets.
    SetsSuccess = "setsSuccess";
    /// Sets that failed; also creations that found a file on the way, which count twice.
    SetsFail = "setsFail";
    /// Removals.
    DeleteSuccess = "deleteSuccess";
    /// Removals that failed.
    DeleteFail = "deleteFail";
    /// Updates.
    UpdateSuccess = "updateSuccess";
    /// Updates that failed.
    UpdateFail = "updateFail";
    /// Creations.
    CreateSuccess = "createSuccess";
    /// Creations that failed.
    CreateFail = "createFail";
    /// Updates under a condition.
    CompareAndSwapSuccess = "compareAndSwapSuccess";
    /// Those that failed.
    CompareAndSwapFail = "compareAndSwapFail";
    /// Removals under a condition.
    CompareAndDeleteSuccess = "compareAndDeleteSuccess";
    /// Those that failed.
    CompareAndDeleteFail = "compareAndDeleteFail";
    /// Nodes that have expired.
    ExpireCount = "expireCount";
}

/// A member's counts at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Statistics {
    counts: [u64; COUNTERS],
    /// Watchers that wait.
    pub watchers: u64,
}

impl Statistics {
    /// The count of `counter`.
    pub fn count(&self, counter: Counter) -> u64 {
        self.counts[counter as usize]
    }

    /// The same, to change.
    pub(super) fn count_mut(&mut self, counter: Counter) -> &mut u64 {
        &mut self.counts[counter as usize]
    }

    /// The names in JSON and their counts, in order.
    pub fn fields(&self) -> impl Iterator<Item = (&'static str, u64)> + '_ {
        let counts = Counter::ALL.into_iter();
        let counts = counts.map(|counter| (counter.name(), self.count(counter)));
        counts.chain([("watchers", self.watchers)])
    }
}

/// Counts that many threads add to.
#[derive(Default)]
pub(super) struct Counts {
    counts: [AtomicU64; COUNTERS],
    watchers: AtomicU64,
}

impl Counts {
    pub(super) fn add(&self, counter: Counter) {
        self.counts[counter as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a success or a failure.
    pub(super) fn add_either(&self, success: bool, counters: (Counter, Counter)) {
        self.add(if success { counters.0 } else { counters.1 });
    }

    /// Remembers how many watchers wait, since somebody asks for it.
    pub(super) fn set_watchers(&self, watchers: u64) {
        self.watchers.store(watchers, Ordering::Relaxed);
    }

    /// The counts; the watchers are those of when somebody asked for them last, as in etcd's
    /// documents.
    pub(super) fn load(&self) -> Statistics {
        Statistics {
            counts: std::array::from_fn(|i| self.counts[i].load(Ordering::Relaxed)),
            watchers: self.watchers.load(Ordering::Relaxed),
        }
    }

    pub(super) fn store(&self, statistics: &Statistics) {
        for (count, value) in self.counts.iter().zip(statistics.counts) {
            count.store(value, Ordering::Relaxed);
        }
        self.set_watchers(statistics.watchers);
    }
}
