//! A cluster of real members in a world that is made up: one thread, one seed, no clock.
//!
//! Members are the real ones on disks in memory; the network, the disks, the clocks and the clients
//! are simulated. A plan of faults follows from the seed, and so does everything else: the same
//! seed gives the same run, bit for bit.
//!
//! ```text
//!  clients ──▶ ┌────────────── World ──────────────┐ ──▶ checkers
//!              │ hosts: disk, clocks, Process      │     log, linearizable, convergence, …
//!  plan ─────▶ │ network    queue of events        │
//!              └───────────────────────────────────┘
//! ```
//! What surrounds node, log and machine is the server's own code, too: crate `retcd-member`, whose
//! steps and tasks `member` runs in the order that the seed dictates. gRPC, HTTP and the transport
//! between members are not in here.

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
mod tree_administrator;
mod tree_watcher;
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
    // What members say to their operators is of no use here.
    let silent = retcd_log::Options {
        level: retcd_log::Level::Fatal,
        outputs: Vec::new(),
        ..retcd_log::Options::default()
    };
    retcd_log::init(&silent).expect("nothing is opened");
    World::new(options).run()
}
