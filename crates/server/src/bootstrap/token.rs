//! `--discovery-token`: the members of a new cluster find each other through a cluster that exists
//! already.
//!
//! ```text
//! /_etcd/registry/TOKEN/_config/size       "3", written by the operator
//! /_etcd/registry/TOKEN/members/ID         "m1=http://10.0.0.1:2380", one for each member
//! ```
//! Each member registers itself, waits for the others, and takes the first ones by revision, which
//! are the same for all. A service that does not answer is asked again, for ever; what it answers
//! may end the start.

use std::time::Duration;

use retcd_client::{
    Client, Config as ClientConfig, Credentials, TlsConfig, WatchError, prefix_end,
};
use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use retcd_proto::etcdserverpb::{PutRequest, RangeRequest, WatchCreateRequest};
use retcd_proto::mvccpb;
use retcd_proto::mvccpb::event::EventType;
use retcd_proto::number;
use retcd_state::identity::member_id;

use super::initial_cluster::InitialCluster;
use crate::config::Config;
use crate::config::url::Url;
use crate::log::{Level, Record};

/// The pause before the first repetition; each is twice as long as the one before.
const BACKOFF: Duration = Duration::from_secs(2);
/// Doublings of the pause.
const BACKOFF_DOUBLINGS: u32 = 7;

/// Why a member cannot take part, in etcd's words.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DiscoveryError {
    #[error("discovery: size key not found")]
    SizeNotFound,
    #[error("discovery: size key is bad")]
    BadSize,
    #[error("discovery: cluster is full")]
    Full,
    #[error("discovery: invalid peer URL")]
    InvalidUrl,
    /// The client of the service cannot be made, or its user is refused.
    #[error("{0}")]
    Client(String),
}

/// The members of the cluster that the token stands for, in the form of `--initial-cluster`. Waits
/// for them without a limit.
///
/// # Errors
/// See [`DiscoveryError`].
pub(super) async fn initial_cluster(config: &Config) -> Result<String, DiscoveryError> {
    crate::info!("Bootstrapping cluster using v3 discovery.");
    let result = Service::join(config).await;
    if let Err(error) = &result {
        let own = own_entry(config);
        crate::error!("discovery failed to join cluster"; "cluster" => &own, "error" => error.to_string().as_str());
    }
    result
}

/// What this member registers: its name and its URLs.
fn own_entry(config: &Config) -> String {
    let urls = config.initial_advertise_peer_urls.iter();
    let pairs: Vec<String> = urls.map(|url| format!("{}={url}", config.name)).collect();
    pairs.join(",")
}

/// The discovery service, and what is registered there.
struct Service<'a> {
    config: &'a Config,
    client: Client,
    own_key: String,
    own_entry: String,
}

/// What is registered for a token.
#[derive(Debug, PartialEq, Eq)]
struct Registry {
    /// Members that the cluster is to have.
    size: usize,
    /// Key and entry of each that is registered, by the revision of its key.
    members: Vec<(String, String)>,
    /// Of the store when it was read.
    revision: i64,
}

