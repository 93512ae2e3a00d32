//! Watching: who is told of which change, in what order, and how far each has come.
//!
//! The pure core: no sockets, threads or clock. A [`Hub`] belongs to one thread, or stands behind a
//! mutex that is held shortly; several hubs may be told of the same [`RevisionEvents`] and share
//! their encoding.
//!
//! ```text
//! apply                                 Hub                               connection
//! publish(events of a revision) ─▶ range index ─▶ groups ─▶ watchers      open / create / cancel / …
//!                                    │ synced: push        │ behind: skip
//! drain_woken() ─▶ wake              ▼                     ▼
//!                                stream's queue ───────── poll() ──▶ Responses ─▶ encode, send
//!                                (bounded)  ▲                  └──▶ Catchup(job)
//!                                           └── complete_catchup ◀── job.run(view), without the hub
//! ```
//!
//! **Fan-out.** Watchers of one range form a group; a change finds its groups through an index, so
//! that it costs nothing to watchers that it does not concern. Its events are encoded once and
//! shared by all; per watcher there remain a reference and a queue entry.
//!
//! **Synced and behind.** A synced watcher has in its stream's queue whatever it has not been sent.
//! If the queue is full the watcher falls behind: it keeps nothing but the next revision that it
//! wants, and reads history in bounded steps when its client reads again. So a client that does not
//! read costs bounded memory and holds up nobody, and one that comes back gets many revisions in
//! one response.
//!
//! **What a client may rely on**, per watcher: creation comes first; revisions ascend; each
//! matching event comes exactly once, all of a revision in one response (or its fragments); after
//! progress at revision R comes nothing up to R; after a cancellation comes nothing. All of it
//! rests on one queue per stream and two invariants:
//! - everything a synced watcher wants up to the hub's revision has entered the queue;
//! - everything a watcher behind wants below its `next` has entered the queue, and nothing from
//!   there.
//!
//! **Order of calls.** A revision is visible in the store before it is published, for history is
//! read from there. And a client that may know of a revision creates watchers in a hub that knows
//! of it: else "now" would begin with a write that it made itself.
//!
//! Absent on purpose: authorization (the verdict comes in through [`Hub::refuse`]), timers, and
//! retries of a history that fails.

mod catchup;
mod events;
mod hub;
mod index;
mod range;
mod recent;
mod response;
mod slab;
mod stream;
#[cfg(test)]
mod tests;

pub use catchup::{CatchupJob, Caught};
pub use events::{EventSet, RevisionEvents};
pub use hub::{Hub, Limits, Metrics, Poll};
pub use response::{Body, Fragment, NO_WATCH_ID, Origin, Refusal, Response};
pub use stream::StreamId;
