//! Drives the [broadcasts](super::broadcasts) of the whole proxy, on the thread of streams.
//!
//! Servers are watched on one stream for each token that has opened a broadcast, by a task of its
//! own ([`watch_server`]).

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use retcd_client::{Client, WatchError, WatchEvent, WatchId, Watcher, WithoutLeader};
use retcd_proto::etcdserverpb::{WatchCreateRequest, WatchResponse};
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use super::broadcasts::{Action, BroadcastId, Broadcasts, End, Range, Token, WatcherId};
use super::response::{Events, revision};
use crate::proxy::grpc::thread::{Clients, Following, Shared};

/// Responses of servers that wait for the hub; a full queue makes the servers wait.
const RESPONSE_BACKLOG: usize = 64;

/// What streams of clients ask for.
pub(in crate::proxy::grpc) enum Ask {
    /// Events of a range, from a revision on.
    Join {
        watcher: WatcherId,
        range: Range,
        from: i64,
        token: Token,
        queue: mpsc::Sender<Delivery>,
        /// What is in the queue.
        queued: Arc<QueuedBytes>,
        late: mpsc::UnboundedSender<Late>,
    },
    Leave(WatcherId),
}

/// What a stream of a client is given.
pub(in crate::proxy::grpc) enum Delivery {
    /// Those of the events that are of a revision or newer.
    Events {
        watcher: WatcherId,
        from: i64,
        events: Arc<Events>,
    },
    /// The watch has ended; the response is a server's, with the server's id.
    Canceled {
        watcher: WatcherId,
        response: WatchResponse,
    },
}

impl Delivery {
    /// What it keeps in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Delivery::Events { events, .. } => events.bytes(),
            Delivery::Canceled { .. } => 0,
        }
    }
}

/// The bytes of a queue of deliveries.
#[derive(Default)]
pub(in crate::proxy::grpc) struct QueuedBytes(AtomicUsize);

impl QueuedBytes {
    /// Beyond this there is room only for what is alone.
    const MAX: usize = 4 << 20;

    /// Counts a delivery, if there is room for it.
    fn add(&self, bytes: usize) -> bool {
        let queued = self.0.load(Relaxed);
        let has_room = queued == 0 || queued + bytes <= Self::MAX;
        if has_room {
            self.0.fetch_add(bytes, Relaxed);
        }
        has_room
    }

    /// A delivery was taken from the queue.
    pub(super) fn remove(&self, bytes: usize) {
        self.0.fetch_sub(bytes, Relaxed);
    }
}

/// What there was no room for in the queue of a stream; true once that is empty.
pub(in crate::proxy::grpc) enum Late {
    /// The watcher is served no longer, and has got everything before `from`.
    Behind { watcher: WatcherId, from: i64 },
    /// As [`Delivery::Canceled`].
    Canceled {
        watcher: WatcherId,
        response: WatchResponse,
    },
}

/// The way to the hub.
#[derive(Clone)]
pub(in crate::proxy::grpc) struct Joins {
    asks: mpsc::UnboundedSender<Ask>,
    last_watcher: Arc<AtomicU64>,
}

impl Joins {
    /// An id that no other watcher has.
    pub(super) fn new_watcher(&self) -> WatcherId {
        WatcherId(self.last_watcher.fetch_add(1, Relaxed))
    }

    pub(super) fn ask(&self, ask: Ask) {
        // The hub ends with the process.
        let _ = self.asks.send(ask);
    }
}

/// See the [module](self).
pub(in crate::proxy::grpc) struct Hub {
    shared: Arc<Shared>,
    clients: Rc<Clients>,
    broadcasts: Broadcasts,
    queues: HashMap<WatcherId, Queue>,
    servers: HashMap<Token, Server>,
    asks: mpsc::UnboundedReceiver<Ask>,
    from_servers: mpsc::Receiver<FromServer>,
    to_hub: mpsc::Sender<FromServer>,
}

/// Where a watcher's deliveries go.
struct Queue {
    deliveries: mpsc::Sender<Delivery>,
    queued: Arc<QueuedBytes>,
    late: mpsc::UnboundedSender<Late>,
}

/// A stream to a server.
struct Server {
    orders: mpsc::UnboundedSender<Order>,
    broadcasts: usize,
}

/// What the hub asks of the task of a stream.
enum Order {
    Add(BroadcastId, WatchCreateRequest),
    Cancel(BroadcastId),
}

/// What happened to a broadcast.
enum FromServer {
    Response(BroadcastId, WatchResponse),
    Ended(BroadcastId, WatchError, WatchResponse),
}

