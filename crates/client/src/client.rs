//! The client handle: deadlines, tokens, namespaces.

use std::future::{Future, ready};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use prost::Message;
use tokio::time::Instant;
use tonic::service::interceptor::InterceptedService;

use crate::config::{Config, ConfigError};
use crate::connections::{Connections, Link};
use crate::error::{Error, OLD_REVISION};
use crate::login::{Credentials, Login};
use crate::namespace::Namespace;
use crate::retry::{self, Failure, Policy, RetryAction};
use crate::transport::Transport;

/// Maximum number of attempts per request.
const ATTEMPTS_MAX: usize = 100;
/// Pause between attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// A channel that adds the token to requests.
pub(crate) type Service = InterceptedService<Transport, Login>;

/// A client of one cluster. Clones share its connections.
///
/// Requests are distributed over the endpoints round robin. The crate's documentation describes
/// which requests are retried, and where. Dropping the future of a request cancels it; a request
/// that was sent may still be executed.
///
/// A client belongs to the tokio runtime on which it is first used.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    deadline: Option<Instant>,
    pub(crate) namespace: Namespace,
    /// In place of what the configuration says; see [`Client::with_token`].
    given_login: Option<Login>,
}

pub(crate) struct Shared {
    pub config: Arc<Config>,
    connections: Arc<Connections>,
    login: Mutex<Option<Login>>,
    /// Held during authentication, so that concurrent requests authenticate once.
    logging_in: tokio::sync::Mutex<()>,
}

/// A connection and the token to use on it, for opening a stream.
#[derive(Clone)]
pub(crate) struct Route {
    link: Link,
    login: Login,
}

impl Route {
    pub(crate) fn service(&self) -> Service {
        InterceptedService::new(self.link.transport.clone(), self.login.clone())
    }
}

impl Client {
    /// Creates a client. Only checks the configuration; connecting starts with the first request.
    ///
    /// # Errors
    /// There is no endpoint, an endpoint is invalid, or TLS files cannot be used.
    pub fn new(config: Config) -> Result<Client, ConfigError> {
        let config = Arc::new(config);
        let connections = Arc::new(Connections::new(Arc::clone(&config))?);
        Ok(Client {
            shared: Arc::new(Shared {
                config,
                connections,
                login: Mutex::new(None),
                logging_in: tokio::sync::Mutex::new(()),
            }),
            deadline: None,
            namespace: Namespace::default(),
            given_login: None,
        })
    }

    /// The same client with a deadline: all its requests together must complete within `timeout`
    /// from now. With a zero timeout no request is sent. Streams (watches, keep-alive, snapshots)
    /// need only be opened by the deadline.
    pub fn with_timeout(&self, timeout: Duration) -> Client {
        Client {
            // On overflow there is no deadline.
            deadline: Instant::now().checked_add(timeout),
            ..self.clone()
        }
    }

    /// The same client without a deadline.
    pub fn without_deadline(&self) -> Client {
        Client {
            deadline: None,
            ..self.clone()
        }
    }

    /// The same client restricted to the keys that start with `prefix`: the prefix is added to the
    /// keys of requests and removed from those of responses and events. Users, roles, leases and
    /// compactions remain those of the whole cluster. In a nested namespace the outer prefix comes
    /// first.
    pub fn namespace(&self, prefix: impl Into<Bytes>) -> Client {
        Client {
            namespace: self.namespace.nested(&prefix.into()),
            ..self.clone()
        }
    }

    pub(crate) fn with_login(&self, login: Login) -> Client {
        Client {
            given_login: Some(login),
            ..self.clone()
        }
    }

    /// Authenticates within the dial timeout, if there are credentials. Requests do so when needed:
    /// this is for detecting wrong credentials early.
    ///
    /// # Errors
    /// The credentials are rejected, or no endpoint answers in time.
    pub async fn log_in(&self) -> Result<(), Error> {
        if self.shared.config.credentials.is_none() {
            return Ok(());
        }
        let limited = match self.shared.config.dial_timeout {
            Some(timeout) => self.with_timeout(timeout),
            None => self.clone(),
        };
        limited.call(Policy::AtMostOnce, |_| ready(Ok(()))).await
    }

    /// Rejects a request that exceeds the configured size. (The transport would fail as well, but
    /// without the reason.)
    pub(crate) fn check_size(&self, request: &impl Message) -> Result<(), Error> {
        self.check_bytes(request.encoded_len())
    }

    /// The same for a request that is encoded.
    pub(crate) fn check_bytes(&self, bytes: usize) -> Result<(), Error> {
        let limit = self.shared.config.request_bytes_max;
        match bytes > limit {
            true => Err(Error::RequestTooLarge { bytes, limit }),
            false => Ok(()),
        }
    }

