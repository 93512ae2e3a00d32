//! Watchers: what the model cannot show: waking, slow clients, threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;

use retcd_state::v2::{EVENTS_MAX, Reader, Store, Timestamp, Watch, Watcher};

use super::{NOW, apply, poll, request};

fn watch(reader: &Reader, path: &str, stream: bool, since: u64) -> Watcher {
    let recursive = false;
    let watch = Watch {
        path,
        recursive,
        stream,
        since,
    };
    reader.watch(&watch).expect("history enough")
}

struct Counting(AtomicUsize);

impl Wake for Counting {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn an_event_wakes_whoever_waits() {
    let mut store = Store::new();
    let mut watcher = watch(&store.reader(), "/1/a", true, 0);
    let count = Arc::new(Counting(AtomicUsize::new(0)));
    let waker = Waker::from(Arc::clone(&count));
    let mut next = || watcher.poll_next(&mut Context::from_waker(&waker));
    assert!(next().is_pending());
    apply(&mut store, "PUT /1/b value=1");
    assert_eq!(count.0.load(Ordering::Relaxed), 0, "not its business");
    apply(&mut store, "PUT /1/a value=1");
    apply(&mut store, "PUT /1/a value=2");
    assert_eq!(count.0.load(Ordering::Relaxed), 1);
    assert!(matches!(next(), Poll::Ready(Some(event)) if event.index() == 2));
    assert!(matches!(next(), Poll::Ready(Some(event)) if event.index() == 3));
    assert!(next().is_pending());
    store.replace(Store::new(), 0);
    assert_eq!(count.0.load(Ordering::Relaxed), 2, "its end is news, too");
    assert!(matches!(next(), Poll::Ready(None)));
}

#[test]
fn a_slow_stream_ends_behind_what_it_had() {
    let mut store = Store::new();
    let reader = store.reader();
    let mut slow = watch(&reader, "/1/a", true, 0);
    let mut quick = watch(&reader, "/1/a", true, 0);
    for i in 0..EVENTS_MAX {
        apply(&mut store, &format!("PUT /1/a value={i}"));
        assert_ne!(poll(&mut quick), "waits");
    }
    assert_eq!(reader.statistics().watchers, 2);
    apply(&mut store, "PUT /1/a value=more");
    assert_eq!(reader.statistics().watchers, 1);
    apply(&mut store, "PUT /1/a value=still");
    for i in 0..EVENTS_MAX {
        let value = format!("\"node\":{{\"key\":\"/1/a\",\"value\":\"{i}\"");
        assert!(poll(&mut slow).contains(&value), "{i}");
    }
    assert_eq!(poll(&mut slow), "end");
    assert!(poll(&mut quick).contains("more"));
    assert!(poll(&mut quick).contains("still"));
    assert_eq!(poll(&mut quick), "waits");
}

#[test]
fn a_watcher_that_is_dropped_is_forgotten() {
    let mut store = Store::new();
    let reader = store.reader();
    let watchers: Vec<Watcher> = (0..3).map(|_| watch(&reader, "/1/a", true, 0)).collect();
    let once = watch(&reader, "/1/a", false, 0);
    assert_eq!(reader.statistics().watchers, 4);
    apply(&mut store, "PUT /1/a value=1");
    assert_eq!(reader.statistics().watchers, 3, "one has what it wanted");
    drop(once);
    drop(watchers);
    assert_eq!(reader.statistics().watchers, 0);
    apply(&mut store, "PUT /1/a value=2");
}

#[test]
fn what_is_not_published_is_not_seen_and_not_missed() {
    let mut store = Store::new();
    let reader = store.reader();
    let set = store.apply(Timestamp(NOW), &request("PUT /1/d/a value=1"));
    set.expect("a set");
    let delete = store.apply(Timestamp(NOW), &request("DELETE /1/d recursive=true"));
    delete.expect("a removal");
    assert_eq!((store.index(), reader.view().index()), (2, 0));
    let mut removed = watch(&reader, "/1/d/a", true, 0);
    assert_eq!(
        (removed.start_index(), poll(&mut removed)),
        (0, "waits".into())
    );
    store.publish(0);
    assert_eq!(reader.view().index(), 2);
    assert!(poll(&mut removed).starts_with("{\"action\":\"set\""));
    assert!(poll(&mut removed).starts_with("{\"action\":\"delete\""));
    assert_eq!(poll(&mut removed), "waits");
    let mut later = watch(&reader, "/1/d/a", true, 0);
    assert_eq!((later.start_index(), poll(&mut later)), (2, "waits".into()));
}

#[test]
fn no_event_falls_between_history_and_registration() {
    let mut store = Store::new();
    let reader = store.reader();
    const WRITES: u64 = 20_000;
    thread::scope(|scope| {
        for _ in 0..2 {
            let reader = reader.clone();
            scope.spawn(move || {
                let mut since = 1;
                while since <= WRITES {
                    let found = reader.watch(&Watch {
                        path: "/1/a",
                        recursive: false,
                        stream: false,
                        since,
                    });
                    let Ok(mut watcher) = found else {
                        // The writer is a thousand events ahead.
                        since = reader.view().index();
                        continue;
                    };
                    let index = next(&mut watcher).expect("an event");
                    assert_eq!(index, since);
                    since += 1;
                }
            });
        }
        for _ in 0..WRITES {
            apply(&mut store, "PUT /1/a value=1");
        }
    });
    assert_eq!(reader.statistics().watchers, 0);
}

/// Waits for the index of the next event, as a thread.
fn next(watcher: &mut Watcher) -> Option<u64> {
    struct Unpark(thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    loop {
        match watcher.poll_next(&mut Context::from_waker(&waker)) {
            Poll::Ready(event) => return event.map(|event| event.index()),
            Poll::Pending => thread::park(),
        }
    }
}
