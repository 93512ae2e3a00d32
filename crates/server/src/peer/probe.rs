//! Measures the way to a member and back.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::IO_TIMEOUT;
use super::line::{Line, Repeat};
use super::link::Link;
use super::transport::Shared;
use crate::log::{self, Hex};

/// Time between two probes: below the time after which an idle connection is closed.
const PERIOD: Duration = Duration::from_secs(4);
/// Time between two lines about a member that does not answer.
const LOG_PERIOD: Duration = Duration::from_secs(30);
const BODY_BYTES_MAX: usize = 4 << 10;

/// Probes until the task is ended.
pub(super) async fn run(shared: Arc<Shared>, link: Arc<Link>) {
    let mut line = Line::new(shared.dialer.clone(), IO_TIMEOUT);
    let mut period = interval(PERIOD);
    period.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let round_trip = {
        let handles = shared.metrics.peer.handles(shared.identity.id, link.id);
        handles.round_trip()
    };
    let mut logged: Option<Instant> = None;
    // The member was only just added, and may not be up yet.
    period.tick().await;
    loop {
        period.tick().await;
        let start = Instant::now();
        match probe(&link, &mut line).await {
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

async fn probe(link: &Link, line: &mut Line) -> Result<(), String> {
    let url = link.picker.pick();
    let mut request = Request::new(Bytes::new());
    *request.uri_mut() = Uri::from_static("/raft/probing");
    let response = line
        .exchange(&url, request, Repeat::Harmless, IO_TIMEOUT, BODY_BYTES_MAX)
        .await
        .map_err(|error| error.to_string())?;
    match response.status() {
        StatusCode::OK => Ok(()),
        other => Err(format!("unhandled http status {}", other.as_u16())),
    }
}
