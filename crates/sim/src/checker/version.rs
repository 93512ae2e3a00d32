//! The cluster's version: members take it no higher than the oldest program among them.

use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_state::version::Version;

use retcd_proto::raftpb::Entry;

use super::{Verdict, ensure};
use crate::context::Context;
use crate::host::OLD;

const OF_ALL: &str = "the cluster's version is none that a member's program does not know";
const KNOWN: &str = "nobody begins with API v2 while a member's program does not know it";

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

/// An entry was executed that may be the first write through API v2. Who joins later is looked at by
/// those who reach it.
pub fn knows_tree(entry: &Entry, cx: &Context) -> Verdict {
    if !cx.log.tree.is_first_write(entry) || cx.log.last() != entry.index() {
        return Ok(());
    }
    let mut members = cx.log.members.keys();
    let old = members.find(|id| cx.versions.get(id) == Some(&OLD));
    ensure(old.is_none(), KNOWN, || {
        format!(
            "entry {} is the first write, and {old:x?} is of {OLD}",
            entry.index()
        )
    })
}
