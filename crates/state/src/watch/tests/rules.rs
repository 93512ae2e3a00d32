//! What etcd's clients see of creating, cancelling, filters, progress and compaction.

use retcd_proto::etcdserverpb::watch_create_request::FilterType;

use super::*;

#[test]
fn a_watcher_hears_what_comes_after_its_creation() {
    let mut world = World::new();
    world.put("a");
    let stream = world.open();
    world.hub.create(stream, &watch("a", ""));
    world.put("a");
    world.put("b");
    world.delete("a");
    let expected = ["0 @2 created", "0 @3 put a@3", "0 @5 delete a@5"];
    assert_eq!(world.read(stream), expected);
    assert_eq!(world.read(stream), [""; 0]);
}

#[test]
fn ids_count_up_past_those_that_are_taken() {
    let mut world = World::new();
    let stream = world.open();
    let create = |world: &mut World, watch_id| {
        let request = WatchCreateRequest {
            watch_id,
            ..watch("a", "")
        };
        world.hub.create(stream, &request)
    };
    assert_eq!(create(&mut world, 0), Some(0));
    assert_eq!(create(&mut world, 1), Some(1));
    assert_eq!(create(&mut world, 3), Some(3));
    assert_eq!(create(&mut world, -5), Some(-5));
    assert_eq!(create(&mut world, 0), Some(2));
    assert_eq!(create(&mut world, 0), Some(4));
    assert_eq!(create(&mut world, 3), None);
    world.hub.cancel(stream, 4);
    assert_eq!(
        create(&mut world, 0),
        Some(5),
        "a used counter is not used again"
    );
    assert_eq!(
        create(&mut world, 4),
        Some(4),
        "an id is, when it is asked for"
    );
    let expected = [
        "0 @1 created",
        "1 @1 created",
        "3 @1 created",
        "-5 @1 created",
        "2 @1 created",
        "4 @1 created",
        "-1 @1 created canceled \"mvcc: duplicate watch ID provided on the WatchStream\"",
        "4 @1 canceled",
        "5 @1 created",
        "4 @1 created",
    ];
    assert_eq!(world.read(stream), expected);
}

#[test]
fn ids_of_streams_are_apart() {
    let mut world = World::new();
    let (one, two) = (world.open(), world.open());
    world.hub.create(one, &watch("a", ""));
    world.hub.create(two, &watch("a", ""));
    world.hub.cancel(one, 0);
    world.put("a");
    assert_eq!(world.read(one), ["0 @1 created", "0 @1 canceled"]);
    assert_eq!(world.read(two), ["0 @1 created", "0 @2 put a@2"]);
}

#[test]
fn refusals_have_etcds_texts() {
    let mut world = World::new();
    let stream = world.open();
    world.hub.create(stream, &watch("b", "a"));
    world.hub.create(stream, &watch("b", "b"));
    let negative = WatchCreateRequest {
        start_revision: -1,
        ..watch("b", "a")
    };
    world.hub.create(stream, &negative);
    let denied = "rpc error: code = PermissionDenied desc = etcdserver: permission denied";
    world.hub.refuse(stream, denied);
    let expected = [
        "-1 @1 created canceled \"mvcc: watcher range is empty\"",
        "-1 @1 created canceled \"mvcc: watcher range is empty\"",
        "-1 @1 created canceled \"etcdserver: mvcc: required revision has been compacted\"",
        "-1 @1 created canceled \
         \"rpc error: code = PermissionDenied desc = etcdserver: permission denied\"",
    ];
    assert_eq!(world.read(stream), expected);
    assert_eq!(world.hub.metrics().watchers, 0);
    assert_eq!(world.hub.create(stream, &watch("a", "")), Some(0));
}

#[test]
fn ranges_are_etcds() {
    let mut world = World::new();
    let stream = world.open();
    world.hub.create(stream, &watch("", "\0")); // 0: everything
    world.hub.create(stream, &watch("", "")); // 1: the smallest key
    world.hub.create(stream, &watch("b", "\0")); // 2: from b on
    world.hub.create(stream, &watch("a", "b")); // 3: the prefix a
    world.read(stream);
    world.put("\0");
    world.put("ab");
    world.put("b");
    let expected = [
        "0 @2 put \0@2",
        "0 @3 put ab@3",
        "0 @4 put b@4",
        "1 @2 put \0@2",
        "2 @4 put b@4",
        "3 @3 put ab@3",
    ];
    let mut got = world.read(stream);
    got.sort();
    assert_eq!(got, expected);
}

