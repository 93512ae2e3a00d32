//! The threads of a member, and the queues between them.
//!
//! ```text
//!  connection threads ──▶ node ─────────▶ log thread          (append, fdatasync)
//!   │   ▲      ▲            │   ▲  └────▶ apply thread        (machine) ──▶ backend (memory)
//!   │   │      └─ mailboxes ┘   └── Appended, Applied ──┘                      │
//!   │   └────────── mailboxes ◀──────────── apply thread                backend thread (commit)
//!   └─▶ mvcc::Reader: reads never enter a loop              snapshot thread (.snap files, purge)
//! ```
//!
//! Each thread owns what it works on; they share nothing but queues, readers and published numbers.
//! The behaviour is in crate `member`; here is what drives it. The queue into the node is bounded:
//! while it is full, requests fail with `too many requests`.

mod apply;
mod backend_thread;
mod connection_thread;
mod durable_at;
mod error;
mod fatal;
mod heartbeats;
mod in_flight;
mod load;
mod local_runtime;
mod log_thread;
mod memory;
mod memory_limit;
mod next_segment;
mod node;
mod peer_thread;
mod peers;
mod server;
mod signals;
mod snapshot_thread;
mod spawn;
mod start;
mod storage;
mod tls_thread;

pub(crate) use connection_thread::{BoxError, Front, Http2Settings, serve as serve_connections};
pub(crate) use local_runtime::{run_on_thread, spawn_runtime_thread};
pub use server::run;
pub(crate) use tls_thread::start as start_tls_threads;
