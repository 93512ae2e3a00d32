//! What the other members are asked before the first start.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use retcd_node::durable::Identity;
use retcd_state::membership::Member as ClusterMember;
use retcd_state::version::Version;
use tokio::runtime::Runtime;

use super::addresses::{self, PATIENCE};
use super::founding::{self, Founding};
use super::joining::{Compatibility, ExistingCluster, Joining, compatibility};
use super::{BootstrapError, Join};
use crate::config::{Config, url::Url};
use crate::log::{Hex, Text};
use crate::peer::{Client, Dialer, peer_urls_of};

/// How long a member that founds a cluster waits for one that may know better, as in etcd.
const FOUNDING_TIMEOUT: Duration = Duration::from_secs(1);
/// How long one that joins waits for an answer, as in etcd.
const JOINING_TIMEOUT: Duration = Duration::from_secs(10);
/// How long it waits for others when one has answered.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before members that do not agree are asked again.
const DISAGREEMENT_RETRY: Duration = Duration::from_millis(100);

/// The cluster that `config` founds, unless this member is known to be up in it already.
pub fn found(
    config: &Config,
    dialer: &Dialer,
    runtime: &Runtime,
) -> Result<Founding, BootstrapError> {
    let resolve = addresses::resolve_patiently(PATIENCE);
    let founding = founding::found(config, &resolve)?;
    let others = founding.initial_cluster.urls_besides(&config.name);
    let client = Client::new(dialer.clone(), FOUNDING_TIMEOUT);
    if let Some(existing) = runtime.block_on(ask_for_cluster(&client, &others, false)) {
        let own = existing.member(founding.member_id);
        if own.is_some_and(|own| !own.client_urls().is_empty()) {
            return Err(BootstrapError::AlreadyBootstrapped(founding.member_id));
        }
    }
    Ok(founding)
}

/// The running cluster that this member was added to.
pub fn join(config: &Config, dialer: &Dialer, runtime: &Runtime) -> Result<Join, BootstrapError> {
    let joining = Joining::prepare(config)?;
    let client = Client::new(dialer.clone(), JOINING_TIMEOUT);
    let (existing, member_id) = find_own_place(config, &joining, &client, runtime)?;
    let client = Client::new(dialer.clone(), config.request_timeout());
    let others: Vec<&ClusterMember> = existing
        .members
        .iter()
        .filter(|member| member.id != member_id)
        .collect();
    if !runtime.block_on(is_compatible(&client, &others)) {
        return Err(BootstrapError::Incompatible);
    }
    Ok(Join {
        identity: Identity {
            member_id,
            cluster_id: existing.id,
        },
        members: existing.members,
    })
}

/// The cluster that this member was added to, and its id there.
///
/// etcd takes the first answer for the truth. It may come from a member that is a moment behind: one that does not know of the
/// addition, or still knows a member that was removed with the same addresses. So all are asked, until those that answer
/// agree.
fn find_own_place(
    config: &Config,
    joining: &Joining,
    client: &Client,
    runtime: &Runtime,
) -> Result<(ExistingCluster, u64), BootstrapError> {
    let learners_max = config.max_learners.unsigned_abs();
    let resolve = addresses::resolve_patiently(PATIENCE);
    let urls = joining.peer_urls();
    let deadline = Instant::now() + JOINING_TIMEOUT;
    loop {
        let clusters = runtime.block_on(ask_all_for_cluster(client, &urls));
        let places = clusters.into_iter().map(|cluster| {
            let place = joining.identify(&cluster, learners_max, &resolve);
            place.map(|id| (cluster, id))
        });
        match agreement(places.collect()) {
            Agreement::All(place) => return Ok(place),
            Agreement::None(refusal) => return Err(refusal),
            Agreement::Some(place) if Instant::now() >= deadline => return Ok(place),
            Agreement::Some(_) => std::thread::sleep(DISAGREEMENT_RETRY),
        }
    }
}

/// How far the members that have answered agree on this one's place.
#[derive(Debug)]
enum Agreement {
    All((ExistingCluster, u64)),
    /// That is what most of them say.
    Some((ExistingCluster, u64)),
    /// None of them knows a place.
    None(BootstrapError),
}

fn agreement(places: Vec<Result<(ExistingCluster, u64), BootstrapError>>) -> Agreement {
    let all = places.len();
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, id) in places.iter().flatten() {
        *votes.entry(*id).or_default() += 1;
    }
    let most = votes.iter().max_by_key(|(_, count)| **count);
    let Some((id, count)) = most.map(|(id, count)| (*id, *count)) else {
        let nobody = "could not retrieve cluster information from the given URLs";
        let refusal = places.into_iter().find_map(Result::err);
        return Agreement::None(refusal.unwrap_or(BootstrapError::NoClusterInfo(nobody)));
    };
    let place = places.into_iter().flatten().find(|place| place.1 == id);
    let place = place.expect("somebody has voted for it");
    match count == all {
        true => Agreement::All(place),
        false => Agreement::Some(place),
    }
}

