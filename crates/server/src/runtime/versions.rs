//! The version that the cluster runs: the lowest of its members'.
//!
//! ```text
//! leader: GET /version of all ──▶ decide ──▶ cluster_version_set through the log ──▶ every member: schema of the database
//! ```
//! It only goes down in a downgrade: then the members take the schema of their databases down, programs of the older version
//! can be started on them, and when all have been, the leader ends the downgrade. Matched is etcd v3.7:
//! `server/etcdserver/version/monitor.go`.
//!
//! A program of an older version goes through the log from the newest snapshot on, and refuses to start if it meets the
//! version that the cluster had before. So a snapshot comes first, and the schema, by which an operator sees that a member
//! is ready, follows when it is durable.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use retcd_proto::etcdserverpb::{InternalRaftRequest, Request as V2Request};
use retcd_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use retcd_state::machine::{Machine, Reply};
use retcd_state::membership::{Downgrade, Member as ClusterMember};
use retcd_state::mvcc::StoreRevision;
use retcd_state::version::Version;
use serde::Serialize;
use tokio::sync::watch;

use super::fatal::stop_process;
use super::local::Local;
use super::member::Member;
use super::server::StartError;
use crate::bootstrap::OLDEST_CLUSTER;
use crate::grpc::status::{self, Status};
use crate::log::{Hex, Text};

/// How often the leader looks at the members' versions, as etcd does.
const MONITOR_INTERVAL: Duration = Duration::from_secs(4);
/// Pause before something that failed for lack of a leader is tried again.
const RETRY: Duration = Duration::from_millis(100);
/// Members below know what they tell each other as requests of API v2 alone.
const FIRST_WITH_V3_REQUESTS: Version = Version::new(3, 5, 0);

/// Major and minor alone.
fn minor(version: Version) -> Version {
    Version::new(version.major, version.minor, 0)
}

/// The version below, which a cluster can go down to; none below a major version's first.
pub fn below(version: Version) -> Option<Version> {
    let minor = version.minor.checked_sub(1)?;
    Some(Version::new(version.major, minor, 0))
}

/// What becomes of the cluster's version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Decision {
    Keep,
    Set(Version),
    /// A downgrade cannot be: its target is not one below this version.
    Refuse(Version),
}

/// `lowest` is the lowest version of a member, if all are known.
fn decide(cluster: Option<Version>, lowest: Option<Version>, downgrade: &Downgrade) -> Decision {
    let Some(cluster) = cluster else {
        return Decision::Set(lowest.map_or(OLDEST_CLUSTER, minor));
    };
    let Some(lowest) = lowest else {
        return Decision::Keep;
    };
    if downgrade.enabled {
        let target = Version::parse(downgrade.target_version.as_bytes());
        return match target {
            target if target == Some(cluster) => Decision::Keep,
            target if target != below(cluster) => Decision::Refuse(cluster),
            Some(target) if Some(target) == below(lowest) => Decision::Set(target),
            _ => Decision::Refuse(lowest),
        };
    }
    match cluster.major == lowest.major && minor(cluster) < minor(lowest) {
        true => Decision::Set(minor(lowest)),
        false => Decision::Keep,
    }
}

/// Whether the database's schema is that of the cluster's version.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Schema {
    /// It is.
    Current,
    /// The version went down: a snapshot of what is applied has to come first.
    AwaitsSnapshot,
}

/// The cluster's version as a member last saw it.
#[derive(Debug, Default)]
pub struct FollowedVersion {
    cluster: Option<Version>,
    /// The applied index at which the schema was found to be newer than the cluster's version.
    lowered_at: Option<u64>,
}

impl FollowedVersion {
    /// What a member finds when it starts.
    ///
    /// # Errors
    /// It is too old for the cluster.
    pub fn at_start(cluster: Option<Version>) -> Result<FollowedVersion, StartError> {
        match cluster {
            Some(cluster) if minor(cluster) > Version::STORAGE => Err(StartError::Outdated {
                own: Version::STORAGE.major_minor(),
                cluster: cluster.major_minor(),
            }),
            _ => Ok(FollowedVersion {
                cluster,
                lowered_at: None,
            }),
        }
    }

