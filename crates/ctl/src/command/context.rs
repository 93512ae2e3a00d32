//! Client configuration, output format and runtime of a command, from the global flags and the
//! environment.

use std::future::Future;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use retcd_client::{Client, Config, ConfigError, Credentials, Error, TlsConfig};
use retcd_log as log;

use super::{discovery, environment, next_step, password};
use crate::cli::{Exit, ExitKind, FlagSet, Invocation};
use crate::print::{Format, Printer, Reply};
use crate::stderr;

const REQUEST_BYTES_MAX: usize = 2 << 20;
const RESPONSE_BYTES_MAX: usize = i32::MAX as usize;

/// The settings of an invocation.
pub(crate) struct Context {
    /// The client configuration.
    pub(crate) config: Config,
    /// The output format.
    pub(crate) printer: Printer,
    /// The timeout of short commands.
    pub(crate) command_timeout: Duration,
    /// Whether the user set the timeout.
    pub(crate) command_timeout_given: bool,
}

impl Context {
    /// Reads flags and environment.
    ///
    /// # Errors
    /// Flags conflict or are invalid.
    pub(crate) fn new(invocation: &mut Invocation<'_>, watches: bool) -> Result<Context, Exit> {
        let variables: Vec<(String, String)> = std::env::vars_os()
            .map(|(name, value)| {
                (
                    name.to_string_lossy().into_owned(),
                    value.to_string_lossy().into_owned(),
                )
            })
            .collect();
        let flags = &mut invocation.flags;
        environment::apply(flags, &variables, watches)?;
        if flags.bool("debug") {
            for name in flags.inherited_names() {
                stderr::write_line(format_args!(
                    "{}={}",
                    environment::variable(name),
                    flags.value(name)
                ));
            }
        }
        let mut endpoints = discovery::endpoints(
            flags.text("discovery-srv"),
            flags.text("discovery-srv-name"),
            flags.bool("insecure-discovery"),
        )?;
        let unsupported = || Exit::new(ExitKind::BadFeature, "unsupported output format");
        refuse_empty_tls_files(flags)?;
        let credentials = credentials(flags)?;
        let format = Format::parse(flags.text("write-out")).ok_or_else(unsupported)?;
        if endpoints.is_empty() {
            endpoints = given_endpoints(flags);
        }
        let file = |flag| {
            Some(flags.text(flag))
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        };
        let tls = TlsConfig {
            cert: file("cert"),
            key: file("key"),
            authorities: file("cacert"),
            server_name: discovery::server_name(flags),
            skip_verify: flags.bool("insecure-skip-tls-verify"),
            required: !flags.bool("insecure-transport"),
        };
        Ok(Context {
            config: Config {
                endpoints,
                dial_timeout: flags.duration("dial-timeout").limit(),
                keepalive_time: flags.duration("keepalive-time").limit(),
                keepalive_timeout: flags.duration("keepalive-timeout").limit(),
                keepalive_while_idle: false,
                request_bytes_max: limit(flags.int("max-request-bytes"), REQUEST_BYTES_MAX),
                response_bytes_max: limit(flags.int("max-recv-bytes"), RESPONSE_BYTES_MAX),
                tls,
                credentials,
            },
            printer: Printer {
                format,
                hex: flags.bool("hex"),
                values_only: false,
            },
            command_timeout: flags.duration("command-timeout").std(),
            command_timeout_given: flags.given("command-timeout"),
        })
    }

    /// A client for all endpoints, authenticated if there are credentials.
    ///
    /// # Errors
    /// The configuration is invalid, or the credentials are rejected.
    pub(crate) async fn client(&self) -> Result<Client, Exit> {
        connect(self.config.clone()).await
    }

    /// A client for one endpoint.
    ///
    /// # Errors
    /// As [`Context::client`].
    pub(crate) async fn client_of(&self, endpoint: &str) -> Result<Client, Exit> {
        connect(self.config.with_endpoint(endpoint)).await
    }

    /// A client for all endpoints, with the command timeout as its deadline from now on.
    ///
    /// # Errors
    /// As [`Context::client`].
    pub(crate) async fn limited_client(&self) -> Result<Client, Exit> {
        Ok(self.client().await?.with_timeout(self.command_timeout))
    }

    /// Prints a reply.
    ///
    /// # Errors
    /// As [`Printer::print`].
    pub(crate) fn print(&self, reply: &Reply<'_>) -> Result<(), Exit> {
        self.printer.print(reply)
    }

