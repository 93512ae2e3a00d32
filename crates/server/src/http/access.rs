//! Which requests a client listener accepts: the `Host` header, and cross-origin requests (CORS).

use std::collections::BTreeSet;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, HOST,
    ORIGIN,
};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;

use crate::net_http::{Response, reply};

/// `--cors` and `--host-whitelist`. In both, `*` and an empty set stand for everyone.
#[derive(Debug, Clone, Default)]
pub struct Access {
    /// Origins whose pages may read answers.
    pub cors: BTreeSet<String>,
    /// Names, without ports, under which this server may be addressed on plain connections.
    pub host_whitelist: BTreeSet<String>,
}

impl Access {
    /// The answer of `serve` to whom it may be given, and readable for pages of whom it may be; that
    /// to `OPTIONS` is empty.
    pub(crate) async fn guard<B, R: From<Full<Bytes>>>(
        &self,
        tls: bool,
        request: &Request<B>,
        serve: impl AsyncFnOnce() -> http::Response<R>,
    ) -> http::Response<R> {
        if let Some(refusal) = self.refusal(tls, request) {
            return refusal.map(R::from);
        }
        let mut response = match *request.method() {
            Method::OPTIONS => Response::default().map(R::from),
            _ => serve().await,
        };
        if let Some(origin) = self.allowed_origin(request) {
            share(&mut response, origin);
        }
        response
    }

    /// The answer to a plain request for a name that is not this server's: a page of another site
    /// could have had its name point here. It is 421, without CORS headers.
    fn refusal<B>(&self, tls: bool, request: &Request<B>) -> Option<Response> {
        let host = host_name(request);
        if tls || allows(&self.host_whitelist, &host) {
            return None;
        }
        let status = StatusCode::MISDIRECTED_REQUEST;
        Some(reply::error(status, &unknown_host(&host)))
    }

    /// The origin whose pages may read the answer: `*`, or the one that asked when it is listed.
    fn allowed_origin<B>(&self, request: &Request<B>) -> Option<HeaderValue> {
        if allows(&self.cors, "*") {
            return Some(HeaderValue::from_static("*"));
        }
        let origin = request.headers().get(ORIGIN)?;
        let listed = self.cors.contains(origin.to_str().ok()?);
        listed.then(|| origin.clone())
    }
}

fn allows(set: &BTreeSet<String>, name: &str) -> bool {
    set.is_empty() || set.contains("*") || set.contains(name)
}

/// Adds the CORS headers.
fn share<R>(response: &mut http::Response<R>, allowed_origin: HeaderValue) {
    let headers = response.headers_mut();
    headers.insert(
        ACCESS_CONTROL_ALLOW_METHODS,
        HeaderValue::from_static("POST, GET, OPTIONS, PUT, DELETE"),
    );
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed_origin);
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("accept, content-type, authorization"),
    );
}

/// The host that the request names, without its port and an IPv6 address's brackets. Without a
/// port, brackets stay (etcd v3.7: pkg/httputil splits host and port or takes the text whole).
fn host_name<B>(request: &Request<B>) -> String {
    let named = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => {
            let header = request.headers().get(HOST);
            header
                .and_then(|host| host.to_str().ok())
                .unwrap_or_default()
        }
    };
    let host = match named.rsplit_once(':') {
        Some((host, _)) => match host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
        {
            Some(address) => address,
            None if !host.contains(':') => host,
            None => named,
        },
        None => named,
    };
    host.to_owned()
}

/// Tools and people look for this text, so it is etcd's.
fn unknown_host(host: &str) -> String {
    format!(
        "\netcd received your request, but the Host header was unrecognized.\n\
         \n\
         To fix this, choose one of the following options:\n\
         - Enable TLS, then any HTTPS request will be allowed.\n\
         - Add the hostname you want to use to the whitelist in settings.\n  \
           - e.g. etcd --host-whitelist {host:?}\n\
         \n\
         This requirement has been added to help prevent \"DNS Rebinding\" attacks (CVE-2018-5702).\n"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(value: &str) -> String {
        host_name(&Request::builder().header(HOST, value).body(()).unwrap())
    }

    #[test]
    fn hosts_lose_their_ports() {
        for (value, name) in [
            ("localhost", "localhost"),
            ("localhost:2379", "localhost"),
            ("127.0.0.1:2379", "127.0.0.1"),
            ("[::1]:2379", "::1"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
            ("", ""),
            (":2379", ""),
        ] {
            assert_eq!(host(value), name, "{value}");
        }
        let absolute = Request::get("http://a.example:1/version").body(()).unwrap();
        assert_eq!(host_name(&absolute), "a.example");
    }
}