    /// Notes a change of the cluster's version, and brings the database's schema up to it, or down as soon as
    /// a snapshot allows that.
    pub(super) fn follow(&mut self, machine: &mut Machine, member: &Member) -> Schema {
        let Some(now) = member.cluster_version() else {
            return Schema::Current;
        };
        let before = self.cluster;
        if before != Some(now) {
            let (cluster, local) = (Hex(member.cluster_id), Hex(member.id));
            match before {
                None => crate::info!("set initial cluster version"; "cluster-id" => cluster,
                    "local-member-id" => local, "cluster-version" => &now.major_minor()),
                Some(before) => crate::info!("updated cluster version"; "cluster-id" => cluster,
                    "local-member-id" => local, "from" => &before.major_minor(), "to" => &now.major_minor()),
            }
            match FollowedVersion::at_start(Some(now)) {
                Ok(followed) => *self = followed,
                Err(error) => stop_process(
                    "the cluster has gone on to a version that this program is too old for",
                    &error,
                ),
            }
            crate::info!("enabled capabilities for version"; "cluster-version" => &now.major_minor());
        }
        let schema = self.follow_schema(now, machine, member);
        member.agreed_version.send_replace(Some(now));
        schema
    }

    fn follow_schema(&mut self, now: Version, machine: &mut Machine, member: &Member) -> Schema {
        let schema = member.storage_version().filter(|_| now != OLDEST_CLUSTER);
        if let Some(schema) = schema.filter(|schema| minor(now) < minor(*schema)) {
            crate::info!("Cluster version downgrade detected, forcing snapshot";
                "prev-cluster-version" => &schema.to_string(), "new-cluster-version" => &now.to_string());
            self.lowered_at.get_or_insert(machine.applied().index);
            return Schema::AwaitsSnapshot;
        }
        self.lowered_at = None;
        update_storage_version(now, machine, member);
        Schema::Current
    }

    /// Takes the schema down if the snapshot of this index stands for the entry that lowered the version.
    pub(super) fn handle_snapshot(&mut self, index: u64, machine: &mut Machine, member: &Member) {
        let lowered = self.lowered_at.take_if(|lowered_at| *lowered_at <= index);
        if let (Some(_), Some(cluster)) = (lowered, self.cluster) {
            update_storage_version(cluster, machine, member);
        }
    }
}

fn update_storage_version(cluster: Version, machine: &mut Machine, member: &Member) {
    // Nothing is known of a cluster whose members could not all be asked.
    if cluster == OLDEST_CLUSTER {
        return;
    }
    let before = member.storage_version();
    match machine.update_storage_version() {
        Ok(Some(version)) => {
            // Whoever is told of an older schema may end the member at once, and start an older program.
            if before.is_some_and(|before| version < before) {
                let committed = member.commit_backend_blocking();
                if let Err(error) = committed {
                    crate::error!("the storage version is not in the database yet; do not start an older etcd on it before there is room";
                        "storage-version" => &version.to_string(), "error" => Text(&error));
                }
            }
            if let Some(before) = before {
                crate::info!("cluster version differs from storage version.";
                    "cluster-version" => &cluster.to_string(), "storage-version" => &before.to_string());
            }
            crate::info!("updated storage version"; "new-storage-version" => &version.to_string());
            let downgrade = member.membership.read().downgrade();
            if downgrade.enabled {
                crate::info!("The server is ready to downgrade";
                    "target-version" => &downgrade.target_version, "server-version" => crate::VERSION);
            }
        }
        Ok(None) => {}
        Err(error) => crate::error!("failed to update storage version";
            "cluster-version" => &cluster.to_string(), "error" => Text(&error)),
    }
    *member.storage_version.write() = machine.storage_version().ok().flatten();
}

/// Keeps the cluster's version, while this member leads: looks at the members when a term begins, and now and then.
pub async fn run_cluster_version(local: Rc<Local>) {
    let mut terms = local.member.begun_term.subscribe();
    let mut seen = 0;
    while !local.member.is_stopping() {
        let begun = next_term(&mut terms, seen);
        if let Ok(term) = tokio::time::timeout(MONITOR_INTERVAL, begun).await {
            seen = term;
        }
        if local.leads().await {
            update_cluster_version(&local).await;
        }
    }
}

