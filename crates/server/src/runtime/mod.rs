//! Threads and queues: the member at work.
//!
//! ```text
//!  connection threads ──▶ node thread ──▶ log thread          (append, fdatasync)
//!   │   ▲      ▲            │   ▲  └────▶ apply thread        (machine) ──▶ backend (memory)
//!   │   │      └─ mailboxes ┘   └── Appended, Applied ──┘                      │
//!   │   └────────── mailboxes ◀──────────── apply thread                backend thread (commit)
//!   └─▶ mvcc::Reader: reads never enter a loop              snapshot thread (.snap files, purge)
//! ```
//!
//! Each thread owns what it works on; they share nothing but queues, readers, and numbers in
//! [`Progress`]. The queue into the node is bounded: a full one is answered with `too many requests`.

mod access;
mod apply_thread;
mod backend_thread;
mod clock;
mod connection_thread;
mod corruption;
mod defragment;
mod fatal;
mod handover;
mod ids;
mod in_flight;
mod leadership;
mod leases;
mod local;
mod log_thread;
mod mailbox;
mod member;
mod memory;
mod next_segment;
mod node_thread;
mod peer_thread;
mod peers;
mod probe;
mod progress;
mod reconfigure;
mod room;
mod server;
mod signals;
mod snapshot_thread;
mod storage;
mod tasks;
mod tls_thread;
pub(crate) mod versions;
mod waiting;
mod watches;

pub use access::Permit;
pub use clock::unix_ms;
pub use defragment::defragment;
pub use local::Local;
pub use member::{Limits, Member};
pub use probe::LocalProbe;
pub use server::run;
pub use watches::StreamWaker;
