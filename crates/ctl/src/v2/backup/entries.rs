//! Which entries of a log another cluster can begin with.
//!
//! Left out are changes of the membership, what members said about themselves and their cluster, and,
//! unless they are wanted, the requests of API version 3. The others move up, so that there are no gaps.

use retcd_proto::etcdserverpb::InternalRaftRequest;
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::entry::LoggedRequest;

/// An entry that is left out. Displays etcd 3.3's text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Dropped {
    /// A change of the membership.
    #[error("EntryConfChange raft entry")]
    ConfChange,
    /// A member's name and client URLs.
    #[error("member attribute update on {0}")]
    Attributes(String),
    /// A request of API version 3.
    #[error("v3 raft entry")]
    V3,
}

/// An entry is neither a request of version 2 nor one of version 3.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("raft entry {index} holds no request")]
pub(super) struct NotARequest {
    index: u64,
}

/// The entries that are kept.
#[derive(Clone, Debug, Default)]
pub(super) struct Selection {
    /// The entries, with new indexes.
    pub(super) entries: Vec<Entry>,
    /// The old indexes of the others, in order.
    dropped: Vec<u64>,
}

impl Selection {
    /// The new index of what was at `index`, or of the last kept entry before it.
    pub(super) fn renumber(&self, index: u64) -> u64 {
        index - self.dropped.partition_point(|dropped| *dropped <= index) as u64
    }

    /// The index of the last kept entry, or `before` if there is none.
    pub(super) fn last_index(&self, before: u64) -> u64 {
        self.entries.last().map_or(before, Entry::index)
    }
}

/// Selects the entries to keep; tells of each of the others.
///
/// # Errors
/// An entry cannot be decoded.
pub(super) fn select(
    entries: Vec<Entry>,
    with_v3: bool,
    tell: &mut dyn FnMut(Dropped),
) -> Result<Selection, NotARequest> {
    let mut selection = Selection::default();
    for mut entry in entries {
        let index = entry.index();
        match reason(&entry, with_v3)? {
            Some(dropped) => {
                tell(dropped);
                selection.dropped.push(index);
            }
            None => {
                entry.index = Some(index - selection.dropped.len() as u64);
                selection.entries.push(entry);
            }
        }
    }
    Ok(selection)
}

/// Why an entry is left out; `None` if it is kept.
fn reason(entry: &Entry, with_v3: bool) -> Result<Option<Dropped>, NotARequest> {
    if entry.r#type() != EntryType::EntryNormal {
        return Ok(Some(Dropped::ConfChange));
    }
    // A leader's first entry has no data.
    if entry.data().is_empty() {
        return Ok(None);
    }
    let request = LoggedRequest::of(entry).map_err(|_| NotARequest {
        index: entry.index(),
    })?;
    Ok(match request {
        LoggedRequest::V2(request)
            if request.method() == "PUT" && is_attributes(request.path()) =>
        {
            Some(Dropped::Attributes(request.path().to_owned()))
        }
        LoggedRequest::V2(_) => None,
        LoggedRequest::V3(request) if with_v3 && !is_of_cluster(&request) => None,
        LoggedRequest::V3(_) => Some(Dropped::V3),
    })
}

/// Whether members told each other of themselves, or of the version that they agreed to: the next
/// cluster may be one of an etcd that is older.
fn is_of_cluster(request: &InternalRaftRequest) -> bool {
    request.cluster_version_set.is_some()
        || request.cluster_member_attr_set.is_some()
        || request.downgrade_info_set.is_some()
}

/// Whether a path is where a member's name and client URLs were kept.
fn is_attributes(path: &str) -> bool {
    let id = path.strip_prefix("/0/members/");
    let id = id.and_then(|id| id.strip_suffix("/attributes"));
    id.is_some_and(|id| {
        (1..=16).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use retcd_proto::etcdserverpb::{PutRequest, Request};
    use retcd_proto::membershippb::ClusterVersionSetRequest;

    use super::*;

    fn entry(index: u64, data: Vec<u8>) -> Entry {
        Entry {
            term: Some(2),
            index: Some(index),
            r#type: Some(EntryType::EntryNormal.into()),
            data: Some(data.into()),
        }
    }

    fn put_v2(path: &str) -> Request {
        Request {
            id: Some(7),
            method: Some("PUT".to_owned()),
            path: Some(path.to_owned()),
            ..Request::default()
        }
    }

    fn put_v3() -> Vec<u8> {
        let request = InternalRaftRequest {
            put: Some(PutRequest::default()),
            ..InternalRaftRequest::default()
        };
        request.encode_to_vec()
    }

    fn log() -> Vec<Entry> {
        let wrapped = InternalRaftRequest {
            v2: Some(put_v2("/1/wrapped").encode_to_vec().into()),
            ..InternalRaftRequest::default()
        };
        let change = Entry {
            r#type: Some(EntryType::EntryConfChange.into()),
            ..entry(11, Vec::new())
        };
        let attributes = put_v2("/0/members/2d70fb10637de68f/attributes");
        let version = InternalRaftRequest {
            cluster_version_set: Some(ClusterVersionSetRequest::default()),
            ..InternalRaftRequest::default()
        };
        vec![
            change,
            entry(12, Vec::new()),
            entry(13, attributes.encode_to_vec()),
            entry(14, put_v2("/1/a").encode_to_vec()),
            entry(15, put_v3()),
            entry(16, wrapped.encode_to_vec()),
            entry(17, version.encode_to_vec()),
        ]
    }

    fn selected(with_v3: bool) -> (Selection, Vec<String>) {
        let mut told = Vec::new();
        let selection = select(log(), with_v3, &mut |dropped| {
            told.push(dropped.to_string())
        });
        (selection.unwrap(), told)
    }

    #[test]
    fn the_membership_is_left_out_and_the_rest_moves_up() {
        let (selection, told) = selected(false);
        let indexes: Vec<u64> = selection.entries.iter().map(Entry::index).collect();
        assert_eq!(indexes, [11, 12, 13]);
        let attributes =
            "member attribute update on /0/members/2d70fb10637de68f/attributes".to_owned();
        let change = "EntryConfChange raft entry".to_owned();
        let v3 = || "v3 raft entry".to_owned();
        assert_eq!(told, [change, attributes, v3(), v3()]);
        // Before the log, between its entries, at its end and behind it.
        let renumbered = [3, 12, 14, 15, 16, 21].map(|index| selection.renumber(index));
        assert_eq!(renumbered, [3, 11, 12, 12, 13, 17]);
        assert_eq!(selection.last_index(10), 13);
        assert_eq!(Selection::default().last_index(10), 10);
    }

    #[test]
    fn requests_of_version_3_are_kept_if_wanted() {
        let (selection, told) = selected(true);
        assert_eq!((selection.entries.len(), told.len()), (4, 3));
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let junk = vec![entry(5, vec![0xff; 9])];
        let refused = select(junk, false, &mut |_| ()).map(|_| ()).unwrap_err();
        assert_eq!(refused.to_string(), "raft entry 5 holds no request");
    }

    #[test]
    fn only_attributes_of_members_are_theirs() {
        assert!(is_attributes("/0/members/a1/attributes"));
        for path in [
            "/1/members/a1/attributes",
            "/0/members//attributes",
            "/0/members/xyz/attributes",
            "/0/members/a1/raftAttributes",
            "/0/members/12345678901234567/attributes",
        ] {
            assert!(!is_attributes(path), "{path}");
        }
    }
}
