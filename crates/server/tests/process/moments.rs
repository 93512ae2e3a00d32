//! An answer is of one moment: what it shows is what the store held at the revision in its header.
//!
//! Writers work as fast as they can, and every revision that they make can be told from what it
//! leaves behind, so that an answer and its header are held against each other however the two were
//! timed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use futures_util::future::join_all;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::lease_client::LeaseClient;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::range_request::SortTarget;
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::response_op::Response;
use retcd_proto::etcdserverpb::watch_client::WatchClient;
use retcd_proto::etcdserverpb::watch_request::RequestUnion;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::place::{Kv, Place, Server, until};

/// Far beyond what anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Questions of a kind that are under way at the same time.
const AT_ONCE: usize = 24;
const WRITERS: usize = 4;

/// Writers that work until this is dropped. Every revision of theirs changes `k` and adds a key to
/// `n/`: at revision R the last change of `k` is of R, and `n/` has R - 1 keys.
struct Writers(Arc<AtomicBool>);

impl Drop for Writers {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

impl Writers {
    async fn start(server: &Server) -> Writers {
        let done = Arc::new(AtomicBool::new(false));
        let names = Arc::new(AtomicI64::new(0));
        for _ in 0..WRITERS {
            let (done, names) = (Arc::clone(&done), Arc::clone(&names));
            let mut kv = server.kv().await.0;
            tokio::spawn(async move {
                while !done.load(Ordering::Relaxed) {
                    let name = names.fetch_add(1, Ordering::Relaxed);
                    let put = |key: String| pb::RequestOp {
                        request: Some(Request::RequestPut(pb::PutRequest {
                            key: key.into(),
                            ..Default::default()
                        })),
                    };
                    let request = pb::TxnRequest {
                        success: vec![put("k".to_owned()), put(format!("n/{name:08}"))],
                        ..Default::default()
                    };
                    if kv.txn(request).await.is_err() {
                        return; // The member is gone, and the test with it.
                    }
                }
            });
        }
        // Until there is something to see.
        let mut kv = server.kv().await;
        let seen = async { while kv.get("k").await.is_none() {} };
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        seen.expect("waited for the first write");
        Writers(done)
    }
}

fn range(key: &'static str, range_end: &'static str) -> pb::RangeRequest {
    pb::RangeRequest {
        key: key.into(),
        range_end: range_end.into(),
        ..Default::default()
    }
}

/// All forms of a list, each with a name for who reads a failure.
fn lists() -> Vec<(&'static str, pb::RangeRequest)> {
    // With an order, a stream is refused.
    let sorted = pb::RangeRequest {
        sort_target: SortTarget::Mod as i32,
        ..range("k", "l")
    };
    vec![
        ("a key", range("k", "")),
        ("keys", range("k", "l")),
        (
            "serializable",
            pb::RangeRequest {
                serializable: true,
                ..range("k", "l")
            },
        ),
        (
            "keys only",
            pb::RangeRequest {
                keys_only: true,
                ..range("k", "l")
            },
        ),
        (
            "limited",
            pb::RangeRequest {
                limit: 1,
                ..range("k", "\0")
            },
        ),
        ("sorted", sorted),
        (
            "counted",
            pb::RangeRequest {
                count_only: true,
                ..range("n/", "n0")
            },
        ),
    ]
}

/// Holds a list against the revision in its header.
fn check_list(name: &str, list: &pb::RangeResponse) -> i64 {
    let revision = list.header.as_ref().expect("lists have a header").revision;
    match list.kvs.first() {
        Some(kv) => assert_eq!(kv.mod_revision, revision, "{name}: {list:?}"),
        None => assert_eq!(list.count, revision - 1, "{name}: {list:?}"),
    }
    revision
}

async fn stream(mut kv: Kv, request: pb::RangeRequest) -> pb::RangeResponse {
    let mut chunks = kv.0.range_stream(request).await.unwrap().into_inner();
    let mut whole = pb::RangeResponse::default();
    while let Some(chunk) = chunks.message().await.unwrap() {
        let chunk = chunk.range_response.expect("a chunk is a response");
        whole.kvs.extend(chunk.kvs);
        whole.header = chunk.header.or(whole.header);
        whole.count += chunk.count;
    }
    whole
}

async fn unary(mut kv: Kv, request: pb::RangeRequest) -> pb::RangeResponse {
    kv.0.range(request).await.unwrap().into_inner()
}

#[tokio::test]
async fn lists_show_what_there_was_at_the_revision_in_their_header() {
    let place = Place::new();
    let server = place.start(&[]);
    let _writers = Writers::start(&server).await;
    let kv = server.kv().await;
    for (name, request) in lists() {
        for _ in 0..20 {
            let ask = (0..AT_ONCE).map(|_| stream(kv.clone(), request.clone()));
            for list in join_all(ask).await {
                check_list(&format!("{name}, by stream"), &list);
            }
        }
        let ask = (0..AT_ONCE).map(|_| unary(kv.clone(), request.clone()));
        for list in join_all(ask).await {
            check_list(name, &list);
        }
    }
}

#[tokio::test]
async fn transactions_that_read_are_of_one_revision() {
    let place = Place::new();
    let server = place.start(&[]);
    let _writers = Writers::start(&server).await;
    let mut kv = server.kv().await;
    let get = |request| pb::RequestOp {
        request: Some(Request::RequestRange(request)),
    };
    let request = pb::TxnRequest {
        success: lists()
            .into_iter()
            .map(|(_, request)| get(request))
            .collect(),
        ..Default::default()
    };
    for _ in 0..100 {
        let answer = kv.0.txn(request.clone()).await.unwrap().into_inner();
        let revision = answer.header.expect("a transaction has a header").revision;
        for op in answer.responses {
            let Some(Response::ResponseRange(list)) = op.response else {
                panic!("a range was answered with {op:?}");
            };
            assert_eq!(check_list("in a transaction", &list), revision);
        }
    }
}

#[tokio::test]
async fn hashes_are_of_the_revision_in_their_header() {
    let place = Place::new();
    let server = place.start(&[]);
    let _writers = Writers::start(&server).await;
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    for _ in 0..50 {
        let answer = maintenance.hash_kv(pb::HashKvRequest::default()).await;
        let answer = answer.unwrap().into_inner();
        let revision = answer.header.expect("a hash has a header").revision;
        assert_eq!(answer.hash_revision, revision);
    }
}

/// A watch stream with one watcher.
struct Watch {
    requests: mpsc::Sender<pb::WatchRequest>,
    responses: tonic::Streaming<pb::WatchResponse>,
}

impl Watch {
    /// Watches `k`; the revision that the creation speaks of.
    async fn create(channel: Channel, start_revision: i64) -> (Watch, i64) {
        let (requests, receiver) = mpsc::channel(4);
        let create = pb::WatchCreateRequest {
            key: "k".into(),
            start_revision,
            ..Default::default()
        };
        send(&requests, RequestUnion::CreateRequest(create)).await;
        let mut client = WatchClient::new(channel);
        let responses = client.watch(ReceiverStream::new(receiver)).await.unwrap();
        let mut watch = Watch {
            requests,
            responses: responses.into_inner(),
        };
        let created = watch.next().await;
        assert!(created.created, "{created:?}");
        let revision = created.header.expect("a creation has a header").revision;
        (watch, revision)
    }

