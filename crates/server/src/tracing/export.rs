//! Sends spans to the collector (`--distributed-tracing-address`) over gRPC, without TLS, as etcd.
//!
//! In batches: when there are so many, or a few seconds after the first. A collector that is away
//! costs spans and nothing else: while a batch waits for it the queue fills, and what does not
//! fit is dropped.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use retcd_proto::tracepb::trace_service_client::TraceServiceClient;
use retcd_proto::tracepb::{
    ExportTraceServiceRequest, InstrumentationScope, Resource, ResourceSpans, ScopeSpans, Span,
    span,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tonic::transport::{Channel, Endpoint};

use super::Tracer;
use crate::config::Tracing;
use crate::log::Text;

/// As in Go's SDK.
const BATCH_MAX: usize = 512;
const BATCH_DELAY: Duration = Duration::from_secs(5);
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);
/// For what is left when the member stops.
const LAST_EXPORT_TIMEOUT: Duration = Duration::from_secs(1);

/// Sends the spans of a [`Tracer`].
pub(crate) struct Exporter {
    tracing: Tracing,
    tracer: Tracer,
    spans: mpsc::Receiver<Vec<Span>>,
}

impl Exporter {
    pub(super) fn new(
        tracing: &Tracing,
        tracer: Tracer,
        spans: mpsc::Receiver<Vec<Span>>,
    ) -> Exporter {
        Exporter {
            tracing: tracing.clone(),
            tracer,
            spans,
        }
    }

    /// Sends until `ended`, then what is left.
    pub(crate) async fn run(mut self, ended: impl Future<Output = ()>) {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.tracing.address));
        let endpoint = match endpoint {
            Ok(endpoint) => endpoint.connect_timeout(EXPORT_TIMEOUT),
            Err(error) => {
                crate::error!("distributed tracing has no collector"; "address" => &self.tracing.address,
                    "error" => Text(&error));
                return;
            }
        };
        let mut client = TraceServiceClient::new(endpoint.connect_lazy());
        let mut healthy = true;
        let mut batch: Vec<Span> = Vec::new();
        let mut due = Instant::now();
        tokio::pin!(ended);
        loop {
            tokio::select! {
                spans = self.spans.recv() => {
                    if batch.is_empty() {
                        due = Instant::now() + BATCH_DELAY;
                    }
                    batch.extend(spans.into_iter().flatten());
                    if batch.len() < BATCH_MAX {
                        continue;
                    }
                }
                () = sleep_until(due), if !batch.is_empty() => {}
                () = &mut ended => break,
            }
            let batch = std::mem::take(&mut batch);
            let exported = self.export(&mut client, batch, EXPORT_TIMEOUT);
            let result = tokio::select! {
                result = exported => result,
                () = &mut ended => return,
            };
            self.tell(&mut healthy, result);
        }
        while let Ok(spans) = self.spans.try_recv() {
            batch.extend(spans);
        }
        if !batch.is_empty() {
            let result = self.export(&mut client, batch, LAST_EXPORT_TIMEOUT).await;
            self.tell(&mut healthy, result);
        }
    }

    async fn export(
        &self,
        client: &mut TraceServiceClient<Channel>,
        spans: Vec<Span>,
        timeout: Duration,
    ) -> Result<(), String> {
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: super::resource(&self.tracing),
                }),
                scope_spans: by_scope(spans),
            }],
        };
        let response = tokio::time::timeout(timeout, client.export(request)).await;
        let response = response.map_err(|_| "the collector does not answer".to_owned())?;
        let response = response.map_err(|status| status.to_string())?;
        match response.into_inner().partial_success {
            Some(partial) if partial.rejected_spans > 0 => Err(format!(
                "the collector has rejected {} spans: {}",
                partial.rejected_spans, partial.error_message
            )),
            _ => Ok(()),
        }
    }

    /// Once for each time that it begins or ceases to work.
    fn tell(&self, healthy: &mut bool, result: Result<(), String>) {
        let was_healthy = std::mem::replace(healthy, result.is_ok());
        let dropped = self.tracer.0.dropped.load(Relaxed);
        match result {
            Err(error) if was_healthy => {
                crate::warn!("failed to export traces"; "address" => &self.tracing.address, "error" => error,
                    "dropped-spans" => dropped);
            }
            Ok(()) if !was_healthy => {
                crate::info!("exporting traces again"; "address" => &self.tracing.address, "dropped-spans" => dropped);
            }
            _ => {}
        }
    }
}

/// Calls under the name of the library that makes their spans in etcd, operations under etcd's own.
fn by_scope(spans: Vec<Span>) -> Vec<ScopeSpans> {
    let is_call = |span: &Span| span.kind() == span::SpanKind::Server;
    let (calls, operations): (Vec<_>, Vec<_>) = spans.into_iter().partition(is_call);
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
