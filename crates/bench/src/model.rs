//! An in-process server for tests: a real gRPC stack over a keyspace that supports only what the
//! workloads send.

mod maintenance;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::kv_server::{Kv, KvServer};
use retcd_proto::etcdserverpb::lease_server::{Lease, LeaseServer};
use retcd_proto::etcdserverpb::maintenance_server::MaintenanceServer;
use retcd_proto::etcdserverpb::watch_server::{Watch, WatchServer};
use retcd_proto::healthpb::health_server::HealthServer;
use retcd_proto::mvccpb;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::sync::mpsc::{self, UnboundedSender};
use tokio_rustls::TlsAcceptor;
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

use crate::certificates::Certificates;
use crate::load;
use crate::target::Target;

type Events = UnboundedSender<Result<pb::WatchResponse, Status>>;
type Replies<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The state of a server.
#[derive(Default)]
pub(crate) struct Keyspace {
    pub(crate) revision: i64,
    pub(crate) records: BTreeMap<Bytes, mvccpb::KeyValue>,
    /// The revision of each compaction.
    pub(crate) compactions: Vec<i64>,
    pub(crate) defragmentations: u64,
    pub(crate) snapshots: u64,
    watchers: Vec<Watcher>,
    /// The event of each revision.
    history: Vec<pb::WatchResponse>,
}

struct Watcher {
    create: pb::WatchCreateRequest,
    events: Events,
}

impl Watcher {
    fn watches(&self, key: &Bytes) -> bool {
        let (first, end) = (&self.create.key, &self.create.range_end);
        key == first || (!end.is_empty() && (first..end).contains(&key))
    }
}

impl Keyspace {
    pub(crate) fn put(&mut self, put: pb::PutRequest) {
        self.revision += 1;
        let record = mvccpb::KeyValue {
            key: put.key.clone(),
            value: put.value,
            mod_revision: self.revision,
            ..mvccpb::KeyValue::default()
        };
        self.records.insert(put.key, record.clone());
        let key = record.key.clone();
        let response = pb::WatchResponse {
            events: vec![mvccpb::Event {
                kv: Some(record),
                ..mvccpb::Event::default()
            }],
            ..pb::WatchResponse::default()
        };
        self.history.push(response.clone());
        self.watchers.retain(|watcher| {
            !watcher.watches(&key) || watcher.events.send(Ok(response.clone())).is_ok()
        });
    }

    /// The first key of each watch.
    pub(crate) fn watched(&self) -> Vec<Bytes> {
        let first = |watcher: &Watcher| watcher.create.key.clone();
        self.watchers.iter().map(first).collect()
    }

