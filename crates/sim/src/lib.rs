//! A cluster of real members in a world that is made up: one thread, one seed, no clock.
//!
//! Members are the real `Node`, log and machine on disks in memory; the network, the disks, the clocks and
//! the clients are simulated. A plan of faults follows from the seed, and so does everything else: the same
//! seed gives the same run, bit for bit.
//!
//! ```text
//!  clients ──▶ ┌────────────── World ──────────────┐ ──▶ checkers
//!              │ hosts: disk, clocks, Process      │     log, linearizable, convergence, …
//!  plan ─────▶ │ network    queue of events        │
//!              └───────────────────────────────────┘
//! ```
//! What is simulated of the server is its glue: `member` does with a node's outputs what the server's threads
//! do. gRPC, HTTP and the transport between members are not in here.

#![deny(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "they panic when nobody reads any more"
)]

mod administrator;
pub mod checker;
mod client;
mod clock;
mod context;
mod faults;
mod history;
mod host;
pub mod hostile;
mod member;
mod model;
mod network;
mod operator;
mod plan;
mod queue;
mod report;
mod request;
mod sabotage;
mod users;
mod watcher;
mod workload;
mod world;

pub use plan::Kind;
pub use report::{Fared, Run};
pub use sabotage::Sabotage;
pub use world::{Options, World};

/// Runs a world from its beginning to the verdict.
pub fn run(options: Options) -> Run {
    World::new(options).run()
}
