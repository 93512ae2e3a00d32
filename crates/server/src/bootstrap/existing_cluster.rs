//! An existing cluster as one of its members describes it: which of its members this one is, and
//! whether their versions are compatible.

use std::fmt::Write;

use retcd_member::versions::OLDEST_CLUSTER;
use retcd_state::membership::Member;
use retcd_state::version::Version;

use super::BootstrapError;
use super::addresses::{Resolve, same_addresses};
use super::initial_cluster::InitialCluster;
use crate::config::Config;
use crate::config::url::Url;

/// The answer of a member to `GET /members`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct ExistingCluster {
    pub(super) id: u64,
    /// By id.
    pub(super) members: Vec<Member>,
}

/// The cluster to join, as the configuration of this member describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ExpectedCluster {
    initial_cluster: InitialCluster,
    name: String,
}

impl ExpectedCluster {
    /// # Errors
    /// `--initial-cluster` does not list this member, or lists an address twice.
    pub(super) fn from_config(config: &Config) -> Result<ExpectedCluster, BootstrapError> {
        let initial_cluster = InitialCluster::parse(&config.initial_cluster)?;
        initial_cluster.urls_of(&config.name)?;
        initial_cluster.check_duplicates()?;
        Ok(ExpectedCluster {
            initial_cluster,
            name: config.name.clone(),
        })
    }

    /// The peer URLs of the other members, sorted.
    pub(super) fn other_peer_urls(&self) -> Vec<String> {
        self.initial_cluster.urls_except(&self.name)
    }

    /// The id that the cluster has given to this member. Each of its members must have the URLs of
    /// one in `--initial-cluster`; names are not compared, as a member that was only added has
    /// none.
    ///
    /// # Errors
    /// It is another cluster, or has more than `learners_max` learners.
    pub(super) fn own_id(
        &self,
        existing: &ExistingCluster,
        learners_max: usize,
        resolve: Resolve<'_>,
    ) -> Result<u64, BootstrapError> {
        let mismatch = |reason| BootstrapError::PeerUrls {
            cluster: existing.describe(),
            reason,
        };
        if existing.members.len() != self.initial_cluster.0.len() {
            return Err(mismatch("member count is unequal".to_owned()));
        }
        let mut own_id = None;
        for member in &existing.members {
            let name = self.name_of(member, resolve).map_err(|reason| {
                let urls = member.peer_urls().join(" ");
                mismatch(format!(
                    "PeerURLs: no match found for existing member ({:x}, [{urls}]), last resolver error ({reason})",
                    member.id
                ))
            })?;
            if name == self.name {
                own_id = Some(member.id);
            }
        }
        let learners = existing.members.iter().filter(|member| member.is_learner);
        if learners.count() > learners_max {
            return Err(BootstrapError::TooManyLearners);
        }
        // Every name matches a member, as there are as many and no URL occurs twice.
        own_id.ok_or_else(|| mismatch(format!("no member has the URLs of {:?}", self.name)))
    }

    /// The name that `--initial-cluster` has for a member.
    fn name_of(&self, member: &Member, resolve: Resolve<'_>) -> Result<&str, String> {
        let mut urls = member
            .peer_urls()
            .iter()
            .map(|url| {
                Url::parse(url).map_err(|_| format!("failed to parse string to URL: {url:?}"))
            })
            .collect::<Result<Vec<Url>, String>>()?;
        urls.sort();
        let mut reason = String::new();
        for (name, ours) in &self.initial_cluster.0 {
            match same_addresses(&urls, ours, resolve) {
                Ok(()) => return Ok(name),
                Err(difference) => reason = difference,
            }
        }
        Err(reason)
    }
}

impl ExistingCluster {
    pub(super) fn member(&self, id: u64) -> Option<&Member> {
        self.members.iter().find(|member| member.id == id)
    }

    /// As Go prints a `membership.RaftCluster`.
    fn describe(&self) -> String {
        let mut text = format!("{{ClusterID:{:x} Members:[", self.id);
        for (number, member) in self.members.iter().enumerate() {
            let blank = if number > 0 { " " } else { "" };
            write!(
                text,
                "{blank}&{{ID:{:x} RaftAttributes:{{PeerURLs:[{}] IsLearner:{}}} Attributes:{{Name:{} ClientURLs:[{}]}}}}",
                member.id,
                member.peer_urls().join(" "),
                member.is_learner,
                member.name,
                member.client_urls().join(" ")
            )
            .expect("a string takes everything");
        }
        text + "] RemovedMemberIDs:[]}"
    }
}

/// Whether this member is compatible with a cluster of some version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Compatibility {
    Compatible,
    /// The cluster's version is lower than this.
    TooLow(Version),
    /// The cluster's version is higher than this.
    TooHigh(Version),
}