impl Hub {
    /// The hub, and the way to it.
    pub(in crate::proxy::grpc) fn new(
        asks: mpsc::UnboundedReceiver<Ask>,
        shared: Arc<Shared>,
        clients: Rc<Clients>,
    ) -> Hub {
        let (to_hub, from_servers) = mpsc::channel(RESPONSE_BACKLOG);
        Hub {
            shared,
            clients,
            broadcasts: Broadcasts::default(),
            queues: HashMap::new(),
            servers: HashMap::new(),
            asks,
            from_servers,
            to_hub,
        }
    }

    /// Runs as long as the process. Needs a `LocalSet`.
    pub(in crate::proxy::grpc) async fn run(mut self) {
        loop {
            tokio::select! {
                ask = self.asks.recv() => match ask {
                    Some(ask) => self.handle_ask(ask),
                    None => return,
                },
                Some(heard) = self.from_servers.recv() => self.handle_server(heard),
            }
            let (watchers, broadcasts) = self.broadcasts.counts();
            let sharing = i64::try_from(watchers - broadcasts).unwrap_or(i64::MAX);
            self.shared.metrics.proxy.watchers_coalescing.set(sharing);
        }
    }

    fn handle_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Join {
                watcher,
                range,
                from,
                token,
                queue,
                queued,
                late,
            } => {
                let queue = Queue {
                    deliveries: queue,
                    queued,
                    late,
                };
                self.queues.insert(watcher, queue);
                let action = self.broadcasts.join(watcher, range, from, token);
                self.act(action.into_iter().collect(), None);
            }
            Ask::Leave(watcher) => {
                self.queues.remove(&watcher);
                let action = self.broadcasts.leave(watcher);
                self.act(action.into_iter().collect(), None);
            }
        }
    }

    fn handle_server(&mut self, heard: FromServer) {
        let (actions, response) = match heard {
            FromServer::Response(broadcast, response) => {
                let sharing = self.broadcasts.watchers_of(broadcast).saturating_sub(1);
                let actions = match response.events.last() {
                    Some(last) => {
                        let coalesced = &self.shared.metrics.proxy.events_coalescing;
                        coalesced.inc_by((response.events.len() * sharing) as u64);
                        self.broadcasts.handle_events(broadcast, revision(last))
                    }
                    None => {
                        let header = response.header.as_ref();
                        let revision = header.map_or(0, |header| header.revision);
                        self.broadcasts.handle_progress(broadcast, revision)
                    }
                };
                (actions, response)
            }
            FromServer::Ended(broadcast, error, mut response) => {
                let end = match &error {
                    WatchError::Compacted { compact_revision } => End::Compacted(*compact_revision),
                    _ => End::Refused,
                };
                if response.cancel_reason.is_empty() {
                    response.cancel_reason = error.to_string();
                }
                response.canceled = true;
                response.created = false;
                self.forget_server_of(broadcast);
                (self.broadcasts.handle_end(broadcast, end), response)
            }
        };
        self.act(actions, Some(response));
    }

    /// `response` is what is to be delivered, or with what a watch has ended.
    fn act(&mut self, actions: Vec<Action>, response: Option<WatchResponse>) {
        let canceled = actions
            .iter()
            .any(|action| matches!(action, Action::Cancel { .. }));
        let (response, events) = match canceled {
            true => (response, None),
            false => (
                None,
                response.map(|response| Arc::new(Events::new(response))),
            ),
        };
        for action in actions {
            match action {
                Action::Open {
                    broadcast,
                    range,
                    from,
                    token,
                } => self.open(broadcast, range, from, token),
                Action::Close { broadcast, token } => self.close(broadcast, &token),
                Action::Deliver { watcher, from } => {
                    let events = events.clone().expect("deliveries come of a response");
                    let delivery = Delivery::Events {
                        watcher,
                        from,
                        events,
                    };
                    self.deliver(watcher, delivery);
                }
                Action::Cancel { watcher } => {
                    let response = response.clone().expect("a watch ends with a response");
                    let delivery = Delivery::Canceled { watcher, response };
                    self.deliver(watcher, delivery);
                    self.queues.remove(&watcher);
                }
            }
        }
    }

    /// Queues a delivery; a watcher whose queue is full falls behind.
    fn deliver(&mut self, watcher: WatcherId, delivery: Delivery) {
        let Some(queue) = self.queues.get(&watcher) else {
            return;
        };
        let bytes = delivery.bytes();
        let sent = match queue.queued.add(bytes) {
            true => {
                let sent = queue.deliveries.try_send(delivery);
                sent.inspect_err(|_| queue.queued.remove(bytes))
            }
            false => Err(TrySendError::Full(delivery)),
        };
        let Err(error) = sent else {
            return;
        };
        let queue = self.queues.remove(&watcher).expect("it was found");
        let action = self.broadcasts.leave(watcher);
        if let Some(Action::Close { broadcast, token }) = action {
            self.close(broadcast, &token);
        }
        if let TrySendError::Full(delivery) = error {
            crate::log::debug!("a client does not read its watch; it goes on when it does");
            // Who has gone needs nothing more.
            let _ = queue.late.send(match delivery {
                Delivery::Events { from, .. } => Late::Behind { watcher, from },
                Delivery::Canceled { response, .. } => Late::Canceled { watcher, response },
            });
        }
    }

    fn open(&mut self, broadcast: BroadcastId, range: Range, from: i64, token: Token) {
        let request = WatchCreateRequest {
            key: range.0,
            range_end: range.1,
            start_revision: from,
            // Somebody may want them who comes later.
            prev_kv: true,
            progress_notify: true,
            fragment: true,
            ..WatchCreateRequest::default()
        };
        let (clients, to_hub, shared) = (&self.clients, &self.to_hub, &self.shared);
        let server = self.servers.entry(token).or_insert_with_key(|token| {
            let (orders, receiver) = mpsc::unbounded_channel();
            let following = clients.follow();
            let (clients, token) = (Rc::clone(clients), token.clone());
            let namespace = shared.settings.namespace.clone();
            let client = move || {
                let client = clients.current().with_token(token.as_deref());
                let client = client.expect("its owner was allowed to watch with it");
                client.namespace(namespace.clone())
            };
            let watching = watch_server(client, following, receiver, to_hub.clone());
            tokio::task::spawn_local(watching);
            Server {
                orders,
                broadcasts: 0,
            }
        });
        server.broadcasts += 1;
        let _ = server.orders.send(Order::Add(broadcast, request));
    }

    fn close(&mut self, broadcast: BroadcastId, token: &Token) {
        if let Some(server) = self.servers.get(token) {
            let _ = server.orders.send(Order::Cancel(broadcast));
        }
        self.count_out(token);
    }

    fn forget_server_of(&mut self, broadcast: BroadcastId) {
        if let Some(token) = self.broadcasts.token_of(broadcast) {
            self.count_out(&token);
        }
    }

    /// Ends the stream of a token that has no broadcast any more.
    fn count_out(&mut self, token: &Token) {
        if let Some(server) = self.servers.get_mut(token) {
            server.broadcasts -= 1;
            if server.broadcasts == 0 {
                self.servers.remove(token);
            }
        }
    }
}

