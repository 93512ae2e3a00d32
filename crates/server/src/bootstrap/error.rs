//! Errors of a first start.

use super::initial_cluster::InitialCluster;
use super::token::DiscoveryError;

/// Why a member cannot bootstrap, in etcd's words.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is")]
pub(crate) enum BootstrapError {
    #[error("error setting up initial cluster: {0}")]
    InitialCluster(String),
    #[error("couldn't find local name {0:?} in the initial cluster configuration")]
    NameMissing(String),
    #[error(
        "--initial-cluster has {in_cluster} but missing from --initial-advertise-peer-urls={advertised} ({reason})"
    )]
    NotAdvertised {
        in_cluster: String,
        advertised: String,
        reason: String,
    },
    #[error(
        "--initial-advertise-peer-urls has {advertised} but missing from --initial-cluster={cluster}"
    )]
    NotInCluster { advertised: String, cluster: String },
    #[error("failed to resolve {advertised} to match --initial-cluster={cluster} ({reason})")]
    Unresolved {
        advertised: String,
        cluster: String,
        reason: String,
    },
    #[error("initial cluster {0} has duplicate url")]
    DuplicateUrl(InitialCluster),
    #[error("discovery cluster {0} has duplicate url")]
    DuplicateUrlFound(InitialCluster),
    #[error("failed to join discovery cluster ({0})")]
    Discovery(DiscoveryError),
    #[error("discovery URL should not be set when joining existing initial cluster")]
    TokenOfExisting,
    #[error("member {0:x} has already been bootstrapped")]
    AlreadyBootstrapped(u64),
    #[error("cannot fetch cluster info from peer urls: {0}")]
    NoClusterInfo(&'static str),
    #[error("error validating peerURLs {cluster}: {reason}")]
    PeerUrls { cluster: String, reason: String },
    #[error("incompatible with current running cluster")]
    Incompatible,
    #[error("membership: too many learner members in cluster")]
    TooManyLearners,
}