#[test]
fn a_start_in_the_past_reads_history() {
    let mut world = World::new();
    let stream = world.open();
    for key in ["a", "b", "a", "c"] {
        world.put(key);
    }
    let request = WatchCreateRequest {
        start_revision: 3,
        ..watch("a", "c")
    };
    world.hub.create(stream, &request);
    world.put("a");
    // All in one response, whose header has the store's revision.
    let expected = ["0 @5 created", "0 @6 put b@3 put a@4 put a@6"];
    assert_eq!(world.read(stream), expected);
    world.put("b");
    assert_eq!(world.read(stream), ["0 @7 put b@7"]);
}

#[test]
fn a_start_in_the_future_hides_what_comes_before() {
    let mut world = World::new();
    let stream = world.open();
    let request = WatchCreateRequest {
        start_revision: 4,
        ..watch("a", "")
    };
    world.hub.create(stream, &request);
    world.hub.request_progress(stream);
    world.put("a");
    world.put("a");
    world.hub.request_progress(stream);
    world.put("a");
    world.hub.request_progress(stream);
    let expected = ["0 @1 created", "0 @4 put a@4", "-1 @4"];
    assert_eq!(world.read(stream), expected);
}

#[test]
fn a_start_below_the_compaction_is_cancelled_after_its_creation() {
    let mut world = World::new();
    for _ in 0..5 {
        world.put("a");
    }
    world.compact(4);
    let stream = world.open();
    let at = |start_revision| WatchCreateRequest {
        start_revision,
        ..watch("a", "")
    };
    world.hub.create(stream, &at(3));
    world.put("a");
    assert_eq!(
        world.read(stream),
        ["0 @6 created", "0 @0 canceled compacted 4"]
    );
    // Its id stays taken and it keeps progress from being told, until the client cancels it.
    world.hub.request_progress(stream);
    assert_eq!(world.hub.metrics().watchers, 1);
    assert_eq!(world.hub.metrics().slow_watchers, 0);
    world.hub.cancel(stream, 0);
    assert_eq!(world.read(stream), ["0 @7 canceled"]);
    assert_eq!(world.hub.metrics().watchers, 0);
    // The compaction itself can be watched from.
    world.hub.create(stream, &at(4));
    let expected = ["1 @7 created", "1 @7 put a@4 put a@5 put a@6 put a@7"];
    assert_eq!(world.read(stream), expected);
}

#[test]
fn a_store_that_is_compacted_further_than_the_hub_knows_cancels_too() {
    for recent_revisions in [0, 100] {
        let mut world = World::with_limits(Limits {
            recent_revisions,
            ..Limits::default()
        });
        let stream = world.open();
        for _ in 0..5 {
            world.put("a");
        }
        world.store.compact(4, 0);
        let request = WatchCreateRequest {
            start_revision: 2,
            ..watch("a", "")
        };
        world.hub.create(stream, &request);
        let expected = ["0 @6 created", "0 @0 canceled compacted 4"];
        assert_eq!(world.read(stream), expected);
    }
}

#[test]
fn all_events_of_a_revision_come_together_and_in_order() {
    let mut world = World::new();
    let stream = world.open();
    world.put("c");
    world.hub.create(stream, &watch("a", "d"));
    world.hub.create(stream, &watch("b", "\0"));
    world.txn(&[
        (b"c", None),
        (b"a", Some(b"1")),
        (b"z", Some(b"2")),
        (b"b", Some(b"3")),
    ]);
    let expected = [
        "0 @2 created",
        "1 @2 created",
        "0 @3 delete c@3 put a@3 put b@3",
        "1 @3 delete c@3 put z@3 put b@3",
    ];
    let mut got = world.read(stream);
    got[2..].sort();
    assert_eq!(got, expected);
}

