//! The clocks of a process as its tasks read them, and who sleeps.
//!
//! They stand still while a task is polled: the process sets them before.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::future::LocalBoxFuture;
use retcd_member::Clock;

/// The clocks of a process.
#[derive(Clone, Default)]
pub struct Time(Rc<Shown>);

#[derive(Default)]
struct Shown {
    now: Cell<Duration>,
    wall_ms: Cell<u64>,
    /// By the time at which they wake up, and in the order in which they went to sleep.
    sleepers: RefCell<BTreeMap<(Duration, u64), Waker>>,
    slept: Cell<u64>,
}

impl Time {
    /// Sets both clocks.
    pub fn set(&self, now: Duration, wall_ms: u64) {
        self.0.now.set(now);
        self.0.wall_ms.set(wall_ms);
    }

    /// When the next sleeper wakes up.
    pub fn next(&self) -> Option<Duration> {
        let sleepers = self.0.sleepers.borrow();
        sleepers.first_key_value().map(|((at, _), _)| *at)
    }

    /// Wakes those whose time has come.
    pub fn wake(&self) {
        let now = self.0.now.get();
        while let Some(entry) = self.0.sleepers.borrow_mut().first_entry()
            && entry.key().0 <= now
        {
            entry.remove().wake();
        }
    }
}

impl Clock for Time {
    fn now(&self) -> Duration {
        self.0.now.get()
    }

    fn unix(&self) -> Duration {
        Duration::from_millis(self.0.wall_ms.get())
    }

    fn sleep_until(&self, at: Duration) -> LocalBoxFuture<'static, ()> {
        Box::pin(Sleep {
            shown: Rc::clone(&self.0),
            at,
            key: None,
        })
    }
}

struct Sleep {
    shown: Rc<Shown>,
    at: Duration,
    key: Option<(Duration, u64)>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.shown.now.get() >= self.at {
            return Poll::Ready(());
        }
        let key = self.key.unwrap_or_else(|| {
            let number = self.shown.slept.get() + 1;
            self.shown.slept.set(number);
            (self.at, number)
        });
        self.key = Some(key);
        let waker = context.waker().clone();
        self.shown.sleepers.borrow_mut().insert(key, waker);
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shown.sleepers.borrow_mut().remove(&key);
        }
    }
}
