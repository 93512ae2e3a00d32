//! Replies that are rows of columns: `simple` joins them with commas, `table` draws borders.

use retcd_log::ByteSize;
use retcd_proto::etcdserverpb as pb;

use super::{Answer, Health, Reply, Unsupported, table};

/// Formats a reply as a table.
pub(crate) fn table(reply: &Reply<'_>) -> Result<String, Unsupported> {
    let (headings, rows): (&[&str], _) = match reply {
        Reply::MemberList(response) => (
            &[
                "ID",
                "Status",
                "Name",
                "Peer Addrs",
                "Client Addrs",
                "Is Learner",
            ],
            members(&response.members),
        ),
        Reply::Health(list) => (&["endpoint", "health", "took", "error"], health(list)),
        Reply::Status(list) => (
            &[
                "endpoint",
                "ID",
                "version",
                "storage version",
                "db size",
                "in use",
                "percentage not in use",
                "quota",
                "is leader",
                "is learner",
                "raft term",
                "raft index",
                "raft applied index",
                "errors",
                "downgrade target version",
                "downgrade enabled",
            ],
            status(list),
        ),
        Reply::HashKv(list) => (&["endpoint", "hash", "hash_revision"], hash_kv(list)),
        _ => return Err(Unsupported::USUAL),
    };
    Ok(table::render(headings, &rows))
}

pub(crate) fn members(members: &[pb::Member]) -> Vec<Vec<String>> {
    let row = |member: &pb::Member| {
        vec![
            format!("{:x}", member.id),
            if member.name.is_empty() {
                "unstarted"
            } else {
                "started"
            }
            .to_owned(),
            member.name.clone(),
            member.peer_ur_ls.join(","),
            member.client_ur_ls.join(","),
            member.is_learner.to_string(),
        ]
    };
    members.iter().map(row).collect()
}

fn health(list: &[Health]) -> Vec<Vec<String>> {
    let row = |health: &Health| {
        vec![
            health.endpoint.clone(),
            health.error.is_empty().to_string(),
            health.took.clone(),
            health.error.clone(),
        ]
    };
    list.iter().map(row).collect()
}

pub(crate) fn status(list: &[Answer<pb::StatusResponse>]) -> Vec<Vec<String>> {
    list.iter()
        .map(|answer| status_row(&answer.endpoint, &answer.response))
        .collect()
}

fn status_row(endpoint: &str, status: &pb::StatusResponse) -> Vec<String> {
    let member = status.header.as_ref().map_or(0, |header| header.member_id);
    let downgrade = status.downgrade_info.clone().unwrap_or_default();
    let size = |bytes: i64| ByteSize(u64::try_from(bytes).unwrap_or(0)).to_string();
    // An empty database has no unused space.
    let used_percent = (status.db_size_in_use.saturating_mul(100))
        .checked_div(status.db_size)
        .unwrap_or(100);
    vec![
        endpoint.to_owned(),
        format!("{member:x}"),
        status.version.clone(),
        status.storage_version.clone(),
        size(status.db_size),
        size(status.db_size_in_use),
        format!("{}%", 100 - used_percent),
        size(status.db_size_quota),
        (status.leader == member).to_string(),
        status.is_learner.to_string(),
        status.raft_term.to_string(),
        status.raft_index.to_string(),
        status.raft_applied_index.to_string(),
        status.errors.join(", "),
        downgrade.target_version,
        downgrade.enabled.to_string(),
    ]
}

pub(crate) fn hash_kv(list: &[Answer<pb::HashKvResponse>]) -> Vec<Vec<String>> {
    let row = |answer: &Answer<pb::HashKvResponse>| {
        vec![
            answer.endpoint.clone(),
            answer.response.hash.to_string(),
            answer.response.hash_revision.to_string(),
        ]
    };
    list.iter().map(row).collect()
}
