//! Watches over connections that break: no event is lost or delivered twice.

#![allow(clippy::unwrap_used, reason = "a test that cannot be set up fails")]

mod harness;

use std::future::Future;
use std::task::Poll;

use harness::{Member, Relay, key, put, run, soon};
use retcd_client::{Client, FROM_KEY, WatchError, WatchEvent, Watcher, WithoutLeader, prefix_end};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    CompactionRequest, RequestOp, TxnRequest, WatchCreateRequest, WatchResponse,
};
use retcd_proto::mvccpb::event::EventType;

fn all_below(prefix: &'static str, from: i64) -> WatchCreateRequest {
    WatchCreateRequest {
        key: prefix.into(),
        range_end: prefix_end(prefix.as_bytes()).into(),
        start_revision: from,
        ..WatchCreateRequest::default()
    }
}

fn values(response: &WatchResponse) -> Vec<String> {
    let kvs = response.events.iter().filter_map(|event| event.kv.as_ref());
    kvs.map(|kv| String::from_utf8_lossy(&kv.value).into_owned())
        .collect()
}

async fn write_numbers(client: &Client, numbers: std::ops::Range<usize>) {
    for number in numbers {
        client.put(put("n", &number.to_string())).await.unwrap();
    }
}

#[test]
fn a_stream_is_opened_although_nobody_waits_for_long() {
    run(async {
        let member = Member::start().await;
        let mut watcher = member.client().watcher(WithoutLeader::Resume);
        let watch = watcher.add(all_below("n", 1));
        // Each wait is given up at once, as by a proxy that is asked for one watch after another.
        let created = async {
            loop {
                tokio::select! {
                    biased;
                    event = watcher.next() => return event,
                    () = tokio::task::yield_now() => {}
                }
            }
        };
        let created = soon("a watch", created).await;
        assert!(
            matches!(created, Some(WatchEvent::Created(id, _)) if id == watch),
            "{created:?}"
        );
    });
}

#[test]
fn a_watcher_goes_on_with_another_client() {
    async fn next_values(watcher: &mut Watcher) -> Vec<String> {
        loop {
            match soon("a change", watcher.next()).await.unwrap() {
                WatchEvent::Created(..) => {}
                WatchEvent::Response(_, response) => return values(&response),
                ended @ WatchEvent::Ended { .. } => panic!("{ended:?}"),
            }
        }
    }
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let relay = Relay::start(&member.address, &[]).await;
        let mut watcher = relay.client().watcher(WithoutLeader::Resume);
        watcher.add(all_below("n", 1));
        write_numbers(&client, 0..1).await;
        assert_eq!(next_values(&mut watcher).await, ["0"]);
        watcher.set_client(&client);
        relay.cut();
        write_numbers(&client, 1..2).await;
        assert_eq!(next_values(&mut watcher).await, ["1"]);
        assert_eq!(relay.connections(), 1);
    });
}

#[test]
fn events_are_delivered_once_over_broken_connections() {
    const ROUNDS: usize = 12;
    const CHANGES: usize = 12;
    run(async {
        let member = Member::start().await;
        let relay = Relay::start(&member.address, &[]).await;
        let mut watch = relay.client().watch(all_below("n", 1));
        let client = member.client();
        let mut seen: Vec<usize> = Vec::new();
        for round in 0..ROUNDS {
            let (first, end) = (round * CHANGES, (round + 1) * CHANGES);
            let client = client.clone();
            let writer = tokio::spawn(async move { write_numbers(&client, first..end).await });
            let mut is_cut = false;
            while seen.last() != Some(&(end - 1)) {
                let response = soon("a change", watch.next()).await.unwrap();
                let numbers = values(&response);
                seen.extend(numbers.iter().map(|text| text.parse::<usize>().unwrap()));
                // Once per round, each time after another event.
                if !is_cut && seen.len() >= first + round {
                    is_cut = true;
                    relay.cut();
                }
            }
            writer.await.unwrap();
        }
        assert_eq!(seen, (0..ROUNDS * CHANGES).collect::<Vec<_>>());
        assert!(relay.connections() >= ROUNDS, "{}", relay.connections());
    });
}

