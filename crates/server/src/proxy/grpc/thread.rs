//! What everything shares that serves requests of the proxy: [`Shared`] for all threads,
//! [`ProxyThread`] for one.

use std::cell::RefCell;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::Response;
use hyper::Request;
use hyper::body::Incoming;
use parking_lot::Mutex;
use retcd_client::{Client, Config, ConfigError};
use tokio::sync::{mpsc, watch};

use super::cache::Cache;
use super::leader::LeaderLost;
use super::lease::Renewal;
use super::settings::Settings;
use super::watch::Joins;
use super::{call, pages};
use crate::accept::Protocols;
use crate::budget::{AnswerBudget, Outstanding};
use crate::grpc::is_grpc;
use crate::grpc::wire::ResponseBody;
use crate::http::Profiles;
use crate::metrics::Metrics;
use crate::runtime::Front;

/// What all threads share.
pub(super) struct Shared {
    pub(super) settings: Settings,
    pub(super) metrics: Metrics,
    pub(super) budget: AnswerBudget,
    pub(super) cache: Mutex<Cache>,
    /// The server whose metrics are shown as if they were the proxy's.
    pub(super) metrics_endpoint: String,
    /// Where the proxy is found by its clients; none if it does not tell.
    pub(super) own: Option<Config>,
    /// With `--enable-pprof`.
    pub(super) profiles: Option<Profiles>,
    /// This machine's name.
    pub(super) host_name: String,
    /// For streams that require a leader.
    pub(super) leader: LeaderLost,
    /// How servers are reached now.
    pub(super) servers: watch::Receiver<Arc<Config>>,
}

/// What one thread of connections has.
pub(super) struct ProxyThread {
    pub(super) shared: Arc<Shared>,
    clients: Clients,
    /// To the watches that all threads share.
    pub(super) joins: Joins,
    /// To the keep-alives that all threads share.
    pub(super) renewals: mpsc::UnboundedSender<Renewal>,
    /// This proxy, as its clients see it.
    pub(super) own: Option<Client>,
}

/// A client of the cluster that follows the list of its endpoints. Requests under way keep the
/// connections that they have.
pub(super) struct Clients {
    servers: RefCell<watch::Receiver<Arc<Config>>>,
    current: RefCell<Client>,
}

impl Clients {
    /// # Errors
    /// The configuration cannot be used.
    pub(super) fn new(mut servers: watch::Receiver<Arc<Config>>) -> Result<Clients, ConfigError> {
        let client = Client::new(Config::clone(&servers.borrow_and_update()))?;
        Ok(Clients {
            servers: servers.into(),
            current: client.into(),
        })
    }

    pub(super) fn current(&self) -> Client {
        let mut servers = self.servers.borrow_mut();
        if servers.has_changed().unwrap_or(false) {
            let config = Config::clone(&servers.borrow_and_update());
            // It was made of one that works, by exchanging endpoints that members tell.
            if let Ok(client) = Client::new(config) {
                self.current.replace(client);
            }
        }
        self.current.borrow().clone()
    }

    /// For streams that live long: the members that they know may all have been replaced.
    pub(super) fn follow(&self) -> Following {
        let servers = self.servers.borrow().clone();
        let known = Arc::clone(&servers.borrow());
        Following { servers, known }
    }
}

/// Tells when the endpoints have changed; see [`Clients::follow`].
pub(super) struct Following {
    servers: watch::Receiver<Arc<Config>>,
    known: Arc<Config>,
}

impl Following {
    /// Waits until [`Clients::current`] is another client than before. Cancel safe.
    pub(super) async fn changed(&mut self) {
        let known = Arc::clone(&self.known);
        let is_new = move |config: &Arc<Config>| !Arc::ptr_eq(config, &known);
        match self.servers.wait_for(is_new).await {
            Ok(config) => self.known = Arc::clone(&config),
            // The sender lives as long as the process.
            Err(_) => pending().await,
        }
    }
}

impl ProxyThread {
    /// # Errors
    /// A configuration cannot be used.
    pub(super) fn new(
        shared: Arc<Shared>,
        joins: Joins,
        renewals: mpsc::UnboundedSender<Renewal>,
    ) -> Result<ProxyThread, ConfigError> {
        let own = shared.own.clone().map(Client::new).transpose()?;
        Ok(ProxyThread {
            clients: Clients::new(shared.servers.clone())?,
            shared,
            joins,
            renewals,
            own,
        })
    }

    /// A client of the cluster.
    pub(super) fn client(&self) -> Client {
        self.clients.current()
    }
}

impl Front for ProxyThread {
    fn answer(
        self: Rc<Self>,
        protocols: Protocols,
        connection: Outstanding,
        remote: Option<SocketAddr>,
        request: Request<Incoming>,
    ) -> impl Future<Output = Response<ResponseBody>> + 'static {
        Box::pin(async move {
            if protocols.grpc && is_grpc(&request) {
                return call::call(self, connection, remote, request).await;
            }
            let page = pages::answer(&self, protocols, &request).await;
            page.map(ResponseBody::Page)
        })
    }

    fn budget(&self) -> &AnswerBudget {
        &self.shared.budget
    }

    /// A proxy ends with its process.
    fn stopped(&self) -> impl Future<Output = ()> {
        pending()
    }

    fn drain_timeout(&self) -> Duration {
        Duration::ZERO
    }
}
