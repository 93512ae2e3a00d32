//! The generator against a server in this process: a real gRPC stack over a keyspace that knows only what the workloads send.
//!
//! What a user would notice: every workload counts exactly the operations that were asked for, what was filled is really there,
//! and refusals, missing keys and dead servers are told apart.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::kv_server::{Kv, KvServer};
use retcd_proto::etcdserverpb::lease_server::{Lease, LeaseServer};
use retcd_proto::etcdserverpb::watch_server::{Watch, WatchServer};
use retcd_proto::mvccpb;
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::error::Error;
use crate::fill::{fill, fill_if_missing};
use crate::keys::KeySpace;
use crate::load::{self, Extent, Outcome, Plan};
use crate::progress::Progress;

type Events = UnboundedSender<Result<pb::WatchResponse, Status>>;
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// What the server in this process knows.
#[derive(Default)]
struct Keyspace {
    revision: i64,
    records: BTreeMap<Bytes, mvccpb::KeyValue>,
    watchers: Vec<Events>,
}

impl Keyspace {
    fn put(&mut self, put: pb::PutRequest) {
        self.revision += 1;
        let record = mvccpb::KeyValue {
            key: put.key.clone(),
            value: put.value,
            mod_revision: self.revision,
            ..mvccpb::KeyValue::default()
        };
        self.records.insert(put.key, record.clone());
        let response = pb::WatchResponse {
            events: vec![mvccpb::Event {
                kv: Some(record),
                ..mvccpb::Event::default()
            }],
            ..pb::WatchResponse::default()
        };
        self.watchers
            .retain(|watcher| watcher.send(Ok(response.clone())).is_ok());
    }

    fn range(&self, range: &pb::RangeRequest) -> pb::RangeResponse {
        let end = if range.range_end.is_empty() {
            [&range.key[..], &[0]].concat().into()
        } else {
            range.range_end.clone()
        };
        let limit = if range.limit == 0 {
            usize::MAX
        } else {
            range.limit as usize
        };
        let kvs: Vec<_> = self
            .records
            .range(range.key.clone()..end)
            .map(|(_, record)| record.clone())
            .take(limit)
            .collect();
        pb::RangeResponse {
            count: kvs.len() as i64,
            kvs: if range.count_only { Vec::new() } else { kvs },
            ..pb::RangeResponse::default()
        }
    }

    fn holds(&self, compare: &pb::Compare) -> bool {
        let found = self
            .records
            .get(&compare.key)
            .map_or(0, |record| record.mod_revision);
        compare.target_union == Some(pb::compare::TargetUnion::ModRevision(found))
    }
}

#[derive(Clone, Default)]
struct Model {
    keyspace: Arc<Mutex<Keyspace>>,
    leases: Arc<AtomicU64>,
    refusing: bool,
}

impl Model {
    fn keyspace(&self) -> std::sync::MutexGuard<'_, Keyspace> {
        self.keyspace.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tonic::async_trait]
impl Kv for Model {
    type RangeStreamStream = Replies<pb::RangeStreamResponse>;

    async fn range(
        &self,
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<pb::RangeResponse>, Status> {
        Ok(Response::new(self.keyspace().range(request.get_ref())))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        if self.refusing {
            return Err(Status::resource_exhausted("etcdserver: too many requests"));
        }
        self.keyspace().put(request.into_inner());
        Ok(Response::new(pb::PutResponse::default()))
    }

    async fn txn(
        &self,
        request: Request<pb::TxnRequest>,
    ) -> Result<Response<pb::TxnResponse>, Status> {
        let (request, mut keyspace) = (request.into_inner(), self.keyspace());
        let succeeded = request
            .compare
            .iter()
            .all(|compare| keyspace.holds(compare));
        for operation in if succeeded {
            request.success
        } else {
            request.failure
        } {
            if let Some(pb::request_op::Request::RequestPut(put)) = operation.request {
                keyspace.put(put);
            }
        }
        Ok(Response::new(pb::TxnResponse {
            succeeded,
            ..pb::TxnResponse::default()
        }))
    }

    async fn range_stream(
        &self,
        _: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        Err(Status::unimplemented("no workload sends it"))
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("no workload sends it"))
    }

    async fn compact(
        &self,
        _: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        Err(Status::unimplemented("no workload sends it"))
    }
}

#[tonic::async_trait]
impl Watch for Model {
    type WatchStream = UnboundedReceiverStream<Result<pb::WatchResponse, Status>>;

    async fn watch(
        &self,
        request: Request<Streaming<pb::WatchRequest>>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let (events, stream) = mpsc::unbounded_channel();
        let (model, mut requests) = (self.clone(), request.into_inner());
        tokio::spawn(async move {
            while let Some(Ok(_)) = requests.next().await {
                let created = pb::WatchResponse {
                    created: true,
                    ..pb::WatchResponse::default()
                };
                let mut keyspace = model.keyspace();
                drop(events.send(Ok(created)));
                keyspace.watchers.push(events.clone());
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(stream)))
    }
}

#[tonic::async_trait]
impl Lease for Model {
    type LeaseKeepAliveStream = Replies<pb::LeaseKeepAliveResponse>;

    async fn lease_grant(
        &self,
        request: Request<pb::LeaseGrantRequest>,
    ) -> Result<Response<pb::LeaseGrantResponse>, Status> {
        Ok(Response::new(pb::LeaseGrantResponse {
            id: self.leases.fetch_add(1, Ordering::Relaxed) as i64 + 1,
            ttl: request.get_ref().ttl,
            ..pb::LeaseGrantResponse::default()
        }))
    }