#[test]
fn a_watch_without_a_revision_starts_at_its_creation() {
    run(async {
        let member = Member::start().await;
        let relay = Relay::start(&member.address, &[]).await;
        let mut watcher = relay.client().watcher(WithoutLeader::Resume);
        let id = watcher.add(all_below("n", 0));
        let begun = soon("the beginning", watcher.next()).await;
        assert!(matches!(begun, Some(WatchEvent::Created(..))), "{begun:?}");
        // The connection breaks before the first event.
        relay.cut();
        write_numbers(&member.client(), 0..1).await;
        match soon("the change", watcher.next()).await {
            Some(WatchEvent::Response(of, response)) if of == id => {
                assert_eq!(values(&response), ["0"]);
            }
            event => panic!("{event:?}"),
        }
    });
}

#[test]
fn a_watch_resumes_after_a_restart() {
    run(async {
        let mut member = Member::start().await;
        let client = member.client();
        let mut watch = client.watch(all_below("n", 1));
        write_numbers(&client, 0..2).await;
        let mut seen = Vec::new();
        while seen.len() < 2 {
            seen.extend(values(&soon("a change", watch.next()).await.unwrap()));
        }
        member.restart().await;
        write_numbers(&client, 2..4).await;
        while seen.len() < 4 {
            seen.extend(values(&soon("a change", watch.next()).await.unwrap()));
        }
        assert_eq!(seen, ["0", "1", "2", "3"]);
    });
}

#[test]
fn a_fragmented_response_is_repeated_after_a_break() {
    const VALUE_BYTES: usize = 140 << 10;
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let value = "x".repeat(VALUE_BYTES);
        let all = || TxnRequest {
            success: (0..10)
                .map(|number| RequestOp {
                    request: Some(Request::RequestPut(put(&format!("k{number}"), &value))),
                })
                .collect(),
            ..TxnRequest::default()
        };
        client.txn(all()).await.unwrap();
        let second = client.txn(all()).await.unwrap().header.unwrap().revision;
        // With previous values, the revision takes 2.8 MB: more than one fragment.
        let relay = Relay::start(&member.address, &[2_000_000, 2_200_000]).await;
        let mut watch = relay.client().watch(WatchCreateRequest {
            prev_kv: true,
            fragment: true,
            ..all_below("k", second)
        });
        let response = soon("the revision", watch.next()).await.unwrap();
        assert_eq!(relay.connections(), 3);
        let keys: Vec<_> = response
            .events
            .iter()
            .map(|event| event.kv.as_ref().unwrap().key.clone())
            .collect();
        let expected: Vec<_> = (0..10).map(|number| format!("k{number}")).collect();
        assert_eq!(keys, expected);
        let has_both = response.events.iter().all(|event| event.prev_kv.is_some());
        assert!(has_both && !response.fragment);
    });
}

#[test]
fn a_compacted_revision_ends_the_watch() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        write_numbers(&client, 0..5).await;
        let request = CompactionRequest {
            revision: 4,
            ..CompactionRequest::default()
        };
        client.compact(request).await.unwrap();
        let mut watch = client.watch(all_below("n", 2));
        let error = soon("the end", watch.next()).await.unwrap_err();
        let compacted = WatchError::Compacted {
            compact_revision: 4,
        };
        assert_eq!(error, compacted);
        let again = soon("the end", watch.next()).await;
        assert!(
            matches!(again, Err(WatchError::Canceled { .. })),
            "{again:?}"
        );
    });
}