impl Service<'_> {
    async fn join(config: &Config) -> Result<String, DiscoveryError> {
        let urls: Vec<String> = config
            .initial_advertise_peer_urls
            .iter()
            .map(Url::to_string)
            .collect();
        let id = member_id(&urls, &config.discovery.token);
        let service = Service {
            client: connect(config).await?,
            own_key: format!("{}/{id:016x}", members_prefix(config)),
            own_entry: own_entry(config),
            config,
        };
        service.look().await?;
        service.register().await;
        let mut registry = service.look().await?;
        service.wait_for_others(&mut registry).await;
        let cluster = registry.first();
        if InitialCluster::parse(&cluster).is_err() {
            return Err(DiscoveryError::InvalidUrl);
        }
        service.tell(
            Level::Info,
            "discovery joined cluster successfully",
            &[("cluster", &cluster)],
        );
        Ok(cluster)
    }

    /// Reads the registry.
    ///
    /// # Errors
    /// It has no size, or no place for this member.
    async fn look(&self) -> Result<Registry, DiscoveryError> {
        let mut tries = Tries::default();
        loop {
            if let Some(size) = self.size().await.transpose()?
                && let Some((members, revision)) = self.members().await
            {
                let registry = Registry {
                    size,
                    members,
                    revision,
                };
                registry.check_place_of(&self.own_key)?;
                return Ok(registry);
            }
            self.pause(&mut tries, "cluster status check").await;
        }
    }

    /// `None` if the service does not answer.
    async fn size(&self) -> Option<Result<usize, DiscoveryError>> {
        let key = format!(
            "/_etcd/registry/{}/_config/size",
            self.config.discovery.token
        );
        let request = RangeRequest {
            key: key.clone().into(),
            ..RangeRequest::default()
        };
        match self.within_timeout().range(request).await {
            Ok(response) => Some(match response.kvs.first() {
                None => Err(DiscoveryError::SizeNotFound),
                Some(pair) => size_of(&pair.value),
            }),
            Err(error) => {
                self.tell(
                    Level::Warn,
                    "failed to get cluster size from discovery service",
                    &[("clusterSizeKey", &key), ("error", &error.to_string())],
                );
                None
            }
        }
    }

    /// What is registered, and the revision of the store; `None` if the service does not answer.
    async fn members(&self) -> Option<(Vec<(String, String)>, i64)> {
        let prefix = members_prefix(self.config);
        let request = RangeRequest {
            range_end: prefix_end(prefix.as_bytes()).into(),
            key: prefix.clone().into(),
            sort_order: SortOrder::Ascend.into(),
            sort_target: SortTarget::Create.into(),
            ..RangeRequest::default()
        };
        match self.within_timeout().range(request).await {
            Ok(response) => {
                let entries = response.kvs.iter();
                let members = entries.filter_map(|pair| self.entry(pair)).collect();
                let header = response.header.unwrap_or_default();
                Some((members, header.revision))
            }
            Err(error) => {
                self.tell(
                    Level::Warn,
                    "failed to get cluster members from discovery service",
                    &[("membersKeyPrefix", &prefix), ("error", &error.to_string())],
                );
                None
            }
        }
    }

    /// Key and entry of a member; `None` for what is none.
    fn entry(&self, pair: &mvccpb::KeyValue) -> Option<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
        let (key, entry) = (text(&pair.key), text(&pair.value));
        let fields = [("memberKey", key.as_str()), ("memberInfo", entry.as_str())];
        if !entry.contains('=') {
            let message = "invalid peer info returned from discovery service";
            self.tell(Level::Warn, message, &fields);
            return None;
        }
        self.tell(Level::Info, "found peer from discovery service", &fields);
        Some((key, entry))
    }

    async fn register(&self) {
        let mut tries = Tries::default();
        loop {
            let request = PutRequest {
                key: self.own_key.clone().into(),
                value: self.own_entry.clone().into(),
                ..PutRequest::default()
            };
            let key = ("memberKey", self.own_key.as_str());
            let Err(error) = self.within_timeout().put(request).await else {
                let message = "register member itself successfully";
                return self.tell(
                    Level::Info,
                    message,
                    &[key, ("memberInfo", &self.own_entry)],
                );
            };
            let message = "failed to register members itself to the discovery service";
            self.tell(Level::Warn, message, &[key, ("error", &error.to_string())]);
            self.pause(&mut tries, "register member itself").await;
        }
    }

    /// Follows the registry until it has as many members as the cluster.
    async fn wait_for_others(&self, registry: &mut Registry) {
        let tell = |message, registry: &Registry| {
            let (size, found) = (registry.size, registry.members.len());
            let mut record = self.record(Level::Info, message);
            record
                .with("clusterSize", &(size as u64))
                .with("found-peers", &(found as u64));
            crate::log::emit(&record);
        };
        if !registry.is_complete() {
            tell("waiting for peers from discovery service", registry);
        }
        while !registry.is_complete() {
            if self.follow(registry).await.is_err() {
                // What was missed can be read, unless nobody answers.
                if let Some((members, revision)) = self.members().await {
                    (registry.members, registry.revision) = (members, revision);
                }
                tokio::time::sleep(BACKOFF).await;
            }
        }
        tell("found all needed peers from discovery service", registry);
    }

    /// Adds who registers itself, until the registry is complete.
    ///
    /// # Errors
    /// The watch has ended before.
    async fn follow(&self, registry: &mut Registry) -> Result<(), WatchError> {
        let prefix = members_prefix(self.config);
        let mut watch = self.client.watch(WatchCreateRequest {
            range_end: prefix_end(prefix.as_bytes()).into(),
            key: prefix.into(),
            start_revision: registry.revision + 1,
            ..WatchCreateRequest::default()
        });
        while !registry.is_complete() {
            for event in watch.next().await?.events {
                if let (EventType::Put, Some(pair)) = (event.r#type(), &event.kv) {
                    registry.add(self.entry(pair));
                }
            }
        }
        Ok(())
    }

    fn within_timeout(&self) -> Client {
        let timeout = self.config.discovery.request_timeout.std();
        self.client.with_timeout(timeout)
    }

    async fn pause(&self, tries: &mut Tries, reason: &str) {
        let backoff = tries.next();
        let mut record = self.record(Level::Warn, "retry connecting to discovery service");
        record.with("reason", reason).with("backoff", &backoff);
        crate::log::emit(&record);
        tokio::time::sleep(backoff).await;
    }

    fn record(&self, level: Level, message: &'static str) -> Record {
        let mut record = Record::new(level, None, (file!(), line!()), message);
        let endpoints: Vec<String> = self.config.discovery.endpoints.iter().cloned().collect();
        record
            .with("discovery-token", self.config.discovery.token.as_str())
            .with("discovery-endpoints", endpoints.join(",").as_str());
        record
    }

    fn tell(&self, level: Level, message: &'static str, fields: &[(&'static str, &str)]) {
        let mut record = self.record(level, message);
        for (key, value) in fields {
            record.with(key, *value);
        }
        crate::log::emit(&record);
    }
}

