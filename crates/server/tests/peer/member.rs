//! A member for tests: the transport on a thread of its own, a listener, and a node that is the
//! test itself.

use std::cell::RefCell;
use std::collections::{BTreeSet, VecDeque};
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TrySendError, channel, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Response, StatusCode};
use http_body_util::{Either, Empty};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use retcd_member::NodeQueue;
use retcd_node::Input;
use retcd_proto::raftpb::{Entry, Message, MessageType};
use retcd_server::log;
use retcd_server::metrics::{Detail, Metrics, Sample};
use retcd_server::peer::{
    self, Config, Dialer, IO_TIMEOUT, LocalMember, OutgoingSnapshot, RaftHandler, Transport,
    WriteDeadline,
};
use retcd_server::workers::Workers;
use retcd_storage::disk::OsDisk;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// Nothing here takes this long, unless it fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const CLUSTER: u64 = 0xc1;

type SnapshotSource = Box<dyn Fn() -> io::Result<OutgoingSnapshot> + Send + Sync>;

pub struct Setup {
    pub id: u64,
    pub cluster_id: u64,
    /// 0 for any free one.
    pub port: u16,
    pub snapshot: SnapshotSource,
    pub queue: usize,
}

impl Setup {
    pub fn new(id: u64) -> Setup {
        Setup {
            id,
            cluster_id: CLUSTER,
            port: 0,
            snapshot: Box::new(|| Err(io::Error::other("no snapshot here"))),
            queue: 100_000,
        }
    }
}

/// What a listener answered: path and status.
type Answered = (String, StatusCode);

pub struct Member {
    pub id: u64,
    pub address: SocketAddr,
    pub transport: Transport,
    pub inputs: Receiver<Input>,
    /// Members that this one takes for removed.
    pub removed: Arc<Mutex<BTreeSet<u64>>>,
    /// Whenever the member was told that it was removed itself.
    pub removed_by_cluster: Receiver<()>,
    pub dir: TempDir,
    answered: Receiver<Answered>,
    metrics: Arc<Metrics>,
    running: Option<Running>,
    received: RefCell<VecDeque<Message>>,
}

/// The thread of a member.
struct Running {
    stop: oneshot::Sender<()>,
    /// Disconnected by its end.
    ended: Receiver<Infallible>,
    thread: JoinHandle<()>,
}

pub fn start(setup: Setup) -> Member {
    let _ = log::init(&log::Options {
        level: log::Level::Fatal,
        ..log::Options::default()
    });
    let listener = std::net::TcpListener::bind(("127.0.0.1", setup.port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (node, inputs) = sync_channel(setup.queue);
    let node = NodeQueue::new(move |input| {
        node.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => retcd_member::Error::Overloaded,
            TrySendError::Disconnected(_) => retcd_member::Error::Stopped,
        })
    });
    let (told, removed_by_cluster) = channel();
    let (answer, answered) = channel();
    let removed: Arc<Mutex<BTreeSet<u64>>> = Arc::default();
    let metrics = Arc::new(Metrics::new(Detail::Basic));
    let is_removed = Arc::clone(&removed);
    let workers = Workers::start().unwrap();
    let (transport, handler, driver) = peer::open(Config {
        local: LocalMember {
            id: setup.id,
            cluster_id: setup.cluster_id,
            urls: vec![format!("http://{address}")],
        },
        dialer: Dialer::new(Duration::from_secs(2), workers.clone()),
        workers,
        node,
        metrics: Arc::clone(&metrics),
        disk: Arc::new(OsDisk),
        snap_dir: dir.path().to_owned(),
        snapshot: setup.snapshot,
        snapshot_pace: None,
        is_removed: Box::new(move |id| is_removed.lock().unwrap().contains(&id)),
        removed_by_cluster: Box::new(move || told.send(()).unwrap_or_default()),
    });
    let (stop, stopped) = oneshot::channel();
    let (alive, ended) = channel();
    let thread = std::thread::spawn(move || {
        let _alive = alive;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            tokio::select! {
                () = driver.run() => {}
                () = serve(listener, handler, answer) => {}
                _ = stopped => {}
            }
        });
    });
    Member {
        id: setup.id,
        address,
        transport,
        inputs,
        removed,
        removed_by_cluster,
        dir,
        answered,
        metrics,
        running: Some(Running {
            stop,
            ended,
            thread,
        }),
        received: Default::default(),
    }
}

