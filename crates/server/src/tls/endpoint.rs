//! The TLS of one kind of listeners, from its flags and files.

use std::borrow::Cow;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use retcd_tls::{
    AllowedNames, Authorities, FileError, Identity, RevocationList, Settings, SettingsError,
    Version,
};

use super::reload::Reloaded;
use super::self_signed::{self, SelfSignedError};
use crate::config::Config;
use crate::config::settings::Tls;
use crate::config::url::Url;

/// Whom an endpoint is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Client,
    Peer,
}

impl Kind {
    /// The flag that has this name for clients.
    fn flag(self, name: &str) -> String {
        match (self, name) {
            (Kind::Client, "crl-file") => "--client-crl-file".to_owned(),
            (Kind::Client, name) => format!("--{name}"),
            (Kind::Peer, name) => format!("--peer-{name}"),
        }
    }

    /// The error for a file of one of these flags, given as pairs of name and path, or for files
    /// that do not belong together.
    fn unusable(self, error: FileError, flags: &[(&str, &str)]) -> Reason {
        let path = error.path();
        let named = |(_, own): &&(&str, &str)| path.is_none_or(|path| path == Path::new(own));
        let flags = flags.iter().filter(named);
        let flags: Vec<String> = flags.map(|(name, _)| self.flag(name)).collect();
        Reason::File {
            error,
            flags: flags.join(" and "),
        }
    }
}

/// Why an endpoint cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("{reason}")]
pub(crate) struct TlsError {
    side: Kind,
    reason: Reason,
}

impl TlsError {
    /// The reason in Go's words alone, without the flags that it is about.
    pub(crate) fn reason(&self) -> String {
        match &self.reason {
            Reason::File { error, .. } => error.reason(),
            reason => reason.to_string(),
        }
    }

    /// The message of etcd's last line of the log for it.
    pub(crate) fn message(&self) -> &'static str {
        match (&self.reason, self.side) {
            (Reason::SelfSigned(_), Kind::Client) => "failed to get client self-signed certs",
            (Reason::SelfSigned(_), Kind::Peer) => "failed to get peer self-signed certs",
            (_, Kind::Client) => "listener failed",
            (_, Kind::Peer) => "discovery failed",
        }
    }
}