impl Registry {
    fn is_complete(&self) -> bool {
        self.members.len() >= self.size
    }

    /// Who starts again registers itself again, and keeps its place.
    fn add(&mut self, member: Option<(String, String)>) {
        let is_known = |key: &str| self.members.iter().any(|(known, _)| known == key);
        self.members
            .extend(member.filter(|(key, _)| !is_known(key)));
    }

    /// # Errors
    /// All places are taken by others.
    fn check_place_of(&self, own_key: &str) -> Result<(), DiscoveryError> {
        let mut placed = self.members.iter().take(self.size);
        let has_place = !self.is_complete() || placed.any(|(key, _)| key == own_key);
        match has_place {
            true => Ok(()),
            false => Err(DiscoveryError::Full),
        }
    }

    /// The entries of the cluster's members.
    fn first(&self) -> String {
        let entries: Vec<&str> = self
            .members
            .iter()
            .take(self.size)
            .map(|(_, entry)| entry.as_str())
            .collect();
        entries.join(",")
    }
}

/// Pauses that grow.
#[derive(Default)]
struct Tries(u32);

impl Tries {
    fn next(&mut self) -> Duration {
        let backoff = BACKOFF * 2u32.pow(self.0.min(BACKOFF_DOUBLINGS));
        self.0 += 1;
        backoff
    }
}

fn members_prefix(config: &Config) -> String {
    format!("/_etcd/registry/{}/members", config.discovery.token)
}

fn size_of(value: &[u8]) -> Result<usize, DiscoveryError> {
    let text = std::str::from_utf8(value).map_err(|_| DiscoveryError::BadSize)?;
    match number::decimal(text) {
        Some(size) if size > 0 => usize::try_from(size).map_err(|_| DiscoveryError::BadSize),
        _ => Err(DiscoveryError::BadSize),
    }
}

