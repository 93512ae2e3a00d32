//! The table of flags: all flags of etcd 3.7.1, and those of older versions that unit files may
//! still contain.
//!
//! The command line, the environment (`ETCD_` and the name in capitals), the configuration file,
//! `--help`, the sample file in `dist/` and `docs/flags.md` are derived from it. A new flag needs a
//! field in [`Config`] and a row here.

use super::Config;
use super::value::FlagValue;

/// One flag.
#[derive(Debug)]
pub struct Flag {
    /// The name without leading dashes.
    pub name: &'static str,
    /// What setting it does.
    pub effect: Effect,
    /// The default, as on the command line. Empty for the type's default.
    pub default: &'static str,
    /// Its group in the help, which leaves out `Older`.
    pub group: Group,
    /// What it does, for help and documentation.
    pub help: &'static str,
    /// Its key in the configuration file.
    pub key: Option<Key>,
    /// Whether its feature is supported.
    pub status: Status,
    /// Whether a negative number or duration is allowed.
    pub signed: bool,
    /// Whether its value must not be logged.
    pub secret: bool,
}

/// What setting a flag does.
#[derive(Clone, Copy)]
pub enum Effect {
    /// Sets a field.
    Field(fn(&mut Config) -> &mut dyn FlagValue),
    /// A former name of another flag; accepted with a warning.
    Renamed(&'static str),
    /// A former flag of what is now a feature gate.
    Gate(&'static str),
    /// A boolean flag that sets another flag to a value: (flag, value).
    Shorthand(&'static str, &'static str),
    /// A flag of a feature that etcd has removed.
    Retired {
        /// How a value is treated.
        verdict: fn(&str) -> Verdict,
    },
    /// As in etcd, any value is accepted and has no effect.
    Ignored,
}

impl std::fmt::Debug for Effect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Effect::Field(_) => "Field",
            Effect::Renamed(_) => "Renamed",
            Effect::Gate(_) => "Gate",
            Effect::Shorthand(..) => "Shorthand",
            Effect::Retired { .. } => "Retired",
            Effect::Ignored => "Ignored",
        })
    }
}

/// How a flag of a removed feature is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Accepted: the value asks for what is the case anyway.
    Harmless,
    /// Ignored with a warning.
    Without,
    /// Refused: the member would do something else than asked for.
    Refused,
}

/// Whether the feature of a flag is supported.
#[derive(Clone, Copy, Debug)]
pub enum Status {
    /// Every value is.
    Supported,
    /// No value has an effect; setting it gives a warning. The text says why.
    WithoutEffect(&'static str),
}

/// Groups of flags, in the order of the help.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs, reason = "title() names them")]
pub enum Group {
    Member,
    Clustering,
    Security,
    Auth,
    Monitoring,
    Logging,
    Tracing,
    Features,
    Unsafe,
    Older,
}

impl Group {
    /// The groups that the help shows.
    pub const SHOWN: [Group; 9] = [
        Group::Member,
        Group::Clustering,
        Group::Security,
        Group::Auth,
        Group::Monitoring,
        Group::Logging,
        Group::Tracing,
        Group::Features,
        Group::Unsafe,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Member => "Member",
            Group::Clustering => "Clustering",
            Group::Security => "Security",
            Group::Auth => "Auth",
            Group::Monitoring => "Profiling and Monitoring",
            Group::Logging => "Logging",
            Group::Tracing => "Distributed tracing",
            Group::Features => "Features",
            Group::Unsafe => "Unsafe feature",
            Group::Older => "Older flags",
        }
    }
}

/// A key of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Key {
    /// The mapping that contains it.
    pub section: Section,
    /// Its name there.
    pub leaf: &'static str,
}

impl Key {
    /// For example `client-transport-security.cert-file`.
    pub fn path(self) -> String {
        match self.section.path() {
            "" => self.leaf.to_owned(),
            section => format!("{section}.{}", self.leaf),
        }
    }
}

/// The mappings of the configuration file, each a struct of Go's that error messages name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "path() names them")]
pub enum Section {
    Top,
    /// Keys at the top that etcd reads as text and parses later.
    TopText,
    ClientSecurity,
    PeerSecurity,
    Socket,
    Discovery,
    DiscoveryClient,
    DiscoverySecure,
    DiscoveryAuth,
}

impl Section {
    /// The nested mappings.
    pub const NESTED: [Section; 7] = [
        Section::ClientSecurity,
        Section::PeerSecurity,
        Section::Socket,
        Section::Discovery,
        Section::DiscoveryClient,
        Section::DiscoverySecure,
        Section::DiscoveryAuth,
    ];

