//! Reading the database at start: with all processors, and with a line in the log each second.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread::{Builder, available_parallelism, scope};
use std::time::{Duration, Instant};

use retcd_state::Jobs;

/// Rows that were read; a process has one member.
static ROWS: AtomicUsize = AtomicUsize::new(0);

/// How often somebody who waits for the member is told that it is not stuck.
const INTERVAL: Duration = Duration::from_secs(1);

/// How a start shares its work.
pub(super) fn jobs() -> Jobs {
    Jobs {
        at_once: available_parallelism().map_or(1, NonZero::get),
        run,
        progress: |rows| _ = ROWS.fetch_add(rows, Relaxed),
    }
}

/// Runs each job on a thread that ends with it, or, where no more threads can be had, here.
fn run(count: usize, job: &(dyn Fn(usize) + Sync)) {
    scope(|scope| {
        for number in 1..count {
            let builder = Builder::new().name(format!("load-{number}"));
            if builder.spawn_scoped(scope, move || job(number)).is_err() {
                job(number);
            }
        }
        if count > 0 {
            job(0);
        }
    });
}

/// Logs how far `load` is while it takes long.
pub(super) fn report_while<T>(load: impl FnOnce() -> T) -> T {
    let (running, ended) = channel::<()>();
    let started = Instant::now();
    scope(|scope| {
        let report = move || {
            while ended.recv_timeout(INTERVAL) == Err(RecvTimeoutError::Timeout) {
                let rows = ROWS.load(Relaxed);
                // Before that it may wait for another process, which has lines of its own.
                if rows > 0 {
                    crate::info!("reading the database"; "rows" => rows, "took" => started.elapsed());
                }
            }
        };
        // Without a thread there are no lines.
        let _ = Builder::new()
            .name("load-log".to_owned())
            .spawn_scoped(scope, report);
        let loaded = load();
        drop(running);
        loaded
    })
}