#[test]
fn filters_and_previous_pairs() {
    let mut world = World::new();
    world.put("a");
    let stream = world.open();
    let request = |filters: &[FilterType], prev_kv, start_revision| WatchCreateRequest {
        filters: filters.iter().map(|&filter| filter as i32).collect(),
        prev_kv,
        start_revision,
        ..watch("a", "z")
    };
    let no_put = request(&[FilterType::Noput], true, 0);
    let no_delete = request(&[FilterType::Nodelete], false, 0);
    let nothing = request(&[FilterType::Noput, FilterType::Nodelete], true, 0);
    let prev = request(&[], true, 0);
    let unknown = WatchCreateRequest {
        filters: vec![7],
        ..watch("a", "z")
    };
    for request in [&no_put, &no_delete, &nothing, &prev, &unknown] {
        world.hub.create(stream, request);
    }
    world.read(stream);
    world.txn(&[(b"b", Some(b"1")), (b"a", Some(b"2"))]);
    world.txn(&[(b"a", None), (b"c", Some(b"3")), (b"b", None)]);
    let expected = [
        "0 @4 delete a@4 was@3 delete b@4 was@3",
        "1 @3 put b@3 put a@3",
        "1 @4 put c@4",
        "3 @3 put b@3 put a@3 was@2",
        "3 @4 delete a@4 was@3 put c@4 delete b@4 was@3",
        "4 @3 put b@3 put a@3",
        "4 @4 delete a@4 put c@4 delete b@4",
    ];
    let mut got = world.read(stream);
    got.sort();
    assert_eq!(got, expected);

    // The same from history; what went before the compaction is not known any more.
    world.hub.recent.clear();
    world.compact(3);
    let stream = world.open();
    world.hub.create(stream, &request(&[], true, 3));
    let expected = [
        "0 @4 created",
        "0 @4 put b@3 put a@3 delete a@4 was@3 put c@4 delete b@4 was@3",
    ];
    assert_eq!(world.read(stream), expected);
}

#[test]
fn a_cancelled_watcher_hears_nothing_more() {
    let mut world = World::new();
    let stream = world.open();
    world.hub.create(stream, &watch("a", ""));
    world.put("a");
    world.hub.cancel(stream, 0);
    world.put("a");
    world.hub.cancel(stream, 0);
    world.hub.cancel(stream, 17);
    let expected = ["0 @1 created", "0 @2 put a@2", "0 @2 canceled"];
    assert_eq!(world.read(stream), expected);
}

#[test]
fn progress_on_demand() {
    let mut world = World::new();
    let stream = world.open();
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), [""; 0], "nobody to tell");
    world.hub.create(stream, &watch("a", ""));
    world.hub.create(stream, &watch("b", ""));
    world.put("a");
    world.put("c");
    world.hub.request_progress(stream);
    world.hub.request_progress(stream);
    let expected = ["0 @1 created", "1 @1 created", "0 @2 put a@2", "-1 @3"];
    assert_eq!(world.read(stream), expected, "said once, behind the events");
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["-1 @3"]);
    // One that is behind keeps all from being told.
    let request = WatchCreateRequest {
        start_revision: 2,
        ..watch("c", "")
    };
    world.hub.create(stream, &request);
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["2 @3 created", "2 @3 put c@3"]);
    world.hub.request_progress(stream);
    assert_eq!(world.read(stream), ["-1 @3"]);
}

#[test]
fn periodic_progress_skips_periods_with_events() {
    let at = |periods| Time::new(periods * INTERVAL);
    let mut world = World::new();
    let stream = world.open();
    let notify = WatchCreateRequest {
        progress_notify: true,
        ..watch("a", "")
    };
    let future = WatchCreateRequest {
        start_revision: 9,
        ..notify.clone()
    };
    world.hub.create(stream, &notify);
    world.hub.create(stream, &watch("a", ""));
    world.hub.create(stream, &future);
    world.read(stream);
    assert_eq!(world.hub.poll_timeout(), Some(at(1)));
    world
        .hub
        .handle_timeout(Time::new(INTERVAL - Duration::from_nanos(1)));
    assert_eq!(world.read(stream), [""; 0]);
    world.put("b");
    world.hub.handle_timeout(at(1));
    assert_eq!(world.read(stream), ["0 @2"]);
    assert_eq!(world.hub.poll_timeout(), Some(at(2)));
    world.put("a");
    world.read(stream);
    world.hub.handle_timeout(at(2));
    assert_eq!(world.read(stream), [""; 0]);
    // Periods in which nobody asked are not made up for.
    world.hub.handle_timeout(at(7));
    assert_eq!(world.read(stream), ["0 @3"]);
    assert_eq!(world.hub.poll_timeout(), Some(at(8)));
    world.hub.close_stream(stream);
    assert_eq!(world.hub.poll_timeout(), None);
}

#[test]
fn a_snapshot_is_read_like_history() {
    let mut world = World::new();
    let stream = world.open();
    world.hub.create(stream, &watch("a", ""));
    let future = WatchCreateRequest {
        start_revision: 9,
        ..watch("a", "")
    };
    world.hub.create(stream, &future);
    world.put("a");
    world.read(stream);
    // The store moves on without the hub, as when a leader's snapshot is installed.
    for _ in 0..3 {
        world.store.apply(&[(b"a", Some(b"new"))]);
    }
    world.hub.restore(5, -1);
    let mut woken = Vec::new();
    world.hub.drain_woken(&mut woken);
    assert_eq!(woken.pop(), Some(stream));
    assert_eq!(world.read(stream), ["0 @5 put a@3 put a@4 put a@5"]);
    for _ in 0..5 {
        world.store.apply(&[(b"a", Some(b"new"))]);
    }
    world.store.compact(7, 9);
    world.hub.restore(10, 7);
    let expected = ["0 @0 canceled compacted 7", "1 @10 put a@9 put a@10"];
    assert_eq!(world.read(stream), expected);
}

