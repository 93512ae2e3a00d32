//! The client: one connection to any endpoint that answers, and what users notice of failures.
//!
//! All endpoints are tried at once and the first one that accepts a connection serves the requests, so that one
//! which is down costs nothing. If none accepts, they are tried again until the command's deadline: etcd's client waits
//! for endpoints in the same way.
//!
//! Which failed request is made again, and where, is the matter of [`retry`]. A token, for one, can be too old when it is
//! needed: somebody took minutes to type a transaction, a watch broke with the member that it was on, users were changed
//! meanwhile. Such an answer says that nothing was done, so the client logs in again and repeats the request.
//!
//! An endpoint that could not do what was asked is passed over as long as another one can be reached.
//!
//! What a failed attempt ended with is told on stderr, once, when the command gives up.

mod connector;
mod endpoint;
mod error;
mod login;
pub mod retry;
mod tls;
mod transport;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use retcd_proto::etcdserverpb::auth_client::AuthClient;
use retcd_proto::etcdserverpb::cluster_client::ClusterClient;
use retcd_proto::etcdserverpb::kv_client::KvClient;
use retcd_proto::etcdserverpb::lease_client::LeaseClient;
use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::watch_client::WatchClient;
use tonic::service::interceptor::InterceptedService;

use crate::log;
use retry::{Failure, Next, Policy};
use transport::Transport;

pub use endpoint::{Endpoint, EndpointError};
pub use error::{ClientError, reason_text};
pub use login::{Credentials, Login};
pub use retry::Method;
pub use tls::{Tls, TlsError, TlsFlags};

/// A request is attempted this often at most.
const ATTEMPTS_MAX: usize = 100;
/// The pause between two attempts, to connect or to read.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// How to reach a cluster.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to connect, as the user wrote it.
    pub endpoints: Vec<String>,
    /// How long one attempt to connect may take.
    pub dial_timeout: Duration,
    /// A connection that is silent for so long is probed.
    pub keepalive_time: Duration,
    /// A probe that is not answered for so long ends the connection.
    pub keepalive_timeout: Duration,
    /// The largest request, in bytes.
    pub request_bytes_max: usize,
    /// The largest response, in bytes.
    pub response_bytes_max: usize,
    /// What is said about TLS.
    pub tls: TlsFlags,
    /// Who asks.
    pub credentials: Option<Credentials>,
}

impl Config {
    /// The same configuration for one endpoint alone.
    pub fn only(&self, endpoint: &str) -> Config {
        Config {
            endpoints: vec![endpoint.to_owned()],
            ..self.clone()
        }
    }
}

/// A channel whose requests carry the token of who asks.
pub type Service = InterceptedService<Transport, Login>;

/// A connection to a cluster, made when it is first needed.
pub struct Client {
    config: Config,
    endpoints: Vec<Endpoint>,
    /// For the endpoints that want it.
    tls: Option<Tls>,
    login: RefCell<Option<Login>>,
    connected: RefCell<Option<Connected>>,
    /// The endpoints, by their places, that did not do what was asked; never all of several.
    passed_over: RefCell<BTreeSet<usize>>,
}

#[derive(Clone)]
struct Connected {
    /// Its place among the endpoints.
    endpoint: usize,
    transport: Transport,
}

