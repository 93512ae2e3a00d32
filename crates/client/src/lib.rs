//! A client library for etcd clusters. It reads no command line or environment, and prints nothing.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use retcd_client::concurrency::{Mutex, Session};
//! use retcd_client::{Client, Config, prefix_end};
//! use retcd_proto::etcdserverpb::{PutRequest, WatchCreateRequest};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::new(Config::new(["127.0.0.1:2379", "127.0.0.1:22379"]))?;
//! // This client sees only keys below `app/`.
//! let app = client.namespace("app/");
//!
//! let put = PutRequest {
//!     key: "colour".into(),
//!     value: "red".into(),
//!     ..PutRequest::default()
//! };
//! app.with_timeout(Duration::from_secs(5)).put(put).await?;
//!
//! let session = Session::new(&app, 10).await?;
//! let lock = Mutex::new(&session, "painter").lock().await?;
//! // …
//! lock.unlock().await?;
//!
//! let mut watch = app.watch(WatchCreateRequest {
//!     key: "c".into(),
//!     range_end: prefix_end(b"c").into(),
//!     start_revision: 1,
//!     ..WatchCreateRequest::default()
//! });
//! for event in watch.next().await?.events {
//!     println!("{event:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Guarantees
//!
//! - Requests are distributed over the endpoints round robin. An endpoint that is down is not used
//!   until it accepts connections again.
//! - **At most once**: a request with effects is retried only if it certainly was not executed.
//!   Reads and idempotent requests are retried after every temporary failure. The source of `retry`
//!   has the full table.
//! - Without a deadline ([`Client::with_timeout`]) a request waits for an endpoint indefinitely.
//!   The source of [`Error::DeadlineExceeded`] is what it was waiting for.
//! - An outdated token is replaced, and the request retried.
//! - [`Watcher`]: no event is lost or delivered twice when connections break. [`KeepAlive`]: a
//!   lease never appears to live longer than it does in the cluster. [`concurrency`]: locks and
//!   elections interoperate with etcd's Go client.
//!
//! # Modules
//!
//! `connections` (with `connector`, `endpoint`, `tls`, `transport`): the connection for the next
//! request. `dial`: connections for HTTP/1.1. `client`: attempts and deadlines. `calls` and `kv`: the methods. `retry`, `error`:
//! classification of failures. `forward`, `renewals`: calls and keep-alives of others, for a proxy. `watch`, `lease`, `stream`: streams.
//! `namespace`: prefixing of keys.

#![warn(unreachable_pub)]

mod calls;
mod client;
pub mod concurrency;
mod config;
mod connections;
mod connector;
mod dial;
mod endpoint;
mod error;
mod forward;
mod kv;
mod lease;
mod login;
mod namespace;
mod range_end;
mod renewals;
mod retry;
mod stream;
mod tls;
mod transport;
mod watch;

pub use client::Client;
pub use config::{Config, ConfigError};
pub use dial::{ByteStream, DialError, Dialer, tls_error};
pub use endpoint::EndpointError;
pub use error::Error;
pub use forward::{Forwarded, ForwardedStream};
pub use lease::{KeepAlive, KeepAliveError};
pub use login::Credentials;
pub use range_end::{FROM_KEY, from_key_range, prefix_end, prefix_range};
pub use renewals::Renewals;
pub use stream::Snapshot;
pub use tls::{TlsConfig, TlsError};
pub use tonic::Code;
pub use watch::{SingleWatch, WatchError, WatchEvent, WatchId, Watcher, WithoutLeader};
