//! Clients that do not read.

use retcd_storage::backend::Bucket;

use super::*;
use crate::mvcc::Revision;

fn small() -> Limits {
    Limits {
        queue_responses: 4,
        queue_bytes: 1000,
        queue_replies: 2,
        catchup_revisions: 3,
        catchup_bytes: 500,
        catchup_watchers: 2,
        recent_revisions: 2,
        recent_bytes: 1 << 20,
    }
}

#[test]
fn who_does_not_read_costs_a_bounded_queue_and_nobody_else() {
    let mut world = World::with_limits(small());
    let (slow, quick) = (world.open(), world.open());
    world.hub.create(slow, &watch("a", ""));
    world.hub.create(quick, &watch("a", ""));
    world.read(quick);
    for revision in 2..500 {
        world.put("a");
        let expected = format!("0 @{revision} put a@{revision}");
        assert_eq!(world.read(quick), [expected]);
        assert!(
            world.hub.queued(slow).0 <= 4,
            "{:?}",
            world.hub.queued(slow)
        );
    }
    assert_eq!(world.hub.metrics().slow_watchers, 1);
    assert_eq!(world.hub.metrics().events_pending, 3);
    let lines = world.read(slow);
    assert_eq!(lines[1], "0 @2 put a@2");
    let revisions = lines.iter().flat_map(|line| line.split("put a@").skip(1));
    let revisions: Vec<i64> = revisions.map(|n| n.trim().parse().unwrap()).collect();
    assert_eq!(revisions, Vec::from_iter(2..500));
    assert_eq!(world.hub.metrics().slow_watchers, 0);
    world.put("a");
    assert_eq!(world.read(slow), ["0 @500 put a@500"]);
}

#[test]
fn a_large_value_passes_a_small_queue() {
    let mut world = World::with_limits(small());
    let stream = world.open();
    world.hub.create(stream, &watch("a", ""));
    let value = vec![b'v'; 5000];
    for _ in 0..4 {
        world.txn(&[(b"a", Some(&value))]);
    }
    let bytes = world.hub.queued(stream).1;
    assert!((5000..6000).contains(&bytes), "one and no more: {bytes}");
    let expected = [
        "0 @1 created",
        "0 @2 put a@2",
        "0 @5 put a@3",
        "0 @5 put a@4",
        "0 @5 put a@5",
    ];
    assert_eq!(world.read(stream), expected);
}

#[test]
fn replies_that_are_not_read_stop_the_requests() {
    let mut world = World::with_limits(small());
    let stream = world.open();
    assert!(world.hub.accepts_requests(stream));
    world.hub.create(stream, &watch("a", ""));
    assert!(world.hub.accepts_requests(stream));
    world.hub.create(stream, &watch("b", ""));
    assert!(!world.hub.accepts_requests(stream));
    world.poll(stream, 1);
    assert!(world.hub.accepts_requests(stream));
}

#[test]
fn progress_is_not_told_to_a_full_queue_nor_while_behind() {
    let mut world = World::with_limits(small());
    let stream = world.open();
    world.hub.create(stream, &watch("a", ""));
    for _ in 0..3 {
        world.put("a");
    }
    world.hub.request_progress(stream);
    world.put("a");
    world.poll(stream, usize::MAX);
    assert_eq!(world.hub.metrics().slow_watchers, 1);
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["0 @5 put a@5"]);
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["-1 @5"]);
}

#[test]
fn a_compaction_cancels_who_is_too_far_behind() {
    let mut world = World::with_limits(small());
    let stream = world.open();
    world.hub.create(stream, &watch("a", ""));
    for _ in 0..8 {
        world.put("a");
    }
    // The queue took revisions 2 to 4; 5 is wanted next.
    world.compact(5);
    assert_eq!(world.hub.metrics().slow_watchers, 1);
    world.compact(6);
    assert_eq!(world.hub.metrics().slow_watchers, 0);
    let expected = [
        "0 @1 created",
        "0 @2 put a@2",
        "0 @3 put a@3",
        "0 @4 put a@4",
        "0 @0 canceled compacted 6",
    ];
    assert_eq!(world.read(stream), expected);
}

/// What changes while a step is made without the lock must not confuse its completion.
#[test]
fn a_step_finds_a_changed_world() {
    let mut world = World::with_limits(small());
    let stream = world.open();
    for _ in 0..4 {
        world.put("a");
    }
    let request = |start_revision, watch_id| WatchCreateRequest {
        start_revision,
        watch_id,
        ..watch("a", "")
    };
    let start = |world: &mut World| loop {
        match world.hub.poll(stream, usize::MAX) {
            Poll::Catchup(job) => return job,
            Poll::Responses(_) => {}
            Poll::Idle => panic!("nothing to catch up with"),
        }
    };

    // Cancelled, and created anew under the same id.
    world.hub.create(stream, &request(2, 7));
    let job = start(&mut world);
    world.hub.cancel(stream, 7);
    world.hub.create(stream, &request(5, 7));
    assert!(
        matches!(world.hub.poll(stream, 1), Poll::Responses(_)),
        "one step at a time"
    );
    let caught = world.run(job);
    world.hub.complete_catchup(caught);
    assert_eq!(
        world.read(stream),
        ["7 @5 canceled", "7 @5 created", "7 @5 put a@5"]
    );

    // Compacted.
    world.hub.create(stream, &request(2, 8));
    let job = start(&mut world);
    let caught = world.run(job);
    world.compact(4);
    world.hub.complete_catchup(caught);
    assert_eq!(
        world.read(stream),
        ["8 @5 created", "8 @0 canceled compacted 4"]
    );

    // Closed.
    world.hub.create(stream, &request(4, 9));
    let job = start(&mut world);
    world.hub.close_stream(stream);
    let caught = world.run(job);
    world.hub.complete_catchup(caught);
    assert_eq!(world.hub.metrics().slow_watchers, 0);
}

/// A watcher must get synced although a write comes between every two steps.
#[test]
fn catching_up_ends_while_writes_go_on() {
    let mut world = World::with_limits(Limits {
        catchup_revisions: 10,
        recent_revisions: 8,
        ..Limits::default()
    });
    let stream = world.open();
    for _ in 0..100 {
        world.put("a");
    }
    let request = WatchCreateRequest {
        start_revision: 2,
        ..watch("a", "")
    };
    world.hub.create(stream, &request);
    let mut steps = 0;
    while world.hub.metrics().slow_watchers > 0 {
        if let Poll::Catchup(job) = world.hub.poll(stream, usize::MAX) {
            let caught = world.run(job);
            world.put("a");
            world.put("a");
            world.hub.complete_catchup(caught);
            steps += 1;
        }
        assert!(steps < 20, "still behind after {steps} steps");
    }
}

#[test]
fn a_damaged_store_is_an_error() {
    let mut world = World::with_limits(Limits {
        recent_revisions: 0,
        ..small()
    });
    let stream = world.open();
    world.put("a");
    let mut batch = WriteBatch::default();
    batch.put(
        Bucket::Key,
        &Revision { main: 2, sub: 0 }.to_key(),
        Arc::from(&b"\xff"[..]),
    );
    world.store.backend.write(batch);
    let request = WatchCreateRequest {
        start_revision: 2,
        ..watch("a", "")
    };
    world.hub.create(stream, &request);
    let Poll::Catchup(job) = world.hub.poll(stream, 1) else {
        panic!("nothing to catch up with");
    };
    let error = job.run(&world.store.keyspace.reader().view()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "damaged record of 1 bytes at revision 2.0 in bucket key"
    );
    world.hub.close_stream(stream);
    assert_eq!(world.hub.metrics(), Metrics::default());
}