    /// Sends a request and retries it as [`retry`] decides, until the deadline.
    pub(crate) async fn call<T, F>(
        &self,
        policy: Policy,
        send: impl Fn(Service) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut last = None;
        let Some(deadline) = self.deadline else {
            return self.attempts(policy, send, &mut last).await;
        };
        if deadline <= Instant::now() {
            return Err(Error::DeadlineExceeded { last: None });
        }
        let attempts = self.attempts(policy, send, &mut last);
        tokio::time::timeout_at(deadline, attempts)
            .await
            .unwrap_or_else(|_| {
                Err(Error::DeadlineExceeded {
                    last: self.unreachable().or(last).map(Box::new),
                })
            })
    }

    async fn attempts<T, F>(
        &self,
        policy: Policy,
        send: impl Fn(Service) -> F,
        last: &mut Option<Error>,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<T, Error>>,
    {
        let mut attempts_left = ATTEMPTS_MAX;
        loop {
            let link = self.shared.connections.pick().await;
            let login = self.login(&link).await;
            let result = match &login {
                Ok(login) => send(service(&link, login)).await,
                Err(error) => Err(error.clone()),
            };
            let error = match result {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            attempts_left -= 1;
            match self.retry_action(policy, &error) {
                RetryAction::Fail => return Err(error),
                _ if attempts_left == 0 => return Err(error),
                RetryAction::Authenticate => self.forget_token(login.ok().as_ref()),
                RetryAction::OtherEndpoint => self.use_other_endpoint(&link, &error),
            }
            *last = Some(error);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// Decides how to proceed after a failed request.
    fn retry_action(&self, policy: Policy, error: &Error) -> RetryAction {
        match retry::decide(policy, Failure::of(error), self.endpoints()) {
            RetryAction::Authenticate if !self.can_authenticate_again(error) => RetryAction::Fail,
            next => next,
        }
    }

    /// The number of endpoints.
    pub(crate) fn endpoints(&self) -> usize {
        self.shared.connections.len()
    }

    /// Whether to open a stream again that failed with this error.
    pub(crate) fn may_reopen(&self, error: &Error) -> bool {
        self.retry_action(Policy::Repeatable, error) != RetryAction::Fail
    }

    /// Waits for a connection, and authenticates if that has not been done.
    ///
    /// # Errors
    /// Authentication failed; the endpoint is then passed over for a while.
    pub(crate) async fn route(&self) -> Result<Route, Error> {
        let link = self.shared.connections.pick().await;
        match self.login(&link).await {
            Ok(login) => Ok(Route { link, login }),
            Err(error) => {
                self.use_other_endpoint(&link, &error);
                Err(error)
            }
        }
    }

    /// Makes the next stream use another endpoint and a new token: streams report an outdated token
    /// in different ways.
    pub(crate) fn leave(&self, route: &Route, error: &Error) {
        self.use_other_endpoint(&route.link, error);
        let is_fixed = matches!(self.shared.config.credentials, Some(Credentials::Token(_)));
        if !is_fixed && self.given_login.is_none() {
            self.forget_token(Some(&route.login));
        }
    }

    fn use_other_endpoint(&self, link: &Link, error: &Error) {
        let connections = &self.shared.connections;
        connections.pass_over(link);
        if matches!(error, Error::Unsent { .. } | Error::Broken { .. }) {
            connections.lose(link);
        }
    }

    async fn login(&self, link: &Link) -> Result<Login, Error> {
        if let Some(login) = &self.given_login {
            return Ok(login.clone());
        }
        let Some(credentials) = &self.shared.config.credentials else {
            return Ok(Login::default());
        };
        if let Some(login) = self.known_login() {
            return Ok(login);
        }
        let _held = self.shared.logging_in.lock().await;
        if let Some(login) = self.known_login() {
            return Ok(login);
        }
        let login = credentials.log_in(link.transport.clone()).await?;
        *self
            .shared
            .login
            .lock()
            .expect("no code panics while holding the lock") = Some(login.clone());
        Ok(login)
    }

    fn known_login(&self) -> Option<Login> {
        let login = self.shared.login.lock();
        login
            .expect("no code panics while holding the lock")
            .clone()
    }

    /// Makes the next request authenticate, unless that has happened since `outdated` was used.
    fn forget_token(&self, outdated: Option<&Login>) {
        let mut login = self
            .shared
            .login
            .lock()
            .expect("no code panics while holding the lock");
        if login.as_ref() == outdated {
            *login = None;
        }
    }

    /// Whether `error` reports an outdated token that authentication can replace.
    fn can_authenticate_again(&self, error: &Error) -> bool {
        if self.given_login.is_some() {
            return false;
        }
        match &self.shared.config.credentials {
            // A fixed token cannot be replaced.
            Some(Credentials::Token(_)) => false,
            Some(Credentials::Password { .. }) => true,
            // The user may be that of the client certificate, for which only the revision can be
            // outdated.
            None => error.is_answer(OLD_REVISION),
        }
    }

    fn unreachable(&self) -> Option<Error> {
        let reason = self.shared.connections.failure()?;
        Some(Error::Unreachable { reason })
    }
}

fn service(link: &Link, login: &Login) -> Service {
    InterceptedService::new(link.transport.clone(), login.clone())
}
