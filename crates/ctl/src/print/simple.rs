//! `-w simple`: lines for people and shell scripts. Keys and values are printed as raw bytes.

use std::fmt::Write;

use retcd_client::prefix_end;
use retcd_proto::authpb::{Permission, permission};
use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::response_op::Response;
use retcd_proto::mvccpb::KeyValue;

use super::{Downgrade, Health, MemberChange, Reply, rows};
use crate::stderr;

/// Formats a reply.
pub(crate) fn render(reply: &Reply<'_>, hex: bool, values_only: bool) -> Vec<u8> {
    let mut page = Page {
        out: Vec::new(),
        hex,
        values_only,
    };
    page.reply(reply);
    page.out
}

struct Page {
    out: Vec<u8>,
    hex: bool,
    values_only: bool,
}

impl Page {
    fn line(&mut self, line: impl AsRef<[u8]>) {
        self.out.extend_from_slice(line.as_ref());
        self.out.push(b'\n');
    }

    fn reply(&mut self, reply: &Reply<'_>) {
        match reply {
            Reply::Put(response) => self.put(response),
            Reply::Get(response) => response.kvs.iter().for_each(|kv| self.kv(kv)),
            Reply::Delete(response) => self.delete(response),
            Reply::Txn(response) => self.txn(response),
            Reply::Watch(response) => self.watch(response),
            Reply::LeaseGrant(r) => {
                self.line(format!("lease {:016x} granted with TTL({}s)", r.id, r.ttl))
            }
            Reply::LeaseRevoke(id, _) => self.line(format!("lease {id:016x} revoked")),
            Reply::LeaseKeepAlive(r) => self.line(format!(
                "lease {:016x} keepalived with TTL({})",
                r.id, r.ttl
            )),
            Reply::LeaseTimeToLive(response, keys) => self.time_to_live(response, *keys),
            Reply::LeaseList(response) => {
                self.line(format!("found {} leases", response.leases.len()));
                response
                    .leases
                    .iter()
                    .for_each(|lease| self.line(format!("{:016x}", lease.id)));
            }
            Reply::MemberAdd(response) => self.member_add(response),
            Reply::MemberChange(change, id, header, _) => self.member_change(*change, *id, *header),
            Reply::MemberList(response) => self.rows(rows::members(&response.members)),
            Reply::Health(list) => list.iter().for_each(|health| self.health(health)),
            Reply::Status(list) => self.rows(rows::status(list)),
            Reply::HashKv(list) => self.rows(rows::hash_kv(list)),
            Reply::MoveLeader(from, to, _) => {
                self.line(format!("Leadership transferred from {from:x} to {to:x}"))
            }
            Reply::Downgrade(kind, response) => self.downgrade(*kind, response),
            Reply::Alarm(response) => response.alarms.iter().for_each(|alarm| self.alarm(alarm)),
            Reply::AuthChange(change) => self.line(&change.line),
            Reply::AuthStatus(response) => {
                self.line(format!("Authentication Status: {}", response.enabled));
                self.line(format!("AuthRevision: {}", response.auth_revision));
            }
            Reply::UserGet(name, response) => {
                self.line(format!("User: {name}"));
                let roles: String = response
                    .roles
                    .iter()
                    .map(|role| format!(" {role}"))
                    .collect();
                self.line(format!("Roles:{roles}"));
            }
            Reply::UserList(response) => response.users.iter().for_each(|user| self.line(user)),
            Reply::RoleGet(name, response) => self.role(name, &response.perm),
            Reply::RoleList(response) => response.roles.iter().for_each(|role| self.line(role)),
        }
    }

    fn rows(&mut self, rows: Vec<Vec<String>>) {
        rows.iter().for_each(|row| self.line(row.join(", ")));
    }

    fn kv(&mut self, kv: &KeyValue) {
        if !self.values_only {
            self.text(&kv.key);
        }
        self.text(&kv.value);
    }

