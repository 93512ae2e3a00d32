//! The way of a connection from a listening socket to the thread that serves it.
//!
//! ```text
//! Listeners ──▶ ConnectionLimit ──▶ accept ──┬─ plain ────────────────────────▶ Dispatcher ──▶ a connection thread
//! (by flags)    (a permit each)              └─ TLS ──▶ HandshakePool ──────────▶   (in turn)
//!                                                       (threads of their own)
//! ```
//!
//! A connection holds its [`ConnectionPermit`] from accept to close. Threads stand in `runtime`: `tls_thread` runs the pool's
//! handshakes, `connection_thread` and `peer_thread` serve what is dispatched to them.
//!
//! Deliberately absent: what is spoken on a connection, but for the time in which that must become clear ([`PrefaceTimeout`]).

mod dispatch;
mod handshakes;
mod limit;
mod listener;
mod listeners;
mod preface;

pub(crate) use dispatch::{Accepted, Dispatcher, Protocols, Socket};
pub(crate) use handshakes::HandshakePool;
pub(crate) use limit::{ConnectionLimit, TooFewDescriptors};
pub(crate) use listeners::{BoundListener, ListenError, Listeners};
pub(crate) use preface::PrefaceTimeout;
