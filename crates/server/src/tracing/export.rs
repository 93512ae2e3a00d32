//! Sends spans to the collector (`--distributed-tracing-address`) over gRPC, without TLS, as etcd.
//!
//! In batches: when there are so many, and every few seconds. A collector that is away costs spans
//! and nothing else: until it is tried again the queue fills, and calls that find it full have no
//! spans.

use std::io;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::future::BoxFuture;
use hyper_util::rt::TokioIo;
use retcd_proto::tracepb::trace_service_client::TraceServiceClient;
use retcd_proto::tracepb::{
    ExportTraceServiceRequest, InstrumentationScope, Resource, ResourceSpans, ScopeSpans, Span,
    span,
};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::sleep;
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service;

use super::Tracer;
use crate::config::Tracing;
use crate::log::Text;
use crate::workers::Workers;

/// As in Go's SDK, until a batch that is not full is sent.
const BATCH_DELAY: Duration = Duration::from_secs(5);
/// As in Go's SDK, until a collector that was away is tried again.
const RETRY_DELAY: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// Of a collector's address without one.
const HTTP_PORT: u16 = 80;
/// For what is left when the member stops.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends the spans of a [`Tracer`].
pub(crate) struct Exporter {
    tracing: Tracing,
    tracer: Tracer,
    workers: Workers,
}

/// Why spans have not arrived.
#[derive(Debug, Error)]
enum ExportError {
    #[error("{0}")]
    Away(String),
    #[error("the collector has rejected {count} spans: {text}")]
    Rejected { count: i64, text: String },
}

impl Exporter {
    /// The name of the collector is looked up by `workers`.
    pub(super) fn new(tracing: &Tracing, tracer: Tracer, workers: Workers) -> Exporter {
        Exporter {
            tracing: tracing.clone(),
            tracer,
            workers,
        }
    }

    /// Sends until `ended`, then what is left.
    pub(crate) async fn run(self, ended: impl Future<Output = ()>) {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.tracing.address));
        let endpoint = match endpoint {
            Ok(endpoint) => endpoint.connect_timeout(EXPORT_TIMEOUT),
            Err(error) => {
                crate::error!("distributed tracing has no collector"; "address" => &self.tracing.address,
                    "error" => Text(&error));
                return;
            }
        };
        let connector = Connector(self.workers.clone());
        let channel = endpoint.connect_with_connector_lazy(connector);
        let mut client = TraceServiceClient::new(channel);
        let mut healthy = true;
        let queue = &self.tracer.0.queue;
        tokio::pin!(ended);
        loop {
            tokio::select! {
                () = queue.wait_for_batch() => {}
                () = sleep(BATCH_DELAY) => {}
                () = &mut ended => break,
            }
            let calls = queue.take();
            if calls.is_empty() {
                continue;
            }
            let exported = self.export(&mut client, calls, EXPORT_TIMEOUT);
            let result = tokio::select! {
                result = exported => result,
                () = &mut ended => return,
            };
            self.tell(&mut healthy, &result);
            if let Err(ExportError::Away(_)) = result {
                tokio::select! {
                    () = sleep(RETRY_DELAY) => {}
                    () = &mut ended => break,
                }
            }
        }
        let calls = queue.take();
        if !calls.is_empty() {
            let exported = self.export(&mut client, calls, LAST_EXPORT_TIMEOUT);
            let result = exported.await;
            self.tell(&mut healthy, &result);
        }
    }

    async fn export(
        &self,
        client: &mut TraceServiceClient<Channel>,
        calls: Vec<Vec<Span>>,
        timeout: Duration,
    ) -> Result<(), ExportError> {
        let count = calls.len();
        let spans = calls.into_iter().flatten();
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: super::resource(&self.tracing),
                }),
                scope_spans: by_scope(spans),
            }],
        };
        let response = match tokio::time::timeout(timeout, client.export(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(status.to_string()),
            Err(_) => Err("the collector does not answer".to_owned()),
        };
        let response = response.map_err(|text| {
            self.tracer.0.queue.drop_calls(count);
            ExportError::Away(text)
        })?;
        match response.partial_success {
            Some(partial) if partial.rejected_spans > 0 => Err(ExportError::Rejected {
                count: partial.rejected_spans,
                text: partial.error_message,
            }),
            _ => Ok(()),
        }
    }

    /// Once for each time that it begins or ceases to work.
    fn tell(&self, healthy: &mut bool, result: &Result<(), ExportError>) {
        let was_healthy = std::mem::replace(healthy, result.is_ok());
        let dropped = self.tracer.0.queue.dropped_calls();
        match result {
            Err(error) if was_healthy => {
                crate::warn!("failed to export traces"; "address" => &self.tracing.address,
                    "error" => Text(error), "dropped-calls" => dropped);
            }
            Ok(()) if !was_healthy => {
                crate::info!("exporting traces again"; "address" => &self.tracing.address, "dropped-calls" => dropped);
            }
            _ => {}
        }
    }
}

/// Connects to the collector. What tonic has for that would make a thread to look up its name.
struct Connector(Workers);

impl Service<Uri> for Connector {
    type Response = TokioIo<TcpStream>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<TokioIo<TcpStream>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let workers = self.0.clone();
        Box::pin(async move {
            let host = uri.host().unwrap_or_default();
            let port = uri.port_u16().unwrap_or(HTTP_PORT);
            let addresses = workers.addresses(&format!("{host}:{port}")).await?;
            let socket = TcpStream::connect(&*addresses).await?;
            // Only latency is lost without it.
            let _ = socket.set_nodelay(true);
            Ok(TokioIo::new(socket))
        })
    }
}

/// Calls under the name of the library that makes their spans in etcd, operations under etcd's own.
fn by_scope(spans: impl Iterator<Item = Span>) -> Vec<ScopeSpans> {
    let is_call = |span: &Span| span.kind() == span::SpanKind::Server;
    let (calls, operations): (Vec<_>, Vec<_>) = spans.partition(is_call);
    let scope = |name: &str, spans| ScopeSpans {
        scope: Some(InstrumentationScope {
            name: name.to_owned(),
            version: String::new(),
        }),
        spans,
    };
    let calls = scope(
        "go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc",
        calls,
    );
    let operations = scope("go.etcd.io/etcd", operations);
    let mut scopes = vec![calls, operations];
    scopes.retain(|scope| !scope.spans.is_empty());
    scopes
}