    /// Its path; empty for the top.
    pub fn path(self) -> &'static str {
        match self {
            Section::Top | Section::TopText => "",
            Section::ClientSecurity => "client-transport-security",
            Section::PeerSecurity => "peer-transport-security",
            Section::Socket => "socket-options",
            Section::Discovery => "discovery-config",
            Section::DiscoveryClient => "discovery-config.client",
            Section::DiscoverySecure => "discovery-config.client.secure",
            Section::DiscoveryAuth => "discovery-config.client.auth",
        }
    }

    /// The Go field that etcd's error messages name for a key of this mapping.
    pub fn go_field(self, leaf: &str) -> String {
        match self {
            Section::Top => format!("configYAML.Config.{leaf}"),
            Section::TopText => format!("configYAML.configJSON.{leaf}"),
            Section::ClientSecurity | Section::PeerSecurity => {
                format!("securityConfig.configJSON.{}.{leaf}", self.path())
            }
            Section::Socket => format!("SocketOpts.Config.{}.{leaf}", self.path()),
            Section::Discovery => format!("DiscoveryConfig.Config.{}.{leaf}", self.path()),
            Section::DiscoveryClient => format!("ConfigSpec.Config.{}.{leaf}", self.path()),
            Section::DiscoverySecure => format!("SecureConfig.Config.{}.{leaf}", self.path()),
            Section::DiscoveryAuth => format!("AuthConfig.Config.{}.{leaf}", self.path()),
        }
    }

    /// The Go field and type that etcd's error messages name for the mapping itself.
    pub fn go_struct(self) -> (String, &'static str) {
        let path = self.path();
        match self {
            Section::Top | Section::TopText => (String::new(), "embed.configYAML"),
            Section::ClientSecurity | Section::PeerSecurity => (
                format!("configYAML.configJSON.{path}"),
                "embed.securityConfig",
            ),
            Section::Socket => (format!("configYAML.Config.{path}"), "transport.SocketOpts"),
            Section::Discovery => (
                format!("configYAML.Config.{path}"),
                "v3discovery.DiscoveryConfig",
            ),
            Section::DiscoveryClient => (
                format!("DiscoveryConfig.Config.{path}"),
                "clientv3.ConfigSpec",
            ),
            Section::DiscoverySecure => {
                (format!("ConfigSpec.Config.{path}"), "clientv3.SecureConfig")
            }
            Section::DiscoveryAuth => (format!("ConfigSpec.Config.{path}"), "clientv3.AuthConfig"),
        }
    }
}

/// The flag of this name.
pub fn find(name: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.name == name)
}

impl Flag {
    /// The name of its environment variable.
    pub fn variable(&self) -> String {
        format!("ETCD_{}", self.name.replace('-', "_").to_uppercase())
    }

    /// The value for a log: hidden if it is secret.
    pub fn redact<'a>(&self, value: &'a str) -> &'a str {
        match self.secret {
            true => "(hidden)",
            false => value,
        }
    }

    const fn at(mut self, section: Section, leaf: &'static str) -> Flag {
        self.key = Some(Key { section, leaf });
        self
    }

    const fn text_in_file(self) -> Flag {
        let name = self.name;
        self.at(Section::TopText, name)
    }

    const fn not_in_file(mut self) -> Flag {
        self.key = None;
        self
    }

    const fn without_effect(mut self, reason: &'static str) -> Flag {
        self.status = Status::WithoutEffect(reason);
        self
    }

    const fn signed(mut self) -> Flag {
        self.signed = true;
        self
    }

    const fn secret(mut self) -> Flag {
        self.secret = true;
        self
    }
}

type Field = fn(&mut Config) -> &mut dyn FlagValue;

const fn flag(
    group: Group,
    name: &'static str,
    default: &'static str,
    field: Field,
    help: &'static str,
) -> Flag {
    Flag {
        name,
        effect: Effect::Field(field),
        default,
        group,
        help,
        key: Some(Key {
            section: Section::Top,
            leaf: name,
        }),
        status: Status::Supported,
        signed: false,
        secret: false,
    }
}

const fn older(name: &'static str, effect: Effect) -> Flag {
    Flag {
        name,
        effect,
        default: "",
        group: Group::Older,
        help: "",
        key: Some(Key {
            section: Section::Top,
            leaf: name,
        }),
        status: Status::Supported,
        signed: false,
        secret: false,
    }
}