/// The newest term that has begun, as soon as it is another one than `seen`; at once, if it began before anybody waited.
async fn next_term(terms: &mut watch::Receiver<u64>, seen: u64) -> u64 {
    match terms.wait_for(|term| *term != seen).await {
        Ok(term) => *term,
        // The member is gone, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

async fn update_cluster_version(local: &Rc<Local>) {
    let member = &local.member;
    let lowest = lowest_server_version(local).await;
    let (cluster, downgrade) = {
        let membership = member.membership.read();
        (membership.cluster_version(), membership.downgrade())
    };
    match decide(cluster, lowest, &downgrade) {
        Decision::Keep => {}
        Decision::Set(version) => set_cluster_version(local, cluster, version).await,
        Decision::Refuse(from) => {
            crate::error!("Cannot downgrade from this version to downgrade-target";
                "downgrade-target" => &downgrade.target_version, "version" => &from.to_string());
        }
    }
}

async fn set_cluster_version(local: &Rc<Local>, from: Option<Version>, to: Version) {
    let shown = to.major_minor();
    match from {
        None => {
            crate::info!("setting up initial cluster version using v3 API"; "cluster-version" => &shown);
        }
        Some(from) => {
            crate::info!("updating cluster version using v3 API"; "from" => &from.major_minor(), "to" => &shown);
        }
    }
    let proposed = if speaks_v2_only(to) {
        let request = v2_put("/0/version".to_owned(), to.to_string());
        local.propose_v2(request).await
    } else {
        let request = ClusterVersionSetRequest {
            ver: to.to_string(),
        };
        let request = InternalRaftRequest {
            cluster_version_set: Some(request),
            ..Default::default()
        };
        local.propose(request).await.map(drop)
    };
    match proposed {
        Ok(()) => crate::info!("cluster version is updated"; "cluster-version" => &shown),
        Err(status) => {
            crate::warn!("failed to update cluster version"; "error" => &*status.message);
        }
    }
}

/// Whether the cluster has members that would stop at requests of today. The oldest version of all stands for one that could
/// not be told.
fn speaks_v2_only(cluster: Version) -> bool {
    cluster != OLDEST_CLUSTER && cluster < FIRST_WITH_V3_REQUESTS
}

/// A request of API v2 as etcd up to 3.5 wrote it: these fields, all of them.
fn v2_put(path: String, value: String) -> V2Request {
    V2Request {
        method: Some("PUT".to_owned()),
        path: Some(path),
        val: Some(value),
        dir: Some(false),
        prev_value: Some(String::new()),
        prev_index: Some(0),
        expiration: Some(0),
        wait: Some(false),
        since: Some(0),
        recursive: Some(false),
        sorted: Some(false),
        quorum: Some(false),
        time: Some(0),
        stream: Some(false),
        ..V2Request::default()
    }
}

/// The lowest version of all members' programs, if all of them can be asked.
async fn lowest_server_version(local: &Rc<Local>) -> Option<Version> {
    let versions = server_versions(local).await;
    let own = Version::parse(crate::VERSION.as_bytes()).expect("the own version is one");
    for (id, version) in &versions {
        if let Some(version) = version
            && own < *version
        {
            crate::warn!("leader found higher-versioned member";
                "local-member-version" => crate::VERSION, "remote-member-id" => Hex(*id),
                "remote-member-version" => &version.to_string());
        }
    }
    let known: Option<Vec<Version>> = versions.into_iter().map(|(_, version)| version).collect();
    known?.into_iter().min()
}

/// The version of each member's program, by member.
async fn server_versions(local: &Rc<Local>) -> Vec<(u64, Option<Version>)> {
    let own_id = local.member.id;
    let members: Vec<ClusterMember> = local.member.membership.read().members().cloned().collect();
    join_all(members.into_iter().map(|member| async move {
        if member.id == own_id {
            return (own_id, Version::parse(crate::VERSION.as_bytes()));
        }
        let versions = local.client.versions_of(&member).await;
        let version = versions.and_then(|versions| {
            let version = Version::parse(versions.server.as_bytes());
            if version.is_none() {
                crate::warn!("failed to parse server version of remote member";
                    "remote-member-id" => Hex(member.id), "remote-member-version" => &versions.server);
            }
            version
        });
        (member.id, version)
    }))
    .await
}

/// Ends a downgrade that every member has made, while this member leads.
pub async fn run_downgrade(local: Rc<Local>) {
    let interval = local.member.config.downgrade_check_time.std();
    if interval.is_zero() {
        return;
    }
    loop {
        tokio::time::sleep(interval).await;
        let downgrade = local.member.membership.read().downgrade();
        if !downgrade.enabled || !local.leads().await {
            continue;
        }
        let target = Version::parse(downgrade.target_version.as_bytes()).map(minor);
        let versions = server_versions(&local).await;
        let done = |(_, version): &(u64, Option<Version>)| {
            target.is_some() && version.map(minor) == target
        };
        if versions.iter().all(done) {
            crate::info!("the cluster has been downgraded"; "cluster-version" => &downgrade.target_version);
            if let Err(status) = set_downgrade(&local, None).await {
                crate::warn!("failed to cancel downgrade"; "error" => &*status.message);
            }
        }
    }
}

/// Begins or ends a downgrade; the store's revision behind it.
async fn set_downgrade(
    local: &Rc<Local>,
    target: Option<Version>,
) -> Result<StoreRevision, Status> {
    let request = DowngradeInfoSetRequest {
        enabled: target.is_some(),
        ver: target.map_or_else(String::new, |target| target.to_string()),
    };
    let request = InternalRaftRequest {
        downgrade_info_set: Some(request),
        ..Default::default()
    };
    match local.propose(request).await? {
        Reply::Done { revision } => Ok(revision),
        other => unreachable!("a downgrade was answered with {other:?}"),
    }
}

/// What is said of a downgrade: the cluster's version, and the revision of the store at which that was true.
type Said = (Version, StoreRevision);

/// Checks whether the cluster could go down to `target`.
///
/// # Errors
/// etcd's status when it could not.
pub async fn validate_downgrade(local: &Rc<Local>, target: Version) -> Result<Said, Status> {
    let version = local.member.cluster_version();
    version.ok_or(status::CLUSTER_VERSION_UNAVAILABLE)?;
    local.linearizable().await?;
    let membership = local.member.membership.read();
    let cluster = membership
        .cluster_version()
        .ok_or(status::CLUSTER_VERSION_UNAVAILABLE)?;
    if below(cluster) != Some(minor(target)) {
        return Err(status::INVALID_DOWNGRADE_TARGET);
    }
    match membership.downgrade().enabled {
        true => Err(status::DOWNGRADE_IN_PROCESS),
        false => Ok((cluster, local.member.reader.view().revision())),
    }
}

/// Starts to take the cluster down to `target`; the version is the one before.
///
/// # Errors
/// As [`validate_downgrade`] and [`Local::propose`].
pub async fn enable_downgrade(local: &Rc<Local>, target: Version) -> Result<Said, Status> {
    let (cluster, _) = validate_downgrade(local, target).await?;
    let revision = set_downgrade(local, Some(minor(target))).await?;
    Ok((cluster, revision))
}

/// Ends a downgrade, if there is one.
///
/// # Errors
/// The cluster's version is not decided. Other failures are logged alone, as in etcd.
pub async fn cancel_downgrade(local: &Rc<Local>) -> Result<Said, Status> {
    let cancelled = async {
        local.linearizable().await?;
        match local.member.membership.read().downgrade().enabled {
            true => Ok(()),
            false => Err(Status::new(
                status::Code::FailedPrecondition,
                "etcdserver: no inflight downgrade job",
            )),
        }?;
        set_downgrade(local, None).await
    };
    let cancelled = cancelled.await.inspect_err(|status| {
        crate::warn!("failed to cancel downgrade"; "error" => &*status.message);
    });
    let version = local.member.cluster_version();
    let version = version.ok_or(status::CLUSTER_VERSION_UNAVAILABLE)?;
    let revision = cancelled.unwrap_or_else(|_| local.member.reader.view().revision());
    Ok((version, revision))
}

/// Attributes as etcd up to 3.5 told them through API v2.
#[derive(Serialize)]
struct AttributesJson<'a> {
    name: &'a str,
    #[serde(rename = "clientURLs")]
    client_urls: &'a [String],
}

/// Tells the cluster this member's name and client URLs; returns when they are applied.
///
/// The cluster's version tells how, unless this member is alone: what stands in the log should then be readable for etcd
/// 3.7, also if the data comes from an older one. It is decided as soon as there is a leader, without whom nothing can
/// be told.
pub async fn publish(local: &Rc<Local>) {
    let member = &local.member;
    let attributes = Attributes {
        name: member.config.name.clone(),
        client_urls: member
            .config
            .advertise_client_urls
            .iter()
            .map(ToString::to_string)
            .collect(),
    };
    let cluster = decided_version(member).await;
    let members = member.membership.read().members().count();
    let as_v2 = publishes_as_v2(cluster, members);
    while let Err(status) = publish_once(local, &attributes, as_v2).await {
        if member.is_stopping() {
            return;
        }
        crate::warn!("failed to publish local member to cluster through raft";
            "local-member-id" => Hex(member.id), "local-member-attributes" => &shown(&attributes),
            "publish-timeout" => member.limits.request_timeout, "error" => &*status.message);
        tokio::time::sleep(RETRY).await;
    }
    crate::info!("published local member to cluster through raft";
        "local-member-id" => Hex(member.id), "local-member-attributes" => &shown(&attributes),
        "cluster-id" => Hex(member.cluster_id), "publish-timeout" => member.limits.request_timeout);
}

/// Whether a member may be among so many that knows attributes only as a request of API v2.
fn publishes_as_v2(cluster: Version, members: usize) -> bool {
    members > 1 && speaks_v2_only(cluster)
}

async fn publish_once(
    local: &Rc<Local>,
    attributes: &Attributes,
    as_v2: bool,
) -> Result<(), Status> {
    let id = local.member.id;
    if as_v2 {
        let json = AttributesJson {
            name: &attributes.name,
            client_urls: &attributes.client_urls,
        };
        let json = serde_json::to_string(&json).expect("strings have a JSON form");
        let path = format!("/0/members/{id:x}/attributes");
        return local.propose_v2(v2_put(path, json)).await;
    }
    let request = ClusterMemberAttrSetRequest {
        member_id: id,
        member_attributes: Some(attributes.clone()),
    };
    let request = InternalRaftRequest {
        cluster_member_attr_set: Some(request),
        ..Default::default()
    };
    local.propose(request).await.map(drop)
}

/// As Go prints the struct.
fn shown(attributes: &Attributes) -> String {
    format!(
        "{{Name:{} ClientURLs:[{}]}}",
        attributes.name,
        attributes.client_urls.join(" ")
    )
}

async fn decided_version(member: &Member) -> Version {
    let mut agreed = member.agreed_version.subscribe();
    let agreed = agreed.wait_for(Option::is_some).await;
    agreed
        .expect("the sender lives as long as the member")
        .expect("it was just seen")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A start took an interval longer now and then.
    #[tokio::test]
    async fn a_term_that_began_before_anybody_waited_is_seen() {
        let begun = watch::Sender::new(0);
        begun.send_replace(2);
        let mut terms = begun.subscribe();
        assert_eq!(next_term(&mut terms, 0).await, 2);
        let waiting = next_term(&mut terms, 2);
        tokio::pin!(waiting);
        tokio::select! {
            biased;
            term = &mut waiting => panic!("term {term} was seen before"),
            () = std::future::ready(()) => {}
        }
        begun.send_replace(3);
        assert_eq!(waiting.await, 3);
    }

    const fn v(minor: u64) -> Version {
        Version::new(3, minor, 0)
    }

    fn to(target: &str) -> Downgrade {
        Downgrade {
            target_version: target.to_owned(),
            enabled: !target.is_empty(),
        }
    }

    #[test]
    fn the_clusters_version_follows_the_lowest_member_upwards() {
        let patch = Version::new(3, 6, 4);
        for (cluster, lowest, decision) in [
            (None, None, Decision::Set(v(0))),
            (None, Some(patch), Decision::Set(v(6))),
            (Some(v(5)), None, Decision::Keep),
            (Some(v(5)), Some(patch), Decision::Set(v(6))),
            (Some(v(0)), Some(v(7)), Decision::Set(v(7))),
            (Some(v(6)), Some(patch), Decision::Keep),
            (Some(v(7)), Some(patch), Decision::Keep),
            (Some(v(7)), Some(Version::new(4, 0, 0)), Decision::Keep),
        ] {
            assert_eq!(
                decide(cluster, lowest, &to("")),
                decision,
                "{cluster:?} {lowest:?}"
            );
        }
    }

    #[test]
    fn a_downgrade_goes_down_one_step_from_version_and_members() {
        for (cluster, lowest, target, decision) in [
            (7, 7, "3.6.0", Decision::Set(v(6))),
            (6, 7, "3.6.0", Decision::Keep),
            (7, 7, "3.5.0", Decision::Refuse(v(7))),
            (7, 6, "3.6.0", Decision::Refuse(v(6))),
            (7, 7, "nonsense", Decision::Refuse(v(7))),
        ] {
            let decided = decide(Some(v(cluster)), Some(v(lowest)), &to(target));
            assert_eq!(decided, decision, "{cluster} {lowest} {target}");
        }
        assert_eq!(decide(Some(v(7)), None, &to("3.6.0")), Decision::Keep);
    }

    #[test]
    fn a_member_alone_is_understood_by_etcd_3_7() {
        assert!(publishes_as_v2(v(4), 2));
        assert!(!publishes_as_v2(v(4), 1));
        assert!(!publishes_as_v2(v(7), 3));
    }

    #[test]
    fn old_members_are_spoken_to_in_their_way() {
        let spoken = [v(0), v(3), v(4), v(5), v(7)].map(speaks_v2_only);
        assert_eq!(spoken, [false, true, true, false, false]);
    }
}
