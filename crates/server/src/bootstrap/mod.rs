//! The first start of a member, which forms a new cluster with others or joins an existing one.
//!
//! ```text
//! --discovery-srv ────▶ SRV records ──┬─▶ --initial-cluster
//! --discovery-token ──▶ a registry ───┘
//!
//! --initial-cluster-state
//!   new ──────▶ ids from URLs and token ──▶ has this member been started before?
//!   existing ─▶ GET /members of the others ─▶ own id, by URLs ─▶ compatible versions?
//! ```
//!
//! The ids are written into the member's data. Later starts read them there and do not bootstrap.

mod addresses;
mod error;
mod existing_cluster;
mod initial_cluster;
mod new_cluster;
mod remote;
mod srv;
mod token;

use std::sync::Arc;

use retcd_state::membership::Member as ClusterMember;
use tokio::runtime::Runtime;
use tokio::task::LocalSet;

use crate::config::Config;
use crate::peer::Dialer;

pub(crate) use error::BootstrapError;
pub(crate) use initial_cluster::InitialCluster;
pub(crate) use new_cluster::NewCluster;

/// `config` with the members that its way of discovery finds; and the name for which the members'
/// certificates must be valid, if they need not be for their own. Blocks.
///
/// # Errors
/// They are not to be found, or this member is not among them.
pub(crate) fn discover(
    config: Arc<Config>,
    runtime: &Runtime,
) -> Result<(Arc<Config>, Option<String>), BootstrapError> {
    if !config.discovery.token.is_empty() {
        if config.initial_cluster_state.0 == "existing" {
            return Err(BootstrapError::TokenOfExisting);
        }
        let found = LocalSet::new().block_on(runtime, token::initial_cluster(&config));
        let found = found.map_err(BootstrapError::Discovery)?;
        let cluster = InitialCluster::parse(&found)?;
        if cluster.has_duplicates() {
            return Err(BootstrapError::DuplicateUrlFound(cluster));
        }
        let config = Config {
            initial_cluster: found,
            initial_cluster_token: config.discovery.token.clone(),
            ..Config::clone(&config)
        };
        return Ok((Arc::new(config), None));
    }
    if config.discovery_srv.is_empty() {
        return Ok((config, None));
    }
    let found = srv::initial_cluster(&config)?;
    // Answers of DNS are not authenticated: without an authority of one's own, to verify the names
    // that they tell would prove nothing.
    let is_secure = found.contains("=https://");
    let by_domain = is_secure && config.peer_tls.trusted_ca_file.is_empty();
    let server_name = by_domain.then(|| config.discovery_srv.clone());
    let config = Config {
        initial_cluster: found,
        ..Config::clone(&config)
    };
    Ok((Arc::new(config), server_name))
}

/// What a member becomes part of.
pub(crate) enum Bootstrap {
    New(NewCluster),
    Existing(JoinedCluster),
}

/// An existing cluster, in which this member has been added.
pub(crate) struct JoinedCluster {
    pub(crate) cluster_id: u64,
    /// The id that the cluster has given to this member.
    pub(crate) member_id: u64,
    /// All members, including this one.
    pub(crate) members: Vec<ClusterMember>,
}

/// Determines the ids of this member and its cluster from the configuration and the answers of the
/// other members. Blocks; requests are made on `runtime`.
///
/// # Errors
/// The configuration contradicts itself or the cluster, or no member of an existing cluster
/// answers.
pub(crate) fn bootstrap(
    config: &Config,
    dialer: &Dialer,
    runtime: &Runtime,
) -> Result<Bootstrap, BootstrapError> {
    if config.initial_cluster_state.0 == "existing" {
        remote::join(config, dialer, runtime).map(Bootstrap::Existing)
    } else {
        remote::form(config, dialer, runtime).map(Bootstrap::New)
    }
}