const fn renamed(name: &'static str, now: &'static str) -> Flag {
    older(name, Effect::Renamed(now))
}

const fn became_gate(name: &'static str, gate: &'static str) -> Flag {
    older(name, Effect::Gate(gate))
}

const fn retired(name: &'static str, verdict: fn(&str) -> Verdict) -> Flag {
    older(name, Effect::Retired { verdict })
}

const fn ignored(name: &'static str) -> Flag {
    older(name, Effect::Ignored).not_in_file()
}

fn harmless(_: &str) -> Verdict {
    Verdict::Harmless
}

fn only_empty(value: &str) -> Verdict {
    if value.is_empty() {
        Verdict::Harmless
    } else {
        Verdict::Refused
    }
}

fn only_proxy_off(value: &str) -> Verdict {
    if matches!(value, "off" | "false" | "") {
        Verdict::Harmless
    } else {
        Verdict::Refused
    }
}

fn off_or_without(value: &str) -> Verdict {
    let off = matches!(value, "" | "0" | "f" | "F" | "false" | "FALSE" | "False");
    if off {
        Verdict::Harmless
    } else {
        Verdict::Without
    }
}

use Group::{Auth, Clustering, Features, Logging, Member, Monitoring, Security, Tracing, Unsafe};
use Section::{
    ClientSecurity, Discovery, DiscoveryAuth, DiscoveryClient, DiscoverySecure, PeerSecurity,
    Socket,
};