    async fn next(&mut self) -> pb::WatchResponse {
        let next = tokio::time::timeout(PATIENCE, self.responses.message()).await;
        let next = next.expect("waited for a response to a watch").unwrap();
        next.expect("a watch goes on")
    }
}

async fn send(requests: &mpsc::Sender<pb::WatchRequest>, request: RequestUnion) {
    let request = pb::WatchRequest {
        request_union: Some(request),
    };
    requests.send(request).await.expect("the stream is open");
}

/// The events of `response` come behind `seen`, none left out; the revision of the last.
fn follow(seen: i64, response: &pb::WatchResponse) -> i64 {
    let events = response.events.iter().filter_map(|event| event.kv.as_ref());
    events.fold(seen, |seen, kv| {
        assert_eq!(kv.mod_revision, seen + 1, "in {response:?}");
        kv.mod_revision
    })
}

#[tokio::test]
async fn a_watch_from_behind_a_list_misses_nothing() {
    let place = Place::new();
    let server = place.start(&[]);
    let _writers = Writers::start(&server).await;
    let kv = server.kv().await;
    let channel = server.channel().await;
    for (name, request) in lists() {
        for _ in 0..6 {
            let listed = check_list(name, &stream(kv.clone(), request.clone()).await);
            let (mut watch, _) = Watch::create(channel.clone(), listed + 1).await;
            let mut seen = listed;
            while seen < listed + 20 {
                seen = follow(seen, &watch.next().await);
            }
        }
    }
}

#[tokio::test]
async fn a_watch_of_the_present_begins_behind_its_creation() {
    let place = Place::new();
    let server = place.start(&[]);
    let _writers = Writers::start(&server).await;
    let channel = server.channel().await;
    for _ in 0..40 {
        let (mut watch, created) = Watch::create(channel.clone(), 0).await;
        follow(created, &watch.next().await);
    }
}

#[tokio::test]
async fn progress_comes_when_everything_up_to_it_has() {
    let place = Place::new();
    let server = place.start(&[]);
    let _writers = Writers::start(&server).await;
    let (mut watch, mut seen) = Watch::create(server.channel().await, 0).await;
    let mut told = 0;
    while told < 20 {
        let progress = pb::WatchProgressRequest {};
        send(&watch.requests, RequestUnion::ProgressRequest(progress)).await;
        // A watcher that is behind when it is asked says nothing.
        for _ in 0..20 {
            let response = watch.next().await;
            if response.events.is_empty() {
                let revision = response.header.expect("progress has a header").revision;
                assert_eq!(revision, seen, "every revision has an event");
                told += 1;
                break;
            }
            seen = follow(seen, &response);
        }
    }
}

/// Grants lease after lease, puts a key with each, and revokes it: lease N is attached at revision
/// 2N and gone at 2N + 1.
async fn churn_leases(mut kv: Kv, mut leases: LeaseClient<Channel>, newest: Arc<AtomicI64>) {
    for id in 1.. {
        let grant = pb::LeaseGrantRequest { id, ttl: 1000 };
        if leases.lease_grant(grant).await.is_err() {
            return; // The member is gone, and the test with it.
        }
        newest.store(id, Ordering::Relaxed);
        kv.put_with_lease("k", id).await;
        let revoked = leases.lease_revoke(pb::LeaseRevokeRequest { id }).await;
        let revision = revoked.unwrap().into_inner().header.unwrap().revision;
        assert_eq!(revision, 2 * id + 1);
    }
}

#[tokio::test]
async fn answers_about_leases_are_of_the_revision_in_their_header() {
    let place = Place::new();
    let server = place.start(&[]);
    let newest = Arc::new(AtomicI64::new(0));
    let mut leases = LeaseClient::new(server.channel().await);
    let churn = churn_leases(server.kv().await, leases.clone(), Arc::clone(&newest));
    let churn = tokio::spawn(churn);
    until("the first lease", async || {
        newest.load(Ordering::Relaxed) > 0
    })
    .await;
    for _ in 0..400 {
        let list = leases
            .lease_leases(pb::LeaseLeasesRequest {})
            .await
            .unwrap()
            .into_inner();
        let revision = list.header.as_ref().expect("a list has a header").revision;
        let listed: Vec<i64> = list.leases.iter().map(|lease| lease.id).collect();
        match revision % 2 {
            // While a key is attached its lease is there.
            0 => assert_eq!(listed, [revision / 2], "{list:?}"),
            // Behind the end of one the next may have been granted.
            _ => assert!(
                listed.iter().all(|id| *id == (revision + 1) / 2),
                "{list:?}"
            ),
        }

        let id = newest.load(Ordering::Relaxed);
        let look = pb::LeaseTimeToLiveRequest { id, keys: true };
        let found = leases.lease_time_to_live(look).await.unwrap().into_inner();
        let revision = found
            .header
            .as_ref()
            .expect("an answer has a header")
            .revision;
        let keys = found.keys.len();
        match revision.cmp(&(2 * id)) {
            std::cmp::Ordering::Less => assert_eq!(keys, 0, "{found:?}"),
            std::cmp::Ordering::Equal => assert_eq!((keys, found.ttl > 0), (1, true), "{found:?}"),
            std::cmp::Ordering::Greater => assert_eq!(found.ttl, -1, "{found:?}"),
        }

        let renewals = tokio_stream::iter([pb::LeaseKeepAliveRequest { id }]);
        let mut renewals = leases
            .lease_keep_alive(renewals)
            .await
            .unwrap()
            .into_inner();
        let renewed = renewals
            .message()
            .await
            .unwrap()
            .expect("a renewal is answered");
        let revision = renewed
            .header
            .as_ref()
            .expect("an answer has a header")
            .revision;
        match renewed.ttl {
            0 => assert!(revision > 2 * id, "{renewed:?}"),
            _ => assert!(revision <= 2 * id, "{renewed:?}"),
        }
    }
    assert!(!churn.is_finished(), "{:?}", churn.await);
    churn.abort();
}

#[tokio::test]
async fn a_status_is_of_one_moment() {
    let place = Place::new();
    let server = place.start(&[]);
    let mut kv = server.kv().await;
    let mut maintenance = MaintenanceClient::new(server.channel().await);
    let mut status = async || {
        maintenance
            .status(pb::StatusRequest {})
            .await
            .unwrap()
            .into_inner()
    };
    let first = status().await;
    let revision = |status: &pb::StatusResponse| status.header.as_ref().unwrap().revision;
    // Entries that are no writes; there may be more of them later.
    let others = first.raft_applied_index - revision(&first) as u64;
    for _ in 0..200 {
        let written = kv.put("k", "v").await.unwrap();
        let status = status().await;
        assert!(revision(&status) >= written, "{status:?}");
        assert!(
            status.raft_applied_index >= revision(&status) as u64 + others,
            "{status:?}"
        );
        assert!(status.raft_applied_index <= status.raft_index, "{status:?}");
        assert_eq!(status.raft_term, status.header.unwrap().raft_term);
        assert!(status.db_size_in_use <= status.db_size);
    }
}

#[tokio::test]
async fn a_scrape_sees_the_watchers_that_there_are() {
    let place = Place::new();
    let server = place.start(&[]);
    let channel = server.channel().await;
    let mut watches = Vec::new();
    for count in 1..=20 {
        let (watch, _) = Watch::create(channel.clone(), 0).await;
        watches.push(watch);
        let page = server.page("/metrics");
        let expected = format!("\netcd_debugging_mvcc_watcher_total {count}\n");
        assert!(
            page.contains(&expected),
            "{count} watchers were created:\n{page}"
        );
        let expected = format!("\netcd_debugging_mvcc_watch_stream_total {count}\n");
        assert!(
            page.contains(&expected),
            "{count} streams were opened:\n{page}"
        );
    }
}