// In etcd's words, where it has some.
#[derive(Debug, thiserror::Error)]
enum Reason {
    #[error("KeyFile and CertFile must both be present[key: {key}, cert: {certificate}]")]
    HalfPair { key: String, certificate: String },
    #[error(
        "ClientKeyFile and ClientCertFile must both be present or both absent: key: {key}, cert: {certificate}]"
    )]
    HalfClientPair { key: String, certificate: String },
    #[error(
        "AllowedCNs and AllowedHostnames are mutually exclusive (cns={names}, hostnames={hosts})"
    )]
    TwoKindsOfRules { names: String, hosts: String },
    #[error(transparent)]
    Settings(#[from] SettingsError),
    #[error("{error}; see {flags}")]
    File { error: FileError, flags: String },
    #[error(transparent)]
    SelfSigned(#[from] SelfSignedError),
}

/// Whether a certificate is required of the other end, and which authorities may have signed it.
pub(super) enum Trust {
    /// No certificate is required.
    None,
    /// The authorities of a file.
    File(Reloaded<Authorities>),
    /// The authorities of the operating system.
    System(Arc<Authorities>),
}

impl Trust {
    /// None if no certificate is required.
    pub(super) fn current(&self) -> Option<Arc<Authorities>> {
        match self {
            Trust::None => None,
            Trust::File(authorities) => Some(authorities.current()),
            Trust::System(authorities) => Some(Arc::clone(authorities)),
        }
    }
}

/// The TLS of the listeners for clients or for members; for members also of connections to them.
pub(crate) struct Endpoint {
    pub(super) kind: Kind,
    pub(super) settings: Settings,
    /// None if there is no certificate; then there are no listeners, only connections to members.
    pub(super) identity: Option<Reloaded<Identity>>,
    /// For connections to other members, if it differs.
    pub(super) client_identity: Option<Reloaded<Identity>>,
    pub(super) trust: Trust,
    /// The operating system's authorities, for connections if no others are configured.
    system: OnceLock<Arc<Authorities>>,
    pub(super) revoked: Option<Reloaded<RevocationList>>,
    pub(super) rules: Arc<AllowedNames>,
    /// Whether a client's certificate must be valid for the address of the client.
    pub(super) checks_address: bool,
    /// Whether the common name of a client's certificate is the name of a user.
    pub(super) names_users: bool,
    /// Whether the certificate was generated, so that others cannot verify it.
    pub(super) self_signed: bool,
}

pub(crate) struct Endpoints {
    /// None if no listener for clients has TLS.
    pub client: Option<Arc<Endpoint>>,
    /// Also needed without such listeners, as the listeners of other members may have TLS.
    pub peer: Arc<Endpoint>,
}

/// Opens the endpoints that the flags describe.
///
/// # Errors
/// Flags contradict each other, a file cannot be used, or a certificate cannot be generated.
pub(crate) fn open(config: &Config) -> Result<Endpoints, TlsError> {
    let of_side = |side| move |reason| TlsError { side, reason };
    let (of_client, of_peer) = (of_side(Kind::Client), of_side(Kind::Peer));
    // etcd finds these errors when it opens its peer endpoint.
    let settings = settings(config).map_err(|error| of_peer(error.into()))?;
    let hosts = |urls: &[&[Url]]| -> Vec<String> {
        let urls = urls.iter().copied().flatten();
        urls.filter(|url| !url.is_unix())
            .map(|url| url.host().to_owned())
            .collect()
    };
    let peer_hosts = hosts(&[&config.listen_peer_urls]);
    let peer = Files::of(&config.peer_tls, Kind::Peer, config, &peer_hosts).map_err(of_peer)?;
    let client_hosts = hosts(&[&config.listen_client_urls, &config.listen_client_http_urls]);
    let client =
        Files::of(&config.client_tls, Kind::Client, config, &client_hosts).map_err(of_client)?;
    warn_about_plain_listeners(config, &client, &peer);

    let mut client_urls = config
        .listen_client_urls
        .iter()
        .chain(&config.listen_client_http_urls)
        .chain(&config.listen_metrics_urls);
    let opened = |files: &Files<'_>, settings| {
        let endpoint = Endpoint::open(files, settings)?;
        files.announce(&endpoint);
        Ok(endpoint)
    };
    let peer = opened(&peer, settings.clone()).map_err(of_peer)?;
    let client = match client_urls.any(Url::is_secure) {
        true => Some(opened(&client, settings).map_err(of_client)?),
        false => None,
    };
    Ok(Endpoints {
        client: client.map(Arc::new),
        peer: Arc::new(peer),
    })
}

/// Opens the endpoint of a proxy's listeners; `flags` name files only.
///
/// # Errors
/// A file cannot be used.
pub(crate) fn open_for_proxy(flags: &Tls, settings: Settings) -> Result<Endpoint, TlsError> {
    let files = Files {
        kind: Kind::Client,
        flags: Cow::Borrowed(flags),
        self_signed: false,
        cipher_suites: &[],
    };
    let opened = Endpoint::open(&files, settings);
    opened.map_err(|reason| TlsError {
        side: Kind::Client,
        reason,
    })
}

/// The flags for a certificate that is made for `hosts` in `directory`, if it is not there yet.
///
/// # Errors
/// It cannot be made.
pub(crate) fn make_self_signed(
    directory: &Path,
    hosts: &[String],
    years: usize,
) -> Result<Tls, TlsError> {
    let made = self_signed::find_or_generate(directory, hosts, years);
    let made = made.map_err(|error| TlsError {
        side: Kind::Client,
        reason: error.into(),
    })?;
    Ok(Tls {
        cert_file: made.certificate.display().to_string(),
        key_file: made.key.display().to_string(),
        ..Tls::default()
    })
}

