//! A collector of traces, as the members' operator runs one: which spans come, of which calls, and
//! whose they are. That names and attributes are etcd's is compared in `conformance/go`.

#![expect(clippy::disallowed_methods, reason = "a test may have a thread")]

use std::collections::BTreeMap;
use std::time::Duration;

use retcd_proto::etcdserverpb::{PutRequest, RangeRequest};
use retcd_proto::tracepb::any_value::Value;
use retcd_proto::tracepb::trace_service_server::{TraceService, TraceServiceServer};
use retcd_proto::tracepb::{
    ExportTraceServiceRequest, ExportTraceServiceResponse, KeyValue, ResourceSpans, Span, span,
};
use rustix::process::Signal;
use tokio::net::TcpListener;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use super::place::Place;

const PATIENCE: Duration = Duration::from_secs(60);

struct Collector(UnboundedSender<ResourceSpans>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        for spans in request.into_inner().resource_spans {
            let _ = self.0.send(spans);
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

/// A collector's address, and what comes to it.
async fn collector() -> (String, UnboundedReceiver<ResourceSpans>) {
    let (sender, spans) = unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let incoming = TcpIncoming::from(listener);
    let server = tonic::transport::Server::builder()
        .add_service(TraceServiceServer::new(Collector(sender)))
        .serve_with_incoming(incoming);
    tokio::spawn(server);
    (address, spans)
}

fn texts(attributes: &[KeyValue]) -> BTreeMap<&str, String> {
    let text = |attribute: &KeyValue| match attribute.value.clone().unwrap().value.unwrap() {
        Value::StringValue(text) => text,
        Value::IntValue(number) => number.to_string(),
        Value::BoolValue(flag) => flag.to_string(),
    };
    let pairs = attributes.iter();
    pairs
        .map(|attribute| (attribute.key.as_str(), text(attribute)))
        .collect()
}

/// All spans that a stopped member has sent.
async fn all(mut spans: UnboundedReceiver<ResourceSpans>) -> (BTreeMap<String, String>, Vec<Span>) {
    let mut resource = BTreeMap::new();
    let mut all = Vec::new();
    let first = tokio::time::timeout(PATIENCE, spans.recv()).await;
    let mut next = first.expect("spans come");
    while let Some(sent) = next {
        let attributes = sent.resource.unwrap().attributes;
        let texts = texts(&attributes).into_iter();
        resource.extend(texts.map(|(key, value)| (key.to_owned(), value)));
        all.extend(sent.scope_spans.into_iter().flat_map(|scope| scope.spans));
        next = spans.try_recv().ok();
    }
    (resource, all)
}

#[track_caller]
fn named<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let found: Vec<&Span> = spans.iter().filter(|span| span.name == name).collect();
    let [span] = found[..] else {
        panic!("{} spans {name} in {spans:#?}", found.len());
    };
    span
}

#[tokio::test]
async fn a_call_is_traced_through_all_its_stages() {
    let (address, spans) = collector().await;
    let place = Place::new();
    let server = place.start(&[
        "--enable-distributed-tracing",
        &format!("--distributed-tracing-address={address}"),
        "--distributed-tracing-service-name=store",
        "--distributed-tracing-instance-id=m1",
        "--distributed-tracing-sampling-rate=1000000",
    ]);
    let mut kv = server.kv().await;
    let mut put = Request::new(PutRequest {
        key: "k".into(),
        value: "v".into(),
        ..Default::default()
    });
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    put.metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    kv.0.put(put).await.unwrap();
    kv.0.range(RangeRequest {
        key: "k".into(),
        ..Default::default()
    })
    .await
    .unwrap();
    // A caller who does not record has no spans here either.
    let mut unsampled = Request::new(PutRequest {
        key: "other".into(),
        ..Default::default()
    });
    let parent = parent.replace("-01", "-00");
    unsampled
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    kv.0.put(unsampled).await.unwrap();
    kv.0.range(RangeRequest::default()).await.unwrap_err();
    let port = server.port().to_string();
    let ended = tokio::task::spawn_blocking(move || server.end_with(Signal::TERM));
    ended.await.unwrap();

    let (resource, spans) = all(spans).await;
    assert_eq!(resource["service.name"], "store");
    assert_eq!(resource["service.instance.id"], "m1");
    let call = named(&spans, "etcdserverpb.KV/Put");
    assert_eq!(call.trace_id[..3], [0x0a, 0xf7, 0x65]);
    assert_eq!(call.parent_span_id[..3], [0xb7, 0xad, 0x6b]);
    assert_eq!(call.kind(), span::SpanKind::Server);
    let attributes = texts(&call.attributes);
    assert_eq!(attributes["rpc.method"], "etcdserverpb.KV/Put");
    assert_eq!(attributes["rpc.system.name"], "grpc");
    assert_eq!(attributes["rpc.response.status_code"], "OK");
    assert_eq!(attributes["server.port"], port);
    let operation = named(&spans, "put");
    assert_eq!(operation.parent_span_id, call.span_id);
    assert_eq!(texts(&operation.attributes)["key"], "k");
    let events: Vec<&str> = operation
        .events
        .iter()
        .map(|event| event.name.as_str())
        .collect();
    assert_eq!(events, ["Send raft proposal", "Receive raft result"]);
    let mut at = operation.start_time_unix_nano;
    for stage in [
        "waited for quorum",
        "waited for the apply thread",
        "executed",
    ] {
        let stage = named(&spans, stage);
        assert_eq!(stage.parent_span_id, operation.span_id, "{stage:?}");
        assert_eq!(stage.trace_id, call.trace_id);
        assert!(at <= stage.start_time_unix_nano, "{stage:?} after {at}");
        assert!(
            stage.start_time_unix_nano <= stage.end_time_unix_nano,
            "{stage:?}"
        );
        at = stage.end_time_unix_nano;
    }
    assert!(at <= operation.end_time_unix_nano && at <= call.end_time_unix_nano);
    // A single member is its own quorum.
    let (disk, quorum) = (
        named(&spans, "waited for disk"),
        named(&spans, "waited for quorum"),
    );
    assert!(disk.end_time_unix_nano <= quorum.end_time_unix_nano);

    let ranges: Vec<&Span> = spans
        .iter()
        .filter(|span| span.name == "etcdserverpb.KV/Range")
        .collect();
    let codes: Vec<_> = ranges
        .iter()
        .map(|range| texts(&range.attributes)["rpc.response.status_code"].clone())
        .collect();
    assert_eq!(codes, ["OK", "INVALID_ARGUMENT"]);
    assert_ne!(ranges[0].trace_id, call.trace_id);
    assert!(ranges[0].parent_span_id.is_empty());
    named(
        &spans,
        "agreement among raft nodes before linearized reading",
    );
}

/// Collectors are restarted, too.
#[tokio::test]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let place = Place::new();
    let server = place.start(&[
        "--enable-distributed-tracing",
        "--distributed-tracing-address=127.0.0.1:9",
        "--distributed-tracing-sampling-rate=1000000",
    ]);
    let mut kv = server.kv().await;
    // More than fit into a batch, so that it is sent at once.
    for n in 0..200 {
        kv.put(format!("k{n}"), "v").await.unwrap();
    }
    server.wait_for(r#""msg":"failed to export traces","address":"127.0.0.1:9","error":"#);
    kv.put("k", "v").await.unwrap();
    server.assert_well();
    let ended = tokio::task::spawn_blocking(move || server.end_with(Signal::TERM))
        .await
        .unwrap();
    assert_eq!(ended.signal(), Some(Signal::TERM.as_raw()), "{}", ended.log);
}

/// As in etcd, a rate of 0 traces whom the caller traces.
#[tokio::test]
async fn nothing_is_traced_by_chance_at_a_rate_of_0() {
    let (address, spans) = collector().await;
    let place = Place::new();
    let address = format!("--distributed-tracing-address={address}");
    let server = place.start(&["--experimental-enable-distributed-tracing", &address]);
    let mut kv = server.kv().await;
    kv.put("k", "v").await.unwrap();
    let mut traced = Request::new(RangeRequest {
        key: "k".into(),
        serializable: true,
        ..Default::default()
    });
    let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    traced
        .metadata_mut()
        .insert("traceparent", parent.parse().unwrap());
    kv.0.range(traced).await.unwrap();
    let ended = tokio::task::spawn_blocking(move || server.end_with(Signal::TERM));
    ended.await.unwrap();
    let (_, spans) = all(spans).await;
    let names: Vec<&str> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    assert!(
        names.contains(&"range") && names.contains(&"etcdserverpb.KV/Range"),
        "{names:?}"
    );
}