async fn serve(listener: std::net::TcpListener, handler: RaftHandler, answered: Sender<Answered>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (handler, answered) = (handler.clone(), answered.clone());
        let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
            let (handler, answered) = (handler.clone(), answered.clone());
            async move {
                let path = request.uri().path().to_owned();
                let response = handler.handle(request).await;
                let response = response.map(|response| response.map(Either::Left));
                let response = response.unwrap_or_else(|| {
                    let mut response = Response::new(Either::Right(Empty::<Bytes>::new()));
                    *response.status_mut() = StatusCode::IM_A_TEAPOT;
                    response
                });
                let _ = answered.send((path, response.status()));
                Ok::<_, Infallible>(response)
            }
        });
        tokio::spawn(async move {
            let io = TokioIo::new(WriteDeadline::new(stream, IO_TIMEOUT));
            let _ = http1::Builder::new().serve_connection(io, service).await;
        });
    }
}

impl Member {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn knows(&self, other: &Member) {
        self.transport.add_peer(other.id, &[other.url()]);
    }

    pub fn send(&self, messages: impl IntoIterator<Item = Message>) {
        self.transport.send(messages.into_iter().collect());
    }

    /// Waits until the listener has answered a request whose path begins so.
    pub fn await_answer(&self, path: &str) -> StatusCode {
        loop {
            let (found, status) = self.answered.recv_timeout(PATIENCE).expect(path);
            if found.starts_with(path) {
                return status;
            }
        }
    }

    /// Waits until each of `others` reads both streams of this member.
    pub fn await_streams_of(&self, others: &[&Member]) {
        let mut missing: Vec<String> = others
            .iter()
            .flat_map(|other| ["message", "msgapp"].map(|kind| (kind, other.id)))
            .map(|(kind, id)| format!("/raft/stream/{kind}/{id:x}"))
            .collect();
        while !missing.is_empty() {
            let (path, status) = self.answered.recv_timeout(PATIENCE).expect("a stream");
            if status == StatusCode::OK {
                missing.retain(|missing| *missing != path);
            }
        }
    }

    /// Waits for the next input that is no message; messages are kept.
    pub fn next_report(&self) -> Input {
        loop {
            match self.inputs.recv_timeout(PATIENCE).expect("a report") {
                Input::Messages(messages) => self.received.borrow_mut().extend(messages),
                report => return report,
            }
        }
    }

    /// Waits for the next message; reports are dropped.
    pub fn next_message(&self) -> Message {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(message) = self.received.borrow_mut().pop_front() {
                return message;
            }
            let patience = deadline.saturating_duration_since(Instant::now());
            if let Input::Messages(messages) =
                self.inputs.recv_timeout(patience).expect("a message")
            {
                self.received.borrow_mut().extend(messages);
            }
        }
    }

    /// Whether a message comes within `patience`; reports are dropped.
    pub fn has_message_within(&self, patience: Duration) -> bool {
        match self.inputs.recv_timeout(patience) {
            Ok(Input::Messages(messages)) => {
                self.received.borrow_mut().extend(messages);
                true
            }
            _ => !self.received.borrow().is_empty(),
        }
    }

    /// The files in the snapshot directory.
    pub fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.dir.path()).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    /// A value that Prometheus is told.
    pub fn metric(&self, name_and_labels: &str) -> Option<f64> {
        let page = self.metrics.page(&Sample::default());
        let line = page
            .lines()
            .find(|line| line.starts_with(name_and_labels))?;
        line.rsplit(' ').next()?.parse().ok()
    }

    /// Ends the member at once, with all of its connections.
    pub fn kill(&mut self) {
        if let Some(running) = self.running.take() {
            let _ = running.stop.send(());
            let ended = running.ended.recv_timeout(PATIENCE);
            assert_eq!(ended, Err(RecvTimeoutError::Disconnected), "the end");
            running.thread.join().unwrap();
        }
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Two members whose streams are all open.
pub fn pair() -> (Member, Member) {
    let (a, b) = (start(Setup::new(0xa)), start(Setup::new(0xb)));
    a.knows(&b);
    b.knows(&a);
    a.await_streams_of(&[&b]);
    b.await_streams_of(&[&a]);
    (a, b)
}

pub fn message(kind: MessageType, from: u64, to: u64, index: u64) -> Message {
    Message {
        r#type: Some(kind as i32),
        from: Some(from),
        to: Some(to),
        term: Some(3),
        index: Some(index),
        ..Message::default()
    }
}

/// A `MsgApp` with one entry behind `index`.
pub fn append(from: u64, to: u64, index: u64, data: Bytes) -> Message {
    Message {
        log_term: Some(3),
        entries: vec![entry(3, index + 1, data)],
        ..message(MessageType::MsgApp, from, to, index)
    }
}

pub fn entry(term: u64, index: u64, data: Bytes) -> Entry {
    Entry {
        r#type: Some(0),
        term: Some(term),
        index: Some(index),
        data: Some(data),
    }
}