fn settings(config: &Config) -> Result<Settings, SettingsError> {
    let version = |name: &str| Version::from_name(name);
    let settings = Settings::new(
        version(&config.tls_min_version),
        version(&config.tls_max_version),
        &config.cipher_suites,
    )?;
    if !settings.unavailable().is_empty() {
        crate::warn!("cipher suites that are allowed are not available; the others are";
            "cipher-suites" => settings.unavailable());
    }
    Ok(settings)
}

/// The flags of one endpoint, with generated certificates if these are asked for.
struct Files<'a> {
    kind: Kind,
    flags: Cow<'a, Tls>,
    self_signed: bool,
    cipher_suites: &'a [String],
}

impl<'a> Files<'a> {
    fn of(
        flags: &'a Tls,
        kind: Kind,
        config: &'a Config,
        hosts: &[String],
    ) -> Result<Files<'a>, Reason> {
        let given = Files {
            kind,
            flags: Cow::Borrowed(flags),
            self_signed: false,
            cipher_suites: &config.cipher_suites,
        };
        if !flags.auto_tls {
            return Ok(given);
        }
        let side = match kind {
            Kind::Client => "client",
            Kind::Peer => "peer",
        };
        if !given.is_empty() {
            crate::warn!(format!("ignoring {side} auto TLS since certs given"));
            return Ok(given);
        }
        let directory = PathBuf::from(&config.data_dir).join("fixtures").join(side);
        let years = config.self_signed_cert_validity_years;
        let made = self_signed::find_or_generate(&directory, hosts, years)?;
        // As in etcd, the other flags about certificates are ignored then.
        if flags.client_cert_auth || !flags.trusted_ca_file.is_empty() {
            crate::warn!(format!(
                "ignoring {side} certificate authentication since certificates are made automatically"
            ));
        }
        Ok(Files {
            kind,
            flags: Cow::Owned(Tls {
                cert_file: made.certificate.display().to_string(),
                key_file: made.key.display().to_string(),
                ..Tls::default()
            }),
            self_signed: true,
            cipher_suites: &config.cipher_suites,
        })
    }

    /// Tells of an endpoint that was opened, if it can have listeners.
    fn announce(&self, endpoint: &Endpoint) {
        if endpoint.identity.is_none() {
            return;
        }
        let message = match self.kind {
            Kind::Client => "starting with client TLS",
            Kind::Peer => "starting with peer TLS",
        };
        crate::info!(message; "tls-info" => &describe(&self.flags), "cipher-suites" => self.cipher_suites);
    }

    fn is_empty(&self) -> bool {
        self.flags.cert_file.is_empty() && self.flags.key_file.is_empty()
    }
}

fn warn_about_plain_listeners(config: &Config, client: &Files<'_>, peer: &Files<'_>) {
    for url in config
        .listen_peer_urls
        .iter()
        .filter(|url| !url.is_secure())
    {
        if !peer.is_empty() {
            crate::warn!("scheme is HTTP while key and cert files are present; ignoring key and cert files";
                "peer-url" => url.as_str());
        }
        if peer.flags.client_cert_auth {
            crate::warn!("scheme is HTTP while --peer-client-cert-auth is enabled; ignoring client cert auth for this URL";
                "peer-url" => url.as_str());
        }
    }
    let urls = config
        .listen_client_urls
        .iter()
        .chain(&config.listen_client_http_urls);
    for url in urls.filter(|url| !url.is_secure()) {
        if !client.is_empty() {
            crate::warn!("scheme is http or unix while key and cert files are present; ignoring key and cert files";
                "client-url" => url.as_str());
        }
        if client.flags.client_cert_auth {
            crate::warn!("scheme is http or unix while --client-cert-auth is enabled; ignoring client cert auth for this URL";
                "client-url" => url.as_str());
        }
    }
}

