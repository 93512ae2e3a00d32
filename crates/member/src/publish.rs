//! Telling the cluster this member's name and client URLs.

use std::rc::Rc;
use std::time::Duration;

use retcd_log::{Hex, Text};
use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_proto::membershippb::{Attributes, ClusterMemberAttrSetRequest};
use retcd_state::version::Version;
use serde::Serialize;

use crate::Error;
use crate::core::Core;
use crate::versions::{speaks_v2_only, v2_put};

/// Pause before what failed for lack of a leader is tried again.
const RETRY: Duration = Duration::from_millis(100);

/// Tells the cluster of this member.
pub(crate) struct Publisher {
    core: Rc<Core>,
}

/// Attributes as etcd up to 3.5 told them through API v2.
#[derive(Serialize)]
struct AttributesJson<'a> {
    name: &'a str,
    #[serde(rename = "clientURLs")]
    client_urls: &'a [String],
}

impl Publisher {
    pub(crate) fn new(core: &Rc<Core>) -> Publisher {
        Publisher {
            core: Rc::clone(core),
        }
    }

    /// Tells the cluster this member's name and client URLs; returns when they are applied. Whoever
    /// stops drops it.
    ///
    /// The cluster's version tells how, unless this member is alone: what stands in the log should
    /// then be readable for etcd 3.7, also if the data comes from an older one. It is decided as
    /// soon as there is a leader, without whom nothing can be told.
    pub(crate) async fn publish(&self) {
        let member = &*self.core.shared;
        let attributes = Attributes {
            name: member.config.name.clone(),
            client_urls: member.config.client_urls.clone(),
        };
        let timeout = member.config.limits.request_timeout;
        let cluster = member.signals.agreed_version().await;
        let members = member.state.membership.read().members().count();
        let as_v2 = publishes_as_v2(cluster, members);
        while let Err(error) = self.publish_once(&attributes, as_v2).await {
            retcd_log::warn!("failed to publish local member to cluster through raft";
                "local-member-id" => Hex(member.id), "local-member-attributes" => &shown(&attributes),
                "publish-timeout" => timeout, "error" => Text(&error));
            self.core.clock.sleep(RETRY).await;
        }
        retcd_log::info!("published local member to cluster through raft";
            "local-member-id" => Hex(member.id), "local-member-attributes" => &shown(&attributes),
            "cluster-id" => Hex(member.cluster_id), "publish-timeout" => timeout);
    }

    async fn publish_once(&self, attributes: &Attributes, as_v2: bool) -> Result<(), Error> {
        let id = self.core.shared.id;
        if as_v2 {
            let json = AttributesJson {
                name: &attributes.name,
                client_urls: &attributes.client_urls,
            };
            let json = serde_json::to_string(&json).expect("strings have a JSON form");
            let path = format!("/0/members/{id:x}/attributes");
            return self
                .core
                .proposer
                .propose_v2(v2_put(path, json))
                .await
                .map(drop);
        }
        let request = ClusterMemberAttrSetRequest {
            member_id: id,
            member_attributes: Some(attributes.clone()),
        };
        let request = InternalRaftRequest {
            cluster_member_attr_set: Some(request),
            ..Default::default()
        };
        self.core.proposer.propose(request.into()).await.map(drop)
    }
}

/// Whether a member may be among so many that knows attributes only as a request of API v2.
fn publishes_as_v2(cluster: Version, members: usize) -> bool {
    members > 1 && speaks_v2_only(cluster)
}

/// As Go prints the struct.
fn shown(attributes: &Attributes) -> String {
    format!(
        "{{Name:{} ClientURLs:[{}]}}",
        attributes.name,
        attributes.client_urls.join(" ")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_alone_is_understood_by_etcd_3_7() {
        let v = |minor| Version::new(3, minor, 0);
        assert!(publishes_as_v2(v(4), 2));
        assert!(!publishes_as_v2(v(4), 1));
        assert!(!publishes_as_v2(v(7), 3));
    }
}
