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
use retcd_client::{Error, Renewals};
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
        // What cannot be a token is refused before anything is asked with it.
        call.client()?;
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
        let (stream, receiver) = mpsc::unbounded_channel();
        let renewing = renew_at_server(Rc::clone(&clients), renewal.token.clone(), receiver);
        tokio::task::spawn_local(renewing);
        let token = renewal.token.clone();
        let _ = stream.send(renewal);
        streams.insert(token, stream);
    }
}

/// Who waits for the renewal of which lease.
#[derive(Default)]
struct Waiting(HashMap<i64, Vec<oneshot::Sender<Answer>>>);

impl Waiting {
    fn add(&mut self, renewal: Renewal, server: &mut Renewals) {
        server.request(renewal.id);
        let waits = self.0.entry(renewal.id).or_default();
        // While no server answers, clients come and go.
        waits.retain(|other| !other.is_closed());
        waits.push(renewal.answer);
    }

    fn handle(&mut self, answered: Result<LeaseKeepAliveResponse, Error>) {
        // A client that is gone needs no answer.
        match answered {
            Ok(answer) => {
                for waits in self.0.remove(&answer.id).unwrap_or_default() {
                    let _ = waits.send(Ok(answer));
                }
            }
            Err(error) => {
                let status = status_of(error);
                for waits in self.0.drain().flat_map(|(_, waiting)| waiting) {
                    let _ = waits.send(Err(status.clone()));
                }
            }
        }
    }
}

/// Renews on one stream to a server, until there was nothing to do for a while.
async fn renew_at_server(
    clients: Rc<Clients>,
    token: Token,
    mut renewals: mpsc::UnboundedReceiver<Renewal>,
) {
    let client = || {
        let client = clients.current().with_token(token.as_deref());
        client.expect("the call that it came with has tried it")
    };
    let mut following = clients.follow();
    let mut server = client().renewals();
    let mut waiting = Waiting::default();
    loop {
        let waits = !waiting.0.is_empty();
        tokio::select! {
            renewal = tokio::time::timeout(IDLE_MAX, renewals.recv()), if !renewals.is_closed() => match renewal {
                Ok(Some(renewal)) => waiting.add(renewal, &mut server),
                Ok(None) => return,
                Err(_) if !waits => renewals.close(),
                Err(_) => {}
            },
            answered = server.next(), if waits => waiting.handle(answered),
            () = following.changed(), if waits => server.set_client(&client()),
            // Closed, and nobody waits: what came in between is still in the queue.
            else => match renewals.recv().await {
                Some(renewal) => waiting.add(renewal, &mut server),
                None => return,
            },
        }
    }
}
