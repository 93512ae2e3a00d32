//! `-w fields`: one `"Name" : value` line per field.

use std::fmt::{Display, Write};

use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::response_op::Response;
use retcd_proto::mvccpb::KeyValue;

use super::simple::alarm_name;
use super::{Answer, Reply, Unsupported};
use crate::go::quote::quote;

/// Formats a reply.
pub(crate) fn render(reply: &Reply<'_>, hex: bool) -> Result<String, Unsupported> {
    let mut page = Page {
        out: String::new(),
        hex,
    };
    page.reply(reply)?;
    Ok(page.out)
}

struct Page {
    out: String,
    hex: bool,
}

impl Page {
    fn field(&mut self, name: &str, value: impl Display) {
        writeln!(self.out, "\"{name}\" : {value}").expect("writing to a String cannot fail");
    }

    fn quoted(&mut self, name: &str, value: &[u8]) {
        self.field(name, quote(value));
    }

    /// Writes a member or cluster id.
    fn id(&mut self, name: &str, id: u64) {
        if self.hex {
            self.field(name, format_args!("{id:x}"))
        } else {
            self.field(name, id)
        }
    }

    fn lease(&mut self, name: &str, id: i64) {
        if self.hex {
            self.field(name, format_args!("{id:016x}"))
        } else {
            self.field(name, id)
        }
    }

    fn blank(&mut self) {
        self.out.push('\n');
    }

    fn reply(&mut self, reply: &Reply<'_>) -> Result<(), Unsupported> {
        match reply {
            Reply::Put(response) => self.put(response),
            Reply::Get(response) => self.get(response),
            Reply::Delete(response) => self.delete(response),
            Reply::Txn(response) => self.txn(response),
            Reply::Watch(response) => self.watch(response),
            Reply::LeaseGrant(r) => self.lease_ttl(r.header.as_ref(), r.id, r.ttl),
            Reply::LeaseRevoke(_, response) => self.header(response.header.as_ref()),
            Reply::LeaseKeepAlive(r) => self.lease_ttl(r.header.as_ref(), r.id, r.ttl),
            Reply::LeaseTimeToLive(response, _) => {
                self.lease_ttl(response.header.as_ref(), response.id, response.ttl);
                self.field("GrantedTTL", response.granted_ttl);
                response.keys.iter().for_each(|key| self.quoted("Key", key));
            }
            Reply::LeaseList(response) => {
                self.header(response.header.as_ref());
                response
                    .leases
                    .iter()
                    .for_each(|lease| self.lease("ID", lease.id));
            }
            Reply::MemberList(response) => {
                self.header(response.header.as_ref());
                response
                    .members
                    .iter()
                    .for_each(|member| self.member(member));
            }
            Reply::Health(list) => {
                for health in *list {
                    self.quoted("Endpoint", health.endpoint.as_bytes());
                    self.field("Health", health.error.is_empty());
                    self.field("Took", &health.took);
                    self.field("Error", &health.error);
                    self.blank();
                }
            }
            Reply::Status(list) => list.iter().for_each(|answer| self.status(answer)),
            Reply::HashKv(list) => {
                for Answer { endpoint, response } in *list {
                    self.header(response.header.as_ref());
                    self.quoted("Endpoint", endpoint.as_bytes());
                    self.field("Hash", response.hash);
                    self.field("HashRevision", response.hash_revision);
                    self.blank();
                }
            }
            Reply::Alarm(response) => {
                self.header(response.header.as_ref());
                for alarm in &response.alarms {
                    self.id("MemberID", alarm.member_id);
                    self.field("AlarmType", alarm_name(alarm.alarm));
                    self.blank();
                }
            }
            Reply::AuthChange(change) if change.has_fields => self.header(change.header),
            Reply::RoleGet(_, response) => {
                self.header(response.header.as_ref());
                for permission in &response.perm {
                    self.field(
                        "PermType",
                        format_args!(" {}", permission.perm_type().as_str_name()),
                    );
                    self.quoted("Key", &permission.key);
                    self.quoted("RangeEnd", &permission.range_end);
                }
            }
            Reply::RoleList(response) => {
                self.header(response.header.as_ref());
                let roles: String = response
                    .roles
                    .iter()
                    .map(|role| format!(" {}", quote(role.as_bytes())))
                    .collect();
                self.out.push_str(&format!("\"Roles\" :{roles}\n"));
            }
            Reply::MemberAdd(_)
            | Reply::MemberChange(..)
            | Reply::MoveLeader(..)
            | Reply::Downgrade(..)
            | Reply::AuthChange(_)
            | Reply::AuthStatus(_)
            | Reply::UserGet(..)
            | Reply::UserList(_) => return Err(Unsupported::USUAL),
        }
        Ok(())
    }

    fn header(&mut self, header: Option<&pb::ResponseHeader>) {
        let header = header.copied().unwrap_or_default();
        self.id("ClusterID", header.cluster_id);
        self.id("MemberID", header.member_id);
        // Only responses about keys have a revision.
        if header.revision > 0 {
            self.field("Revision", header.revision);
        }
        self.field("RaftTerm", header.raft_term);
    }

