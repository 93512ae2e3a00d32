//! Clients that hold connections, watches and leases, and otherwise rest.
//!
//! ```text
//!  open every connection ──> rest, keep leases alive ──> put every watched key, wait for its event
//! ```
//!
//! A connection has its watches on one stream, each of a key of its own, as etcd's Go client does
//! it, and its lease on a second one. The end shows that what the server held was alive.

use std::convert::Infallible;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use bytes::Bytes;
use retcd_proto::etcdserverpb as pb;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::error::{CallError, Error};
use crate::grpc::{Connection, Method, Stream};
use crate::keys::{self, KeySpace};
use crate::load::{self, keep_alive, open_lease, part, part_start};
use crate::progress::Progress;
use crate::target::Target;

/// Connections that are being opened at the same time: fewer than a server's backlog.
const OPENING_MAX: usize = 64;
/// Time to live of a lease in seconds.
const TTL: i64 = 30;
/// The time between two keep-alives of a lease: a third of its time to live, as in etcd's clients.
const KEEP_ALIVE_EVERY: Duration = Duration::from_millis(if cfg!(test) { 5 } else { 10_000 });

/// What is held.
#[derive(Debug, Clone)]
pub(super) struct Shape {
    /// Connections go to the members in turn.
    pub(super) target: Target,
    /// The number of connections.
    pub(super) connections: u32,
    /// The number of watches on all of them, at least one each.
    pub(super) watches: u32,
    /// Whether each connection has a lease.
    pub(super) leases: bool,
    /// The common prefix of the watched keys.
    pub(super) prefix: String,
}

impl Shape {
    /// A key for each watch.
    fn keys(&self) -> KeySpace {
        KeySpace {
            prefix: self.prefix.clone(),
            count: self.watches.into(),
        }
    }

    /// The keys that connection `at` watches.
    fn watched_keys(&self, at: u32) -> Vec<Bytes> {
        let first = part_start(self.watches, self.connections, at);
        let count = part(self.watches, self.connections, at);
        let keys = self.keys();
        let numbers = first..first + count;
        numbers.map(|number| keys.key(number.into())).collect()
    }
}

/// The thread of the clients.
pub(super) struct Held {
    shared: Arc<Shared>,
    thread: JoinHandle<Result<(), Error>>,
}

struct Shared {
    shape: Shape,
    opening: Semaphore,
    opened: AtomicU32,
    /// Whether the watches are checked now.
    checking: watch::Sender<bool>,
}

impl Held {
    /// Begins to open everything.
    ///
    /// # Errors
    /// [`Error::Io`] if no file descriptor is available.
    pub(super) fn start(shape: Shape) -> Result<Self, Error> {
        assert!(shape.watches >= shape.connections, "{shape:?}");
        let shared = Arc::new(Shared {
            shape,
            opening: Semaphore::new(OPENING_MAX),
            opened: AtomicU32::new(0),
            checking: watch::Sender::new(false),
        });
        let (runtime, theirs) = (load::runtime()?, Arc::clone(&shared));
        let thread = thread::spawn(move || {
            let all = runtime.block_on(async {
                let mut clients = JoinSet::new();
                for at in 0..theirs.shape.connections {
                    clients.spawn(hold(Arc::clone(&theirs), at));
                }
                while let Some(ended) = clients.join_next().await {
                    ended.expect("a panic ends the process")?;
                }
                Ok(())
            });
            all.map_err(Error::call("a client that holds a connection"))
        });
        Ok(Self { shared, thread })
    }

    /// Waits until all is open.
    ///
    /// # Errors
    /// The failure of a client.
    pub(super) fn wait_until_open(self, progress: &Progress) -> Result<Self, Error> {
        const POLL: Duration = Duration::from_millis(2);
        let all = self.shared.shape.connections;
        loop {
            let opened = self.shared.opened.load(Ordering::Relaxed);
            if opened == all {
                return Ok(self);
            }
            if self.thread.is_finished() {
                self.join()?;
                unreachable!("clients end with a failure before they are all there");
            }
            progress.show(&format!("{opened} of {all} connections are open"));
            thread::sleep(POLL);
        }
    }

    /// Puts each watched key, waits for each event, and closes everything.
    ///
    /// # Errors
    /// The failure of a client, now or earlier.
    pub(super) fn check(self) -> Result<(), Error> {
        self.shared.checking.send_replace(true);
        self.join()
    }

    fn join(self) -> Result<(), Error> {
        self.thread.join().expect("a panic ends the process")
    }
}

