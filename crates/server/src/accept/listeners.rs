//! Which sockets are bound, and what may be spoken on each.

use std::sync::Arc;

use tokio::sync::watch;

use super::dispatch::{Dispatcher, Protocols};
use super::handshakes::{HandshakePool, TlsAcceptor};
use super::limit::ConnectionLimit;
use super::listener::{self, Acceptor, Listener, SocketOptions};
use crate::config::Config;
use crate::config::url::{ListenAddr, Url};
use crate::http::ListenerKind;
use crate::tls;

/// An address that cannot be listened on, in Go's words.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct ListenError(String);

/// Sockets that are bound but do not accept yet.
#[derive(Default)]
pub struct Listeners {
    /// For the other members.
    pub peer: Vec<BoundListener>,
    /// For metrics, which may be asked for before the member is ready.
    pub early: Vec<BoundListener>,
    /// For clients.
    pub client: Vec<BoundListener>,
}

impl Listeners {
    /// Binds what the configuration names; connections wait in the sockets' queues.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub fn bind(
        config: &Config,
        endpoints: &tls::Endpoints,
        limit: &ConnectionLimit,
    ) -> Result<Listeners, ListenError> {
        let for_metrics = ConnectionLimit::for_metrics();
        let mut binder = Binder {
            options: SocketOptions {
                reuse_port: config.socket_reuse_port,
            },
            endpoint: Some(&endpoints.peer),
            limit: None,
        };
        let mut listeners = Listeners::default();
        crate::info!("configuring peer listeners"; "listen-peer-urls" => texts(&config.listen_peer_urls));
        let peer = |_| Protocols::PEER;
        binder.bind(&mut listeners.peer, &config.listen_peer_urls, peer)?;
        binder.endpoint = endpoints.client.as_ref();
        binder.limit = Some(limit);
        crate::info!("configuring client listeners"; "listen-client-urls" => texts(&config.listen_client_urls));
        let pages = |tls| Some(ListenerKind::Client { tls });
        let shared = config.listen_client_http_urls.is_empty();
        let client = |tls| Protocols {
            grpc: true,
            pages: pages(tls).filter(|_| shared),
        };
        binder.bind(&mut listeners.client, &config.listen_client_urls, client)?;
        let http = |tls| Protocols {
            grpc: false,
            pages: pages(tls),
        };
        binder.bind(&mut listeners.client, &config.listen_client_http_urls, http)?;
        binder.limit = Some(&for_metrics);
        let metrics = |_| Protocols {
            grpc: false,
            pages: Some(ListenerKind::Metrics),
        };
        binder.bind(&mut listeners.early, &config.listen_metrics_urls, metrics)?;
        Ok(listeners)
    }

    /// Whether there is a listener with TLS.
    pub fn any_secure(&self) -> bool {
        let mut all = self.peer.iter().chain(&self.early).chain(&self.client);
        all.any(|bound| bound.secure.is_some())
    }
}

/// A bound socket and what may be spoken on it, with TLS and without.
pub struct BoundListener {
    /// As the configuration has it, but for the scheme.
    pub text: String,
    address: ListenAddr,
    listener: Listener,
    plain: Option<Protocols>,
    secure: Option<(Protocols, Arc<tls::Endpoint>)>,
    /// For whom there may be only so many connections.
    limit: Option<ConnectionLimit>,
}

impl BoundListener {
    /// Accepts until the member stops. Sockets go to the threads behind `dispatcher`, if need be through a handshake.
    pub async fn accept(
        self,
        dispatcher: Dispatcher,
        handshakes: HandshakePool,
        stopping: watch::Receiver<bool>,
    ) {
        let acceptor = match (self.secure, self.plain) {
            (Some((secure, endpoint)), plain) => Acceptor::Secure(TlsAcceptor {
                endpoint,
                secure,
                plain,
                dispatcher,
                handshakes,
            }),
            (None, Some(plain)) => Acceptor::Plain(plain, dispatcher),
            (None, None) => unreachable!("a listener is bound for something"),
        };
        self.listener
            .accept_into(acceptor, self.limit, stopping)
            .await;
    }
}

/// Binds the listeners of one side.
struct Binder<'a> {
    options: SocketOptions,
    endpoint: Option<&'a Arc<tls::Endpoint>>,
    limit: Option<&'a ConnectionLimit>,
}

impl Binder<'_> {
    /// Binds `urls`, on which may be spoken what `protocols` says for connections with TLS or without. Two URLs of one
    /// address share a socket, as in etcd.
    fn bind(
        &self,
        bound: &mut Vec<BoundListener>,
        urls: &[Url],
        protocols: impl Fn(bool) -> Protocols,
    ) -> Result<(), ListenError> {
        for url in urls {
            let address = url
                .listen_addr()
                .map_err(|error| ListenError(error.to_string()))?;
            let shared = bound
                .iter()
                .position(|bound| bound.address == address && !url.is_unix());
            let at = match shared {
                Some(at) => at,
                None => {
                    bound.push(BoundListener {
                        listener: listener::bind(&address, self.options).map_err(ListenError)?,
                        text: url.address(),
                        address,
                        plain: None,
                        secure: None,
                        limit: self.limit.cloned(),
                    });
                    bound.len() - 1
                }
            };
            if url.is_secure() {
                let endpoint = self
                    .endpoint
                    .expect("a listener with TLS has an endpoint: the flags were checked");
                bound[at].secure = Some((protocols(true), Arc::clone(endpoint)));
            } else {
                bound[at].plain = Some(protocols(false));
            }
        }
        Ok(())
    }
}

fn texts(urls: &[Url]) -> Vec<String> {
    urls.iter().map(ToString::to_string).collect()
}
