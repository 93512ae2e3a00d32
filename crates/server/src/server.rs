//! The state that everything shares that serves requests.
//!
//! [`Server`] is shared by all threads, [`ServerThread`] belongs to one of them. Neither decides
//! anything: behaviour is in crate `member`, whose parts are asked for what they know.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus::IntCounter;
use retcd_member::{Handle, Shared};
use retcd_state::v2::Timestamp;
use tokio::sync::{Mutex, watch};

use crate::budget::AnswerBudget;
use crate::config::Config;
use crate::config::gates::Gate;
use crate::metrics::{Metrics, RequestKind};
use crate::peer::Transport;
use crate::recent::Recent;
use crate::tracing::Tracer;

/// What all threads of the process share.
pub(crate) struct Server {
    /// The member.
    pub member: Arc<Shared>,
    /// The effective configuration.
    pub config: Arc<Config>,
    /// What Prometheus is told.
    pub metrics: Arc<Metrics>,
    /// What the watches of each thread come to.
    pub watch_counts: Vec<Arc<retcd_member::watch::WatchCounts>>,
    /// Memory for answers on their way to clients.
    pub answers: AnswerBudget,
    /// Defragmentations under way.
    pub defragmenting: InFlight,
    /// Whether a database of the leader's is taking the place of ours.
    pub restoring: InFlight,
    /// Held by the one defragmentation that is at work; others wait without a thread.
    pub defragmentation: Arc<Mutex<()>>,
    /// When a compaction last finished, in seconds since 1970; 0 before the first.
    pub compacted_at_seconds: AtomicU64,
    /// When the process began to be this member.
    pub started: Timestamp,
    /// Sends to the other members.
    pub transport: Transport,
    /// With `--enable-distributed-tracing`.
    pub tracer: Option<Tracer>,
    /// With `--log-level=debug`.
    pub recent: Option<Recent>,
}

impl Server {
    /// Whether health checks are told that this member serves; otherwise, clients that make them go
    /// elsewhere for a while.
    pub(crate) fn is_serving(&self) -> bool {
        let gates = &self.config.feature_gates;
        !(gates.enabled(Gate::StopGRPCServiceOnDefrag) && self.defragmenting.any())
    }
}

/// What belongs to one thread of connections; lives as long as the thread.
pub(crate) struct ServerThread {
    /// What all threads share.
    pub server: Arc<Server>,
    /// The member.
    pub member: Rc<Handle>,
    /// Counters of the API version that the last client had: most clients have the same.
    last_version: RefCell<(String, [Option<IntCounter>; 2])>,
}

impl ServerThread {
    /// The thread that uses `member`.
    pub(crate) fn new(server: Arc<Server>, member: Handle) -> Rc<ServerThread> {
        Rc::new(ServerThread {
            server,
            member: Rc::new(member),
            last_version: RefCell::default(),
        })
    }

    /// Counts a client's request by its API version.
    pub(crate) fn count_client_request(&self, kind: RequestKind, version: &str) {
        let mut last = self.last_version.borrow_mut();
        if last.0 != version {
            *last = (version.to_owned(), [None, None]);
        }
        last.1[kind as usize]
            .get_or_insert_with(|| {
                let counters = &self.server.metrics.server.client_requests;
                counters.counter(kind, version)
            })
            .inc();
    }

    /// The interval of periodic watch progress, with a jitter of its own for each stream.
    pub(crate) fn progress_interval(&self) -> Duration {
        let interval = self.server.config.watch_progress_notify_interval.std();
        interval + interval.mul_f64((self.member.next_id() % 1000) as f64 / 10_000.0)
    }
}

/// Counts operations under way.
#[derive(Clone, Debug)]
pub(crate) struct InFlight(watch::Sender<usize>);

impl Default for InFlight {
    fn default() -> InFlight {
        InFlight(watch::channel(0).0)
    }
}

impl InFlight {
    /// Counts one more, until the result is dropped.
    pub(crate) fn enter(&self) -> InFlightGuard {
        self.0.send_modify(|count| *count += 1);
        InFlightGuard(self.clone())
    }

    /// Whether any is under way.
    pub(crate) fn any(&self) -> bool {
        *self.0.borrow() > 0
    }

    /// Follows the number of them.
    pub(crate) fn follow(&self) -> watch::Receiver<usize> {
        self.0.subscribe()
    }
}

/// One operation under way.
pub(crate) struct InFlightGuard(InFlight);

impl Drop for InFlightGuard {
    fn drop(&mut self) {
        self.0.0.send_modify(|count| *count -= 1);
    }
}
