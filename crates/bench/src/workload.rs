//! Workloads and their command line syntax.
//!
//! ```text
//! NAME [-SIZE] [@CLIENTS]        put   put@1   list-1000   list-100000@16   watch-100
//! ```

use std::fmt;
use std::str::FromStr;

/// The operation that clients repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A put of a random key.
    Put,
    /// A linearizable get of a random key.
    Get,
    /// A linearizable get, of few keys often and of most seldom.
    GetZipf,
    /// A serializable get of a random key.
    GetSerializable,
    /// A linearizable read of this many consecutive keys.
    List(u32),
    /// The same by `RangeStream`, which sends the keys in several messages.
    Stream(u32),
    /// A linearizable read from a random key to the end of the key space, limited to this many
    /// keys, as Kubernetes reads a page of a list. The server also counts the keys beyond the
    /// limit.
    Page(u32),
    /// A get, then a put on the condition that the key has not changed, as the Kubernetes API
    /// server updates an object.
    Txn,
    /// Puts of random keys under a prefix watched by this many watchers. An operation is one event
    /// delivered to one watcher.
    Watch(u32),
    /// A lease grant.
    LeaseGrant,
    /// A keep-alive, with a stream and a lease per client.
    LeaseKeepAlive,
    /// A new connection, one linearizable get of a random key, and closing the connection.
    Connect,
    /// A write of a random key through API v2.
    V2Set,
    /// A read of a random key through API v2, of what the member has.
    V2Get,
    /// The same, of a quorum.
    V2QuorumGet,
    /// Writes of random keys in a directory of API v2 for which this many long polls wait. An
    /// operation is one event delivered to one of them.
    V2Watch(u32),
    /// A put of a random key through the JSON gateway.
    JsonPut,
    /// A linearizable read of this many consecutive keys through the JSON gateway.
    JsonList(u32),
    /// Puts of random keys under a prefix that this many streams of the JSON gateway watch. An
    /// operation is one event delivered to one of them.
    JsonWatch(u32),
}

/// A kind of load and, unless it is the default, the number of clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Workload {
    /// The kind of load.
    pub(crate) kind: Kind,
    /// The number of clients; for [`Kind::Watch`] that of writers.
    pub(crate) clients: Option<u32>,
}

/// Default sizes of `list`, `stream`, `page` and `json-list`, of `watch` and `json-watch`, and of `v2-watch`.
const LIST_DEFAULT: u32 = 1000;
const WATCH_DEFAULT: u32 = 100;
const V2_WATCH_DEFAULT: u32 = 1000;

/// The names, for help texts.
pub(crate) const NAMES: &str = "put, get, get-zipf, get-serializable, list[-KEYS], stream[-KEYS], page[-KEYS], txn, watch[-WATCHERS], lease-grant, lease-keepalive, connect, \
     v2-set, v2-get, v2-quorum-get, v2-watch[-POLLS], json-put, json-list[-KEYS], json-watch[-WATCHERS]";

impl Kind {
    /// Whether the key space must be filled first.
    pub(crate) fn needs_keys(self) -> bool {
        match self {
            Kind::Get
            | Kind::GetZipf
            | Kind::GetSerializable
            | Kind::List(_)
            | Kind::Stream(_)
            | Kind::Page(_)
            | Kind::Txn
            | Kind::Connect
            | Kind::V2Get
            | Kind::V2QuorumGet
            | Kind::JsonList(_) => true,
            Kind::Put
            | Kind::Watch(_)
            | Kind::LeaseGrant
            | Kind::LeaseKeepAlive
            | Kind::V2Set
            | Kind::V2Watch(_)
            | Kind::JsonPut
            | Kind::JsonWatch(_) => false,
        }
    }

    /// Whether it goes over HTTP/1.1, with a connection per client.
    pub(crate) fn is_http1(self) -> bool {
        self.is_v2() || matches!(self, Kind::JsonPut | Kind::JsonList(_) | Kind::JsonWatch(_))
    }

    /// Whether its clients can read slowly: whether it reads whole lists over HTTP/2.
    pub(crate) fn takes_read_rate(self) -> bool {
        matches!(self, Kind::List(_) | Kind::Stream(_))
    }

    /// Whether it is for API v2.
    pub(crate) fn is_v2(self) -> bool {
        matches!(
            self,
            Kind::V2Set | Kind::V2Get | Kind::V2QuorumGet | Kind::V2Watch(_)
        )
    }

    /// The number of watchers or long polls; zero for kinds without.
    pub(crate) fn watchers(self) -> u32 {
        match self {
            Kind::Watch(watchers) | Kind::V2Watch(watchers) | Kind::JsonWatch(watchers) => watchers,
            _ => 0,
        }
    }