/// The cluster as each member knows it that answers at all, or soon after the first that does.
async fn ask_all_for_cluster(client: &Client, urls: &[String]) -> Vec<ExistingCluster> {
    let ask = |url| ask_for_cluster(client, std::slice::from_ref(url), true);
    let mut asked: FuturesUnordered<_> = urls.iter().map(ask).collect();
    let mut clusters = Vec::new();
    while clusters.is_empty() {
        match asked.next().await {
            Some(cluster) => clusters.extend(cluster),
            None => return clusters,
        }
    }
    let others = async {
        while let Some(cluster) = asked.next().await {
            clusters.extend(cluster);
        }
    };
    // Those that are late may be gone.
    let _ = tokio::time::timeout(OTHERS_TIMEOUT, others).await;
    clusters
}

/// The cluster as the first member that answers knows it.
async fn ask_for_cluster(client: &Client, urls: &[String], aloud: bool) -> Option<ExistingCluster> {
    for url in urls.iter().filter_map(|url| Url::parse(url).ok()) {
        match client.members(&url).await {
            Ok(remote) => {
                let mut members: Vec<ClusterMember> = remote
                    .members
                    .into_iter()
                    .map(ClusterMember::from)
                    .collect();
                members.sort_by_key(|member| member.id);
                return Some(ExistingCluster {
                    id: remote.cluster_id,
                    members,
                });
            }
            Err(error) if aloud => {
                crate::warn!("failed to get cluster response";
                    "address" => &format!("{url}/members"), "error" => Text(&error));
            }
            Err(_) => {}
        }
    }
    None
}

/// Whether at least one member runs a cluster version that this one can follow, and none another.
async fn is_compatible(client: &Client, others: &[&ClusterMember]) -> bool {
    let downgrading = is_downgrading(client, others).await;
    let asked = others.iter().map(|member| async {
        let versions = client.versions_of(member).await?;
        let version = Version::parse(versions.cluster.as_bytes());
        if version.is_none() {
            crate::warn!("failed to parse cluster version of remote member";
                "remote-member-id" => Hex(member.id), "remote-member-cluster-version" => &versions.cluster);
        }
        Some((member.id, version?))
    });
    let mut known = false;
    for (id, version) in join_all(asked).await.into_iter().flatten() {
        let (message, limit) = match compatibility(version, downgrading) {
            Compatibility::Fits => {
                known = true;
                continue;
            }
            Compatibility::TooLow(limit) => (
                "cluster version of remote member is not compatible; too low",
                limit,
            ),
            Compatibility::TooHigh(limit) => (
                "cluster version of remote member is not compatible; too high",
                limit,
            ),
        };
        crate::warn!(message; "remote-member-id" => Hex(id),
            "remote-member-cluster-version" => &version.to_string(),
            "cluster-version-supported" => &limit.to_string());
        return false;
    }
    known
}

/// What the first member that answers says: it has read it from the cluster.
async fn is_downgrading(client: &Client, others: &[&ClusterMember]) -> bool {
    for member in others {
        for url in peer_urls_of(member) {
            match client.downgrade_enabled(&url).await {
                Ok(enabled) => return enabled,
                Err(error) => {
                    crate::warn!("failed to get downgrade enabled status";
                        "remote-member-id" => Hex(member.id), "error" => Text(&error));
                }
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    //! What is guarded: a member that is a moment behind does not decide what a new one is.
    use super::*;

    fn knows(id: u64) -> Result<(ExistingCluster, u64), BootstrapError> {
        Ok((ExistingCluster::default(), id))
    }

    fn does_not() -> Result<(ExistingCluster, u64), BootstrapError> {
        Err(BootstrapError::TooManyLearners)
    }

    #[test]
    fn a_place_is_one_that_all_members_know() {
        let told = |answers| match agreement(answers) {
            Agreement::All((_, id)) => format!("all {id}"),
            Agreement::Some((_, id)) => format!("some {id}"),
            Agreement::None(refusal) => refusal.to_string(),
        };
        assert_eq!(told(vec![knows(7), knows(7)]), "all 7");
        assert_eq!(told(vec![does_not(), knows(7)]), "some 7");
        // One still knows the member that had these addresses before.
        assert_eq!(told(vec![knows(6), knows(7), knows(7)]), "some 7");
        assert_eq!(
            told(vec![does_not(), does_not()]),
            BootstrapError::TooManyLearners.to_string()
        );
    }
}
