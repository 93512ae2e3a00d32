//! The version that the cluster runs: the lowest of its members'.
//!
//! ```text
//! leader: version of all ──▶ decide ──▶ cluster_version_set through the log ──▶ every member: `schema`
//! ```
//! It only goes down in a downgrade: then the members take the schema of their databases down,
//! programs of the older version can be started on them, and when all have been, the leader ends
//! the downgrade. Matched is etcd v3.7: `server/etcdserver/version/monitor.go`.

use std::rc::Rc;
use std::time::Duration;

use futures_util::future::join_all;
use retcd_log::{Hex, Text};
use retcd_proto::etcdserverpb::{InternalRaftRequest, Request as V2Request};
use retcd_proto::membershippb::{ClusterVersionSetRequest, DowngradeInfoSetRequest};
use retcd_state::machine::Reply;
use retcd_state::membership::{Downgrade, Member};
use retcd_state::mvcc::StoreRevision;
use retcd_state::version::Version;

use crate::Error;
use crate::access::Credentials;
use crate::core::Core;

/// How often the leader looks at the members' versions, as etcd does.
const MONITOR_INTERVAL: Duration = Duration::from_secs(4);
/// The oldest version of a cluster; it also stands for one that is not known.
pub const OLDEST_CLUSTER: Version = Version::new(3, 0, 0);
/// Members below know what they tell each other as requests of API v2 alone.
const FIRST_WITH_V3_REQUESTS: Version = Version::new(3, 5, 0);

/// The cluster's version.
pub struct Versions {
    core: Rc<Core>,
}

/// What is said of a downgrade: the cluster's version, and the revision of the store at which that
/// was true.
pub type DowngradeAnswer = (Version, StoreRevision);

