//! The listeners of a member: on which addresses, for which protocols, with which limit.

use std::net::SocketAddr;
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
pub(crate) struct ListenError(String);

/// All listeners of a member, bound but not accepting yet.
#[derive(Default)]
pub(crate) struct Listeners {
    pub(crate) peer: Vec<BoundListener>,
    /// For metrics, which are served before the member is ready for clients.
    pub(crate) metrics: Vec<BoundListener>,
    pub(crate) client: Vec<BoundListener>,
}

impl Listeners {
    /// Binds the addresses that the configuration names.
    ///
    /// # Errors
    /// An address cannot be listened on.
    pub(crate) fn bind(
        config: &Config,
        endpoints: &tls::Endpoints,
        client_limit: &ConnectionLimit,
    ) -> Result<Listeners, ListenError> {
        let metrics_limit = ConnectionLimit::for_metrics();
        let options = SocketOptions {
            reuse_port: config.socket_reuse_port,
        };
        let peer = Binder {
            options,
            endpoint: Some(&endpoints.peer),
            limit: None,
        };
        let client = Binder {
            options,
            endpoint: endpoints.client.as_ref(),
            limit: Some(client_limit),
        };
        let metrics = Binder {
            limit: Some(&metrics_limit),
            ..client
        };
        let mut listeners = Listeners::default();
        crate::info!("configuring peer listeners"; "listen-peer-urls" => &config.listen_peer_urls);
        peer.bind(&mut listeners.peer, &config.listen_peer_urls, |_| {
            Protocols::PEER
        })?;
        crate::info!("configuring client listeners"; "listen-client-urls" => &config.listen_client_urls);
        let pages = |tls| Some(ListenerKind::Client { tls });
        let shared = config.listen_client_http_urls.is_empty();
        let grpc = |tls| Protocols {
            grpc: true,
            pages: pages(tls).filter(|_| shared),
        };
        client.bind(&mut listeners.client, &config.listen_client_urls, grpc)?;
        let http = |tls| Protocols {
            grpc: false,
            pages: pages(tls),
        };
        client.bind(&mut listeners.client, &config.listen_client_http_urls, http)?;
        let metrics_only = |_| Protocols {
            grpc: false,
            pages: Some(ListenerKind::Metrics),
        };
        metrics.bind(
            &mut listeners.metrics,
            &config.listen_metrics_urls,
            metrics_only,
        )?;
        Ok(listeners)
    }

    /// Whether any listener has TLS.
    pub(crate) fn any_tls(&self) -> bool {
        let mut all = self.peer.iter().chain(&self.metrics).chain(&self.client);
        all.any(|listener| listener.tls.is_some())
    }
}

/// A listener of its own address; two URLs that differ in their scheme only share one.
pub(crate) struct BoundListener {
    listener: Listener,
    address: ListenAddr,
    /// The address as the configuration has it.
    text: String,
    plain: Option<Protocols>,
    tls: Option<(Protocols, Arc<tls::Endpoint>)>,
    limit: Option<ConnectionLimit>,
}

impl BoundListener {
    /// A listener that is none of a member's: of one kind of connections, with TLS if there is an
    /// endpoint.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub(crate) fn bind(
        address: SocketAddr,
        protocols: Protocols,
        endpoint: Option<Arc<tls::Endpoint>>,
        limit: ConnectionLimit,
    ) -> Result<BoundListener, ListenError> {
        let socket = listener::bind_tcp(address, SocketOptions::default()).map_err(ListenError)?;
        let (plain, tls) = match endpoint {
            None => (Some(protocols), None),
            Some(endpoint) => (None, Some((protocols, endpoint))),
        };
        Ok(BoundListener {
            listener: Listener::Tcp(socket),
            address: ListenAddr::Tcp(address),
            text: address.to_string(),
            plain,
            tls,
            limit: Some(limit),
        })
    }

    /// The address as the configuration has it, without the scheme.
    pub(crate) fn address(&self) -> &str {
        &self.text
    }

    /// Accepts connections until the member stops. Those with TLS go to `dispatcher` once
    /// `handshakes` has let them in.
    pub(crate) async fn accept(
        self,
        dispatcher: Dispatcher,
        handshakes: HandshakePool,
        stopping: watch::Receiver<bool>,
    ) {
        let acceptor = match (self.tls, self.plain) {
            (Some((protocols, endpoint)), plain) => Acceptor::Tls(TlsAcceptor {
                endpoint,
                protocols,
                plain,
                dispatcher,
                handshakes,
            }),
            (None, Some(plain)) => Acceptor::Plain(plain, dispatcher),
            (None, None) => unreachable!("each URL sets one of the two"),
        };
        self.listener.run(acceptor, self.limit, stopping).await;
    }
}

/// Binds the listeners of one kind.
#[derive(Clone, Copy)]
struct Binder<'a> {
    options: SocketOptions,
    endpoint: Option<&'a Arc<tls::Endpoint>>,
    limit: Option<&'a ConnectionLimit>,
}

impl Binder<'_> {
    /// Binds `urls` into `bound`. `protocols` says what connections may speak with TLS (true) and
    /// without. As in etcd, URLs with the same address share a socket.
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
                .position(|listener| listener.address == address && !url.is_unix());
            let at = match shared {
                Some(at) => at,
                None => {
                    bound.push(BoundListener {
                        listener: listener::bind(&address, self.options).map_err(ListenError)?,
                        address,
                        text: url.address(),
                        plain: None,
                        tls: None,
                        limit: self.limit.cloned(),
                    });
                    bound.len() - 1
                }
            };
            if url.is_secure() {
                let endpoint = self
                    .endpoint
                    .expect("a secure URL has an endpoint: the flags were checked");
                bound[at].tls = Some((protocols(true), Arc::clone(endpoint)));
            } else {
                bound[at].plain = Some(protocols(false));
            }
        }
        Ok(())
    }
}
