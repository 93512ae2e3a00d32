//! TLS configuration and certificate verification, compatible with Go's, for servers and clients.
//!
//! ```text
//! files ──▶ Identity, Authorities, RevocationList ──▶ verifier ──▶ rustls configuration
//!                                                        │
//!                 Certificate ◀── parsing ───────────────┴──▶ chain: path, purpose, validity
//! ```
//!
//! - [`files`]: loading of PEM and DER files; [`Certificate`]: the fields of one certificate.
//! - [`verifier`]: the verifiers that rustls calls; [`chain`]: verification of chains, with a cache
//!   of signatures (`signatures`).
//! - [`dial`]: the client side's configuration, for members and clients.
//! - [`settings`]: protocol versions and cipher suites by Go's names; [`text`]: Go's error texts.
//!
//! rustls and webpki do the work. Where Go, and therefore etcd, accepts certificates that webpki
//! rejects (version 1, CA certificates used as server certificates, the "any" usage), [`chain`]
//! verifies them by Go's rules. The cryptography is aws-lc, because ring does not support P-521,
//! the curve of all certificates that etcd's `--auto-tls` generates.
//!
//! Deliberately absent: sockets, threads, reloading (left to the server), and session resumption,
//! which would accept a client without checking again whether its certificate has been revoked.

#![warn(unreachable_pub)]

pub mod chain;
pub mod dial;
pub mod files;
pub mod settings;
pub mod text;
pub mod verifier;

mod certificate;
mod rfc3339;
mod signatures;

pub use certificate::{Certificate, CertificateError, HostNameError};
pub use chain::{Authorities, Purpose, Refusal};
pub use files::{FileError, Identity, RevocationList};
pub use settings::{Settings, SettingsError, Version};
pub use verifier::{AllowedNames, ClientVerifier, ServerVerifier};