/// Every flag.
pub static FLAGS: &[Flag] = &[
    flag(Member, "name", "default", |c| &mut c.name, "A name for this member, unlike those of the other members."),
    flag(Member, "data-dir", "", |c| &mut c.data_dir, "The directory of everything the member stores; ${name}.etcd when empty."),
    flag(Member, "wal-dir", "", |c| &mut c.wal_dir, "A directory for the write-ahead log alone, such as one on a faster disk."),
    flag(Member, "snapshot-count", "10000", |c| &mut c.snapshot_count, "Applied entries after which a raft snapshot is written; one over 1 MiB that is larger than the log it replaces waits, for ten times as many at most."),
    flag(Member, "heartbeat-interval", "100", |c| &mut c.heartbeat_interval_ms, "Milliseconds between the leader's heartbeats."),
    flag(
        Member,
        "election-timeout",
        "1000",
        |c| &mut c.election_timeout_ms,
        "Milliseconds without a leader until a member stands for election; at least 5 heartbeats, at most 50000.",
    ),
    flag(
        Member,
        "initial-election-tick-advance",
        "true",
        |c| &mut c.initial_election_tick_advance,
        "Whether a starting member skips most of its first election timeout. A single member always does.",
    ),
    flag(Member, "listen-peer-urls", "http://localhost:2380", |c| &mut c.listen_peer_urls, "Addresses where other members connect.")
        .text_in_file(),
    flag(
        Member,
        "listen-client-urls",
        "http://localhost:2379",
        |c| &mut c.listen_client_urls,
        "Addresses where clients connect with gRPC, and with HTTP as long as --listen-client-http-urls is empty.",
    )
    .text_in_file(),
    flag(
        Member,
        "listen-client-http-urls",
        "",
        |c| &mut c.listen_client_http_urls,
        "Addresses for HTTP alone. With it, --listen-client-urls serve gRPC alone.",
    )
    .text_in_file(),
    flag(
        Member,
        "max-snapshots",
        "5",
        |c| &mut c.max_snapshots,
        "Raft snapshot files to keep, 0 for all. Deprecated since 3.6, to go in 3.8.",
    ),
    flag(Member, "max-wals", "5", |c| &mut c.max_wals, "Files of the write-ahead log to keep once they are no longer needed, 0 for all."),
    flag(Member, "memory-mlock", "false", |c| &mut c.memory_mlock, "Keep the process's memory from being swapped out."),
    flag(
        Member,
        "quota-backend-bytes",
        "0",
        |c| &mut c.quota_backend_bytes,
        "Bytes of stored data at which the member takes no more writes and raises an alarm. 0 is 2 GiB, less than 0 is no quota.",
    )
    .signed(),
    flag(
        Member,
        "value-cache-bytes",
        "-1",
        |c| &mut c.value_cache_bytes,
        "Bytes of values to keep in memory, those asked for lately first; others are read from the database. Less than 0 is a quarter of the memory there is. Only here, not in etcd.",
    )
    .signed(),
    flag(
        Member,
        "backend-bbolt-freelist-type",
        "map",
        |c| &mut c.backend_bbolt_freelist_type,
        "'map' or 'array': how etcd lists free pages in memory.",
    )
    .without_effect("there is one way of listing free pages here"),
    flag(
        Member,
        "backend-batch-interval",
        "0s",
        |c| &mut c.backend_batch_interval,
        "The longest time between commits of applied changes to the backend file; 0 is 100ms.",
    ),
    flag(
        Member,
        "backend-batch-limit",
        "0",
        |c| &mut c.backend_batch_limit,
        "Changes after which they are committed to the backend file without waiting; 0 is 10000.",
    ),
    flag(Member, "max-txn-ops", "128", |c| &mut c.max_txn_ops, "Operations that a transaction may have in each of its lists."),
    flag(Member, "max-request-bytes", "1572864", |c| &mut c.max_request_bytes, "The largest request, in bytes."),
    flag(
        Member,
        "max-concurrent-streams",
        "4294967295",
        |c| &mut c.max_concurrent_streams,
        "Streams that a client may have open at a time on one connection.",
    ),
    flag(
        Member,
        "grpc-keepalive-min-time",
        "5s",
        |c| &mut c.grpc_keepalive_min_time,
        "The shortest time between pings of a client.",
    )
    .without_effect("clients that ping more often are answered all the same, never disconnected")
    .signed(),
    flag(
        Member,
        "grpc-keepalive-interval",
        "2h",
        |c| &mut c.grpc_keepalive_interval,
        "Time between pings to a silent client, to learn whether it is still there; 0 for none.",
    )
    .signed(),
    flag(
        Member,
        "grpc-keepalive-timeout",
        "20s",
        |c| &mut c.grpc_keepalive_timeout,
        "Time to wait for the answer to such a ping before the connection is closed.",
    )
    .signed(),
    flag(Member, "socket-reuse-port", "false", |c| &mut c.socket_reuse_port, "Bind with SO_REUSEPORT: a port that is in use can be shared.")
        .at(Socket, "reuse-port"),
    flag(
        Member,
        "socket-reuse-address",
        "false",
        |c| &mut c.socket_reuse_address,
        "Bind with SO_REUSEADDR: an address that waits in TIME_WAIT can be bound.",
    )
    .at(Socket, "reuse-address"),
    flag(
        Member,
        "enable-grpc-gateway",
        "true",
        |c| &mut c.enable_grpc_gateway,
        "Serve the API as JSON under /v3.",
    ),
    flag(Member, "raft-read-timeout", "5s", |c| &mut c.raft_read_timeout, "Read timeout of connections between members; at least 5s.")
        .not_in_file()
        .signed(),
    flag(Member, "raft-write-timeout", "5s", |c| &mut c.raft_write_timeout, "Write timeout of connections between members; at least 5s.")
        .not_in_file()
        .signed(),
    flag(Member, "feature-gates", "", |c| &mut c.feature_gates, "Features to switch, as name=bool,name=bool. They are:").text_in_file(),
    flag(
        Clustering,
        "initial-advertise-peer-urls",
        "http://localhost:2380",
        |c| &mut c.initial_advertise_peer_urls,
        "Addresses of this member that the other members are told.",
    )
    .text_in_file(),
    flag(
        Clustering,
        "initial-cluster",
        "default=http://localhost:2380",
        |c| &mut c.initial_cluster,
        "The members of a cluster at its first start, as name=url,name=url. Ignored when there is data.",
    ),
    flag(
        Clustering,
        "initial-cluster-state",
        "new",
        |c| &mut c.initial_cluster_state,
        "'new' to found a cluster, 'existing' to join a running one. Ignored when there is data.",
    ),
    flag(
        Clustering,
        "initial-cluster-token",
        "etcd-cluster",
        |c| &mut c.initial_cluster_token,
        "A text that goes into the ids of a new cluster, so that clusters with equal addresses cannot meet.",
    ),
    flag(
        Clustering,
        "advertise-client-urls",
        "http://localhost:2379",
        |c| &mut c.advertise_client_urls,
        "Addresses of this member that clients are told. Required with --listen-client-urls.",
    )
    .text_in_file(),
    flag(Clustering, "discovery-token", "", |c| &mut c.discovery.token, "Discovery: the token of the cluster to found.")
        .at(Discovery, "token"),
    flag(Clustering, "discovery-endpoints", "", |c| &mut c.discovery.endpoints, "Discovery: addresses of the service.")
        .at(DiscoveryClient, "endpoints"),
    flag(Clustering, "discovery-dial-timeout", "2s", |c| &mut c.discovery.dial_timeout, "Discovery: timeout of connecting.")
        .at(DiscoveryClient, "dial-timeout"),
    flag(Clustering, "discovery-request-timeout", "5s", |c| &mut c.discovery.request_timeout, "Discovery: timeout of a request.")
        .at(DiscoveryClient, "request-timeout"),
    flag(Clustering, "discovery-keepalive-time", "2s", |c| &mut c.discovery.keepalive_time, "Discovery: time between pings.")
        .at(DiscoveryClient, "keepalive-time"),
    flag(Clustering, "discovery-keepalive-timeout", "6s", |c| &mut c.discovery.keepalive_timeout, "Discovery: timeout of a ping.")
        .at(DiscoveryClient, "keepalive-timeout"),
    flag(Clustering, "discovery-insecure-transport", "true", |c| &mut c.discovery.insecure_transport, "Discovery: connect without TLS.")
        .at(DiscoverySecure, "insecure-transport"),
    flag(
        Clustering,
        "discovery-insecure-skip-tls-verify",
        "false",
        |c| &mut c.discovery.insecure_skip_tls_verify,
        "Discovery: accept any certificate; for tests only.",
    )
    .at(DiscoverySecure, "insecure-skip-tls-verify"),
    flag(Clustering, "discovery-cert", "", |c| &mut c.discovery.cert, "Discovery: the client's certificate file.")
        .at(DiscoverySecure, "cert"),
    flag(Clustering, "discovery-key", "", |c| &mut c.discovery.key, "Discovery: the client's key file.")
        .at(DiscoverySecure, "key"),
    flag(Clustering, "discovery-cacert", "", |c| &mut c.discovery.cacert, "Discovery: the file of authorities to trust.")
        .at(DiscoverySecure, "cacert"),
    flag(Clustering, "discovery-user", "", |c| &mut c.discovery.user, "Discovery: user name, or name:password.")
        .at(DiscoveryAuth, "username")
        .secret(),
    flag(Clustering, "discovery-password", "", |c| &mut c.discovery.password, "Discovery: the user's password.")
        .at(DiscoveryAuth, "password")
        .secret(),
    flag(Clustering, "discovery-fallback", "exit", |c| &mut c.discovery_fallback, "What to do when discovery fails: 'exit'.").not_in_file(),
    flag(Clustering, "discovery-srv", "", |c| &mut c.discovery_srv, "A DNS domain whose SRV records name the members."),
    flag(Clustering, "discovery-srv-name", "", |c| &mut c.discovery_srv_name, "A suffix of the SRV records' service name."),
    flag(
        Clustering,
        "strict-reconfig-check",
        "true",
        |c| &mut c.strict_reconfig_check,
        "Refuse changes of membership that would cost the quorum.",
    ),
    flag(
        Clustering,
        "pre-vote",
        "true",
        |c| &mut c.pre_vote,
        "Ask the other members before standing for election, so that a member that comes back does not disturb them.",
    ),
    flag(
        Clustering,
        "auto-compaction-retention",
        "0",
        |c| &mut c.auto_compaction_retention,
        "How much history to keep: a duration or a number of hours (periodic), a number of revisions (revision); 0 for all.",
    ),
    flag(Clustering, "auto-compaction-mode", "periodic", |c| &mut c.auto_compaction_mode, "'periodic' or 'revision'."),
    flag(
        Clustering,
        "v2-deprecation",
        "write-only",
        |c| &mut c.v2_deprecation,
        "Phase of the end of the v2 store; read and ignored, as in etcd. To go in 3.8.",
    ),
    flag(
        Clustering,
        "enable-v2",
        "",
        |c| &mut c.enable_v2,
        "Serve API v2. Without a value of its own, it is served as long as authentication of API v3 is off.",
    ),
    flag(Security, "cert-file", "", |c| &mut c.client_tls.cert_file, "The server's certificate for clients.")
        .at(ClientSecurity, "cert-file"),
    flag(Security, "key-file", "", |c| &mut c.client_tls.key_file, "The key of --cert-file.")
        .at(ClientSecurity, "key-file"),
    flag(Security, "client-cert-auth", "false", |c| &mut c.client_tls.client_cert_auth, "Require a certificate from clients.")
        .at(ClientSecurity, "client-cert-auth"),
    flag(
        Security,
        "client-cert-file",
        "",
        |c| &mut c.client_tls.client_cert_file,
        "The certificate for calls of this server to its own client port; --cert-file when empty.",
    )
    .at(ClientSecurity, "client-cert-file"),
    flag(Security, "client-key-file", "", |c| &mut c.client_tls.client_key_file, "The key of --client-cert-file.")
        .at(ClientSecurity, "client-key-file"),
    flag(Security, "client-crl-file", "", |c| &mut c.client_tls.crl_file, "Revoked certificates of clients.").not_in_file(),
    flag(
        Security,
        "client-cert-allowed-hostname",
        "",
        |c| &mut c.client_tls.allowed_hostnames,
        "Host names of which a client's certificate must have one.",
    )
    .at(ClientSecurity, "allowed-hostname"),
    flag(Security, "trusted-ca-file", "", |c| &mut c.client_tls.trusted_ca_file, "Authorities trusted for certificates of clients.")
        .at(ClientSecurity, "trusted-ca-file"),
    flag(Security, "auto-tls", "false", |c| &mut c.client_tls.auto_tls, "Serve clients with a certificate made at start.")
        .at(ClientSecurity, "auto-tls"),
    flag(Security, "peer-cert-file", "", |c| &mut c.peer_tls.cert_file, "The server's certificate for members.")
        .at(PeerSecurity, "cert-file"),
    flag(Security, "peer-key-file", "", |c| &mut c.peer_tls.key_file, "The key of --peer-cert-file.")
        .at(PeerSecurity, "key-file"),
    flag(Security, "peer-client-cert-auth", "false", |c| &mut c.peer_tls.client_cert_auth, "Require a certificate from members.")
        .at(PeerSecurity, "client-cert-auth"),
    flag(
        Security,
        "peer-client-cert-file",
        "",
        |c| &mut c.peer_tls.client_cert_file,
        "The certificate for calls to other members; --peer-cert-file when empty.",
    )
    .at(PeerSecurity, "client-cert-file"),
    flag(Security, "peer-client-key-file", "", |c| &mut c.peer_tls.client_key_file, "The key of --peer-client-cert-file.")
        .at(PeerSecurity, "client-key-file"),
    flag(Security, "peer-trusted-ca-file", "", |c| &mut c.peer_tls.trusted_ca_file, "Authorities trusted for certificates of members.")
        .at(PeerSecurity, "trusted-ca-file"),
    flag(Security, "peer-cert-allowed-cn", "", |c| &mut c.peer_tls.allowed_cns, "Common names of which a member's certificate must have one.")
        .at(PeerSecurity, "allowed-cn"),
    flag(
        Security,
        "peer-cert-allowed-hostname",
        "",
        |c| &mut c.peer_tls.allowed_hostnames,
        "Host names of which a member's certificate must have one.",
    )
    .at(PeerSecurity, "allowed-hostname"),
    flag(Security, "peer-auto-tls", "false", |c| &mut c.peer_tls.auto_tls, "Serve members with a certificate made at start.")
        .at(PeerSecurity, "auto-tls"),
    flag(Security, "self-signed-cert-validity", "1", |c| &mut c.self_signed_cert_validity_years, "Years that such a certificate is valid."),
    flag(Security, "peer-crl-file", "", |c| &mut c.peer_tls.crl_file, "Revoked certificates of members.").not_in_file(),
    flag(Security, "cipher-suites", "", |c| &mut c.cipher_suites, "TLS cipher suites to allow, by their names in Go."),
    flag(Security, "cors", "*", |c| &mut c.cors, "Origins that browsers may call from, as scheme://host:port; * for any.").text_in_file(),
    flag(
        Security,
        "host-whitelist",
        "*",
        |c| &mut c.host_whitelist,
        "Host names that HTTP requests without TLS may be addressed to; * for any.",
    )
    .text_in_file(),
    flag(Security, "tls-min-version", "TLS1.2", |c| &mut c.tls_min_version, "The oldest TLS version to accept: TLS1.2 or TLS1.3."),
    flag(Security, "tls-max-version", "", |c| &mut c.tls_max_version, "The newest TLS version to accept: TLS1.2 or TLS1.3."),
    flag(
        Auth,
        "auth-token",
        "simple",
        |c| &mut c.auth_token,
        "Kind of tokens of logged-in users: 'simple', or 'jwt,sign-method=M,pub-key=FILE,priv-key=FILE,ttl=5m' for signed ones.",
    ),
    flag(Auth, "bcrypt-cost", "10", |c| &mut c.bcrypt_cost, "Cost of hashing passwords, 4 to 31."),
    flag(Auth, "auth-token-ttl", "300", |c| &mut c.auth_token_ttl_seconds, "Seconds that a simple token lives after its last use."),
    flag(
        Monitoring,
        "enable-pprof",
        "false",
        |c| &mut c.enable_pprof,
        "Serve profiles under /debug/pprof/ of the client addresses, as --log-level=debug does, too.",
    ),
    flag(Monitoring, "metrics", "basic", |c| &mut c.metrics, "'basic', or 'extensive' for a histogram of call durations too."),
    flag(
        Monitoring,
        "listen-metrics-urls",
        "",
        |c| &mut c.listen_metrics_urls,
        "More addresses that serve /metrics and the health checks.",
    ),
    flag(Logging, "logger", "zap", |c| &mut c.logger, "Only 'zap': structured lines."),
    flag(
        Logging,
        "log-outputs",
        "default",
        |c| &mut c.log_outputs,
        "Where the log goes: 'default' and 'stderr', 'stdout', 'systemd/journal' (alone), or files; several, comma separated.",
    ),
    flag(Logging, "log-level", "info", |c| &mut c.log_level, "The least severe lines to write: debug, info, warn, error, panic, fatal."),
    flag(Logging, "log-format", "json", |c| &mut c.log_format, "'json' or 'console'."),
    flag(Logging, "enable-log-rotation", "false", |c| &mut c.enable_log_rotation, "Rotate the one file of --log-outputs."),
    flag(
        Logging,
        "log-rotation-config-json",
        r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#,
        |c| &mut c.log_rotation_config_json,
        "When to rotate, and what becomes of old files: maxsize (MiB), maxage (days), maxbackups, localtime, compress; JSON.",
    ),
    flag(
        Logging,
        "warning-unary-request-duration",
        "300ms",
        |c| &mut c.warning_unary_request_duration,
        "A request that takes longer is logged.",
    )
    .signed(),
    flag(Tracing, "enable-distributed-tracing", "false", |c| &mut c.tracing.enabled, "Send traces to a collector."),
    flag(Tracing, "distributed-tracing-address", "localhost:4317", |c| &mut c.tracing.address, "The collector."),
    flag(Tracing, "distributed-tracing-service-name", "etcd", |c| &mut c.tracing.service_name, "The service's name in traces."),
    flag(Tracing, "distributed-tracing-instance-id", "", |c| &mut c.tracing.instance_id, "This member's id in traces."),
    flag(Tracing, "distributed-tracing-sampling-rate", "0", |c| &mut c.tracing.sampling_rate_per_million, "Traces per million to send.")
        .signed(),
    flag(Features, "corrupt-check-time", "0s", |c| &mut c.corrupt_check_time, "Time between comparisons of data with the other members; 0 for none."),
    flag(
        Features,
        "compact-hash-check-time",
        "1m",
        |c| &mut c.compact_hash_check_time,
        "Time between the leader's comparisons of hashes after compactions, with the gate CompactHashCheck.",
    )
    .signed(),
    flag(Features, "compaction-batch-limit", "0", |c| &mut c.compaction_batch_limit, "Revisions that a compaction deletes in one go; 0 is 1000."),
    flag(
        Features,
        "peer-skip-client-san-verification",
        "false",
        |c| &mut c.peer_tls.skip_client_san_verification,
        "Accept certificates of members from other addresses than they name.",
    )
    .at(PeerSecurity, "skip-client-san-verification"),
    flag(
        Features,
        "watch-progress-notify-interval",
        "0s",
        |c| &mut c.watch_progress_notify_interval,
        "Time between progress notices of watches that ask for them; 0 is 10m, and 100ms is the least.",
    )
    .signed(),
    flag(
        Features,
        "warning-apply-duration",
        "100ms",
        |c| &mut c.warning_apply_duration,
        "A request whose execution takes longer is logged.",
    )
    .signed(),
    flag(
        Features,
        "bootstrap-defrag-threshold-megabytes",
        "0",
        |c| &mut c.bootstrap_defrag_threshold_megabytes,
        "Defragment at start when that frees so many megabytes; 0 for never.",
    ),
    flag(Features, "max-learners", "1", |c| &mut c.max_learners, "Learners that the cluster may have."),
    flag(
        Features,
        "compaction-sleep-interval",
        "0s",
        |c| &mut c.compaction_sleep_interval,
        "Pause between two goes of a compaction; 0 is 10ms.",
    ),
    flag(Features, "downgrade-check-time", "5s", |c| &mut c.downgrade_check_time, "Time between checks of a downgrade that is under way."),
    flag(
        Features,
        "snapshot-catchup-entries",
        "5000",
        |c| &mut c.snapshot_catchup_entries,
        "Entries of the raft log to keep after a snapshot for slow followers.",
    ),
    flag(Unsafe, "force-new-cluster", "false", |c| &mut c.force_new_cluster, "Make this member's data a cluster of this member alone."),
    flag(
        Unsafe,
        "unsafe-no-fsync",
        "false",
        |c| &mut c.unsafe_no_fsync,
        "Do not wait for the disk. A crash of the machine loses data that was acknowledged.",
    ),
    // Older flags.
    renamed("experimental-compact-hash-check-time", "compact-hash-check-time"),
    renamed("experimental-corrupt-check-time", "corrupt-check-time"),
    renamed("experimental-compaction-batch-limit", "compaction-batch-limit"),
    renamed("experimental-compaction-sleep-interval", "compaction-sleep-interval"),
    renamed("experimental-watch-progress-notify-interval", "watch-progress-notify-interval"),
    renamed("experimental-warning-apply-duration", "warning-apply-duration"),
    renamed("experimental-warning-unary-request-duration", "warning-unary-request-duration"),
    renamed("experimental-bootstrap-defrag-threshold-megabytes", "bootstrap-defrag-threshold-megabytes"),
    renamed("experimental-memory-mlock", "memory-mlock"),
    renamed("experimental-max-learners", "max-learners"),
    renamed("experimental-snapshot-catchup-entries", "snapshot-catchup-entries"),
    renamed("experimental-snapshot-catch-up-entries", "snapshot-catchup-entries"),
    renamed("experimental-downgrade-check-time", "downgrade-check-time"),
    renamed("experimental-peer-skip-client-san-verification", "peer-skip-client-san-verification"),
    renamed("experimental-backend-bbolt-freelist-type", "backend-bbolt-freelist-type"),
    renamed("experimental-enable-distributed-tracing", "enable-distributed-tracing"),
    renamed("experimental-distributed-tracing-address", "distributed-tracing-address"),
    renamed("experimental-distributed-tracing-service-name", "distributed-tracing-service-name"),
    renamed("experimental-distributed-tracing-instance-id", "distributed-tracing-instance-id"),
    renamed("experimental-distributed-tracing-sampling-rate", "distributed-tracing-sampling-rate"),
    became_gate("experimental-initial-corrupt-check", "InitialCorruptCheck"),
    became_gate("experimental-compact-hash-check-enabled", "CompactHashCheck"),
    became_gate("experimental-enable-lease-checkpoint", "LeaseCheckpoint"),
    became_gate("experimental-enable-lease-checkpoint-persist", "LeaseCheckpointPersist"),
    became_gate("experimental-txn-mode-write-with-shared-buffer", "TxnModeWriteWithSharedBuffer"),
    became_gate("experimental-stop-grpc-service-on-defrag", "StopGRPCServiceOnDefrag"),
    retired("experimental-enable-v2v3", off_or_without),
    retired("proxy", only_proxy_off),
    retired("proxy-failure-wait", harmless),
    retired("proxy-refresh-interval", harmless),
    retired("proxy-dial-timeout", harmless),
    retired("proxy-write-timeout", harmless),
    retired("proxy-read-timeout", harmless),
    retired("discovery", only_empty),
    retired("discovery-proxy", only_empty),
    older("debug", Effect::Shorthand("log-level", "debug")),
    retired("log-package-levels", off_or_without),
    renamed("log-output", "log-outputs"),
    ignored("cluster-active-size"),
    ignored("cluster-remove-delay"),
    ignored("cluster-sync-interval"),
    ignored("config"),
    ignored("force"),
    ignored("max-result-buffer"),
    ignored("max-retry-attempts"),
    ignored("peer-heartbeat-interval"),
    ignored("peer-election-timeout"),
    ignored("retry-interval"),
    ignored("snapshot"),
    ignored("v"),
    ignored("vv"),
    ignored("test.coverprofile"),
    ignored("test.outputdir"),
    // Flags about the command line itself.
    flag(Group::Older, "config-file", "", |c| &mut c.config_file, "").not_in_file(),
    flag(Group::Older, "version", "false", |c| &mut c.version, "").not_in_file(),
];
