//! A handle to a cluster: whose requests carry a token, have a deadline, and may live in a
//! namespace.

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
use crate::retry::{self, Failure, Next, Policy};
use crate::transport::Transport;

/// A request is attempted this often at most.
const ATTEMPTS_MAX: usize = 100;
/// The pause between two attempts.
const RETRY_PAUSE: Duration = Duration::from_millis(25);

/// A channel whose requests carry the token of who asks.
pub(crate) type Service = InterceptedService<Transport, Login>;

/// A client of one cluster. Clones share its connections.
///
/// Requests take the endpoints in turn. Which failed request is made again, and where, is told in
/// the crate's documentation. All requests are cancelled by dropping their future; what was sent
/// may be executed nevertheless.
///
/// A client belongs to the tokio runtime on which it is first used.
#[derive(Clone)]
pub struct Client {
    pub(crate) shared: Arc<Shared>,
    deadline: Option<Instant>,
    pub(crate) namespace: Namespace,
}

pub(crate) struct Shared {
    pub config: Arc<Config>,
    connections: Arc<Connections>,
    login: Mutex<Option<Login>>,
    /// Held by whoever logs in, so that all who wait do it once.
    logging_in: tokio::sync::Mutex<()>,
}

/// A connection together with who asks on it: what a stream is opened on.
pub(crate) struct Route {
    link: Link,
    login: Login,
}

impl Route {
    pub fn service(&self) -> Service {
        InterceptedService::new(self.link.transport.clone(), self.login.clone())
    }
}

impl Client {
    /// Checks the configuration; nothing is sent yet.
    ///
    /// # Errors
    /// No endpoints, or one that cannot be understood; TLS files that cannot be used.
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
        })
    }

    /// The same client, whose requests have so much time from now on, all together. A limit of
    /// nothing is over before anything is sent. Streams (watches, keep-alive, snapshots) need only
    /// have been opened by then.
    pub fn within(&self, limit: Duration) -> Client {
        Client {
            // Centuries are as good as no limit.
            deadline: Instant::now().checked_add(limit),
            ..self.clone()
        }
    }

    /// The same client, whose requests may take as long as they want.
    pub fn without_deadline(&self) -> Client {
        Client {
            deadline: None,
            ..self.clone()
        }
    }

    /// The same client, to which all keys are what follows `prefix`: it is put before the keys of
    /// requests and taken from those of answers and events. Requests cannot reach other keys;
    /// users, roles, leases and compactions are those of the whole cluster. A namespace within a
    /// namespace has both prefixes, the outer one first.
    pub fn namespace(&self, prefix: impl Into<Bytes>) -> Client {
        Client {
            namespace: self.namespace.within(&prefix.into()),
            ..self.clone()
        }
    }

    /// Logs in, if there are credentials, within the dial timeout. Requests do so by themselves:
    /// this is for learning of wrong credentials early.
    ///
    /// # Errors
    /// Refused credentials, or no endpoint that answers in time.
    pub async fn log_in(&self) -> Result<(), Error> {
        if self.shared.config.credentials.is_none() {
            return Ok(());
        }
        let limited = self.within(self.shared.config.dial_timeout);
        limited.call(Policy::AtMostOnce, |_| ready(Ok(()))).await
    }

    /// Refuses a request that is larger than the configuration allows. (The transport would refuse
    /// it, too, but not say why.)
    pub(crate) fn check_size(&self, request: &impl Message) -> Result<(), Error> {
        let (bytes, limit) = (request.encoded_len(), self.shared.config.request_bytes_max);
        match bytes > limit {
            true => Err(Error::RequestTooLarge { bytes, limit }),
            false => Ok(()),
        }
    }

    /// Makes a request, and makes it again as [`retry`] says, until the deadline.
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
            match self.next(policy, &error) {
                Next::GiveUp => return Err(error),
                _ if attempts_left == 0 => return Err(error),
                Next::LogIn => self.forget_login(login.ok().as_ref()),
                Next::Elsewhere => self.go_elsewhere(&link, &error),
            }
            *last = Some(error);
            tokio::time::sleep(RETRY_PAUSE).await;
        }
    }

    /// What to do about a failed request.
    fn next(&self, policy: Policy, error: &Error) -> Next {
        match retry::next(policy, Failure::of(error), self.endpoints()) {
            Next::LogIn if !self.may_log_in_again(error) => Next::GiveUp,
            next => next,
        }
    }

    /// How many endpoints there are.
    pub(crate) fn endpoints(&self) -> usize {
        self.shared.connections.len()
    }

    /// Whether a stream that could not be opened, or ended, for this reason is worth opening again.
    pub(crate) fn may_reopen(&self, error: &Error) -> bool {
        self.next(Policy::Repeatable, error) != Next::GiveUp
    }

    /// Waits for a connection, and logs in if that has not been done.
    ///
    /// # Errors
    /// The login's; other endpoints then go first.
    pub(crate) async fn route(&self) -> Result<Route, Error> {
        let link = self.shared.connections.pick().await;
        match self.login(&link).await {
            Ok(login) => Ok(Route { link, login }),
            Err(error) => {
                self.go_elsewhere(&link, &error);
                Err(error)
            }
        }
    }

    /// Lets a stream be opened at another endpoint, and with another token: the answers of streams
    /// tell of one that is too old in ways of their own.
    pub(crate) fn leave(&self, route: &Route, error: &Error) {
        self.go_elsewhere(&route.link, error);
        if !matches!(self.shared.config.credentials, Some(Credentials::Token(_))) {
            self.forget_login(Some(&route.login));
        }
    }

    fn go_elsewhere(&self, link: &Link, error: &Error) {
        let connections = &self.shared.connections;
        connections.pass_over(link);
        if matches!(error, Error::Unsent { .. } | Error::Broken { .. }) {
            connections.lose(link);
        }
    }

    async fn login(&self, link: &Link) -> Result<Login, Error> {
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
        *self.shared.login.lock().expect("nothing panics under it") = Some(login.clone());
        Ok(login)
    }

    fn known_login(&self) -> Option<Login> {
        let login = self.shared.login.lock();
        login.expect("nothing panics under it").clone()
    }

    /// Lets the next request log in, unless somebody has done so since `outdated` was used.
    fn forget_login(&self, outdated: Option<&Login>) {
        let mut login = self.shared.login.lock().expect("nothing panics under it");
        if login.as_ref() == outdated {
            *login = None;
        }
    }

    /// Whether another login can help against `error`, which says that the last one is too old.
    fn may_log_in_again(&self, error: &Error) -> bool {
        match &self.shared.config.credentials {
            // There is no other.
            Some(Credentials::Token(_)) => false,
            Some(Credentials::Password { .. }) => true,
            // A certificate says who asks.
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
