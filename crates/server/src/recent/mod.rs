//! What calls did lately, and what became of connections: the pages `/debug/requests` and
//! `/debug/events`, with `--log-level=debug` only.
//!
//! They show what grpc-go notes by `golang.org/x/net/trace`, under its names and with its bounds: of
//! each service the calls under way, ten calls for each of several durations, ten that failed, and how
//! long all of them took. Values are told by their lengths, passwords and tokens not at all, since
//! everybody who reaches the listener can read the pages.
//!
//! - [`calls`]: calls and their events. [`latency`]: how long they took. [`events`]: the server.
//! - [`page`]: both as HTML.
//!
//! Deliberately absent: families `grpc.Sent.…`, since this server makes no calls of itself, and calls
//! of methods that do not exist, which would let anybody add families.

mod calls;
mod events;
mod latency;
mod page;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use parking_lot::Mutex;

pub(crate) use calls::{RecordedCall, request_text};

/// What is kept; clones share it.
#[derive(Clone)]
pub struct Recent(Arc<Shared>);

struct Shared {
    calls: Mutex<calls::Families>,
    server: Mutex<events::EventLog>,
}

impl Recent {
    /// Begins to note, on behalf of a server with these addresses and services.
    pub(crate) fn new(addresses: &str, services: &[&str]) -> Recent {
        let mut server = events::EventLog::new(addresses, Moment::now());
        for service in services {
            server.note(format!("RegisterService({service:?})"), Moment::now());
        }
        server.note("serving".to_owned(), Moment::now());
        Recent(Arc::new(Shared {
            calls: Mutex::default(),
            server: Mutex::new(server),
        }))
    }

    /// A connection has ended in an error.
    pub(crate) fn connection_failed(&self, text: String) {
        self.0.server.lock().fail(text, Moment::now());
    }

    /// `/debug/requests`.
    pub(crate) fn requests_page(&self, query: &str) -> String {
        page::requests(&self.0.calls.lock(), query, Moment::now())
    }

    /// `/debug/events`.
    pub(crate) fn events_page(&self, query: &str) -> String {
        page::events(&self.0.server.lock(), query, Moment::now())
    }
}

/// A point in time, for measuring and for showing.
#[derive(Clone, Copy, Debug)]
struct Moment {
    instant: Instant,
    shown: SystemTime,
}

impl Moment {
    fn now() -> Moment {
        Moment {
            instant: Instant::now(),
            shown: SystemTime::now(),
        }
    }

    fn since(self, earlier: Moment) -> Duration {
        self.instant.saturating_duration_since(earlier.instant)
    }
}

/// A line of a call or of the server.
#[derive(Clone, Debug)]
struct Event {
    at: Moment,
    /// Since the event before it.
    elapsed: Duration,
    text: String,
    /// Whether it tells what was in messages.
    is_sensitive: bool,
    is_error: bool,
}
