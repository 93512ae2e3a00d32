//! TLS towards clients and members.
//!
//! ```text
//! flags ──▶ Endpoint (one for clients, one for members)
//!             ├─ accept: handshake, deadline, who it is ──▶ a stream and the name in the client's certificate
//!             ├─ connect: to other members
//!             └─ Watched: certificate and key, authorities, revoked ones, as their files are now
//! ```
//!
//! What a certificate must be is decided in `retcd_tls`; here is where certificates come from, and what becomes of
//! connections. `runtime::tls_thread` runs the handshakes.
//!
//! Deliberately absent: a signal that reloads; every handshake looks at the files itself.

mod accept;
mod connect;
mod endpoint;
mod remote;
mod self_signed;
mod watched;

pub use accept::{Established, FIRST_BYTE, Portable};
pub use connect::Connector;
pub use endpoint::{Endpoint, Endpoints, Kind, TlsError, open};