    async fn lease_keep_alive(
        &self,
        request: Request<Streaming<pb::LeaseKeepAliveRequest>>,
    ) -> Result<Response<Self::LeaseKeepAliveStream>, Status> {
        let alive = |id| pb::LeaseKeepAliveResponse {
            id,
            ttl: 60,
            ..pb::LeaseKeepAliveResponse::default()
        };
        let replies = request
            .into_inner()
            .map(move |request| request.map(|request| alive(request.id)));
        Ok(Response::new(Box::pin(replies)))
    }

    async fn lease_revoke(
        &self,
        _: Request<pb::LeaseRevokeRequest>,
    ) -> Result<Response<pb::LeaseRevokeResponse>, Status> {
        Err(Status::unimplemented("no workload sends it"))
    }

    async fn lease_time_to_live(
        &self,
        _: Request<pb::LeaseTimeToLiveRequest>,
    ) -> Result<Response<pb::LeaseTimeToLiveResponse>, Status> {
        Err(Status::unimplemented("no workload sends it"))
    }

    async fn lease_leases(
        &self,
        _: Request<pb::LeaseLeasesRequest>,
    ) -> Result<Response<pb::LeaseLeasesResponse>, Status> {
        Err(Status::unimplemented("no workload sends it"))
    }
}

/// Serves `model` until the test process ends.
fn serve(model: &Model) -> SocketAddr {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let model = model.clone();
    std::thread::spawn(move || {
        load::runtime().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            // tonic leaves accepted sockets as they are: with Nagle's algorithm each stream message waits 40 ms for an ACK.
            let sockets = TcpListenerStream::new(listener).map(|socket| {
                let socket = socket?;
                socket.set_nodelay(true).map(|()| socket)
            });
            tonic::transport::Server::builder()
                .add_service(KvServer::new(model.clone()))
                .add_service(WatchServer::new(model.clone()))
                .add_service(LeaseServer::new(model))
                .serve_with_incoming(sockets)
                .await
                .unwrap();
        });
    });
    address
}

fn plan(endpoint: SocketAddr, workload: &str, operations: u64) -> Plan {
    Plan {
        endpoint: endpoint.to_string(),
        workload: workload.parse().unwrap(),
        clients: 12,
        connections: 3,
        threads: 2,
        streams: 2,
        writers: 2,
        keys: KeySpace {
            prefix: "/smoke/".into(),
            count: 250,
        },
        value_size: 64,
        warmup: Duration::ZERO,
        extent: Extent::Operations(operations),
        seed: 7,
    }
}

fn run(plan: &Plan) -> Result<Outcome<()>, Error> {
    load::run(plan, &Progress::new(), || Ok(()))
}

#[test]
fn every_workload_counts_the_operations_that_were_asked_for() {
    let model = Model::default();
    let endpoint = serve(&model);
    let shape = plan(endpoint, "put", 1);
    fill(
        &shape.endpoint,
        &shape.keys,
        shape.value_size,
        &Progress::new(),
    )
    .unwrap();
    assert_eq!(model.keyspace().records.len(), 250);
    for workload in [
        "put",
        "put@1",
        "get",
        "get-serializable",
        "list-250",
        "page-20",
        "txn",
        "lease-grant",
        "lease-keepalive",
    ] {
        let outcome = run(&plan(endpoint, workload, 500)).unwrap();
        let refusal = outcome.first_error.as_ref().map(|error| error.to_string());
        assert_eq!(
            (outcome.latencies.count(), outcome.errors, refusal),
            (500, 0, None),
            "{workload}"
        );
        assert!(outcome.rate() > 0.0, "{workload}");
    }
    assert!(model.leases.load(Ordering::Relaxed) >= 500);
}

#[test]
fn every_watcher_is_served_and_counted() {
    let model = Model::default();
    let outcome = run(&plan(serve(&model), "watch-5", 500)).unwrap();
    assert_eq!(outcome.latencies.count(), 500);
    // Each put makes five events; those of two writers may be under way.
    let puts = model.keyspace().revision;
    assert!((100..=110).contains(&puts), "{puts} puts");
}

#[test]
fn keys_are_filled_only_if_they_are_missing() {
    let model = Model::default();
    let plan = plan(serve(&model), "get", 1);
    let fill = || {
        fill_if_missing(
            &plan.endpoint,
            &plan.keys,
            plan.value_size,
            &Progress::new(),
        )
        .unwrap()
    };
    fill();
    let revision = model.keyspace().revision;
    assert_eq!(revision, 250);
    fill();
    assert_eq!(model.keyspace().revision, revision);
    let removed = plan.keys.key(3);
    model.keyspace().records.remove(&removed);
    fill();
    assert!(model.keyspace().records.contains_key(&removed));
}

#[test]
fn a_time_limit_ends_the_load() {
    let mut plan = plan(serve(&Model::default()), "put", 1);
    plan.warmup = Duration::from_millis(20);
    plan.extent = Extent::Time(Duration::from_millis(50));
    let outcome = run(&plan).unwrap();
    assert!(outcome.latencies.count() > 0);
    assert!(
        outcome.elapsed >= Duration::from_millis(50),
        "{:?}",
        outcome.elapsed
    );
}

#[test]
fn failures_are_told_apart() {
    let refusing = Model {
        refusing: true,
        ..Model::default()
    };
    let endpoint = serve(&refusing);
    let failure = |plan: &Plan| run(plan).map(drop).unwrap_err().to_string();
    let refused = failure(&plan(endpoint, "put", 20));
    assert!(
        refused.contains("every call failed") && refused.contains("too many requests"),
        "{refused}"
    );
    let empty = failure(&plan(endpoint, "get", 20));
    assert!(empty.contains("where the values alone have 64"), "{empty}");
    let closed = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap();
    let dead = failure(&plan(closed, "put", 20));
    assert!(dead.contains("cannot connect to 127.0.0.1:"), "{dead}");
}
