//! `-w json`: the response as Go's `encoding/json` encodes the corresponding struct of etcd's
//! client.
//!
//! Most structs are the protobuf messages, with their field names and without zero values. Leases,
//! watches and lists of endpoints are structs of the client with names of their own.

use retcd_proto::authpb::Permission;
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::response_op::Response;
use retcd_proto::mvccpb::{Event, KeyValue};

use super::{Answer, Health, Reply, Unsupported};
use crate::go::json::{self, Object, array, object};

type Header<'h> = Option<&'h pb::ResponseHeader>;

/// Formats a reply as one line.
pub(crate) fn render(reply: &Reply<'_>, hex: bool) -> Result<String, Unsupported> {
    let mut out = String::new();
    match reply {
        Reply::Health(list) => list_or_null(&mut out, list, health),
        Reply::Status(list) => list_or_null(&mut out, list, |o, answer| {
            o.string("Endpoint", &answer.endpoint);
            object(o.field("Status"), |o| status(o, &answer.response));
        }),
        Reply::HashKv(list) => list_or_null(&mut out, list, hash_kv),
        reply => object(&mut out, |o| response(o, reply, hex)),
    }
    out.push('\n');
    Ok(out)
}

/// In Go, a nil slice is encoded as `null`, an empty one as `[]`.
fn list_or_null<T>(out: &mut String, items: &[T], fields: impl Fn(&mut Object<'_>, &T)) {
    if items.is_empty() {
        return out.push_str("null");
    }
    array(out, items, |out, item| object(out, |o| fields(o, item)));
}

fn response(o: &mut Object<'_>, reply: &Reply<'_>, hex: bool) {
    match reply {
        Reply::Put(r) => put(o, r),
        Reply::Get(r) => range(o, r),
        Reply::Delete(r) => delete(o, r),
        Reply::Txn(r) => txn(o, r),
        Reply::Watch(r) => watch(o, r),
        Reply::LeaseGrant(r) => {
            lease_head(o, r.header.as_ref());
            o.value("ID", r.id);
            o.value("TTL", r.ttl);
            o.string("Error", &r.error);
        }
        Reply::LeaseRevoke(_, r) => header(o, r.header.as_ref()),
        Reply::LeaseKeepAlive(r) => {
            lease_head(o, r.header.as_ref());
            o.value("ID", r.id);
            o.value("TTL", r.ttl);
        }
        Reply::LeaseTimeToLive(r, _) => lease_time_to_live(o, r),
        Reply::LeaseList(r) => {
            lease_head(o, r.header.as_ref());
            let place = o.field("leases");
            array(place, &r.leases, |out, lease| {
                object(out, |o| o.value("id", lease.id))
            });
        }
        Reply::MemberAdd(r) => member_add(o, r, hex),
        Reply::MemberChange(_, _, head, list) => members(o, *head, list, hex),
        Reply::MemberList(r) => members(o, r.header.as_ref(), &r.members, hex),
        Reply::MoveLeader(_, _, r) => header(o, r.header.as_ref()),
        Reply::Downgrade(_, r) => {
            header(o, r.header.as_ref());
            o.string_opt("version", &r.version);
        }
        Reply::Alarm(r) => {
            header(o, r.header.as_ref());
            o.array_opt("alarms", &r.alarms, |out, alarm| {
                object(out, |o| {
                    o.value_opt("memberID", alarm.member_id);
                    o.value_opt("alarm", alarm.alarm);
                });
            });
        }
        Reply::AuthChange(change) => header(o, change.header),
        Reply::AuthStatus(r) => {
            header(o, r.header.as_ref());
            o.value_opt("enabled", r.enabled);
            o.value_opt("authRevision", r.auth_revision);
        }
        Reply::UserGet(_, r) => names(o, r.header.as_ref(), "roles", &r.roles),
        Reply::UserList(r) => names(o, r.header.as_ref(), "users", &r.users),
        Reply::RoleList(r) => names(o, r.header.as_ref(), "roles", &r.roles),
        Reply::RoleGet(_, r) => {
            header(o, r.header.as_ref());
            o.array_opt("perm", &r.perm, |out, item| {
                object(out, |o| permission(o, item))
            });
        }
        Reply::Health(_) | Reply::Status(_) | Reply::HashKv(_) => {
            unreachable!("lists are no objects")
        }
    }
}

fn header(o: &mut Object<'_>, header: Header<'_>) {
    o.object_opt("header", header, header_fields);
}

fn header_fields(o: &mut Object<'_>, header: &pb::ResponseHeader) {
    o.value_opt("cluster_id", header.cluster_id);
    o.value_opt("member_id", header.member_id);
    o.value_opt("revision", header.revision);
    o.value_opt("raft_term", header.raft_term);
}

/// Leases embed the fields of the header.
fn lease_head(o: &mut Object<'_>, header: Header<'_>) {
    if let Some(header) = header {
        header_fields(o, header);
    }
}

fn key_value(o: &mut Object<'_>, kv: &KeyValue) {
    o.bytes_opt("key", &kv.key);
    o.value_opt("create_revision", kv.create_revision);
    o.value_opt("mod_revision", kv.mod_revision);
    o.value_opt("version", kv.version);
    o.bytes_opt("value", &kv.value);
    o.value_opt("lease", kv.lease);
}

fn key_values(o: &mut Object<'_>, name: &str, kvs: &[KeyValue]) {
    o.array_opt(name, kvs, |out, kv| object(out, |o| key_value(o, kv)));
}

fn put(o: &mut Object<'_>, r: &pb::PutResponse) {
    header(o, r.header.as_ref());
    o.object_opt("prev_kv", r.prev_kv.as_ref(), key_value);
}

fn range(o: &mut Object<'_>, r: &pb::RangeResponse) {
    header(o, r.header.as_ref());
    key_values(o, "kvs", &r.kvs);
    o.value_opt("more", r.more);
    o.value_opt("count", r.count);
}

fn delete(o: &mut Object<'_>, r: &pb::DeleteRangeResponse) {
    header(o, r.header.as_ref());
    o.value_opt("deleted", r.deleted);
    key_values(o, "prev_kvs", &r.prev_kvs);
}

fn txn(o: &mut Object<'_>, r: &pb::TxnResponse) {
    header(o, r.header.as_ref());
    o.value_opt("succeeded", r.succeeded);
    o.array_opt("responses", &r.responses, |out, op| {
        object(out, |o| {
            object(o.field("Response"), |o| txn_part(o, op.response.as_ref()))
        });
    });
}

fn txn_part(o: &mut Object<'_>, response: Option<&Response>) {
    match response {
        Some(Response::ResponseRange(r)) => object(o.field("response_range"), |o| range(o, r)),
        Some(Response::ResponsePut(r)) => object(o.field("response_put"), |o| put(o, r)),
        Some(Response::ResponseDeleteRange(r)) => {
            object(o.field("response_delete_range"), |o| delete(o, r))
        }
        Some(Response::ResponseTxn(r)) => {
            r.visit(|r| object(o.field("response_txn"), |o| txn(o, r)))
        }
        None => {}
    }
}

fn watch(o: &mut Object<'_>, r: &pb::WatchResponse) {
    object(o.field("Header"), |o| {
        header_fields(o, &r.header.unwrap_or_default())
    });
    list_or_null(o.field("Events"), &r.events, event);
    o.value("CompactRevision", r.compact_revision);
    o.value("Canceled", r.canceled);
    o.value("Created", r.created);
    // etcd's client does not export the reason.
    o.string("CancelReason", "");
}

fn event(o: &mut Object<'_>, event: &Event) {
    o.value_opt("type", event.r#type);
    o.object_opt("kv", event.kv.as_ref(), key_value);
    o.object_opt("prev_kv", event.prev_kv.as_ref(), key_value);
}

fn lease_time_to_live(o: &mut Object<'_>, r: &pb::LeaseTimeToLiveResponse) {
    lease_head(o, r.header.as_ref());
    o.value("id", r.id);
    o.value("ttl", r.ttl);
    o.value("granted-ttl", r.granted_ttl);
    let keys = o.field("keys");
    if r.keys.is_empty() {
        keys.push_str("null");
    } else {
        array(keys, &r.keys, |out, key| json::bytes(out, key));
    }
}

fn member_add(o: &mut Object<'_>, r: &pb::MemberAddResponse, hex: bool) {
    member_header(o, r.header.as_ref(), hex);
    o.object_opt("member", r.member.as_ref(), |o, one| member(o, one, hex));
    member_list(o, &r.members, hex);
}

fn members(o: &mut Object<'_>, header: Header<'_>, list: &[pb::Member], hex: bool) {
    member_header(o, header, hex);
    member_list(o, list, hex);
}

/// `--hex` applies to replies about members only.
fn member_header(o: &mut Object<'_>, head: Header<'_>, hex: bool) {
    match head {
        Some(head) if hex => object(o.field("header"), |o| {
            o.string("cluster_id", &format!("{:x}", head.cluster_id));
            o.string("member_id", &format!("{:x}", head.member_id));
            o.value_opt("revision", head.revision);
            o.value_opt("raft_term", head.raft_term);
        }),
        head => header(o, head),
    }
}

fn member_list(o: &mut Object<'_>, members: &[pb::Member], hex: bool) {
    let element = |out: &mut String, one: &pb::Member| object(out, |o| member(o, one, hex));
    if hex {
        array(o.field("members"), members, element)
    } else {
        o.array_opt("members", members, element)
    }
}

fn member(o: &mut Object<'_>, member: &pb::Member, hex: bool) {
    if hex {
        o.string("ID", &format!("{:x}", member.id))
    } else {
        o.value_opt("ID", member.id)
    }
    o.string_opt("name", &member.name);
    strings(o, "peerURLs", &member.peer_ur_ls);
    strings(o, "clientURLs", &member.client_ur_ls);
    o.value_opt("isLearner", member.is_learner);
}

fn strings(o: &mut Object<'_>, name: &str, items: &[String]) {
    o.array_opt(name, items, |out, item| json::string(out, item));
}

fn names(o: &mut Object<'_>, head: Header<'_>, name: &str, items: &[String]) {
    header(o, head);
    strings(o, name, items);
}

fn permission(o: &mut Object<'_>, permission: &Permission) {
    o.value_opt("permType", permission.perm_type);
    o.bytes_opt("key", &permission.key);
    o.bytes_opt("range_end", &permission.range_end);
}

fn health(o: &mut Object<'_>, health: &Health) {
    o.string("endpoint", &health.endpoint);
    o.value("health", health.error.is_empty());
    o.string("took", &health.took);
    o.string_opt("error", &health.error);
}

fn status(o: &mut Object<'_>, status: &pb::StatusResponse) {
    header(o, status.header.as_ref());
    o.string_opt("version", &status.version);
    o.value_opt("dbSize", status.db_size);
    o.value_opt("leader", status.leader);
    o.value_opt("raftIndex", status.raft_index);
    o.value_opt("raftTerm", status.raft_term);
    o.value_opt("raftAppliedIndex", status.raft_applied_index);
    strings(o, "errors", &status.errors);
    o.value_opt("dbSizeInUse", status.db_size_in_use);
    o.value_opt("isLearner", status.is_learner);
    o.string_opt("storageVersion", &status.storage_version);
    o.value_opt("dbSizeQuota", status.db_size_quota);
    o.object_opt(
        "downgradeInfo",
        status.downgrade_info.as_ref(),
        |o, info| {
            o.value_opt("enabled", info.enabled);
            o.string_opt("targetVersion", &info.target_version);
        },
    );
}

fn hash_kv(o: &mut Object<'_>, answer: &Answer<pb::HashKvResponse>) {
    o.string("Endpoint", &answer.endpoint);
    object(o.field("HashKV"), |o| {
        header(o, answer.response.header.as_ref());
        o.value_opt("hash", answer.response.hash);
        o.value_opt("compact_revision", answer.response.compact_revision);
        o.value_opt("hash_revision", answer.response.hash_revision);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(reply: &Reply<'_>, hex: bool, text: &str) {
        assert_eq!(render(reply, hex), Ok(format!("{text}\n")));
    }

    #[test]
    fn nests_the_parts_of_transactions() {
        let header = Some(pb::ResponseHeader {
            revision: 26,
            ..Default::default()
        });
        let put = pb::PutResponse {
            header,
            prev_kv: None,
        };
        let responses = vec![pb::ResponseOp {
            response: Some(Response::ResponsePut(put)),
        }];
        let response = pb::TxnResponse {
            header,
            succeeded: true,
            responses,
        };
        let text = r#"{"header":{"revision":26},"succeeded":true,"responses":[{"Response":{"response_put":{"header":{"revision":26}}}}]}"#;
        check(&Reply::Txn(&response), false, text);
    }

    #[test]
    fn shows_watches_as_the_client_has_them() {
        let kv = KeyValue {
            key: "foo".into(),
            mod_revision: 39,
            ..Default::default()
        };
        let events = vec![Event {
            r#type: 1,
            kv: Some(kv),
            prev_kv: None,
        }];
        let response = pb::WatchResponse {
            events,
            ..Default::default()
        };
        let text = r#"{"Header":{},"Events":[{"type":1,"kv":{"key":"Zm9v","mod_revision":39}}],"CompactRevision":0,"Canceled":false,"Created":false,"CancelReason":""}"#;
        check(&Reply::Watch(&response), false, text);
        check(&Reply::Health(&[]), false, "null");
    }

    #[test]
    fn member_ids_follow_hex() {
        let members = vec![pb::Member {
            id: 255,
            name: "m<1>".into(),
            ..Default::default()
        }];
        let response = pb::MemberListResponse {
            header: Some(Default::default()),
            members,
        };
        check(
            &Reply::MemberList(&response),
            false,
            r#"{"header":{},"members":[{"ID":255,"name":"m\u003c1\u003e"}]}"#,
        );
        let text = r#"{"header":{"cluster_id":"0","member_id":"0"},"members":[{"ID":"ff","name":"m\u003c1\u003e"}]}"#;
        check(&Reply::MemberList(&response), true, text);
    }
}
