//! The cluster's version: members take it no higher than the oldest program among them.

use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_state::version::Version;

use super::{Verdict, ensure};
use crate::context::Context;

const OF_ALL: &str = "the cluster's version is none that a member's program does not know";

/// A request was executed for the first time; what others than members put into the log is not
/// looked at.
pub fn is_of_all(r: &InternalRaftRequest, cx: &Context) -> Verdict {
    let id = r.header.as_ref().map_or(0, |header| header.id);
    let Some(set) = r
        .cluster_version_set
        .as_ref()
        .filter(|_| cx.version_requests.contains(&id))
    else {
        return Ok(());
    };
    let version = Version::parse(set.ver.as_bytes());
    let members = cx.log.members.keys();
    let mut programs = members.filter_map(|id| Some((*id, *cx.versions.get(id)?)));
    let older = programs.find(|(_, program)| version.is_none_or(|version| *program < version));
    ensure(older.is_none(), OF_ALL, || {
        format!("it is set to {}, and there is {older:x?}", set.ver)
    })
}
