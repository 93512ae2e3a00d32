//! Measures the way to a member and back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::IO_TIMEOUT;
use super::link::Link;
use super::persistent::{PersistentConnection, RetryPolicy};
use super::transport::Shared;
use crate::log::{self, Hex};

/// Time between probes: shorter than the time after which idle connections are closed.
const PERIOD: Duration = Duration::from_secs(4);
/// Time between log lines about a member that does not answer.
const LOG_PERIOD: Duration = Duration::from_secs(30);
const BODY_BYTES_MAX: usize = 4 << 10;

/// Probes until the task is aborted.
pub(super) async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let mut connection = PersistentConnection::new(shared.dialer.clone(), IO_TIMEOUT);
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let round_trip = {
        let handles = shared.metrics.peer.handles(shared.local.id, link.id);
        handles.round_trip()
    };
    let mut logged: Option<Instant> = None;
    // The member has just been added and may not be up yet.
    period.tick().await;
    loop {
        period.tick().await;
        let start = Instant::now();
        match probe(&link, &mut connection).await {
            Ok(()) => round_trip.observe(start.elapsed().as_secs_f64()),
            Err(error) if logged.is_none_or(|at| at.elapsed() >= LOG_PERIOD) => {
                logged = Some(Instant::now());
                log::warn!("prober detected unhealthy status";
                    "round-tripper-name" => "ROUND_TRIPPER_RAFT_MESSAGE",
                    "remote-peer-id" => Hex(link.id),
                    "rtt" => start.elapsed(),
                    "error" => error);
            }
            Err(_) => {}
        }
    }
}

async fn probe(link: &Link, connection: &mut PersistentConnection) -> Result<(), String> {
    let url = link.picker.pick();
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = Uri::from_static("/raft/probing");
    let response = connection
        .exchange(
            &url,
            request,
            RetryPolicy::Repeatable,
            IO_TIMEOUT,
            BODY_BYTES_MAX,
        )
        .await
        .map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::OK => Ok(()),
        other => Err(format!("unhandled http status {}", other.as_u16())),
    }
}
