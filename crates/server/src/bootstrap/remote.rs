//! The requests of a first start to other members, and what follows from the answers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;
use retcd_state::membership::Member as ClusterMember;
use retcd_state::version::Version;
use tokio::runtime::Runtime;

use super::addresses::{RESOLVE_TIMEOUT, resolve_with_retries};
use super::existing_cluster::{Compatibility, ExistingCluster, ExpectedCluster, compatibility};
use super::new_cluster::NewCluster;
use super::{BootstrapError, JoinedCluster};
use crate::config::{Config, url::Url};
use crate::log::{Hex, Text};
use crate::peer::{Client, Dialer, ask_each_url};

/// Time for an answer to a member that forms a new cluster, as in etcd.
const FORM_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for an answer to a member that joins, as in etcd.
const JOIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for further answers once one member has answered.
const OTHERS_TIMEOUT: Duration = Duration::from_secs(1);
/// Pause before members that disagree are asked again.
const DISAGREEMENT_PAUSE: Duration = Duration::from_millis(100);

/// The new cluster that `config` describes.
///
/// # Errors
/// It contradicts itself, or other members know this one as started. Its data has been lost then.
pub(super) fn form(
    config: &Config,
    dialer: &Dialer,
    runtime: &Runtime,
) -> Result<NewCluster, BootstrapError> {
    let resolve = resolve_with_retries(RESOLVE_TIMEOUT);
    let new = NewCluster::from_config(config, &resolve)?;
    let others = new.initial_cluster.urls_except(&config.name);
    let client = Client::new(dialer.clone(), FORM_TIMEOUT);
    // A new cluster has no member that answers.
    let request = cluster_from_any(&client, &others, Failures::Ignore);
    if let Some(existing) = runtime.block_on(request) {
        let own = existing.member(new.member_id);
        if own.is_some_and(|own| !own.client_urls().is_empty()) {
            return Err(BootstrapError::AlreadyBootstrapped(new.member_id));
        }
    }
    Ok(new)
}

/// The existing cluster to which this member has been added.
pub(super) fn join(
    config: &Config,
    dialer: &Dialer,
    runtime: &Runtime,
) -> Result<JoinedCluster, BootstrapError> {
    let expected = ExpectedCluster::from_config(config)?;
    let client = Client::new(dialer.clone(), JOIN_TIMEOUT);
    let (existing, member_id) = find_own_id(config, &expected, &client, runtime)?;
    let client = Client::new(dialer.clone(), config.request_timeout());
    let others: Vec<&ClusterMember> = existing
        .members
        .iter()
        .filter(|member| member.id != member_id)
        .collect();
    if !runtime.block_on(is_compatible(&client, &others)) {
        return Err(BootstrapError::Incompatible);
    }
    Ok(JoinedCluster {
        cluster_id: existing.id,
        member_id,
        members: existing.members,
    })
}

/// The cluster to which this member has been added, and its id there.
///
/// etcd believes the first member that answers. That member may lag behind: it may not know of the
/// addition yet, or still know a removed member with the same addresses. So all members are asked
/// until those that answer agree, or [`JOIN_TIMEOUT`] has passed.
fn find_own_id(
    config: &Config,
    expected: &ExpectedCluster,
    client: &Client,
    runtime: &Runtime,
) -> Result<(ExistingCluster, u64), BootstrapError> {
    let learners_max = config.max_learners.unsigned_abs();
    let resolve = resolve_with_retries(RESOLVE_TIMEOUT);
    let urls = expected.other_peer_urls();
    let deadline = Instant::now() + JOIN_TIMEOUT;
    loop {
        let clusters = runtime.block_on(clusters_from_all(client, &urls));
        let answers = clusters.into_iter().map(|cluster| {
            let id = expected.own_id(&cluster, learners_max, &resolve)?;
            Ok((cluster, id))
        });
        match agreement(answers.collect()) {
            Agreement::All(answer) => return Ok(answer),
            Agreement::None(error) => return Err(error),
            Agreement::Some(answer) if Instant::now() >= deadline => return Ok(answer),
            Agreement::Some(_) => std::thread::sleep(DISAGREEMENT_PAUSE),
        }
    }
}