async fn hold(shared: Arc<Shared>, at: u32) -> Result<(), CallError> {
    let opening = shared.opening.acquire().await;
    let mut client = Client::open(&shared, at).await?;
    drop(opening);
    shared.opened.fetch_add(1, Ordering::Relaxed);
    let mut checking = shared.checking.subscribe();
    tokio::select! {
        failed = client.keep_alive(delay(at, shared.shape.connections)) => match failed? {},
        _ = checking.wait_for(|checking| *checking) => {}
    }
    client.check().await
}

/// When the first keep-alive of connection `at` is sent: they spread over the time between two.
fn delay(at: u32, connections: u32) -> Duration {
    KEEP_ALIVE_EVERY.mul_f64(f64::from(at + 1) / f64::from(connections))
}

/// One connection and what it holds.
struct Client {
    put: Method,
    watched: Vec<Bytes>,
    watches: Stream,
    lease: Option<(i64, Stream)>,
}

impl Client {
    async fn open(shared: &Shared, at: u32) -> Result<Self, CallError> {
        let shape = &shared.shape;
        let connection = Connection::open(&shape.target, at as usize).await?;
        let watched = shape.watched_keys(at);
        let mut watches = connection
            .method("/etcdserverpb.Watch/Watch")
            .open()
            .await?;
        for key in &watched {
            load::create_watch(&mut watches, of_key(key)).await?;
        }
        let lease = match shape.leases {
            true => Some(open_lease(&connection, TTL).await?),
            false => None,
        };
        Ok(Self {
            put: connection.method("/etcdserverpb.KV/Put"),
            watched,
            watches,
            lease,
        })
    }

    /// Keeps the lease alive for ever.
    async fn keep_alive(&mut self, first: Duration) -> Result<Infallible, CallError> {
        let Some((lease, stream)) = &mut self.lease else {
            return pending().await;
        };
        sleep(first).await;
        loop {
            keep_alive(stream, *lease).await?;
            sleep(KEEP_ALIVE_EVERY).await;
        }
    }

    async fn check(mut self) -> Result<(), CallError> {
        for key in &self.watched {
            let request = load::put_request(key.clone(), Bytes::new());
            self.put.call_for_len(&request).await?;
            let events = load::next_events(&mut self.watches).await?;
            let event = events.first().and_then(|event| event.kv.as_ref());
            if event.is_none_or(|record| record.key != *key) {
                let reason = format!("no event of the put of {}", keys::text(key));
                return Err(CallError::Unexpected(reason));
            }
        }
        Ok(())
    }
}

fn of_key(key: &Bytes) -> pb::WatchCreateRequest {
    pb::WatchCreateRequest {
        key: key.clone(),
        ..pb::WatchCreateRequest::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Model, closed_port, serve, target_at};

    fn shape(model: &Model, connections: u32, watches: u32) -> Shape {
        Shape {
            target: target_at(&[serve(model)]),
            connections,
            watches,
            leases: true,
            prefix: "/held/".into(),
        }
    }

    fn open(shape: Shape) -> Result<Held, Error> {
        Held::start(shape)?.wait_until_open(&Progress::new())
    }

    #[test]
    fn everything_is_open_and_answers_in_the_end() {
        let model = Model::default();
        let held = open(shape(&model, 5, 13)).unwrap();
        assert_eq!(model.connections.load(Ordering::Relaxed), 5);
        assert_eq!(model.leases.load(Ordering::Relaxed), 5);
        assert_eq!(model.keyspace().watched().len(), 13);
        while model.keep_alives.load(Ordering::Relaxed) < 20 {
            thread::yield_now();
        }
        assert!(model.keyspace().records.is_empty());
        held.check().unwrap();
        assert_eq!(model.keyspace().records.len(), 13);
    }

    #[test]
    fn connections_share_the_watches_without_overlap() {
        let shape = shape(&Model::default(), 3, 8);
        let all: Vec<_> = (0..3).flat_map(|at| shape.watched_keys(at)).collect();
        let keys = shape.keys();
        assert_eq!(all, Vec::from_iter((0..8).map(|at| keys.key(at))));
    }

    #[test]
    fn a_watch_that_is_gone_is_an_error() {
        let model = Model::default();
        let held = open(shape(&model, 2, 2)).unwrap();
        model.keyspace().cancel_watches();
        let error = held.check().unwrap_err().to_string();
        assert!(error.contains("watch cancelled"), "{error}");
        let error = open(Shape {
            target: target_at(&[closed_port()]),
            ..shape(&model, 2, 2)
        });
        let error = error.map(drop).unwrap_err().to_string();
        assert!(error.contains("cannot connect"), "{error}");
    }
}
