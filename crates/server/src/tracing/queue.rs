//! The spans that wait for the exporter, each time some of one call.
//!
//! The exporter is woken once for a batch, not for each call: waking a thread costs more than the
//! spans of a call do. What comes before there is a batch it finds when it looks by itself.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use parking_lot::Mutex;
use retcd_proto::tracepb::Span;
use tokio::sync::Notify;

/// Spans that wait; more are dropped, as in Go's SDK.
const SPANS_MAX: usize = 2048;
/// Spans for which the exporter is woken, as in Go's SDK.
const BATCH_SPANS: usize = 512;

const _: () = assert!(BATCH_SPANS <= SPANS_MAX);

#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    batch: Notify,
    dropped_calls: AtomicU64,
}

#[derive(Default)]
struct Waiting {
    calls: Vec<Vec<Span>>,
    /// Of all of them together.
    spans: usize,
}

impl Queue {
    /// Whether there is room for a call that begins. Otherwise it is dropped, before it costs
    /// anything.
    pub(super) fn admits_call(&self) -> bool {
        let admits = self.waiting.lock().spans < SPANS_MAX;
        if !admits {
            self.drop_calls(1);
        }
        admits
    }

    /// Adds the spans of a call, if there is room for them.
    pub(super) fn push(&self, call: Vec<Span>) {
        let mut waiting = self.waiting.lock();
        let before = waiting.spans;
        let after = before + call.len();
        if after > SPANS_MAX {
            drop(waiting);
            self.drop_calls(1);
            return;
        }
        waiting.spans = after;
        waiting.calls.push(call);
        drop(waiting);
        if before < BATCH_SPANS && after >= BATCH_SPANS {
            self.batch.notify_one();
        }
    }

    /// Waits until there is a batch. It may have been taken by then.
    pub(super) async fn wait_for_batch(&self) {
        self.batch.notified().await;
    }

    /// All that wait.
    pub(super) fn take(&self) -> Vec<Vec<Span>> {
        std::mem::take(&mut *self.waiting.lock()).calls
    }

    /// So many calls are not going to be sent.
    pub(super) fn drop_calls(&self, count: usize) {
        self.dropped_calls.fetch_add(count as u64, Relaxed);
    }

    pub(super) fn dropped_calls(&self) -> u64 {
        self.dropped_calls.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use futures_util::FutureExt;

    fn call(spans: usize) -> Vec<Span> {
        vec![Span::default(); spans]
    }

    #[test]
    fn the_exporter_is_woken_once_for_a_batch() {
        let queue = Queue::default();
        let has_batch = || queue.wait_for_batch().now_or_never().is_some();
        queue.push(call(BATCH_SPANS - 1));
        assert!(!has_batch());
        queue.push(call(1));
        assert!(has_batch());
        queue.push(call(1));
        assert!(!has_batch(), "it knows already");
        assert_eq!(queue.take().len(), 3);
        queue.push(call(BATCH_SPANS));
        assert!(has_batch(), "the next batch");
        assert_eq!(queue.take().len(), 1);
        assert!(queue.take().is_empty());
    }

    #[test]
    fn calls_that_do_not_fit_are_dropped_whole() {
        let queue = Queue::default();
        queue.push(call(SPANS_MAX - 1));
        assert!(queue.admits_call());
        queue.push(call(2));
        assert_eq!(queue.dropped_calls(), 1);
        queue.push(call(1));
        assert!(!queue.admits_call());
        assert_eq!(queue.dropped_calls(), 2);
        assert_eq!(queue.take().len(), 2);
        assert!(queue.admits_call());
    }
}