async fn connect(config: &Config) -> Result<Client, DiscoveryError> {
    let discovery = &config.discovery;
    let credentials = credentials(&discovery.user, &discovery.password);
    let logs_in = credentials.is_some();
    let file = |path: &String| (!path.is_empty()).then(|| path.into());
    let client = Client::new(ClientConfig {
        endpoints: discovery.endpoints.iter().cloned().collect(),
        dial_timeout: discovery.dial_timeout.limit(),
        keepalive_time: discovery.keepalive_time.limit(),
        keepalive_timeout: discovery.keepalive_timeout.limit(),
        tls: TlsConfig {
            cert: file(&discovery.cert),
            key: file(&discovery.key),
            authorities: file(&discovery.cacert),
            server_name: None,
            skip_verify: discovery.insecure_skip_tls_verify,
            required: !discovery.insecure_transport,
        },
        credentials,
        ..ClientConfig::default()
    });
    let client = client.map_err(|error| DiscoveryError::Client(error.to_string()))?;
    if logs_in {
        let logged_in = client.log_in().await;
        logged_in.map_err(|error| DiscoveryError::Client(error.to_string()))?;
    }
    Ok(client)
}

/// The password may be given with the name. A user without any does not log in.
fn credentials(user: &str, password: &str) -> Option<Credentials> {
    let (name, password) = match user.split_once(':') {
        Some((name, password_of_user)) if password.is_empty() => (name, password_of_user),
        _ => (user, password),
    };
    (!password.is_empty()).then(|| Credentials::Password {
        name: name.to_owned(),
        password: password.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_is_a_decimal_number_above_zero() {
        assert_eq!(size_of(b"3"), Ok(3));
        for bad in [&b""[..], b"0", b"-1", b" 3", b"3 ", b"three", b"\xff"] {
            assert_eq!(size_of(bad), Err(DiscoveryError::BadSize), "{bad:?}");
        }
    }

    #[test]
    fn places_are_given_by_revision() {
        let entry = |name: &str| {
            (
                format!("/members/{name}"),
                format!("{name}=http://{name}:1"),
            )
        };
        let registry = |members: &[&str]| Registry {
            size: 2,
            members: members.iter().map(|name| entry(name)).collect(),
            revision: 9,
        };
        let place = |members: &[&str]| registry(members).check_place_of("/members/own");
        assert_eq!(place(&[]), Ok(()));
        assert_eq!(place(&["a"]), Ok(()));
        assert_eq!(place(&["a", "own"]), Ok(()));
        assert_eq!(place(&["a", "own", "b"]), Ok(()));
        assert_eq!(place(&["a", "b"]), Err(DiscoveryError::Full));
        assert_eq!(place(&["a", "b", "own"]), Err(DiscoveryError::Full));
        assert_eq!(
            registry(&["b", "a", "c"]).first(),
            "b=http://b:1,a=http://a:1"
        );
    }

    #[test]
    fn a_password_stands_alone_or_behind_the_name() {
        let check = |user, password, expected: Option<(&str, &str)>| {
            let found = match credentials(user, password) {
                Some(Credentials::Password { name, password }) => Some((name, password)),
                _ => None,
            };
            let expected = expected.map(|(name, password)| (name.into(), password.into()));
            assert_eq!(found, expected, "{user} {password}");
        };
        check("", "", None);
        check("u", "", None);
        check("u", "p", Some(("u", "p")));
        check("u:p", "", Some(("u", "p")));
        check("u:x", "p", Some(("u:x", "p")));
    }

    #[test]
    fn pauses_double_up_to_four_minutes() {
        let mut tries = Tries::default();
        let seconds: Vec<u64> = (0..10).map(|_| tries.next().as_secs()).collect();
        assert_eq!(seconds, [2, 4, 8, 16, 32, 64, 128, 256, 256, 256]);
    }
}
