//! Certificates and TLS by the rules that etcd's users know, for servers and clients alike.
//!
//! ```text
//! files ──▶ Identity, Authorities, Revoked ──▶ ClientCheck │ ServerCheck ──▶ rustls configuration
//!                                                   │
//!                                   Certificate ◀───┴───▶ chain: who signed it, and for what
//! ```
//!
//! - [`files`]: what stands in files, and why it cannot be used; [`Certificate`]: the facts of one certificate.
//! - [`check`]: what rustls asks during a handshake; [`chain`]: whether a certificate leads to a trusted one
//!   (`signatures` remembers which signatures were good).
//! - [`dial`]: the configuration of whoever connects, member or client.
//! - [`settings`]: protocol versions and cipher suites by Go's names; [`text`]: errors in Go's words.
//!
//! rustls and webpki do the work. Where Go, and so etcd, takes certificates that webpki does not look at (version 1,
//! authorities that serve as their own certificate, "any" usage), [`chain`] takes a second look; why and how far is said there.
//! The crypto is aws-lc, because ring knows no P-521, the curve of every certificate that etcd's `--auto-tls` has made.
//!
//! Deliberately absent: sockets, threads, and reloading (the server's business); resumption of sessions, which would let
//! a certificate in again without asking whether it is still welcome.

pub mod chain;
pub mod check;
pub mod dial;
pub mod files;
pub mod settings;
pub mod text;

mod certificate;
mod civil;
mod signatures;

pub use certificate::{Certificate, CertificateError, HostNameError};
pub use chain::{Authorities, Purpose, Refusal};
pub use check::{ClientCheck, Rules, ServerCheck};
pub use files::{FileError, Identity, Revoked};
pub use settings::{Settings, SettingsError, Version};