/// Watches a server for the broadcasts that are ordered, until nobody orders any more; `client` is
/// another one when the endpoints have changed.
async fn watch_server(
    client: impl Fn() -> Client,
    mut following: Following,
    mut orders: mpsc::UnboundedReceiver<Order>,
    to_hub: mpsc::Sender<FromServer>,
) {
    let mut watcher = client().watcher(WithoutLeader::Resume);
    let mut broadcasts: HashMap<WatchId, BroadcastId> = HashMap::new();
    let mut watches: HashMap<BroadcastId, WatchId> = HashMap::new();
    loop {
        let event = tokio::select! {
            order = orders.recv() => {
                match order {
                    Some(Order::Add(broadcast, request)) => {
                        let watch = watcher.add(request);
                        broadcasts.insert(watch, broadcast);
                        watches.insert(broadcast, watch);
                    }
                    Some(Order::Cancel(broadcast)) => {
                        if let Some(watch) = watches.remove(&broadcast) {
                            broadcasts.remove(&watch);
                            watcher.cancel(watch);
                        }
                    }
                    None => return,
                }
                continue;
            }
            () = following.changed() => {
                watcher.set_client(&client());
                continue;
            }
            event = next(&mut watcher) => event,
        };
        let heard = match event {
            WatchEvent::Created(..) => continue,
            WatchEvent::Response(watch, response) => match broadcasts.get(&watch) {
                Some(broadcast) => FromServer::Response(*broadcast, response),
                None => continue,
            },
            WatchEvent::Ended {
                watch,
                error,
                response,
            } => match broadcasts.remove(&watch) {
                Some(broadcast) => {
                    watches.remove(&broadcast);
                    FromServer::Ended(broadcast, error, response)
                }
                None => continue,
            },
        };
        if to_hub.send(heard).await.is_err() {
            return;
        }
    }
}

/// The next event; never, as long as nothing is watched.
async fn next(watcher: &mut Watcher) -> WatchEvent {
    match watcher.next().await {
        Some(event) => event,
        None => std::future::pending().await,
    }
}

/// The way to the hub, and what has to be given to it.
pub(in crate::proxy::grpc) fn joins() -> (Joins, mpsc::UnboundedReceiver<Ask>) {
    let (sender, asks) = mpsc::unbounded_channel();
    let joins = Joins {
        asks: sender,
        last_watcher: Arc::default(),
    };
    (joins, asks)
}