    /// Cancels all watches.
    pub(crate) fn cancel_watches(&mut self) {
        for watcher in self.watchers.drain(..) {
            let cancelled = pb::WatchResponse {
                canceled: true,
                ..pb::WatchResponse::default()
            };
            drop(watcher.events.send(Ok(cancelled)));
        }
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
        let mut found = self.records.range(range.key.clone()..end);
        let kvs: Vec<_> = found
            .by_ref()
            .map(|(_, record)| record.clone())
            .take(limit)
            .collect();
        pb::RangeResponse {
            header: Some(pb::ResponseHeader {
                revision: self.revision,
                ..pb::ResponseHeader::default()
            }),
            more: found.next().is_some(),
            count: kvs.len() as i64,
            kvs: if range.count_only { Vec::new() } else { kvs },
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

/// A member; clones share it.
#[derive(Clone, Default)]
pub(crate) struct Model {
    keyspace: Arc<Mutex<Keyspace>>,
    pub(crate) leases: Arc<AtomicU64>,
    /// The number of keep-alives answered.
    pub(crate) keep_alives: Arc<AtomicU64>,
    /// The number of connections accepted.
    pub(crate) connections: Arc<AtomicU64>,
    /// The number of transactions still to be answered with "no leader".
    leaderless: Arc<AtomicU64>,
    refusing: bool,
    token: Option<&'static str>,
}

impl Model {
    /// A server that refuses every put.
    pub(crate) fn refusing() -> Self {
        Self {
            refusing: true,
            ..Self::default()
        }
    }

    /// A server without a leader for the first `txns` transactions.
    pub(crate) fn leaderless(txns: u64) -> Self {
        Self {
            leaderless: Arc::new(AtomicU64::new(txns)),
            ..Self::default()
        }
    }

    /// A server that refuses gets and puts without `token`.
    pub(crate) fn wanting(token: &'static str) -> Self {
        Self {
            token: Some(token),
            ..Self::default()
        }
    }

    fn check_token<T>(&self, request: &Request<T>) -> Result<(), Status> {
        let token = request.metadata().get("token");
        match self.token {
            Some(wanted) if token.is_none_or(|token| token != wanted) => {
                Err(Status::unauthenticated("etcdserver: invalid auth token"))
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn keyspace(&self) -> std::sync::MutexGuard<'_, Keyspace> {
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
        self.check_token(&request)?;
        Ok(Response::new(self.keyspace().range(request.get_ref())))
    }

    async fn put(
        &self,
        request: Request<pb::PutRequest>,
    ) -> Result<Response<pb::PutResponse>, Status> {
        self.check_token(&request)?;
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
        let one_less = |left: u64| left.checked_sub(1);
        if self
            .leaderless
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_less)
            .is_ok()
        {
            return Err(Status::unavailable("etcdserver: no leader"));
        }
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
        request: Request<pb::RangeRequest>,
    ) -> Result<Response<Self::RangeStreamStream>, Status> {
        const PART_LEN: usize = 100;
        self.check_token(&request)?;
        let whole = self.keyspace().range(request.get_ref());
        let part = |kvs: &[mvccpb::KeyValue]| pb::RangeStreamResponse {
            range_response: Some(pb::RangeResponse {
                kvs: kvs.to_vec(),
                ..pb::RangeResponse::default()
            }),
        };
        let parts: Vec<_> = whole
            .kvs
            .chunks(PART_LEN)
            .map(|kvs| Ok(part(kvs)))
            .collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn delete_range(
        &self,
        _: Request<pb::DeleteRangeRequest>,
    ) -> Result<Response<pb::DeleteRangeResponse>, Status> {
        Err(Status::unimplemented("no workload sends it"))
    }

    async fn compact(
        &self,
        request: Request<pb::CompactionRequest>,
    ) -> Result<Response<pb::CompactionResponse>, Status> {
        let revision = request.get_ref().revision;
        self.keyspace().compactions.push(revision);
        Ok(Response::new(pb::CompactionResponse::default()))
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
            while let Some(Ok(request)) = requests.next().await {
                let Some(pb::watch_request::RequestUnion::CreateRequest(create)) =
                    request.request_union
                else {
                    continue;
                };
                let created = pb::WatchResponse {
                    created: true,
                    ..pb::WatchResponse::default()
                };
                let mut keyspace = model.keyspace();
                drop(events.send(Ok(created)));
                if create.start_revision > 0 {
                    let first = create.start_revision as usize - 1;
                    for past in &keyspace.history[first..] {
                        drop(events.send(Ok(past.clone())));
                    }
                }
                keyspace.watchers.push(Watcher {
                    create,
                    events: events.clone(),
                });
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
        let count = Arc::clone(&self.keep_alives);
        let replies = request.into_inner().map(move |request| {
            count.fetch_add(1, Ordering::Relaxed);
            request.map(|request| alive(request.id))
        });
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
pub(crate) fn serve(model: &Model) -> SocketAddr {
    let (listener, address) = listen();
    let model = model.clone();
    std::thread::spawn(move || {
        load::runtime().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            // tonic does not set TCP_NODELAY on accepted sockets: with Nagle's algorithm each
            // stream message waits 40 ms for an ACK.
            let connections = Arc::clone(&model.connections);
            let sockets = TcpListenerStream::new(listener).map(move |socket| {
                let socket = socket?;
                connections.fetch_add(1, Ordering::Relaxed);
                socket.set_nodelay(true).map(|()| socket)
            });
            tonic::transport::Server::builder()
                .add_service(KvServer::new(model.clone()))
                .add_service(WatchServer::new(model.clone()))
                .add_service(LeaseServer::new(model.clone()))
                .add_service(MaintenanceServer::new(model.clone()))
                .add_service(HealthServer::new(model))
                .serve_with_incoming(sockets)
                .await
                .unwrap();
        });
    });
    address
}

/// Serves `model` over TLS, configured by a server's flags, until the test process ends: a proxy in
/// front of [`serve`].
pub(crate) fn serve_tls(model: &Model, certificates: &Certificates) -> SocketAddr {
    let (plain, acceptor) = (serve(model), acceptor(&certificates.server_args()));
    let (listener, address) = listen();
    std::thread::spawn(move || {
        load::runtime().unwrap().block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let acceptor = acceptor.clone();
                tokio::spawn(async move {
                    let mut sealed = acceptor.accept(socket).await?;
                    let mut inner = tokio::net::TcpStream::connect(plain).await?;
                    inner.set_nodelay(true)?;
                    tokio::io::copy_bidirectional(&mut sealed, &mut inner).await
                });
            }
        });
    });
    address
}

fn acceptor(args: &[String]) -> TlsAcceptor {
    let file = |flag| args.iter().find_map(|arg| arg.strip_prefix(flag)).unwrap();
    let certificates = |flag| -> Vec<_> {
        let read = CertificateDer::pem_file_iter(file(flag)).unwrap();
        read.collect::<Result<_, _>>().unwrap()
    };
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates("--trusted-ca-file="));
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier =
        WebPkiClientVerifier::builder_with_provider(roots.into(), Arc::clone(&provider)).build();
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.unwrap())
        .with_single_cert(
            certificates("--cert-file="),
            PrivateKeyDer::from_pem_file(file("--key-file=")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// The cluster whose members listen at `endpoints`.
pub(crate) fn target_at(endpoints: &[SocketAddr]) -> Target {
    let endpoints: Vec<_> = endpoints.iter().map(ToString::to_string).collect();
    Target::new(&endpoints, None).unwrap()
}

pub(crate) fn listen() -> (std::net::TcpListener, SocketAddr) {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// A port that refuses connections.
pub(crate) fn closed_port() -> SocketAddr {
    listen().1
}
