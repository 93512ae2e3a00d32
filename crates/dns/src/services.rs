//! etcd's services in the DNS: the names of their SRV records, and where clients find servers.
//!
//! ```text
//! _etcd-client-ssl[-SUFFIX]._tcp.DOMAIN ──▶ https://TARGET:PORT
//! _etcd-client[-SUFFIX]._tcp.DOMAIN ──────▶ http://TARGET:PORT
//! ```

use crate::{LookupError, Resolver, SrvRecord};

/// A server that DNS lists for clients.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientEndpoint {
    /// `https://host:port` or `http://host:port`, by the service that lists it.
    pub url: String,
    /// The record that it comes from.
    pub record: SrvRecord,
}

/// DNS lists servers neither with TLS nor without. Displays etcd's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("dns lookup errors: {} and {}", .0[0], .0[1])]
pub struct ClientEndpointsError(Box<[LookupError; 2]>);

impl Resolver {
    /// Looks up the servers that `domain` lists for clients, those with TLS first. `suffix` is that
    /// of the services; empty for none.
    ///
    /// # Errors
    /// The lookups of both services failed; one that succeeds is enough.
    pub fn lookup_client_endpoints(
        &self,
        domain: &str,
        suffix: &str,
    ) -> Result<Vec<ClientEndpoint>, ClientEndpointsError> {
        let look_up = |service| self.lookup_srv(&record_name(service, suffix, domain));
        combine(look_up("etcd-client-ssl"), look_up("etcd-client"))
    }
}

fn record_name(service: &str, suffix: &str, domain: &str) -> String {
    match suffix {
        "" => format!("_{service}._tcp.{domain}"),
        suffix => format!("_{service}-{suffix}._tcp.{domain}"),
    }
}

fn combine(
    secure: Result<Vec<SrvRecord>, LookupError>,
    plain: Result<Vec<SrvRecord>, LookupError>,
) -> Result<Vec<ClientEndpoint>, ClientEndpointsError> {
    let (secure, plain) = match (secure, plain) {
        (Err(secure), Err(plain)) => {
            return Err(ClientEndpointsError(Box::new([secure, plain])));
        }
        (secure, plain) => (secure.unwrap_or_default(), plain.unwrap_or_default()),
    };
    let endpoint = |scheme: &str, record: SrvRecord| ClientEndpoint {
        url: format!("{scheme}://{}:{}", record.target, record.port),
        record,
    };
    let secure = secure.into_iter().map(|record| endpoint("https", record));
    let plain = plain.into_iter().map(|record| endpoint("http", record));
    Ok(secure.chain(plain).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Reason;

    fn listed(target: &str) -> Result<Vec<SrvRecord>, LookupError> {
        Ok(vec![SrvRecord {
            priority: 0,
            weight: 0,
            port: 2379,
            target: target.to_owned(),
        }])
    }

    fn missing(name: &str) -> Result<Vec<SrvRecord>, LookupError> {
        Err(LookupError {
            name: name.to_owned(),
            server: ([127, 0, 0, 53], 53).into(),
            reason: Reason::NoSuchHost,
        })
    }

    fn check(
        secure: Result<Vec<SrvRecord>, LookupError>,
        plain: Result<Vec<SrvRecord>, LookupError>,
        expected: &str,
    ) {
        let found = match combine(secure, plain) {
            Ok(found) => {
                let urls: Vec<String> = found.into_iter().map(|found| found.url).collect();
                urls.join(" ")
            }
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn names_have_the_suffix_behind_the_service() {
        assert_eq!(
            record_name("etcd-client", "", "a.b"),
            "_etcd-client._tcp.a.b"
        );
        assert_eq!(
            record_name("etcd-client-ssl", "x", "a.b"),
            "_etcd-client-ssl-x._tcp.a.b"
        );
    }

    #[test]
    fn one_of_the_two_services_is_enough() {
        check(listed("a."), listed("b."), "https://a.:2379 http://b.:2379");
        check(missing("a"), listed("b."), "http://b.:2379");
        check(listed("a."), missing("b"), "https://a.:2379");
        check(
            missing("a"),
            missing("b"),
            "dns lookup errors: lookup a on 127.0.0.53:53: no such host and lookup b on 127.0.0.53:53: no such host",
        );
    }
}
