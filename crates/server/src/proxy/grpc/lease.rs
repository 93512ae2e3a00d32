//! Keep-alives: those of all clients go to the servers on one stream.
//!
//! A lease is renewed at the cluster once for all who ask for it at the same time. Every request is
//! answered as the server answers, unlike in etcd's proxy, which renews leases in a rhythm of its
//! own. Tokens have streams of their own, which are given up when they were not used for a while.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use http::Response;
use prost::Message;
use retcd_client::Client;
use retcd_proto::etcdserverpb::{LeaseKeepAliveRequest, LeaseKeepAliveResponse};
use tokio::sync::{mpsc, oneshot};

use super::call::{Call, Messages};
use super::error::status_of;
use super::thread::Clients;
use crate::grpc::wire::ResponseBody;
use crate::status::{self, Status};

/// Keep-alives of one stream that wait for their answer.
const UNANSWERED_MAX: usize = 256;
/// A stream to a server that has had nothing to do for so long is closed.
const IDLE_MAX: Duration = Duration::from_secs(60);

type Token = Option<Arc<str>>;
type Answer = Result<LeaseKeepAliveResponse, Status>;

/// One keep-alive.
pub(super) struct Renewal {
    token: Token,
    id: i64,
    answer: oneshot::Sender<Answer>,
}

/// `LeaseKeepAlive`.
pub(super) fn serve(call: Call, mut messages: Messages) -> Response<ResponseBody> {
    call.stream_response(async move |call, frames| {
        let mut unanswered = FuturesUnordered::new();
        let mut half_closed = false;
        let leaderless = call.thread.shared.leader.wait(call.requires_leader);
        tokio::pin!(leaderless);
        while !half_closed || !unanswered.is_empty() {
            let reads = !half_closed && unanswered.len() < UNANSWERED_MAX;
            tokio::select! {
                message = call.next(&mut messages), if reads => match message? {
                    Some(message) => {
                        let request: LeaseKeepAliveRequest = call.decode(message)?;
                        unanswered.push(renew(call, request.id));
                    }
                    None => half_closed = true,
                },
                Some(answer) = unanswered.next() => {
                    let answer = answer?.encode_to_vec().into();
                    call.send(frames, &answer).await?;
                }
                () = &mut leaderless => return Err(status::NO_LEADER),
                () = frames.closed() => return Err(status::CLIENT_GONE),
            }
        }
        Ok(())
    })
}

async fn renew(call: &Call, id: i64) -> Answer {
    let (answer, answered) = oneshot::channel();
    let renewal = Renewal {
        token: call.token.clone(),
        id,
        answer,
    };
    // What takes them ends with the process.
    let _ = call.thread.renewals.send(renewal);
    answered.await.unwrap_or(Err(status::STOPPED))
}

/// Renews for all clients, as long as the process runs. Needs a `LocalSet`.
pub(super) async fn run(mut renewals: mpsc::UnboundedReceiver<Renewal>, clients: Rc<Clients>) {
    let mut streams: HashMap<Token, mpsc::UnboundedSender<Renewal>> = HashMap::new();
    while let Some(renewal) = renewals.recv().await {
        let renewal = match streams.get(&renewal.token) {
            Some(stream) => match stream.send(renewal) {
                Ok(()) => continue,
                // It has just been given up.
                Err(unsent) => unsent.0,
            },
            None => renewal,
        };
        streams.retain(|_, stream| !stream.is_closed());
        let client = match clients.current().with_token(renewal.token.as_deref()) {
            Ok(client) => client,
            Err(error) => {
                let _ = renewal.answer.send(Err(status_of(error)));
                continue;
            }
        };
        let (stream, receiver) = mpsc::unbounded_channel();
        tokio::task::spawn_local(renew_at_server(client, receiver));
        let token = renewal.token.clone();
        let _ = stream.send(renewal);
        streams.insert(token, stream);
    }
}

/// Renews on one stream to a server, until there was nothing to do for a while.
async fn renew_at_server(client: Client, mut renewals: mpsc::UnboundedReceiver<Renewal>) {
    let mut server = client.renewals();
    let mut waiting: HashMap<i64, Vec<oneshot::Sender<Answer>>> = HashMap::new();
    loop {
        tokio::select! {
            renewal = tokio::time::timeout(IDLE_MAX, renewals.recv()), if !renewals.is_closed() => match renewal {
                Ok(Some(Renewal { id, answer, .. })) => {
                    server.request(id);
                    waiting.entry(id).or_default().push(answer);
                }
                Ok(None) => return,
                Err(_) if waiting.is_empty() => renewals.close(),
                Err(_) => {}
            },
            answer = server.next(), if !waiting.is_empty() => match answer {
                Ok(answer) => {
                    for waits in waiting.remove(&answer.id).unwrap_or_default() {
                        // A client that is gone needs no answer.
                        let _ = waits.send(Ok(answer));
                    }
                }
                Err(error) => {
                    let status = status_of(error);
                    for waits in waiting.drain().flat_map(|(_, waiting)| waiting) {
                        let _ = waits.send(Err(status.clone()));
                    }
                }
            },
            // Closed, and nobody waits: what came in between is still in the queue.
            else => match renewals.recv().await {
                Some(Renewal { id, answer, .. }) => {
                    server.request(id);
                    waiting.entry(id).or_default().push(answer);
                }
                None => return,
            },
        }
    }
}