macro_rules! stub {
    ($(#[$doc:meta])* $name:ident: $stub:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// Wrong credentials; an endpoint that is not reachable is waited for.
        pub async fn $name(&self) -> Result<$stub<Service>, ClientError> {
            let service = InterceptedService::new(self.transport().await, self.login().await?);
            Ok($stub::new(service)
                .max_decoding_message_size(self.config.response_bytes_max))
        }
    };
}

impl Client {
    /// Checks the configuration; nothing is sent yet.
    ///
    /// # Errors
    /// No endpoints, or one that cannot be understood; TLS files that cannot be used.
    pub fn new(config: Config) -> Result<Client, ClientError> {
        let configured = config.tls.ask_for_tls();
        let mut tls = match configured {
            true => Some(Tls::load(&config.tls)?),
            false => None,
        };
        if config.endpoints.is_empty() {
            return Err(ClientError::NoEndpoints);
        }
        let endpoints: Vec<Endpoint> = config
            .endpoints
            .iter()
            .map(|text| Endpoint::parse(text))
            .collect::<Result<_, _>>()?;
        if tls.is_none()
            && endpoints
                .iter()
                .any(|endpoint| endpoint.is_encrypted(false))
        {
            tls = Some(Tls::load(&config.tls)?);
        }
        Ok(Client {
            config,
            endpoints,
            tls,
            login: RefCell::new(None),
            connected: RefCell::new(None),
            passed_over: RefCell::new(BTreeSet::new()),
        })
    }

    stub!(/// The key-value service.
        kv: KvClient);
    stub!(/// The watch service.
        watch: WatchClient);
    stub!(/// The lease service.
        lease: LeaseClient);
    stub!(/// The membership service.
        cluster: ClusterClient);
    stub!(/// The maintenance service.
        maintenance: MaintenanceClient);
    stub!(/// The users and roles service.
        auth: AuthClient);

    /// Logs in, if there are credentials; later requests carry the token.
    ///
    /// # Errors
    /// Refused credentials, or no endpoint that answers within the dial timeout.
    pub async fn log_in(&self) -> Result<(), ClientError> {
        if self.config.credentials.is_none() {
            return Ok(());
        }
        let login = self.call(Method::Authenticate, async || self.login().await);
        within(self.config.dial_timeout, login).await.map(|_| ())
    }

    async fn login(&self) -> Result<Login, ClientError> {
        if let Some(login) = self.login.borrow().clone() {
            return Ok(login);
        }
        let login = match &self.config.credentials {
            None => Login::default(),
            Some(credentials) => credentials.log_in(self.transport().await).await?,
        };
        *self.login.borrow_mut() = Some(login.clone());
        Ok(login)
    }

    async fn transport(&self) -> Transport {
        if let Some(connected) = &*self.connected.borrow() {
            return connected.transport.clone();
        }
        let connected = self.connect().await;
        let transport = connected.transport.clone();
        *self.connected.borrow_mut() = Some(connected);
        transport
    }

    /// Waits for an endpoint that accepts a connection. One that was passed over is the second choice.
    async fn connect(&self) -> Connected {
        let mut waiting = Waiting::default();
        loop {
            let mut attempts: FuturesUnordered<_> = (0..self.endpoints.len())
                .map(|endpoint| self.attempt(endpoint))
                .collect();
            let mut second_choice = None;
            while let Some(attempt) = attempts.next().await {
                match attempt {
                    Ok(connected) if self.is_passed_over(&connected) => {
                        second_choice.get_or_insert(connected);
                    }
                    Ok(connected) => {
                        waiting.end();
                        return connected;
                    }
                    Err(reason) => waiting.connection_failed(&reason),
                }
            }
            if let Some(connected) = second_choice {
                waiting.end();
                return connected;
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    async fn attempt(&self, endpoint: usize) -> Result<Connected, String> {
        let encrypted = self.endpoints[endpoint].is_encrypted(self.config.tls.ask_for_tls());
        let tls = self.tls.as_ref().filter(|_| encrypted);
        let channel = self.endpoints[endpoint].connect(&self.config, tls).await?;
        Ok(Connected {
            endpoint,
            transport: Transport(channel),
        })
    }

    fn is_passed_over(&self, connected: &Connected) -> bool {
        self.passed_over.borrow().contains(&connected.endpoint)
    }

    /// Refuses a request that is larger than the user allows. (The transport would refuse it, too, but not say why.)
    ///
    /// # Errors
    /// [`ClientError::RequestTooLarge`].
    pub fn check_size<M: prost::Message>(&self, request: M) -> Result<M, ClientError> {
        let (bytes, limit) = (request.encoded_len(), self.config.request_bytes_max);
        if bytes > limit {
            Err(ClientError::RequestTooLarge { bytes, limit })
        } else {
            Ok(request)
        }
    }

    /// Forgets the connection; the next request makes a new one, to another endpoint if that is possible.
    pub fn move_on(&self) {
        let Some(connected) = self.connected.borrow_mut().take() else {
            return;
        };
        let mut passed_over = self.passed_over.borrow_mut();
        passed_over.insert(connected.endpoint);
        if passed_over.len() == self.endpoints.len() {
            // Each has had its turn; the first may be asked again.
            passed_over.retain(|endpoint| *endpoint == connected.endpoint);
        }
    }

    /// Whether a stream that ended with `error` is to be opened at another endpoint.
    pub fn asks_elsewhere(&self, error: &ClientError) -> bool {
        let next = retry::next(Policy::Repeatable, Failure::of(error), self.endpoints.len());
        next == Next::Elsewhere
    }

    /// Whether a member refused only because it is a learner, and there are others to ask than the `learners` of before.
    pub fn is_learner_among_others(&self, error: &ClientError, learners: usize) -> bool {
        Failure::of(error) == Failure::Learner && learners + 1 < self.endpoints.len()
    }

    /// Forgets the token; the next request logs in. To be called before a stream is opened again, whose answers tell of
    /// a token that is too old in ways of their own.
    pub fn forget_login(&self) {
        *self.login.borrow_mut() = None;
    }

    /// Whether another login can help against `error`, which says that the last one is too old.
    fn may_log_in_again(&self, error: &ClientError) -> bool {
        match &self.config.credentials {
            // There is no other.
            Some(Credentials::Token(_)) => false,
            Some(Credentials::Password { .. }) => true,
            // A certificate says who asks.
            None => error.is_answer(error::OLD_REVISION),
        }
    }

    /// Makes a request, and makes it again as [`retry`] says.
    ///
    /// # Errors
    /// What the last attempt ended with.
    pub async fn call<T>(
        &self,
        method: Method,
        request: impl AsyncFn() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        let mut waiting = Waiting::default();
        for _ in 1..ATTEMPTS_MAX {
            let result = request().await;
            let Err(error) = &result else {
                waiting.end();
                return result;
            };
            match retry::next(method.policy(), Failure::of(error), self.endpoints.len()) {
                Next::LogIn if self.may_log_in_again(error) => self.forget_login(),
                Next::Elsewhere => self.move_on(),
                Next::LogIn | Next::GiveUp => {
                    waiting.end();
                    return result;
                }
            }
            waiting.request_failed(error);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        waiting.end();
        request().await
    }
}

/// Says what the last attempt ended with, if the command's time is over before there is another.
#[derive(Default)]
struct Waiting(Option<String>);

impl Waiting {
    fn connection_failed(&mut self, reason: &str) {
        self.0 = Some(format!(
            "rpc error: code = DeadlineExceeded desc = latest balancer error: last connection error: connection error: desc = {reason:?}"
        ));
    }

    fn request_failed(&mut self, error: &ClientError) {
        self.0 = Some(error.text_with_code());
    }

    /// There is nothing to say.
    fn end(&mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(error) = self.0.take() {
            log::json_line(
                "warn",
                "retrying of unary invoker failed",
                &[("error", error)],
            );
        }
    }
}

/// Gives `work` so much time.
///
/// # Errors
/// [`ClientError::DeadlineExceeded`], or what `work` ended with.
pub async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ClientError>>,
) -> Result<T, ClientError> {
    // A limit of nothing is over before anything is sent.
    if limit.is_zero() {
        return Err(ClientError::DeadlineExceeded);
    }
    tokio::time::timeout(limit, work)
        .await
        .unwrap_or(Err(ClientError::DeadlineExceeded))
}
