//! The first start of a member: it founds a cluster with others, or joins one that runs.
//!
//! ```text
//! --initial-cluster ─┬─ new ──────▶ ids from URLs and token ──▶ is this member up already, by what the others say?
//!                    └─ existing ─▶ GET /members of the others ─▶ match by URLs ─▶ own id ─▶ compatible versions?
//! ```
//! What it finds out is written into the member's data; later starts read it there and call nothing of this room.

mod addresses;
mod error;
mod founding;
mod initial_cluster;
mod joining;
mod remote;

use retcd_node::durable::Identity;
use retcd_state::membership::Member as ClusterMember;
use tokio::runtime::Runtime;

use crate::config::Config;
use crate::peer::Dialer;

pub(crate) use error::BootstrapError;
pub(crate) use founding::Founding;
pub(crate) use initial_cluster::InitialCluster;
pub(crate) use joining::OLDEST_CLUSTER;

/// The first start.
pub(crate) enum Bootstrap {
    /// Of a new cluster.
    Found(Founding),
    /// In a running one.
    Join(Join),
}

/// A cluster to join.
pub(crate) struct Join {
    /// The id that the cluster gave to this member, and its own.
    pub(crate) identity: Identity,
    /// Its members, this one among them.
    pub(crate) members: Vec<ClusterMember>,
}

/// Finds out what the configuration and the other members say about the first start. Nothing serves yet, so that the others
/// are asked on `runtime` one question after the other.
///
/// # Errors
/// They contradict each other, or nobody answers.
pub(crate) fn bootstrap(
    config: &Config,
    dialer: &Dialer,
    runtime: &Runtime,
) -> Result<Bootstrap, BootstrapError> {
    if config.initial_cluster_state.0 == "existing" {
        remote::join(config, dialer, runtime).map(Bootstrap::Join)
    } else {
        remote::found(config, dialer, runtime).map(Bootstrap::Found)
    }
}