    fn text(&mut self, bytes: &[u8]) {
        if self.hex {
            let digits: String = bytes.iter().map(|byte| format!("\\x{byte:02x}")).collect();
            self.line(digits);
        } else {
            self.line(bytes);
        }
    }

    fn put(&mut self, response: &pb::PutResponse) {
        self.line("OK");
        response.prev_kv.iter().for_each(|kv| self.kv(kv));
    }

    fn delete(&mut self, response: &pb::DeleteRangeResponse) {
        self.line(response.deleted.to_string());
        response.prev_kvs.iter().for_each(|kv| self.kv(kv));
    }

    fn txn(&mut self, response: &pb::TxnResponse) {
        self.line(if response.succeeded {
            "SUCCESS"
        } else {
            "FAILURE"
        });
        for op in &response.responses {
            self.line("");
            match &op.response {
                Some(Response::ResponsePut(put)) => self.put(put),
                Some(Response::ResponseRange(range)) => range.kvs.iter().for_each(|kv| self.kv(kv)),
                Some(Response::ResponseDeleteRange(delete)) => self.delete(delete),
                Some(Response::ResponseTxn(txn)) => txn.visit(|txn| self.txn(txn)),
                None => self.line("unexpected response"),
            }
        }
    }

    fn watch(&mut self, response: &pb::WatchResponse) {
        for event in &response.events {
            self.line(event.r#type().as_str_name());
            event.prev_kv.iter().for_each(|kv| self.kv(kv));
            self.kv(event.kv.as_ref().unwrap_or(&KeyValue::default()));
        }
    }

    fn time_to_live(&mut self, response: &pb::LeaseTimeToLiveResponse, keys: bool) {
        if response.granted_ttl == 0 && response.ttl == -1 {
            return self.line(format!("lease {:016x} already expired", response.id));
        }
        let mut line = format!(
            "lease {:016x} granted with TTL({}s), remaining({}s)",
            response.id, response.granted_ttl, response.ttl
        )
        .into_bytes();
        if keys {
            line.extend_from_slice(b", attached keys([");
            line.extend_from_slice(&response.keys.join(&b' '));
            line.extend_from_slice(b"])");
        }
        self.line(line);
    }

    fn member_add(&mut self, response: &pb::MemberAddResponse) {
        let member = response.member.clone().unwrap_or_default();
        let learner = if member.is_learner {
            " as learner "
        } else {
            " "
        };
        let cluster = cluster_id(response.header.as_ref());
        self.line(format!(
            "Member {:16x} added{learner}to cluster {cluster:16x}",
            member.id
        ));
    }

    fn member_change(
        &mut self,
        change: MemberChange,
        id: u64,
        header: Option<&pb::ResponseHeader>,
    ) {
        let what = match change {
            MemberChange::Remove => "removed from",
            MemberChange::Update => "updated in",
            MemberChange::Promote => "promoted in",
        };
        self.line(format!(
            "Member {id:16x} {what} cluster {:16x}",
            cluster_id(header)
        ));
    }

    fn health(&mut self, health: &Health) {
        let Health {
            endpoint,
            took,
            error,
        } = health;
        if error.is_empty() {
            self.line(format!(
                "{endpoint} is healthy: successfully committed proposal: took = {took}"
            ));
        } else {
            stderr::write_line(format_args!(
                "{endpoint} is unhealthy: failed to commit proposal: {error}"
            ));
        }
    }

    fn downgrade(&mut self, kind: Downgrade, response: &pb::DowngradeResponse) {
        let kind = match kind {
            Downgrade::Validate => "validate",
            Downgrade::Enable => "enable",
            Downgrade::Cancel => "cancel",
        };
        self.line(format!(
            "Downgrade {kind} success, cluster version {}",
            response.version
        ));
    }

    /// The text format of protobuf messages, which omits zero values.
    fn alarm(&mut self, alarm: &pb::AlarmMember) {
        let mut parts = Vec::new();
        if alarm.member_id != 0 {
            parts.push(format!("memberID:{}", alarm.member_id));
        }
        if alarm.alarm != 0 {
            parts.push(format!("alarm:{}", alarm_name(alarm.alarm)));
        }
        self.line(parts.join("  "));
    }

    fn role(&mut self, name: &str, permissions: &[Permission]) {
        use permission::Type::{Read, Readwrite, Write};
        self.line(format!("Role {name}"));
        // The role root has all permissions without any being granted.
        let everything = name == "root" && permissions.is_empty();
        for (title, kinds) in [
            ("KV Read:", [Read, Readwrite]),
            ("KV Write:", [Write, Readwrite]),
        ] {
            self.line(title);
            if everything {
                self.line("\t[, <open ended>");
            }
            let granted = permissions
                .iter()
                .filter(|permission| kinds.contains(&permission.perm_type()));
            granted.for_each(|permission| self.permission(permission));
        }
    }

    fn permission(&mut self, permission: &Permission) {
        let (key, end) = (&permission.key[..], &permission.range_end[..]);
        let mut line = match end {
            b"" => [b"\t", key].concat(),
            b"\0" => [b"\t[", key, b", <open ended>"].concat(),
            end => [b"\t[", key, b", ", end, b")"].concat(),
        };
        if !key.is_empty() && !end.is_empty() && prefix_end(key) == end {
            line.extend_from_slice(&[b" (prefix ", key, b")"].concat());
        }
        self.line(line);
    }
}

fn cluster_id(header: Option<&pb::ResponseHeader>) -> u64 {
    header.map_or(0, |header| header.cluster_id)
}

/// The alarm's name, or its number if it is unknown.
pub(crate) fn alarm_name(alarm: i32) -> String {
    let mut name = String::new();
    match pb::AlarmType::try_from(alarm) {
        Ok(known) => name.push_str(known.as_str_name()),
        Err(_) => write!(name, "{alarm}").expect("writing to a String cannot fail"),
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..KeyValue::default()
        }
    }

