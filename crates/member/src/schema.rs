//! The schema of the database, which follows the version that the cluster runs.
//!
//! A program of an older version goes through the log from the newest snapshot on, and refuses to
//! start if it meets the version that the cluster had before. So when the version goes down a
//! snapshot comes first, and the schema, by which an operator sees that a member is ready, follows
//! when that is durable.

use retcd_log::{Hex, Text};
use retcd_state::machine::Machine;
use retcd_state::version::Version;

use crate::shared::{NoRoom, Shared};
use crate::versions::{OLDEST_CLUSTER, minor};

/// Makes durable in the database what the machine has applied; may block.
pub type Commit<'a> = &'a mut dyn FnMut() -> Result<(), NoRoom>;

/// The program is too old for its cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid downgrade; server version is lower than determined cluster version: \
     this is {}, the cluster runs {}",
    own.major_minor(), cluster.major_minor()
)]
pub struct Outdated {
    /// The newest version that the program knows.
    pub own: Version,
    /// The cluster's.
    pub cluster: Version,
}

/// Whether the database's schema is that of the cluster's version.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Schema {
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
    pub fn at_start(cluster: Option<Version>) -> Result<FollowedVersion, Outdated> {
        match cluster {
            Some(cluster) if minor(cluster) > Version::STORAGE => Err(Outdated {
                own: Version::STORAGE,
                cluster,
            }),
            _ => Ok(FollowedVersion {
                cluster,
                lowered_at: None,
            }),
        }
    }

    /// Notes a change of the cluster's version, and brings the database's schema up to it, or down
    /// as soon as a snapshot allows that.
    pub(crate) fn follow(
        &mut self,
        machine: &mut Machine,
        member: &Shared,
        commit: Commit<'_>,
    ) -> Result<Schema, Outdated> {
        let Some(now) = member.cluster_version() else {
            return Ok(Schema::Current);
        };
        let before = self.cluster;
        if before != Some(now) {
            let (cluster, local) = (Hex(member.cluster_id), Hex(member.id));
            match before {
                None => retcd_log::info!("set initial cluster version"; "cluster-id" => cluster,
                    "local-member-id" => local, "cluster-version" => &now.major_minor()),
                Some(before) => {
                    retcd_log::info!("updated cluster version"; "cluster-id" => cluster,
                    "local-member-id" => local, "from" => &before.major_minor(), "to" => &now.major_minor())
                }
            }
            *self = FollowedVersion::at_start(Some(now))?;
            retcd_log::info!("enabled capabilities for version"; "cluster-version" => &now.major_minor());
        }
        let schema = self.follow_schema(now, machine, member, commit);
        member.signals.version_agreed(now);
        Ok(schema)
    }

    fn follow_schema(
        &mut self,
        now: Version,
        machine: &mut Machine,
        member: &Shared,
        commit: Commit<'_>,
    ) -> Schema {
        let schema = member.storage_version().filter(|_| now != OLDEST_CLUSTER);
        if let Some(schema) = schema.filter(|schema| minor(now) < minor(*schema)) {
            retcd_log::info!("Cluster version downgrade detected, forcing snapshot";
                "prev-cluster-version" => &schema.to_string(), "new-cluster-version" => &now.to_string());
            self.lowered_at.get_or_insert(machine.applied().index);
            return Schema::AwaitsSnapshot;
        }
        self.lowered_at = None;
        update_storage_version(now, machine, member, commit);
        Schema::Current
    }

    /// Takes the schema down if the snapshot of this index stands for the entry that lowered the
    /// version.
    pub(crate) fn handle_snapshot(
        &mut self,
        index: u64,
        machine: &mut Machine,
        member: &Shared,
        commit: Commit<'_>,
    ) {
        let lowered = self.lowered_at.take_if(|lowered_at| *lowered_at <= index);
        if let (Some(_), Some(cluster)) = (lowered, self.cluster) {
            update_storage_version(cluster, machine, member, commit);
        }
    }
}

fn update_storage_version(
    cluster: Version,
    machine: &mut Machine,
    member: &Shared,
    commit: Commit<'_>,
) {
    // Nothing is known of a cluster whose members could not all be asked.
    if cluster == OLDEST_CLUSTER {
        return;
    }
    let before = member.storage_version();
    match machine.update_storage_version() {
        Ok(Some(version)) => {
            // Whoever is told of an older schema may end the member at once, and start an older
            // program.
            if before.is_some_and(|before| version < before)
                && let Err(error) = commit()
            {
                retcd_log::error!("the storage version is not in the database yet; do not start an older etcd on it before there is room";
                        "storage-version" => &version.to_string(), "error" => Text(&error));
            }
            if let Some(before) = before {
                retcd_log::info!("cluster version differs from storage version.";
                    "cluster-version" => &cluster.to_string(), "storage-version" => &before.to_string());
            }
            retcd_log::info!("updated storage version"; "new-storage-version" => &version.to_string());
            let downgrade = member.state.membership.read().downgrade();
            if downgrade.enabled {
                retcd_log::info!("The server is ready to downgrade";
                    "target-version" => &downgrade.target_version, "server-version" => &member.config.version.to_string());
            }
        }
        Ok(None) => {}
        Err(error) => retcd_log::error!("failed to update storage version";
            "cluster-version" => &cluster.to_string(), "error" => Text(&error)),
    }
    member.publish_storage_version(machine);
}
