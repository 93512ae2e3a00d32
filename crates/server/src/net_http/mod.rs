//! HTTP as Go's `net/http` speaks it, for clients and members alike: its replies, redirects and
//! errors ([`reply`]), its bodies ([`body`]), paths ([`path`]) and queries ([`query`]).

pub(crate) mod body;
pub(crate) mod path;
pub(crate) mod query;
pub(crate) mod reply;

use bytes::Bytes;
use http_body_util::Full;

/// A whole answer.
pub type Response = http::Response<Full<Bytes>>;