/// Checks a cluster's version. A cluster that is being downgraded can be joined only if it is one
/// minor version above this program, and so being downgraded to it.
pub(super) fn compatibility(cluster: Version, downgrading: bool) -> Compatibility {
    let own = Version::STORAGE;
    let (min, max) = match downgrading {
        false => (OLDEST_CLUSTER, own),
        true => {
            let above = Version::new(own.major, own.minor + 1, 0);
            (above, above)
        }
    };
    if cluster < min {
        Compatibility::TooLow(min)
    } else if max < cluster {
        Compatibility::TooHigh(max)
    } else {
        Compatibility::Compatible
    }
}

#[cfg(test)]
mod tests {
    //! What is guarded: a member takes the id that the cluster has given to its addresses.
    use std::net::SocketAddr;

    use super::*;

    fn resolve(address: &str) -> std::io::Result<SocketAddr> {
        match address {
            "m2.example:2" => Ok(SocketAddr::from(([127, 0, 0, 1], 2))),
            _ => address
                .parse()
                .map_err(|_| std::io::Error::other("no such host")),
        }
    }

    fn member(id: u64, name: &str, urls: &[&str]) -> Member {
        Member {
            id,
            name: name.to_owned(),
            peer_urls: Some(urls.iter().map(|url| (*url).to_owned()).collect()),
            ..Member::default()
        }
    }

    fn check(cluster: &str, existing: Vec<Member>, expected: &str) {
        let mut config = Config::from_table();
        config.name = "b".into();
        config.initial_cluster = cluster.into();
        let existing = ExistingCluster {
            id: 0xc,
            members: existing,
        };
        let id = ExpectedCluster::from_config(&config)
            .and_then(|expected| expected.own_id(&existing, 1, &resolve))
            .map(|id| format!("{id:x}"));
        let got = id.unwrap_or_else(|error| error.to_string());
        assert_eq!(got, expected, "for {cluster}");
    }

    #[test]
    fn the_id_is_that_of_the_own_urls() {
        let members = || {
            vec![
                member(1, "a", &["http://127.0.0.1:1"]),
                member(2, "", &["http://m2.example:2", "http://127.0.0.1:3"]),
            ]
        };
        check(
            "a=http://127.0.0.1:1,b=http://127.0.0.1:3,b=http://127.0.0.1:2",
            members(),
            "2",
        );
        // Names are not compared.
        check(
            "x=http://127.0.0.1:1,b=http://127.0.0.1:3,b=http://127.0.0.1:2",
            members(),
            "2",
        );
    }

    #[test]
    fn a_different_cluster_is_refused_in_etcds_words() {
        check(
            "a=http://127.0.0.1:1,b=http://127.0.0.1:2",
            vec![member(1, "a", &["http://127.0.0.1:1"])],
            "error validating peerURLs {ClusterID:c Members:[&{ID:1 RaftAttributes:{PeerURLs:[http://127.0.0.1:1] \
             IsLearner:false} Attributes:{Name:a ClientURLs:[]}}] RemovedMemberIDs:[]}: member count is unequal",
        );
        check(
            "b=http://127.0.0.1:2",
            vec![member(1, "", &["http://127.0.0.1:1"])],
            "error validating peerURLs {ClusterID:c Members:[&{ID:1 RaftAttributes:{PeerURLs:[http://127.0.0.1:1] \
             IsLearner:false} Attributes:{Name: ClientURLs:[]}}] RemovedMemberIDs:[]}: PeerURLs: no match found for \
             existing member (1, [http://127.0.0.1:1]), last resolver error (resolved urls: \"http://127.0.0.1:1\" != \
             \"http://127.0.0.1:2\")",
        );
        check(
            "a=http://127.0.0.1:1",
            Vec::new(),
            "couldn't find local name \"b\" in the initial cluster configuration",
        );
        check(
            "a=http://127.0.0.1:1,b=http://127.0.0.1:1",
            Vec::new(),
            "initial cluster a=http://127.0.0.1:1,b=http://127.0.0.1:1 has duplicate url",
        );
    }

    #[test]
    fn no_more_learners_than_this_member_allows() {
        let learner = |id, url: &str| Member {
            is_learner: true,
            ..member(id, "", &[url])
        };
        let members = vec![
            learner(1, "http://127.0.0.1:1"),
            learner(2, "http://127.0.0.1:2"),
        ];
        check(
            "a=http://127.0.0.1:1,b=http://127.0.0.1:2",
            members,
            "membership: too many learner members in cluster",
        );
    }

    #[test]
    fn versions_up_to_the_own_are_compatible() {
        use Compatibility::{Compatible, TooHigh, TooLow};
        let judge = |minor, downgrading| compatibility(Version::new(3, minor, 0), downgrading);
        assert_eq!(
            [judge(0, false), judge(5, false), judge(7, false)],
            [Compatible; 3]
        );
        assert_eq!(judge(8, false), TooHigh(Version::new(3, 7, 0)));
        assert_eq!(
            compatibility(Version::new(2, 3, 0), false),
            TooLow(Version::new(3, 0, 0))
        );
        assert_eq!(judge(8, true), Compatible);
        assert_eq!(judge(7, true), TooLow(Version::new(3, 8, 0)));
    }
}
