//! A new cluster: the ids that its members compute, each from its own configuration.

use retcd_state::identity::{cluster_id, member_id};

use super::BootstrapError;
use super::addresses::{Resolve, same_addresses};
use super::initial_cluster::InitialCluster;
use crate::config::Config;
use crate::config::url::Url;

/// A cluster that is about to be formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewCluster {
    pub(crate) cluster_id: u64,
    /// The id of the member that starts.
    pub(crate) member_id: u64,
    /// All members, by id.
    pub(crate) members: Vec<NewMember>,
    pub(crate) initial_cluster: InitialCluster,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewMember {
    pub(crate) id: u64,
    pub(crate) name: String,
    /// Sorted.
    pub(crate) peer_urls: Vec<String>,
}

impl NewCluster {
    /// The cluster that the configuration describes.
    ///
    /// # Errors
    /// `--initial-cluster` does not list this member with the addresses that it advertises, or
    /// lists an address twice.
    pub(super) fn from_config(
        config: &Config,
        resolve: Resolve<'_>,
    ) -> Result<NewCluster, BootstrapError> {
        let initial_cluster = InitialCluster::parse(&config.initial_cluster)?;
        let own_urls = initial_cluster.urls_of(&config.name)?;
        check_advertised(
            &config.name,
            &config.initial_advertise_peer_urls,
            own_urls,
            resolve,
        )?;
        initial_cluster.check_duplicates()?;
        let members = members_of(&initial_cluster, &config.initial_cluster_token);
        let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
        let own = members.iter().find(|member| member.name == config.name);
        Ok(NewCluster {
            cluster_id: cluster_id(&ids),
            member_id: own.expect("its URLs were found above").id,
            members,
            initial_cluster,
        })
    }
}

/// The members of a new cluster with this token, by id.
fn members_of(initial_cluster: &InitialCluster, token: &str) -> Vec<NewMember> {
    let mut members: Vec<NewMember> = initial_cluster
        .0
        .iter()
        .map(|(name, urls)| {
            let peer_urls: Vec<String> = urls.iter().map(Url::to_string).collect();
            NewMember {
                id: member_id(&peer_urls, token),
                name: name.clone(),
                peer_urls,
            }
        })
        .collect();
    members.sort_by_key(|member| member.id);
    members
}

/// Checks that the URLs of this member in `--initial-cluster` are those that it advertises, as text
/// or once names are resolved.
fn check_advertised(
    name: &str,
    advertised: &[Url],
    in_cluster: &[Url],
    resolve: Resolve<'_>,
) -> Result<(), BootstrapError> {
    let Err(reason) = same_addresses(advertised, in_cluster, resolve) else {
        return Ok(());
    };
    let only = |these: &[Url], those: &[Url]| -> Vec<Url> {
        these
            .iter()
            .filter(|url| !those.contains(url))
            .cloned()
            .collect()
    };
    let list = |urls: &[Url], prefix: &str| {
        urls.iter()
            .map(|url| format!("{prefix}{url}"))
            .collect::<Vec<_>>()
            .join(",")
    };
    let named = format!("{name}=");
    let not_advertised = only(in_cluster, advertised);
    if !not_advertised.is_empty() {
        return Err(BootstrapError::NotAdvertised {
            in_cluster: list(&not_advertised, &named),
            advertised: list(advertised, ""),
            reason,
        });
    }
    let not_in_cluster = only(advertised, in_cluster);
    if !not_in_cluster.is_empty() {
        return Err(BootstrapError::NotInCluster {
            advertised: list(&not_in_cluster, ""),
            cluster: list(advertised, &named),
        });
    }
    Err(BootstrapError::Unresolved {
        advertised: list(advertised, ""),
        cluster: list(advertised, &named),
        reason,
    })
}

#[cfg(test)]
mod tests {
    //! What is guarded: ids, which are in every data directory, and the messages about a
    //! configuration that contradicts itself.
    use std::net::SocketAddr;

    use super::*;

    fn resolve(address: &str) -> std::io::Result<SocketAddr> {
        match address {
            "m1.example:2380" => Ok(SocketAddr::from(([127, 0, 0, 1], 2380))),
            _ => address
                .parse()
                .map_err(|_| std::io::Error::other("no such host")),
        }
    }

    fn check(name: &str, advertise: &str, cluster: &str, expected: &str) {
        let mut config = Config::from_table();
        config.name = name.into();
        config.initial_advertise_peer_urls = Url::parse_list(advertise).expect("valid");
        config.initial_cluster = cluster.into();
        let got = match NewCluster::from_config(&config, &resolve) {
            Ok(cluster) => format!("{:x} {:x}", cluster.member_id, cluster.cluster_id),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, expected, "for {name} {advertise} {cluster}");
    }

