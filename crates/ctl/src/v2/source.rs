//! The whole tree of API version 2, read for `etcdctl migrate-v2`.
//!
//! Everything is read through the log (`quorum=true`), so that it does not matter which member
//! answers. A server that is not there is told apart from one without version 2, and every error
//! has a next step.

use std::time::Duration;

use http::StatusCode;
use retcd_client::{Dialer, TlsConfig};

use super::cluster::{Cluster, ClusterError};
use super::hint::with_scheme;
use super::http::{Answer, Http};
use super::settings::name_and_password;
use super::store::{self, Node, Response, StoreError};
use crate::cli::Exit;
use crate::stderr;

/// Code of an error: there is no such key.
const NOT_FOUND: i64 = 100;
/// Code of an error: the user may not.
const UNAUTHORIZED: i64 = 110;

/// A cluster that is read from.
pub(crate) struct Source {
    cluster: Cluster,
    endpoints: String,
}

impl Source {
    /// A source behind `endpoints`, of which each may take `timeout` until it answers. `user` is
    /// `name[:password]`; a missing password is asked for.
    ///
    /// # Errors
    /// TLS files cannot be used, or the password cannot be read.
    pub(crate) fn new(
        endpoints: &[String],
        tls: &TlsConfig,
        user: &str,
        timeout: Duration,
    ) -> Result<Source, Exit> {
        let credentials = match user {
            "" => None,
            user => Some(name_and_password("Password of the user of API v2: ", user)?),
        };
        let dialer = Dialer::new(tls).map_err(Exit::bad_args)?;
        let http = Http::new(dialer, timeout, credentials.as_ref(), false);
        let encrypts = tls.asks_for_tls();
        let with_schemes = endpoints
            .iter()
            .map(|endpoint| with_scheme(endpoint, encrypts));
        Ok(Source {
            cluster: Cluster::new(http, with_schemes.collect(), Duration::MAX),
            endpoints: endpoints.join(","),
        })
    }

    /// The node at `path` and everything below it but hidden nodes.
    ///
    /// # Errors
    /// It cannot be read; the text has the next step.
    pub(crate) async fn tree(&self, path: &str) -> Result<Node, Exit> {
        let response = self.read(path, true).await?;
        Ok(response.map_err(|error| self.refused(path, &error))?.node)
    }

    /// The directories above `path` without what is below them; without those that may not be read,
    /// which are told of on stderr.
    ///
    /// # Errors
    /// As [`Source::tree`].
    pub(crate) async fn directories_above(&self, path: &str) -> Result<Vec<Node>, Exit> {
        let mut above = Vec::new();
        for (end, _) in path.match_indices('/').filter(|(end, _)| *end > 0) {
            let path = &path[..end];
            match self.read(path, false).await? {
                Ok(response) => above.push(Node {
                    nodes: None,
                    ..response.node
                }),
                Err(StoreError::Refused {
                    code: UNAUTHORIZED, ..
                }) => stderr::write_line(format_args!(
                    "Note: {path} may not be read; if that directory expires, its keys do not \
                     expire in API v3"
                )),
                Err(error) => return Err(self.refused(path, &error)),
            }
        }
        Ok(above)
    }

    /// # Errors
    /// There is no answer of API version 2.
    async fn read(
        &self,
        path: &str,
        recursive: bool,
    ) -> Result<Result<Response, StoreError>, Exit> {
        let action = store::get(path.as_bytes(), recursive, false, true);
        let answer = self.cluster.ask(&action).await;
        let answer = answer.map_err(|error| self.unreachable(&error))?;
        match store::decode(&answer) {
            Err(StoreError::NotJson) => Err(self.not_served(&answer)),
            decoded => Ok(decoded),
        }
    }

    fn unreachable(&self, error: &ClusterError) -> Exit {
        let text = error.to_string().replace('\n', "");
        Exit::error(format!(
            "API v2 cannot be read from {}: {text}\nIs this the address of a member for clients, \
             and does it have a leader? --from names another one.",
            self.endpoints
        ))
    }

    fn not_served(&self, answer: &Answer) -> Exit {
        let endpoints = &self.endpoints;
        match answer.status {
            StatusCode::NOT_FOUND => Exit::error(format!(
                "API v2 is not served by {endpoints}\nStart a member with --enable-v2=true, or name \
                 one that serves it with --from. etcd 3.6 and later has no API v2."
            )),
            status => Exit::error(format!(
                "{endpoints} answers {} and no JSON where API v2 is asked for\nIs this the address \
                 of a member for clients?",
                status.as_u16()
            )),
        }
    }

    fn refused(&self, path: &str, error: &StoreError) -> Exit {
        let shown = if path.is_empty() { "/" } else { path };
        Exit::error(match error {
            StoreError::Refused {
                code: NOT_FOUND, ..
            } => format!(
                "API v2 has no key or directory {shown}\nList what there is: ETCDCTL_API=2 etcdctl ls \
                 --recursive"
            ),
            StoreError::Refused {
                code: UNAUTHORIZED,
                cause,
                ..
            } => format!(
                "{shown} may not be read in API v2: {cause}\nWhere API v2 has users, name one that \
                 may read {}/* with --v2-username.",
                path.trim_end_matches('/')
            ),
            error => format!("{shown} cannot be read from API v2: {error}"),
        })
    }
}
