//! Who a member is: the ids that the first start computes from its configuration, and the checks of that configuration.
//!
//! Both are fixed in the data from then on: later starts read them there and call nothing of this room.

use retcd_state::identity::{cluster_id, member_id};

use super::BootstrapError;
use super::addresses::{Resolve, same_addresses};
use super::initial_cluster::InitialCluster;
use crate::config::Config;
use crate::config::url::Url;

/// A member at the founding of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundingMember {
    /// Its id.
    pub id: u64,
    /// Its name.
    pub name: String,
    /// Its peer URLs, sorted.
    pub peer_urls: Vec<String>,
}

/// A cluster that is being founded, as its configuration says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Founding {
    /// The cluster's id.
    pub cluster_id: u64,
    /// The id of the member that starts.
    pub member_id: u64,
    /// Every member, sorted by id.
    pub members: Vec<FoundingMember>,
    /// The configuration that this comes from.
    pub initial_cluster: InitialCluster,
}

/// The cluster that a member without data founds.
///
/// # Errors
/// When the configuration does not name this member with the addresses that it advertises, or names an address twice.
pub fn found(config: &Config, resolve: Resolve<'_>) -> Result<Founding, BootstrapError> {
    let initial_cluster = InitialCluster::parse(&config.initial_cluster)?;
    let own_urls = initial_cluster.urls_of(&config.name)?;
    check_advertised(
        &config.name,
        &config.initial_advertise_peer_urls,
        own_urls,
        resolve,
    )?;
    initial_cluster.check_duplicates()?;
    let members = members(&initial_cluster, &config.initial_cluster_token);
    let ids: Vec<u64> = members.iter().map(|member| member.id).collect();
    let own = members.iter().find(|member| member.name == config.name);
    Ok(Founding {
        cluster_id: cluster_id(&ids),
        member_id: own.expect("its URLs were found above").id,
        members,
        initial_cluster,
    })
}

/// The members of a new cluster with this token, sorted by id.
fn members(initial_cluster: &InitialCluster, token: &str) -> Vec<FoundingMember> {
    let mut members: Vec<FoundingMember> = initial_cluster
        .0
        .iter()
        .map(|(name, urls)| {
            let peer_urls: Vec<String> = urls.iter().map(Url::to_string).collect();
            FoundingMember {
                id: member_id(&peer_urls, token),
                name: name.clone(),
                peer_urls,
            }
        })
        .collect();
    members.sort_by_key(|member| member.id);
    members
}

/// The URLs of this member in the cluster must be those that it advertises, if not in text then in address.
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
    //! What is guarded: ids, which are in every data directory, and the words about a configuration that contradicts itself.
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
        let got = match found(&config, &resolve) {
            Ok(founding) => format!("{:x} {:x}", founding.member_id, founding.cluster_id),
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
    fn contradictions_are_told() {
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
            let founding = found(&config, &resolve).expect("valid");
            assert_eq!(
                (founding.member_id, founding.cluster_id),
                (id, 0x3ec5_8811_1592_8858)
            );
            let names: Vec<&str> = founding.members.iter().map(|m| m.name.as_str()).collect();
            assert_eq!(names, ["m3", "m1", "m2"], "by id");
            let others = founding.initial_cluster.urls_besides(name);
            assert_eq!(others.len(), 2);
            assert!(others.iter().all(|url| !url.ends_with(&port.to_string())));
        }
    }
}