    /// The name of one operation in tables.
    pub(crate) fn unit(self) -> &'static str {
        match self {
            Kind::Watch(_) | Kind::V2Watch(_) | Kind::JsonWatch(_) => "event",
            Kind::Connect => "connection",
            _ => "op",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Put => f.write_str("put"),
            Kind::Get => f.write_str("get"),
            Kind::GetZipf => f.write_str("get-zipf"),
            Kind::GetSerializable => f.write_str("get-serializable"),
            Kind::List(keys) => write!(f, "list-{keys}"),
            Kind::Stream(keys) => write!(f, "stream-{keys}"),
            Kind::Page(keys) => write!(f, "page-{keys}"),
            Kind::Txn => f.write_str("txn"),
            Kind::Watch(watchers) => write!(f, "watch-{watchers}"),
            Kind::LeaseGrant => f.write_str("lease-grant"),
            Kind::LeaseKeepAlive => f.write_str("lease-keepalive"),
            Kind::Connect => f.write_str("connect"),
            Kind::V2Set => f.write_str("v2-set"),
            Kind::V2Get => f.write_str("v2-get"),
            Kind::V2QuorumGet => f.write_str("v2-quorum-get"),
            Kind::V2Watch(polls) => write!(f, "v2-watch-{polls}"),
            Kind::JsonPut => f.write_str("json-put"),
            Kind::JsonList(keys) => write!(f, "json-list-{keys}"),
            Kind::JsonWatch(watchers) => write!(f, "json-watch-{watchers}"),
        }
    }
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.kind.fmt(f)?;
        match self.clients {
            Some(clients) => write!(f, "@{clients}"),
            None => Ok(()),
        }
    }
}

impl FromStr for Workload {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (name, clients) = match text.split_once('@') {
            Some((name, clients)) => (name, Some(positive(clients, text)?)),
            None => (text, None),
        };
        let kind = match name {
            "put" => Kind::Put,
            "get" => Kind::Get,
            "get-zipf" => Kind::GetZipf,
            "get-serializable" => Kind::GetSerializable,
            "txn" => Kind::Txn,
            "lease-grant" => Kind::LeaseGrant,
            "lease-keepalive" => Kind::LeaseKeepAlive,
            "connect" => Kind::Connect,
            "v2-set" => Kind::V2Set,
            "v2-get" => Kind::V2Get,
            "v2-quorum-get" => Kind::V2QuorumGet,
            "v2-watch" => Kind::V2Watch(V2_WATCH_DEFAULT),
            "json-put" => Kind::JsonPut,
            "json-list" => Kind::JsonList(LIST_DEFAULT),
            "json-watch" => Kind::JsonWatch(WATCH_DEFAULT),
            "list" => Kind::List(LIST_DEFAULT),
            "stream" => Kind::Stream(LIST_DEFAULT),
            "page" => Kind::Page(LIST_DEFAULT),
            "watch" => Kind::Watch(WATCH_DEFAULT),
            _ => match name.rsplit_once('-') {
                Some(("list", keys)) => Kind::List(positive(keys, text)?),
                Some(("stream", keys)) => Kind::Stream(positive(keys, text)?),
                Some(("page", keys)) => Kind::Page(positive(keys, text)?),
                Some(("watch", watchers)) => Kind::Watch(positive(watchers, text)?),
                Some(("v2-watch", polls)) => Kind::V2Watch(positive(polls, text)?),
                Some(("json-list", keys)) => Kind::JsonList(positive(keys, text)?),
                Some(("json-watch", watchers)) => Kind::JsonWatch(positive(watchers, text)?),
                _ => return Err(format!("no workload {name:?}; there are {NAMES}")),
            },
        };
        Ok(Self { kind, clients })
    }
}

/// Parses a part of `whole` that must be a number greater than zero.
///
/// # Errors
/// The expected format.
pub(crate) fn positive(digits: &str, whole: &str) -> Result<u32, String> {
    match digits.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!(
            "{digits:?} in {whole:?} is not a number from 1 to {}",
            u32::MAX
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_reads_back_as_it_is_written() {
        for text in [
            "put",
            "put@1",
            "get",
            "get-zipf@2",
            "get-serializable@32",
            "list-1000",
            "list-100000@16",
            "stream-100000@16",
            "page-500",
            "txn",
            "watch-100",
            "lease-grant",
            "lease-keepalive@7",
            "connect@32",
            "v2-set@64",
            "v2-get",
            "v2-quorum-get",
            "v2-watch-1000@4",
            "json-put",
            "json-list-1000@8",
            "json-watch-100",
        ] {
            assert_eq!(text.parse::<Workload>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn sizes_have_defaults() {
        assert_eq!("list".parse::<Workload>().unwrap().kind, Kind::List(1000));
        assert_eq!(
            "stream".parse::<Workload>().unwrap().kind,
            Kind::Stream(1000)
        );
        assert_eq!(
            "watch@3".parse::<Workload>().unwrap().to_string(),
            "watch-100@3"
        );
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "",
            "puts",
            "put@",
            "put@0",
            "put@-1",
            "list-",
            "list-0",
            "list-x",
            "stream-0",
            "put-3",
            "v2-set-3",
            "v2-watch-0",
            "watch-9999999999",
        ] {
            assert!(text.parse::<Workload>().is_err(), "{text:?}");
        }
        let error = "delete".parse::<Workload>().unwrap_err();
        assert!(
            error.contains("\"delete\"") && error.contains("lease-keepalive"),
            "{error}"
        );
    }
}