    fn check(reply: &Reply<'_>, text: &str) {
        assert_eq!(String::from_utf8_lossy(&render(reply, false, false)), text);
    }

    #[test]
    fn keys_and_values_stand_in_their_own_lines() {
        let response = pb::RangeResponse {
            kvs: vec![kv("a", "1"), kv("b", "")],
            ..Default::default()
        };
        check(&Reply::Get(&response), "a\n1\nb\n\n");
        assert_eq!(
            render(&Reply::Get(&response), true, false),
            b"\\x61\n\\x31\n\\x62\n\n"
        );
        assert_eq!(render(&Reply::Get(&response), false, true), b"1\n\n");
    }

    #[test]
    fn transactions_separate_their_parts() {
        let op = |response| pb::ResponseOp {
            response: Some(response),
        };
        let put = pb::PutResponse {
            prev_kv: Some(kv("k", "old")),
            ..Default::default()
        };
        let responses = vec![
            op(Response::ResponsePut(put)),
            op(Response::ResponseDeleteRange(Default::default())),
        ];
        let response = pb::TxnResponse {
            succeeded: true,
            responses,
            ..Default::default()
        };
        check(&Reply::Txn(&response), "SUCCESS\n\nOK\nk\nold\n\n0\n");
    }

    #[test]
    fn roles_list_what_may_be_read_and_written() {
        let permission = |kind: permission::Type, key: &str, end: &str| Permission {
            perm_type: kind.into(),
            key: key.to_owned().into(),
            range_end: end.to_owned().into(),
        };
        let perm = vec![
            permission(permission::Type::Read, "k1", ""),
            permission(permission::Type::Readwrite, "p/", "p0"),
            permission(permission::Type::Write, "z", "\0"),
        ];
        let response = pb::AuthRoleGetResponse {
            perm,
            ..Default::default()
        };
        let text = "Role r\nKV Read:\n\tk1\n\t[p/, p0) (prefix p/)\nKV Write:\n\t[p/, p0) (prefix p/)\n\t[z, <open ended>\n";
        check(&Reply::RoleGet("r", &response), text);
    }
}
