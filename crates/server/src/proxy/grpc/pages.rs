//! Pages over HTTP/1.1: metrics and health, of the servers and of the proxy.
//!
//! `/metrics` is the page of one server, chosen when the proxy started; `/proxy/metrics` is our
//! own. `/health` asks the cluster, `/proxy/health` asks it through this proxy as clients see it.
//! `/debug/pprof/` is there where gRPC is, with `--enable-pprof`.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use retcd_client::{Client, Code, Dialer, Error, TlsConfig};
use retcd_proto::etcdserverpb::{RangeRequest, WatchCreateRequest};
use tokio::task::JoinSet;

use super::thread::ProxyThread;
use crate::accept::Protocols;
use crate::http::profile_page;
use crate::metrics::{CONTENT_TYPE, Sample};
use crate::net_http::path::Path;
use crate::net_http::{Response, reply};
use crate::proxy::command_line;

/// For a read, and for what a server says of itself.
const READ_TIMEOUT: Duration = Duration::from_secs(1);
const WATCH_TIMEOUT: Duration = Duration::from_secs(3);
const METRICS_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers a request; no page reads the request's body.
pub(super) async fn answer<B>(
    thread: &ProxyThread,
    protocols: Protocols,
    request: &Request<B>,
) -> Response {
    let segments = match Path::parse(request.uri()) {
        Path::Redirect(location) => return reply::moved(request.method(), &location),
        Path::Malformed => return reply::bad_request(),
        Path::Segments(segments) => segments,
    };
    let segments: Vec<&str> = segments.iter().map(AsRef::as_ref).collect();
    let is_health = matches!(segments.as_slice(), ["health"] | ["proxy", "health"]);
    if is_health && request.method() != Method::GET {
        return reply::method_not_allowed(&Method::GET);
    }
    let profiles = thread.shared.profiles.as_ref();
    let profiles = profiles.filter(|_| protocols.grpc);
    if let (Some(profiles), ["debug", "pprof", page @ ..]) = (profiles, segments.as_slice()) {
        if page.is_empty() {
            return reply::moved(request.method(), "/debug/pprof/");
        }
        let query = request.uri().query().unwrap_or_default();
        return profiles
            .serve(&profile_page(page), query, &command_line())
            .await;
    }
    match segments.as_slice() {
        ["metrics"] => server_metrics(thread).await,
        ["proxy", "metrics"] => {
            reply::ok(CONTENT_TYPE, thread.shared.metrics.page(&Sample::default()))
        }
        ["health"] => health("/health", read(&thread.client()).await.err()),
        ["proxy", "health"] => health("/proxy/health", own_sickness(thread).await),
        _ => reply::not_found(),
    }
}

/// What is wrong with the proxy as its clients see it.
async fn own_sickness(thread: &ProxyThread) -> Option<String> {
    let Some(own) = &thread.own else {
        return Some("no connection to proxy".to_owned());
    };
    if let Err(reason) = read(own).await {
        return Some(reason);
    }
    let request = WatchCreateRequest {
        key: Bytes::from_static(PROBED),
        ..WatchCreateRequest::default()
    };
    let mut watcher = own.watcher(retcd_client::WithoutLeader::End);
    watcher.add(request);
    match tokio::time::timeout(WATCH_TIMEOUT, watcher.next()).await {
        Ok(Some(retcd_client::WatchEvent::Created(..))) => None,
        Ok(_) => Some("WATCH CHANNEL CLOSED".to_owned()),
        Err(_) => Some("WATCH TIMEOUT".to_owned()),
    }
}

/// The key that is read; it need not exist.
const PROBED: &[u8] = b"a";

/// A read of the cluster. That it is not permitted shows that there is one.
async fn read(client: &Client) -> Result<(), String> {
    let request = RangeRequest {
        key: Bytes::from_static(PROBED),
        ..RangeRequest::default()
    };
    match client.with_timeout(READ_TIMEOUT).range(request).await {
        Ok(_) => Ok(()),
        Err(Error::Refused {
            code: Code::PermissionDenied,
            ..
        }) => Ok(()),
        Err(error) => Err(format!("GET ERROR:{error}")),
    }
}

fn health(path: &str, sickness: Option<String>) -> Response {
    let Some(reason) = sickness else {
        return reply::ok("text/plain; charset=utf-8", HEALTHY);
    };
    let report = serde_json::json!({ "health": "false", "reason": reason }).to_string();
    let status = StatusCode::SERVICE_UNAVAILABLE;
    crate::warn!(format!("{path} error"); "output" => &report, "status-code" => status.as_u16());
    reply::error(status, &report)
}

const HEALTHY: &str = r#"{"health":"true","reason":""}"#;

/// The page of a server.
async fn server_metrics(thread: &ProxyThread) -> Response {
    let shared = &thread.shared;
    let tls = shared.settings.server_tls.clone().unwrap_or_default();
    let page = fetch(&shared.metrics_endpoint, &tls);
    match tokio::time::timeout(METRICS_TIMEOUT, page).await {
        Ok(Ok((status, page))) => {
            let mut response = reply::ok("text/plain; version=0.0.4", page);
            *response.status_mut() = status;
            response
        }
        _ => reply::error(StatusCode::INTERNAL_SERVER_ERROR, "Internal server error"),
    }
}

async fn fetch(
    endpoint: &str,
    tls: &TlsConfig,
) -> Result<(StatusCode, Bytes), Box<dyn std::error::Error>> {
    let stream = Dialer::new(tls)?.dial(endpoint).await?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    // Ends with this request, also when a server takes too long.
    let mut driver = JoinSet::new();
    driver.spawn_local(connection);
    let host = endpoint.split("://").last().unwrap_or(endpoint);
    let request = Request::get("/metrics")
        .header("Host", host)
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    let page = response.into_body().collect().await?.to_bytes();
    Ok((status, page))
}