#[test]
fn only_streams_with_news_are_woken_and_only_once() {
    let mut world = World::new();
    let (one, two) = (world.open(), world.open());
    world.hub.create(one, &watch("a", ""));
    world.hub.create(two, &watch("b", ""));
    let woken = |world: &mut World| {
        let mut woken = Vec::new();
        world.hub.drain_woken(&mut woken);
        woken
    };
    assert_eq!(woken(&mut world), [one, two]);
    world.read(one);
    world.read(two);
    world.put("a");
    world.put("a");
    assert_eq!(woken(&mut world), [one]);
    world.put("a");
    assert_eq!(woken(&mut world), [], "it knows already");
    world.read(one);
    world.put("b");
    world.put("a");
    assert_eq!(woken(&mut world), [two, one]);
}

#[test]
fn a_closed_stream_is_gone() {
    let mut world = World::new();
    let (one, two) = (world.open(), world.open());
    world.hub.create(one, &watch("a", ""));
    world.hub.create(two, &watch("a", ""));
    world.put("a");
    assert_eq!(world.hub.metrics().events_pending, 2);
    world.hub.close_stream(one);
    world.hub.close_stream(one);
    assert_eq!(world.hub.create(one, &watch("a", "")), None);
    world.hub.cancel(one, 0);
    world.hub.request_progress(one);
    world.hub.refuse(one, "no");
    assert!(!world.hub.accepts_requests(one));
    assert!(matches!(world.hub.poll(one, 1), Poll::Idle));
    assert_eq!(world.read(two), ["0 @1 created", "0 @2 put a@2"]);
    let metrics = Metrics {
        streams: 1,
        watchers: 1,
        slow_watchers: 0,
        events_delivered: 1,
        events_pending: 0,
    };
    assert_eq!(world.hub.metrics(), metrics);
    world.hub.close_stream(two);
    world.put("a");
    let metrics = Metrics {
        events_delivered: 1,
        ..Metrics::default()
    };
    assert_eq!(world.hub.metrics(), metrics);
}

/// What was there before is compacted, and stays so whether or not memory still has it.
#[test]
fn an_event_at_the_compacted_revision_has_no_previous_pair() {
    let mut world = World::new();
    // Memory is for those who watch.
    let other = world.open();
    world.hub.create(other, &watch("b", ""));
    (0..3).for_each(|_| world.put("a"));
    world.compact(3);
    let stream = world.open();
    let request = WatchCreateRequest {
        prev_kv: true,
        start_revision: 3,
        ..watch("a", "")
    };
    world.hub.create(stream, &request);
    let expected = ["0 @4 created", "0 @4 put a@3 put a@4 was@3"];
    assert_eq!(world.read(stream), expected);
}

/// Revisions are not published while nobody listens, and those that were on their way come after.
#[test]
fn a_hub_that_stood_still_goes_on_where_the_store_is() {
    let mut world = World::new();
    let published = |world: &mut World, key: &[u8]| {
        let (revision, events) = world.store.apply(&[(key, Some(b"v"))]).unwrap();
        Arc::new(RevisionEvents::new(revision, events))
    };
    let stream = world.open();
    world.hub.create(stream, &watch("a", ""));
    world.put("a");
    world.hub.close_stream(stream);
    let missed: Vec<_> = (0..3).map(|_| published(&mut world, b"a")).collect();
    world.store.compact(3, 10);
    world.hub.go_on(5, 3);
    let stream = world.open();
    world.hub.create(stream, &watch("a", ""));
    for start_revision in [4, 2] {
        let past = WatchCreateRequest {
            start_revision,
            ..watch("a", "")
        };
        world.hub.create(stream, &past);
    }
    for late in missed {
        world.hub.publish(late);
    }
    world.hub.restore(4, -1);
    world.put("a");
    let mut got = world.read(stream);
    got.sort();
    let expected = [
        "0 @5 created",
        "0 @6 put a@6",
        "1 @5 created",
        "1 @6 put a@4 put a@5 put a@6",
        "2 @0 canceled compacted 3",
        "2 @5 created",
    ];
    assert_eq!(got, expected);
}
