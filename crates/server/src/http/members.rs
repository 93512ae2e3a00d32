//! `/members` on the peer listener: what a member that joins asks the ones that it was told of.
//!
//! ```text
//! [{"id":7222618211964737678,"peerURLs":["http://…"],"name":"m1","clientURLs":["http://…"]}]\n
//! ```
//! Ids are JSON numbers of 64 bits. `isLearner` follows `peerURLs` when it is true; `name` and
//! `clientURLs` are missing until the member has published them.

use http::{HeaderName, HeaderValue};
use retcd_proto::etcdserverpb::Member;
use serde::Serialize;

use super::{Probe, Response, reply};

const CLUSTER_ID: HeaderName = HeaderName::from_static("x-etcd-cluster-id");

#[derive(Serialize)]
struct MemberJson<'a> {
    id: u64,
    #[serde(rename = "peerURLs")]
    peer_urls: &'a [String],
    #[serde(rename = "isLearner", skip_serializing_if = "std::ops::Not::not")]
    is_learner: bool,
    #[serde(skip_serializing_if = "str::is_empty")]
    name: &'a str,
    #[serde(rename = "clientURLs", skip_serializing_if = "<[String]>::is_empty")]
    client_urls: &'a [String],
}

impl<'a> From<&'a Member> for MemberJson<'a> {
    fn from(member: &'a Member) -> MemberJson<'a> {
        MemberJson {
            id: member.id,
            peer_urls: &member.peer_ur_ls,
            is_learner: member.is_learner,
            name: &member.name,
            client_urls: &member.client_ur_ls,
        }
    }
}

pub(super) fn members(probe: &impl Probe) -> Response {
    let members = probe.members();
    let members: Vec<MemberJson<'_>> = members.iter().map(MemberJson::from).collect();
    let mut response = reply::ok("application/json", reply::to_json(&members) + "\n");
    let cluster_id = format!("{:x}", probe.cluster_id());
    let cluster_id = HeaderValue::from_str(&cluster_id).expect("hexadecimal digits are valid");
    response.headers_mut().insert(CLUSTER_ID, cluster_id);
    response
}