/// Whether the members that have answered agree on this one's id.
#[derive(Debug)]
enum Agreement {
    All((ExistingCluster, u64)),
    /// The answer of most of those that know an id.
    Some((ExistingCluster, u64)),
    /// None of them knows an id.
    None(BootstrapError),
}

fn agreement(answers: Vec<Result<(ExistingCluster, u64), BootstrapError>>) -> Agreement {
    let all = answers.len();
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for (_, id) in answers.iter().flatten() {
        *votes.entry(*id).or_default() += 1;
    }
    let most = votes.iter().max_by_key(|(_, count)| **count);
    let Some((id, count)) = most.map(|(id, count)| (*id, *count)) else {
        let nobody = "could not retrieve cluster information from the given URLs";
        let error = answers.into_iter().find_map(Result::err);
        return Agreement::None(error.unwrap_or(BootstrapError::NoClusterInfo(nobody)));
    };
    let answer = answers.into_iter().flatten().find(|answer| answer.1 == id);
    let answer = answer.expect("the id comes from one of them");
    match count == all {
        true => Agreement::All(answer),
        false => Agreement::Some(answer),
    }
}

/// The answers of all members that answer within [`OTHERS_TIMEOUT`] of the first one.
async fn clusters_from_all(client: &Client, urls: &[String]) -> Vec<ExistingCluster> {
    let ask = |url| cluster_from_any(client, std::slice::from_ref(url), Failures::Log);
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
    // The rest may be down.
    let _ = tokio::time::timeout(OTHERS_TIMEOUT, others).await;
    clusters
}

/// Whether failed requests are logged.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Failures {
    Log,
    Ignore,
}

/// The answer of the first member that answers, in the order of `urls`.
async fn cluster_from_any(
    client: &Client,
    urls: &[String],
    failures: Failures,
) -> Option<ExistingCluster> {
    for url in urls.iter().filter_map(|url| Url::parse(url).ok()) {
        match client.members(&url).await {
            Ok(remote) => {
                let mut members = remote.members;
                members.sort_by_key(|member| member.id);
                return Some(ExistingCluster {
                    id: remote.cluster_id,
                    members,
                });
            }
            Err(error) if failures == Failures::Log => {
                crate::warn!("failed to get cluster response";
                    "address" => &format!("{url}/members"), "error" => Text(&error));
            }
            Err(_) => {}
        }
    }
    None
}

/// Whether at least one member answers, and this one is compatible with all that do.
async fn is_compatible(client: &Client, others: &[&ClusterMember]) -> bool {
    let downgrading = is_downgrading(client, others).await;
    let asked = others.iter().map(|member| async {
        let versions = client.versions_of(member).await.ok()?;
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
            Compatibility::Compatible => {
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

/// The answer of the first member that answers, which has asked its cluster.
async fn is_downgrading(client: &Client, others: &[&ClusterMember]) -> bool {
    for member in others {
        let ask = async |url: &Url| {
            client.downgrade_enabled(url).await.inspect_err(|error| {
                crate::warn!("failed to get downgrade enabled status";
                    "remote-member-id" => Hex(member.id), "error" => Text(error));
            })
        };
        if let Ok(enabled) = ask_each_url(member, ask).await {
            return enabled;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    //! What is guarded: a member that lags behind does not decide the id of a new one.
    use super::*;

    fn knows(id: u64) -> Result<(ExistingCluster, u64), BootstrapError> {
        Ok((ExistingCluster::default(), id))
    }

    fn does_not() -> Result<(ExistingCluster, u64), BootstrapError> {
        Err(BootstrapError::TooManyLearners)
    }

    #[test]
    fn an_id_is_one_that_all_members_know() {
        let check = |answers, expected: &str| {
            let got = match agreement(answers) {
                Agreement::All((_, id)) => format!("all {id}"),
                Agreement::Some((_, id)) => format!("some {id}"),
                Agreement::None(error) => error.to_string(),
            };
            assert_eq!(got, expected);
        };
        check(vec![knows(7), knows(7)], "all 7");
        check(vec![does_not(), knows(7)], "some 7");
        // One still knows the member that had these addresses before.
        check(vec![knows(6), knows(7), knows(7)], "some 7");
        let error = BootstrapError::TooManyLearners.to_string();
        check(vec![does_not(), does_not()], &error);
    }
}