    fn kv(&mut self, prefix: &str, kv: &KeyValue) {
        self.quoted(&format!("{prefix}Key"), &kv.key);
        self.field(&format!("{prefix}CreateRevision"), kv.create_revision);
        self.field(&format!("{prefix}ModRevision"), kv.mod_revision);
        self.field(&format!("{prefix}Version"), kv.version);
        self.quoted(&format!("{prefix}Value"), &kv.value);
        self.lease(&format!("{prefix}Lease"), kv.lease);
    }

    fn put(&mut self, response: &pb::PutResponse) {
        self.header(response.header.as_ref());
        response.prev_kv.iter().for_each(|kv| self.kv("Prev", kv));
    }

    fn get(&mut self, response: &pb::RangeResponse) {
        self.header(response.header.as_ref());
        response.kvs.iter().for_each(|kv| self.kv("", kv));
        self.field("More", response.more);
        self.field("Count", response.count);
    }

    fn delete(&mut self, response: &pb::DeleteRangeResponse) {
        self.header(response.header.as_ref());
        self.field("Deleted", response.deleted);
        response.prev_kvs.iter().for_each(|kv| self.kv("Prev", kv));
    }

    fn txn(&mut self, response: &pb::TxnResponse) {
        self.header(response.header.as_ref());
        self.field("Succeeded", response.succeeded);
        for op in &response.responses {
            match &op.response {
                Some(Response::ResponsePut(put)) => self.put(put),
                Some(Response::ResponseRange(range)) => self.get(range),
                Some(Response::ResponseDeleteRange(delete)) => self.delete(delete),
                Some(Response::ResponseTxn(txn)) => txn.visit(|txn| self.txn(txn)),
                None => self.quoted("Unknown", b""),
            }
        }
    }

    fn watch(&mut self, response: &pb::WatchResponse) {
        self.header(response.header.as_ref());
        for event in &response.events {
            self.field("Type", event.r#type().as_str_name());
            event.prev_kv.iter().for_each(|kv| self.kv("Prev", kv));
            self.kv("", event.kv.as_ref().unwrap_or(&KeyValue::default()));
        }
    }

    fn lease_ttl(&mut self, header: Option<&pb::ResponseHeader>, id: i64, ttl: i64) {
        self.header(header);
        self.lease("ID", id);
        self.field("TTL", ttl);
    }

    fn member(&mut self, member: &pb::Member) {
        self.id("ID", member.id);
        self.quoted("Name", member.name.as_bytes());
        member
            .peer_ur_ls
            .iter()
            .for_each(|url| self.quoted("PeerURL", url.as_bytes()));
        member
            .client_ur_ls
            .iter()
            .for_each(|url| self.quoted("ClientURL", url.as_bytes()));
        self.field("IsLearner", member.is_learner);
        self.blank();
    }

    fn status(&mut self, answer: &Answer<pb::StatusResponse>) {
        let status = &answer.response;
        let downgrade = status.downgrade_info.clone().unwrap_or_default();
        self.header(status.header.as_ref());
        self.quoted("Version", status.version.as_bytes());
        self.quoted("StorageVersion", status.storage_version.as_bytes());
        self.field("DBSize", status.db_size);
        self.field("DBSizeInUse", status.db_size_in_use);
        self.field("DBSizeQuota", status.db_size_quota);
        self.field("Leader", status.leader);
        self.field("IsLearner", status.is_learner);
        self.field("RaftIndex", status.raft_index);
        self.field("RaftTerm", status.raft_term);
        self.field("RaftAppliedIndex", status.raft_applied_index);
        self.field("Errors", format_args!("[{}]", status.errors.join(" ")));
        self.quoted("Endpoint", answer.endpoint.as_bytes());
        self.quoted(
            "DowngradeTargetVersion",
            downgrade.target_version.as_bytes(),
        );
        self.field("DowngradeEnabled", downgrade.enabled);
        self.blank();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_headers_and_records() {
        let header = pb::ResponseHeader {
            cluster_id: 10,
            member_id: 11,
            revision: 3,
            raft_term: 2,
        };
        let kv = KeyValue {
            key: "a\n".into(),
            lease: 255,
            ..Default::default()
        };
        let response = pb::PutResponse {
            header: Some(header),
            prev_kv: Some(kv),
        };
        let text = render(&Reply::Put(&response), true).expect("puts have fields");
        let expected = "\"ClusterID\" : a\n\"MemberID\" : b\n\"Revision\" : 3\n\"RaftTerm\" : 2\n\
            \"PrevKey\" : \"a\\n\"\n\"PrevCreateRevision\" : 0\n\"PrevModRevision\" : 0\n\"PrevVersion\" : 0\n\
            \"PrevValue\" : \"\"\n\"PrevLease\" : 00000000000000ff\n";
        assert_eq!(text, expected);
    }

    #[test]
    fn has_no_form_for_changes_of_members() {
        assert_eq!(
            render(&Reply::MemberAdd(&Default::default()), false),
            Err(Unsupported::USUAL)
        );
    }
}
