//! The client: one connection to any endpoint that answers, and what users notice of failures.
//!
//! All endpoints are tried at once and the first one that accepts a connection serves the requests, so that one
//! which is down costs nothing. If none accepts, they are tried again until the command's deadline: etcd's client waits
//! for endpoints in the same way. Reads are repeated when a member answers that it is unavailable; writes never are.
//!
//! A token can be too old when it is needed: somebody took minutes to type a transaction, a watch broke with the member that
//! it was on, users were changed meanwhile. Such an answer says that nothing was done, so the client logs in again and
//! repeats the request, whatever it is.
//!
//! What a failed attempt ended with is told on stderr, once, when the command gives up.

mod connector;
mod endpoint;
mod error;
mod login;
mod tls;

use std::cell::RefCell;
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
use tonic::transport::Channel;

use crate::log;

pub use endpoint::{Endpoint, EndpointError};
pub use error::{ClientError, reason_text};
pub use login::{Credentials, Login};
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
pub type Service = InterceptedService<Channel, Login>;

/// A connection to a cluster, made when it is first needed.
pub struct Client {
    config: Config,
    endpoints: Vec<Endpoint>,
    /// For the endpoints that want it.
    tls: Option<Tls>,
    login: RefCell<Option<Login>>,
    channel: RefCell<Option<Channel>>,
}

macro_rules! stub {
    ($(#[$doc:meta])* $name:ident: $stub:ident) => {
        $(#[$doc])*
        ///
        /// # Errors
        /// Wrong credentials; an endpoint that is not reachable is waited for.
        pub async fn $name(&self) -> Result<$stub<Service>, ClientError> {
            let service = InterceptedService::new(self.channel().await?, self.login().await?);
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
            channel: RefCell::new(None),
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
        within(self.config.dial_timeout, self.login())
            .await
            .map(|_| ())
    }

    async fn login(&self) -> Result<Login, ClientError> {
        if let Some(login) = self.login.borrow().clone() {
            return Ok(login);
        }
        let login = match &self.config.credentials {
            None => Login::default(),
            Some(credentials) => credentials.log_in(self.channel().await?).await?,
        };
        *self.login.borrow_mut() = Some(login.clone());
        Ok(login)
    }

    async fn channel(&self) -> Result<Channel, ClientError> {
        if let Some(channel) = self.channel.borrow().clone() {
            return Ok(channel);
        }
        let channel = self.connect().await;
        *self.channel.borrow_mut() = Some(channel.clone());
        Ok(channel)
    }

    /// Waits for an endpoint that accepts a connection.
    async fn connect(&self) -> Channel {
        let configured = self.config.tls.ask_for_tls();
        let mut waiting = Waiting(None);
        loop {
            let mut attempts: FuturesUnordered<_> = self
                .endpoints
                .iter()
                .map(|endpoint| {
                    let encrypted = endpoint.is_encrypted(configured);
                    let tls = self.tls.as_ref().filter(|_| encrypted);
                    endpoint.connect(&self.config, tls)
                })
                .collect();
            while let Some(attempt) = attempts.next().await {
                match attempt {
                    Ok(channel) => {
                        waiting.0 = None;
                        return channel;
                    }
                    Err(reason) => waiting.0 = Some(reason),
                }
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
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

    /// Forgets the connection; the next request makes a new one.
    pub fn disconnect(&self) {
        *self.channel.borrow_mut() = None;
    }

    /// Forgets the token; the next request logs in. To be called before a stream is opened again, whose answers tell of
    /// a token that is too old in ways of their own.
    pub fn forget_login(&self) {
        *self.login.borrow_mut() = None;
    }

    /// Whether the request was refused only because of an old token, or of what was known of the user when it was sent.
    fn may_log_in_again(&self, error: &ClientError) -> bool {
        match &self.config.credentials {
            // There is no other.
            Some(Credentials::Token(_)) => false,
            Some(Credentials::Password { .. }) => error.is_about_login(),
            // A certificate says who asks.
            None => error.is_answer(error::OLD_REVISION),
        }
    }

    /// Makes a request that changes nothing; repeats it while members are unavailable.
    ///
    /// # Errors
    /// What the last attempt ended with.
    pub async fn read<T>(
        &self,
        request: impl AsyncFn() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.repeat(request, ClientError::is_unavailable).await
    }

    /// Makes a request that may change something; repeats it only if it certainly did not.
    ///
    /// # Errors
    /// What the last attempt ended with.
    pub async fn write<T>(
        &self,
        request: impl AsyncFn() -> Result<T, ClientError>,
    ) -> Result<T, ClientError> {
        self.repeat(request, |_| false).await
    }

    async fn repeat<T>(
        &self,
        request: impl AsyncFn() -> Result<T, ClientError>,
        is_worth_another: impl Fn(&ClientError) -> bool,
    ) -> Result<T, ClientError> {
        for _ in 1..ATTEMPTS_MAX {
            match request().await {
                Err(error) if self.may_log_in_again(&error) => self.forget_login(),
                Err(error) if is_worth_another(&error) => self.disconnect(),
                result => return result,
            }
            tokio::time::sleep(RETRY_PAUSE).await;
        }
        request().await
    }
}

/// Says why there was no connection, if the command ends before there is one.
struct Waiting(Option<String>);

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(reason) = self.0.take() {
            let error = format!(
                "rpc error: code = DeadlineExceeded desc = latest balancer error: last connection error: connection error: desc = {reason:?}"
            );
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
