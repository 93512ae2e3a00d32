//! TLS towards clients and members.
//!
//! ```text
//! flags ──▶ Endpoint (one for clients, one for members)
//!             ├─ accept: a client's handshake ──▶ a stream and the name in the client's certificate
//!             ├─ connect: the handshake with another member
//!             └─ Reloaded: certificate and key, authorities, revocations, as their files are now
//! ```
//!
//! What makes a certificate acceptable is decided in `retcd_tls`. This room knows where
//! certificates come from and makes handshakes on streams that others have opened.
//!
//! Deliberately absent: a signal to reload; every handshake looks at the files itself.

mod connect;
mod endpoint;
mod handshake;
mod reload;
mod remote;
mod self_signed;

pub(crate) use connect::Connector;
pub(crate) use endpoint::{
    Endpoint, Endpoints, TlsError, describe, make_self_signed, open, open_for_proxy,
};
pub(crate) use handshake::{Established, HANDSHAKE_RECORD};