/// Major and minor alone.
pub(crate) fn minor(version: Version) -> Version {
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

impl Versions {
    pub(crate) fn new(core: &Rc<Core>) -> Versions {
        Versions {
            core: Rc::clone(core),
        }
    }

    /// Keeps the cluster's version while this member leads: looks at the members when a term
    /// begins, and now and then. Ends when the member stops.
    pub(crate) async fn run(&self) {
        let signals = &self.core.shared.signals;
        let mut seen = 0;
        while !signals.is_stopping() {
            let begun = signals.other_term(seen);
            if let Some(term) = self.core.clock.within(MONITOR_INTERVAL, begun).await {
                seen = term;
            }
            if let Some(term) = self.core.read_index.leads_in().await {
                self.update(term).await;
            }
        }
    }

    /// Looks at the members, as the leader of `term`. What comes of it is done in that term or not
    /// at all: who leads later may have found members of another version, or a downgrade.
    async fn update(&self, term: u64) {
        let lowest = self.lowest_version().await;
        let (cluster, downgrade) = {
            let membership = self.core.shared.state.membership.read();
            (membership.cluster_version(), membership.downgrade())
        };
        match decide(cluster, lowest, &downgrade) {
            Decision::Keep => {}
            Decision::Set(version) => self.set(term, cluster, version).await,
            Decision::Refuse(from) => {
                retcd_log::error!("Cannot downgrade from this version to downgrade-target";
                    "downgrade-target" => &downgrade.target_version, "version" => &from.to_string());
            }
        }
    }

    async fn set(&self, term: u64, from: Option<Version>, to: Version) {
        let own = minor(self.core.shared.config.version);
        assert!(
            to == minor(to) && to <= own,
            "version {to} by a member of {own}"
        );
        let shown = to.major_minor();
        match from {
            None => {
                retcd_log::info!("setting up initial cluster version using v3 API"; "cluster-version" => &shown);
            }
            Some(from) => {
                retcd_log::info!("updating cluster version using v3 API"; "from" => &from.major_minor(), "to" => &shown);
            }
        }
        let proposed = if speaks_v2_only(to) {
            let request = v2_put("/0/version".to_owned(), to.to_string());
            let proposed = self.core.proposer.propose_v2_as_leader(term, request);
            proposed.await.map(drop)
        } else {
            let request = ClusterVersionSetRequest {
                ver: to.to_string(),
            };
            let request = InternalRaftRequest {
                cluster_version_set: Some(request),
                ..Default::default()
            };
            let proposed = self
                .core
                .proposer
                .propose_as_leader(term, None, request.into());
            proposed.await.map(drop)
        };
        match proposed {
            Ok(()) => retcd_log::info!("cluster version is updated"; "cluster-version" => &shown),
            Err(error) => {
                retcd_log::warn!("failed to update cluster version"; "error" => Text(&error));
            }
        }
    }

    /// The lowest version of all members' programs, if all of them can be asked.
    async fn lowest_version(&self) -> Option<Version> {
        let versions = self.all().await;
        let own = self.core.shared.config.version;
        for (id, version) in &versions {
            if let Some(version) = version
                && own < *version
            {
                retcd_log::warn!("leader found higher-versioned member";
                    "local-member-version" => &own.to_string(), "remote-member-id" => Hex(*id),
                    "remote-member-version" => &version.to_string());
            }
        }
        let known: Option<Vec<Version>> =
            versions.into_iter().map(|(_, version)| version).collect();
        // This program counts even if its member has just been removed.
        known?.into_iter().chain([own]).min()
    }

    /// The version of each member's program, by member.
    async fn all(&self) -> Vec<(u64, Option<Version>)> {
        let own_id = self.core.shared.id;
        let members: Vec<Member> = {
            let membership = self.core.shared.state.membership.read();
            membership.members().cloned().collect()
        };
        let ask = |member: Member| async move {
            match member.id == own_id {
                true => (own_id, Some(self.core.shared.config.version)),
                false => (member.id, self.version_of(&member).await),
            }
        };
        join_all(members.into_iter().map(ask)).await
    }

    async fn version_of(&self, member: &Member) -> Option<Version> {
        let text = self.core.peers.version(member).await.ok()?.program;
        let version = Version::parse(text.as_bytes());
        if version.is_none() {
            retcd_log::warn!("failed to parse server version of remote member";
                "remote-member-id" => Hex(member.id), "remote-member-version" => &text);
        }
        version
    }

    /// Ends a downgrade that every member has made, while this member leads.
    pub(crate) async fn run_downgrade(&self) {
        let Some(interval) = self.core.shared.config.downgrade_check else {
            return;
        };
        loop {
            self.core.clock.sleep(interval).await;
            let downgrade = self.core.shared.state.membership.read().downgrade();
            if !downgrade.enabled {
                continue;
            }
            let Some(term) = self.core.read_index.leads_in().await else {
                continue;
            };
            let target = Version::parse(downgrade.target_version.as_bytes()).map(minor);
            let versions = self.all().await;
            let done = |(_, version): &(u64, Option<Version>)| {
                target.is_some() && version.map(minor) == target
            };
            if versions.iter().all(done) {
                retcd_log::info!("the cluster has been downgraded"; "cluster-version" => &downgrade.target_version);
                // A later leader's may be another one that was begun since.
                if let Err(error) = self.set_downgrade(None, Some(term)).await {
                    retcd_log::warn!("failed to cancel downgrade"; "error" => Text(&error));
                }
            }
        }
    }

    /// Begins or ends a downgrade, for a client or as the leader of a term; the store's revision
    /// behind it.
    async fn set_downgrade(
        &self,
        target: Option<Version>,
        decided_in: Option<u64>,
    ) -> Result<StoreRevision, Error> {
        let request = DowngradeInfoSetRequest {
            enabled: target.is_some(),
            ver: target.map_or_else(String::new, |target| target.to_string()),
        };
        let request = InternalRaftRequest {
            downgrade_info_set: Some(request),
            ..Default::default()
        };
        let proposer = &self.core.proposer;
        let reply = match decided_in {
            Some(term) => {
                proposer
                    .propose_as_leader(term, None, request.into())
                    .await?
            }
            None => proposer.propose(request.into()).await?,
        };
        match reply {
            Reply::Done { revision } => Ok(revision),
            other => unreachable!("a downgrade was answered with {other:?}"),
        }
    }

    /// Checks whether the cluster could go down to `target`.
    ///
    /// # Errors
    /// The caller may not ask; it could not.
    pub async fn validate_downgrade(
        &self,
        credentials: &Credentials,
        target: Version,
    ) -> Result<DowngradeAnswer, Error> {
        self.core.access.require_admin(credentials).await?;
        self.validate(target).await
    }

    async fn validate(&self, target: Version) -> Result<DowngradeAnswer, Error> {
        let version = self.core.shared.cluster_version();
        version.ok_or(Error::ClusterVersionUnknown)?;
        self.core.read_index.linearizable().await?;
        let membership = self.core.shared.state.membership.read();
        let cluster = membership
            .cluster_version()
            .ok_or(Error::ClusterVersionUnknown)?;
        if below(cluster) != Some(minor(target)) {
            return Err(Error::BadDowngradeTarget);
        }
        match membership.downgrade().enabled {
            true => Err(Error::DowngradeInProgress),
            false => Ok((cluster, self.core.shared.state.reader.view().revision())),
        }
    }

    /// Starts to take the cluster down to `target`; the version is the one before.
    ///
    /// # Errors
    /// As [`Versions::validate_downgrade`] and
    /// [`Proposer::propose`](crate::proposer::Proposer::propose).
    pub async fn enable_downgrade(
        &self,
        credentials: &Credentials,
        target: Version,
    ) -> Result<DowngradeAnswer, Error> {
        let (cluster, _) = self.validate_downgrade(credentials, target).await?;
        let revision = self.set_downgrade(Some(minor(target)), None).await?;
        Ok((cluster, revision))
    }

    /// Ends a downgrade, if there is one.
    ///
    /// # Errors
    /// The caller may not; the cluster's version is not decided. Other failures are logged alone,
    /// as in etcd.
    pub async fn cancel_downgrade(
        &self,
        credentials: &Credentials,
    ) -> Result<DowngradeAnswer, Error> {
        self.core.access.require_admin(credentials).await?;
        let cancelled = async {
            self.core.read_index.linearizable().await?;
            match self.core.shared.state.membership.read().downgrade().enabled {
                true => Ok(()),
                false => Err(Error::NoDowngrade),
            }?;
            self.set_downgrade(None, None).await
        };
        let cancelled = cancelled.await.inspect_err(|error| {
            retcd_log::warn!("failed to cancel downgrade"; "error" => Text(error));
        });
        let version = self.core.shared.cluster_version();
        let version = version.ok_or(Error::ClusterVersionUnknown)?;
        let revision =
            cancelled.unwrap_or_else(|_| self.core.shared.state.reader.view().revision());
        Ok((version, revision))
    }

    /// Whether a downgrade is under way, as the cluster knows it now: for another member.
    ///
    /// # Errors
    /// As [`ReadIndex::linearizable`](crate::read_index::ReadIndex::linearizable).
    pub async fn downgrade_enabled(&self) -> Result<bool, Error> {
        self.core.read_index.linearizable().await?;
        Ok(self.core.shared.state.membership.read().downgrade().enabled)
    }
}

/// Whether the cluster has members that would stop at requests of today. The oldest version of all
/// stands for one that could not be told.
pub(crate) fn speaks_v2_only(cluster: Version) -> bool {
    cluster != OLDEST_CLUSTER && cluster < FIRST_WITH_V3_REQUESTS
}

/// A request of API v2 as etcd up to 3.5 wrote it: these fields, all of them.
pub(crate) fn v2_put(path: String, value: String) -> V2Request {
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn old_members_are_spoken_to_in_their_way() {
        let spoken = [v(0), v(3), v(4), v(5), v(7)].map(speaks_v2_only);
        assert_eq!(spoken, [false, true, true, false, false]);
    }
}
