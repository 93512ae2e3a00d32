//! Watches: long polls, and streams of a line per event.
//!
//! The head is sent at once, so that the client knows from which index on it hears of everything.
//! The stream of lines is the watcher itself: it is dropped, and so cancelled, with the connection.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::stream::{self, Stream, StreamExt};
use http::{HeaderValue, StatusCode};
use retcd_state::v2::{Error, Watch, Watcher};
use tokio::sync::watch::Receiver;

use super::Context;
use super::json::{self, Detail};
use super::parameters::Parameters;
use super::reply::{self, ETCD_INDEX, RAFT_INDEX, RAFT_TERM, Response};
use crate::grpc::wire::ResponseBody;

/// Watches `path`.
///
/// # Errors
/// The history does not reach back so far.
pub(super) fn watch(
    context: &Context<'_>,
    path: &str,
    parameters: &Parameters,
) -> Result<Response, Error> {
    let v2 = &context.thread.member.v2;
    let watcher = v2.reader().watch(&Watch {
        path,
        recursive: parameters.recursive,
        stream: parameters.stream,
        since: parameters.wait_index,
    })?;
    let mut response = reply::json(StatusCode::OK, Bytes::new());
    let (raft_index, term) = v2.raft_position();
    let headers = response.headers_mut();
    headers.insert(ETCD_INDEX, HeaderValue::from(watcher.start_index()));
    headers.insert(RAFT_INDEX, HeaderValue::from(raft_index));
    headers.insert(RAFT_TERM, HeaderValue::from(term));
    let stopping = context.thread.server.member.signals.follow_stopping();
    *response.body_mut() = match parameters.stream {
        false => ResponseBody::Chunk(poll(watcher, stopping).boxed_local()),
        true => ResponseBody::Chunks(lines(watcher, stopping).boxed_local()),
    };
    Ok(reply::with_cluster(context.thread, response))
}

/// The events as JSON, until there are no more or the member stops.
fn lines(watcher: Watcher, stopping: Receiver<bool>) -> impl Stream<Item = Bytes> {
    let state = (watcher, stopping);
    stream::unfold(state, async |(mut watcher, mut stopping)| {
        let line = next(&mut watcher, &mut stopping).await?;
        Some((line, (watcher, stopping)))
    })
}

/// One event as JSON, if it comes before the member stops. Then the answer is at its end, which need
/// not be told apart from the event.
async fn poll(mut watcher: Watcher, mut stopping: Receiver<bool>) -> Option<Bytes> {
    next(&mut watcher, &mut stopping).await
}

async fn next(watcher: &mut Watcher, stopping: &mut Receiver<bool>) -> Option<Bytes> {
    let event = tokio::select! {
        biased;
        event = watcher.next() => event?,
        _ = stopping.wait_for(|stopping| *stopping) => return None,
    };
    let mut line = Vec::new();
    json::event(&mut line, &event, Detail::Full);
    Some(line.into())
}
