//! A client of etcd clusters, for programs: no command line, no environment, nothing on stdout or
//! stderr.
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
//! // What is below `app/` is all that this client sees.
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
//! # What a request may count on
//!
//! - Requests take the endpoints in turn; one that is down is left out until it accepts connections
//!   again.
//! - **At most once**: a request that changes something is made again only if it certainly was not
//!   executed. Reads, and requests that may be executed twice, are made again after all failures
//!   that may pass. The whole table is in the source of `retry`.
//! - Without a deadline ([`Client::with_timeout`]) a request waits for an endpoint for as long as
//!   that takes. [`Error::DeadlineExceeded`] says what was waited for.
//! - A token that is too old is replaced, and the request made again.
//! - [`Watcher`]: nothing is missed and nothing comes twice when connections break. [`KeepAlive`]:
//!   a lease is never believed in for longer than the cluster does. [`concurrency`]: locks and
//!   elections that programs in Go share.
//!
//! # Rooms
//!
//! `connections` (with `connector`, `endpoint`, `tls`, `transport`): who serves the next request.
//! `client`: attempts and deadlines. `calls` and `kv`: the methods. `retry`, `error`: what a
//! failure means. `watch`, `lease`, `stream`: streams. `namespace`: keys.

#![warn(unreachable_pub)]

mod calls;
mod client;
pub mod concurrency;
mod config;
mod connections;
mod connector;
mod endpoint;
mod error;
mod kv;
mod lease;
mod login;
mod namespace;
mod range_end;
mod retry;
mod stream;
mod tls;
mod transport;
mod watch;

pub use client::Client;
pub use config::{Config, ConfigError};
pub use endpoint::EndpointError;
pub use error::Error;
pub use lease::{KeepAlive, KeepAliveError};
pub use login::Credentials;
pub use range_end::{FROM_KEY, from_key_range, prefix_end, prefix_range};
pub use stream::Snapshot;
pub use tls::{TlsConfig, TlsError};
pub use tonic::Code;
pub use watch::{SingleWatch, WatchError, WatchEvent, WatchId, Watcher, WithoutLeader};
