//! From a listening socket to the thread that serves the connection.
//!
//! ```text
//! Listeners ──▶ ConnectionLimit ──▶ accept ──┬─ plain ────────────────────▶ Dispatcher ──▶ a thread
//! (one per       (a permit for               └─ TLS ──▶ HandshakePool ────▶ (round robin)
//!  address)       each connection)                      (threads of its own)
//! ```
//!
//! A connection holds its [`limit::ConnectionPermit`] until it is closed. The threads themselves
//! are in `runtime`: `tls_thread` drives the pool, `connection_thread` and `peer_thread` serve what
//! is dispatched to them.
//!
//! Nothing here speaks HTTP. [`PrefaceTimeout`] only watches how a connection begins.

mod dispatch;
mod handshakes;
mod limit;
mod listener;
mod listeners;
mod preface;
mod stream;

pub(crate) use dispatch::{Accepted, AcceptedStream, Dispatcher, Protocols};
pub(crate) use handshakes::HandshakePool;
pub(crate) use limit::{ConnectionLimit, ConnectionPermit, TooFewDescriptors};
pub(crate) use listener::{SocketOptions, bind_tcp};
pub(crate) use listeners::{BoundListener, ListenError, Listeners};
pub(crate) use preface::PrefaceTimeout;
pub(crate) use stream::Stream;