    #[test]
    fn ids_are_etcds() {
        check(
            "default",
            "http://localhost:2380",
            "default=http://localhost:2380",
            "8e9e05c52164694d cdf818194e3a8c32",
        );
        // The name is not part of the id.
        check(
            "m1",
            "http://localhost:2380",
            "m1=http://localhost:2380",
            "8e9e05c52164694d cdf818194e3a8c32",
        );
        let ids = [
            0x8211_f1d0_f64f_3269,
            0x91bc_3c39_8fb3_c146,
            0xfd42_2379_fda5_0e48,
        ];
        let url = |port| vec![format!("http://127.0.0.1:{port}")];
        assert_eq!(
            ids,
            [url(12380), url(22380), url(32380)].map(|urls| member_id(&urls, "etcd-cluster-1"))
        );
        assert_eq!(cluster_id(&ids), 0xef37_ad9d_c622_a7c4);
    }

    #[test]
    fn one_address_may_have_two_spellings() {
        check(
            "a",
            "http://127.0.0.1:2380",
            "a=http://m1.example:2380",
            "8ee2ad30b2f4592d 5ce789f03e6bbe3e",
        );
        check(
            "a",
            "http://[::1]:2380",
            "a=http://[0:0:0:0:0:0:0:1]:2380",
            "f6c062bb306f12 fa2c5b6d7a55528a",
        );
    }

    #[test]
    fn contradictions_are_reported() {
        check(
            "b",
            "http://localhost:2380",
            "a=http://localhost:2380",
            "couldn't find local name \"b\" in the initial cluster configuration",
        );
        check(
            "a",
            "http://localhost:2380",
            "",
            "couldn't find local name \"a\" in the initial cluster configuration",
        );
        check(
            "a",
            "http://127.0.0.1:23011",
            "a=http://127.0.0.1:23012",
            "--initial-cluster has a=http://127.0.0.1:23012 but missing from --initial-advertise-peer-urls=http://127.0.0.1:23011 (resolved urls: \"http://127.0.0.1:23011\" != \"http://127.0.0.1:23012\")",
        );
        check(
            "a",
            "http://localhost:2380",
            "a=http://127.0.0.1:23801,a=http://127.0.0.1:23802",
            "--initial-cluster has a=http://127.0.0.1:23801,a=http://127.0.0.1:23802 but missing from --initial-advertise-peer-urls=http://localhost:2380 (len([\"http://localhost:2380\"]) != len([\"http://127.0.0.1:23801\" \"http://127.0.0.1:23802\"]))",
        );
        check(
            "a",
            "http://127.0.0.1:2380,http://127.0.0.1:2382",
            "a=http://127.0.0.1:2380",
            "--initial-advertise-peer-urls has http://127.0.0.1:2382 but missing from --initial-cluster=a=http://127.0.0.1:2380,a=http://127.0.0.1:2382",
        );
        check(
            "a",
            "http://nohost.example:1",
            "a=http://127.0.0.1:1",
            "--initial-cluster has a=http://127.0.0.1:1 but missing from --initial-advertise-peer-urls=http://nohost.example:1 (failed to resolve \"http://nohost.example:1\" (no such host))",
        );
        check(
            "a",
            "http://localhost:2380",
            "a=http://localhost:2380,b=http://localhost:2380",
            "initial cluster a=http://localhost:2380,b=http://localhost:2380 has duplicate url",
        );
        check(
            "a",
            "http://localhost:1",
            "a",
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: ",
        );
        check(
            "a",
            "http://localhost:1",
            "a=x",
            "error setting up initial cluster: URL scheme must be http, https, unix, or unixs: x",
        );
    }

    #[test]
    fn each_of_three_members_computes_the_same_cluster() {
        let cluster =
            "m1=http://127.0.0.1:23211,m3=http://127.0.0.1:23213,m2=http://127.0.0.1:23212";
        for (name, port, id) in [
            ("m1", 23211, 0x5036_3e81_65f6_dcf1_u64),
            ("m2", 23212, 0xc6a5_bb13_1b1e_93a2),
            ("m3", 23213, 0x0992_7ef6_3c3f_7add),
        ] {
            let mut config = Config::from_table();
            config.name = name.into();
            config.initial_advertise_peer_urls =
                Url::parse_list(&format!("http://127.0.0.1:{port}")).expect("valid");
            config.initial_cluster = cluster.into();
            config.initial_cluster_token = "spec-tok".into();
            let new = NewCluster::from_config(&config, &resolve).expect("valid");
            assert_eq!((new.member_id, new.cluster_id), (id, 0x3ec5_8811_1592_8858));
            let names: Vec<&str> = new.members.iter().map(|m| m.name.as_str()).collect();
            assert_eq!(names, ["m3", "m1", "m2"], "by id");
            let others = new.initial_cluster.urls_except(name);
            assert_eq!(others.len(), 2);
            assert!(others.iter().all(|url| !url.ends_with(&port.to_string())));
        }
    }
}