    /// The endpoints to query one by one: the given ones, or those of all members.
    ///
    /// # Errors
    /// The members could not be listed.
    pub(crate) async fn each_endpoint(&self, of_cluster: bool) -> Result<Vec<String>, Exit> {
        if !of_cluster {
            return Ok(self.config.endpoints.clone());
        }
        let client = Client::new(self.config.clone()).map_err(Exit::error)?;
        let client = client.with_timeout(self.command_timeout);
        let members = super::member::list(&client, true).await.map_err(failed);
        let context = "failed to fetch endpoints from etcd cluster member list";
        let members = members.map_err(|exit| Exit {
            message: exit.message.map(|message| format!("{context}: {message}")),
            ..exit
        })?;
        Ok(members
            .members
            .into_iter()
            .flat_map(|member| member.client_ur_ls)
            .collect())
    }
}

/// Runs a command's asynchronous part.
///
/// # Errors
/// Those of the command, or the runtime could not be created.
pub(crate) fn run<T>(work: impl Future<Output = Result<T, Exit>>) -> Result<T, Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.map_err(|error| Exit::error(format!("cannot start: {error}")))?;
    let result = runtime.block_on(work);
    // A thread that still reads stdin must not delay the exit.
    runtime.shutdown_background();
    result
}

/// A client for `config`, authenticated if there are credentials.
///
/// # Errors
/// The configuration is invalid, or the credentials are rejected.
pub(crate) async fn connect(config: Config) -> Result<Client, Exit> {
    let client = Client::new(config).map_err(|error| match error {
        ConfigError::NoEndpoints | ConfigError::Endpoint(_) => {
            Exit::new(ExitKind::BadConnection, error)
        }
        ConfigError::Tls(_) => Exit::bad_args(error),
    })?;
    client.log_in().await.map_err(|error| {
        log_last_attempt(&error);
        Exit::new(ExitKind::BadConnection, error)
    })?;
    Ok(client)
}

/// The exit of a command whose request failed.
pub(crate) fn failed(error: Error) -> Exit {
    log_last_attempt(&error);
    Exit::error(error)
}

/// Logs what a request that timed out was waiting for.
pub(crate) fn log_last_attempt(error: &Error) {
    if let Error::DeadlineExceeded { last: Some(last) } = error {
        let failure = last.text_with_code();
        log::warn!(logger: "etcd-client", "retrying of unary invoker failed"; "error" => failure);
        // Scripts compare what is on stderr.
        if std::io::stderr().is_terminal()
            && let Some(step) = next_step::after(&failure)
        {
            stderr::write_line(step);
        }
    }
}

/// The endpoints of the flag or its variable. Empty elements are ignored: scripts that build lists
/// leave extra commas.
fn given_endpoints(flags: &FlagSet) -> Vec<String> {
    let given = flags.list("endpoints").iter();
    given
        .map(|endpoint| endpoint.trim())
        .filter(|endpoint| !endpoint.is_empty())
        .map(str::to_owned)
        .collect()
}

fn limit(flag: i64, default: usize) -> usize {
    usize::try_from(flag)
        .ok()
        .filter(|limit| *limit > 0)
        .unwrap_or(default)
}

fn refuse_empty_tls_files(flags: &FlagSet) -> Result<(), Exit> {
    for name in ["cert", "key", "cacert"] {
        if flags.given(name) && flags.text(name).is_empty() {
            return Err(Exit::bad_args(format!(
                "empty string is passed to --{name} option"
            )));
        }
    }
    Ok(())
}

fn credentials(flags: &FlagSet) -> Result<Option<Credentials>, Exit> {
    let [user, password, token] =
        ["user", "password", "auth-jwt-token"].map(|name| flags.text(name));
    if !token.is_empty() {
        return Ok(Some(Credentials::Token(token.to_owned())));
    }
    login(user, password, "Password: ")
}

/// The credentials of `--user` and `--password`, or of flags like them; asks with `prompt` for a
/// password that neither has.
///
/// # Errors
/// The password could not be read.
pub(crate) fn login(user: &str, password: &str, prompt: &str) -> Result<Option<Credentials>, Exit> {
    if user.is_empty() {
        return Ok(None);
    }
    let (name, password) = match user.split_once(':') {
        _ if !password.is_empty() => (user, password.to_owned()),
        Some((name, password)) => (name, password.to_owned()),
        None => (user, password::ask(prompt).map_err(Exit::error)?),
    };
    // etcd's client authenticates only with both.
    let complete = !name.is_empty() && !password.is_empty();
    Ok(complete.then(|| Credentials::Password {
        name: name.to_owned(),
        password,
    }))
}