impl Endpoint {
    fn open(files: &Files<'_>, settings: Settings) -> Result<Endpoint, Reason> {
        let flags = &*files.flags;
        let side = files.kind;
        let (certificate, key) = (&flags.cert_file, &flags.key_file);
        if certificate.is_empty() != key.is_empty() {
            return Err(Reason::HalfPair {
                key: key.clone(),
                certificate: certificate.clone(),
            });
        }
        let identity = load_identity(certificate, key).map_err(|error| {
            side.unusable(error, &[("cert-file", certificate), ("key-file", key)])
        })?;
        let (certificate, key) = (&flags.client_cert_file, &flags.client_key_file);
        if identity.is_some() && certificate.is_empty() != key.is_empty() {
            return Err(Reason::HalfClientPair {
                key: key.clone(),
                certificate: certificate.clone(),
            });
        }
        // As in etcd, it is ignored without the other one.
        let client_identity = match identity {
            Some(_) => load_identity(certificate, key).map_err(|error| {
                side.unusable(
                    error,
                    &[("client-cert-file", certificate), ("client-key-file", key)],
                )
            })?,
            None => None,
        };
        let trust = match flags.trusted_ca_file.as_str() {
            "" if flags.client_cert_auth => Trust::System(Arc::new(Authorities::from_system())),
            "" => Trust::None,
            path => Trust::File(
                Reloaded::open(&[path], |paths| Authorities::load(&paths[0]))
                    .map_err(|error| side.unusable(error, &[("trusted-ca-file", path)]))?,
            ),
        };
        let revoked = match flags.crl_file.as_str() {
            "" => None,
            path => Some(
                Reloaded::open(&[path], |paths| RevocationList::load(&paths[0]))
                    .map_err(|error| side.unusable(error, &[("crl-file", path)]))?,
            ),
        };
        Ok(Endpoint {
            kind: files.kind,
            settings,
            identity,
            client_identity,
            trust,
            system: OnceLock::new(),
            revoked,
            rules: rules(flags)?,
            checks_address: files.kind == Kind::Peer && !flags.skip_client_san_verification,
            names_users: files.kind == Kind::Client && flags.client_cert_auth,
            self_signed: files.self_signed,
        })
    }

    /// The operating system's authorities, read once.
    pub(super) fn system_authorities(&self) -> Arc<Authorities> {
        let read = || Arc::new(Authorities::from_system());
        Arc::clone(self.system.get_or_init(read))
    }
}

/// A certificate and its key; none if no files are given.
fn load_identity(certificate: &str, key: &str) -> Result<Option<Reloaded<Identity>>, FileError> {
    if certificate.is_empty() {
        return Ok(None);
    }
    let load = |paths: &[PathBuf]| Identity::load(&paths[0], &paths[1]);
    Reloaded::open(&[certificate, key], load).map(Some)
}

fn rules(flags: &Tls) -> Result<Arc<AllowedNames>, Reason> {
    if !flags.allowed_cns.is_empty() && !flags.allowed_hostnames.is_empty() {
        return Err(Reason::TwoKindsOfRules {
            names: go_list(&flags.allowed_cns),
            hosts: go_list(&flags.allowed_hostnames),
        });
    }
    Ok(Arc::new(AllowedNames {
        allowed_common_names: flags.allowed_cns.clone(),
        allowed_host_names: flags.allowed_hostnames.clone(),
    }))
}

/// A list as Go formats it with `%q`.
fn go_list(names: &[String]) -> String {
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    format!("[{}]", quoted.join(" "))
}

/// As etcd logs it.
pub(crate) fn describe(flags: &Tls) -> String {
    format!(
        "cert = {}, key = {}, client-cert={}, client-key={}, trusted-ca = {}, client-cert-auth = {}, crl-file = {}",
        flags.cert_file,
        flags.key_file,
        flags.client_cert_file,
        flags.client_key_file,
        flags.trusted_ca_file,
        flags.client_cert_auth,
        flags.crl_file
    )
}
