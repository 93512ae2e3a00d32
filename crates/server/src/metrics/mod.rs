//! What the server tells Prometheus: etcd's names, types, labels and buckets (v3.7.1).
//!
//! ```text
//!   hot paths ──► handles (atomics, resolved once) ──► Registry ──┐
//!   state owned elsewhere ──► Sample, filled when read ───────────┼──► text 0.0.4
//!   /proc ──► Process, read when read ────────────────────────────┘
//! ```
//!
//! Each server has one [`Metrics`] with a registry of its own, so that several servers can live in
//! one process. A number lives in one place: what is counted here has a handle, what another room
//! owns is a field of [`Sample`].
//!
//! Many names end in `_total` although they are gauges: etcd exports them so, and a scraper that
//! knows them as gauges must go on doing so.
//!
//! Deliberately absent: Go's runtime (`go_*`).

mod family;
mod grpc;
mod latency;
mod method;
mod peer;
mod process;
mod sample;
mod server;
mod store;
mod text;

use prometheus::Registry;

use family::{Families, Page};

pub use grpc::{Call, Grpc};
pub use latency::{OperationLatency, OutcomeLatency};
pub use method::{CallKind, Method};
pub use peer::{Peer, PeerHandles};
pub use process::{Process, file_descriptor_limit};
pub use sample::{Feature, RaisedAlarm, Sample};
pub use server::{ClientRequests, Health, Network, Proxy, RequestKind, Scrape, Server, V2};
pub use store::{Backend, Compaction, Lease, Mvcc, Snap, Wal, Watch};
pub use text::CONTENT_TYPE;

pub use retcd_state::request::Operation;

/// `--metrics`: how much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Detail {
    /// Counters of gRPC calls.
    Basic,
    /// Also the time that each takes.
    Extensive,
}

/// All metrics of one server, by room.
pub struct Metrics {
    registry: Registry,
    /// Raft and requests.
    pub server: Server,
    /// Bytes to and from clients.
    pub network: Network,
    /// Traffic between members.
    pub peer: Peer,
    /// The write-ahead log.
    pub wal: Wal,
    /// The database's file.
    pub backend: Backend,
    /// Snapshot files.
    pub snap: Snap,
    /// The keyspace.
    pub mvcc: Mvcc,
    /// Compaction.
    pub compaction: Compaction,
    /// Leases.
    pub lease: Lease,
    /// Watches.
    pub watch: Watch,
    /// The health pages.
    pub health: Health,
    /// API v2.
    pub v2: V2,
    /// `etcd grpc-proxy`.
    pub proxy: Proxy,
    /// Calls by gRPC method.
    pub grpc: Grpc,
    scrape: Scrape,
}

impl Metrics {
    /// Registers everything, with zeros.
    pub fn new(detail: Detail) -> Metrics {
        let registry = Registry::new();
        let families = Families(&registry);
        Metrics {
            server: Server::new(&families),
            network: Network::new(&families),
            peer: Peer::new(&families),
            wal: Wal::new(&families),
            backend: Backend::new(&families),
            snap: Snap::new(&families),
            mvcc: Mvcc::new(&families),
            compaction: Compaction::new(&families),
            lease: Lease::new(&families),
            watch: Watch::new(&families),
            health: Health::new(&families),
            v2: V2::new(&families),
            proxy: Proxy::new(&families),
            scrape: Scrape::new(&families),
            grpc: Grpc::new(&registry, detail),
            registry,
        }
    }

    /// The page that a scraper gets, as [`CONTENT_TYPE`].
    pub fn page(&self, sample: &Sample) -> String {
        self.scrape.in_flight.inc();
        let mut page = Page::default();
        sample.append(&mut page);
        Process::read().append(&mut page);
        let text = text::encode(&page.with(self.registry.gather()));
        self.scrape.in_flight.dec();
        self.scrape.served.inc();
        text
    }
}