#[test]
fn watches_of_one_stream_are_independent() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let relay = Relay::start(&member.address, &[]).await;
        let mut watcher = relay.client().watcher(WithoutLeader::Resume);
        let a = watcher.add(all_below("a", 0));
        // Canceled before the server has created it.
        let nothing = watcher.add(all_below("a", 0));
        watcher.cancel(nothing);
        let b = watcher.add(all_below("b", 0));
        for wanted in [a, b] {
            let event = soon("the beginning", watcher.next()).await;
            assert!(
                matches!(event, Some(WatchEvent::Created(id, _)) if id == wanted),
                "{event:?}"
            );
        }
        let mut next = async |key: &str, wanted| {
            client.put(put(key, "1")).await.unwrap();
            let event = soon("a change", watcher.next()).await;
            let is_it = matches!(&event, Some(WatchEvent::Response(id, _)) if *id == wanted);
            assert!(is_it, "{event:?}");
        };
        next("b1", b).await;
        next("a1", a).await;
        relay.cut();
        next("a2", a).await;
        watcher.cancel(a);
        client.put(put("a3", "1")).await.unwrap();
        watcher.request_progress();
        match soon("progress", watcher.next()).await {
            Some(WatchEvent::Response(id, response)) if id == b => {
                assert_eq!(values(&response), [""; 0]);
            }
            event => panic!("{event:?}"),
        }
        watcher.cancel(b);
        assert!(watcher.is_empty());
        assert_eq!(watcher.next().await, None);
    });
}

#[test]
fn watches_see_their_namespace_only() {
    run(async {
        let member = Member::start().await;
        let (all, app) = (member.client(), member.client().namespace("app/"));
        let mut watch = app.watch(WatchCreateRequest {
            key: FROM_KEY.into(),
            range_end: FROM_KEY.into(),
            start_revision: 1,
            prev_kv: true,
            ..WatchCreateRequest::default()
        });
        for (client, name) in [(&all, "app"), (&all, "app0"), (&app, "k"), (&app, "k")] {
            client.put(put(name, "1")).await.unwrap();
        }
        let mut seen = 0;
        while seen < 2 {
            let response = soon("a change", watch.next()).await.unwrap();
            for event in response.events {
                seen += 1;
                assert_eq!(event.r#type(), EventType::Put);
                assert_eq!(event.kv.unwrap().key, "k");
                let before = event.prev_kv.map(|kv| kv.key);
                assert_eq!(before, (seen == 2).then(|| "k".into()));
            }
        }
        let all_of_app = retcd_proto::etcdserverpb::RangeRequest {
            key: FROM_KEY.into(),
            range_end: FROM_KEY.into(),
            ..key("")
        };
        let read = app.range(all_of_app.clone()).await.unwrap();
        assert_eq!(harness::shown(&read), ["k=1"]);
        let read = app.range_stream(all_of_app).await.unwrap();
        assert_eq!(harness::shown(&read), ["k=1"]);
        assert_eq!(
            harness::shown(&all.range(key("app/k")).await.unwrap()),
            ["app/k=1"]
        );
    });
}

/// Drops a future that is not ready after `wakes` wakes.
async fn give_up_after<T>(wakes: usize, future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    let mut left = wakes;
    std::future::poll_fn(|context| match future.as_mut().poll(context) {
        Poll::Ready(value) => Poll::Ready(Some(value)),
        Poll::Pending if left == 0 => Poll::Ready(None),
        Poll::Pending => {
            left -= 1;
            Poll::Pending
        }
    })
    .await
}

#[test]
fn next_is_cancel_safe() {
    run(async {
        let member = Member::start().await;
        let client = member.client();
        let mut watch = client.watch(all_below("n", 1));
        let mut seen = Vec::new();
        let mut given_up = 0;
        let mut number = 0;
        while seen.len() < 20 {
            write_numbers(&client, number..number + 1).await;
            number += 1;
            // Cancelled at any point: while connecting, opening the stream, or waiting.
            match give_up_after(number % 4, watch.next()).await {
                Some(response) => seen.extend(values(&response.unwrap())),
                None => given_up += 1,
            }
        }
        let expected: Vec<_> = (0..seen.len()).map(|number| number.to_string()).collect();
        assert_eq!(seen, expected);
        assert!(given_up > 0, "it was waited for each time");
    });
}
