//! Random logs that touch everything a machine keeps.

use fastrand::Rng;
use prost::Message;
use retcd_proto::authpb::{Permission, UserAddOptions};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    AlarmRequest, AuthRoleAddRequest, AuthRoleDeleteRequest, AuthRoleGrantPermissionRequest,
    AuthUserAddRequest, AuthUserDeleteRequest, AuthUserGrantRoleRequest, CompactionRequest,
    DeleteRangeRequest, InternalRaftRequest, LeaseCheckpoint, LeaseCheckpointRequest,
    LeaseGrantRequest, LeaseRevokeRequest, PutRequest, RequestOp, TxnRequest,
};
use retcd_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use retcd_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use retcd_state::membership::{ConfChangeContext, Member};

/// A log that grows at random. Many of its requests are refused, by every member alike.
pub struct Log {
    pub entries: Vec<Entry>,
    rng: Rng,
    /// About the revision that the entries lead to.
    revision: i64,
}

impl Log {
    /// A log that begins with a member and a cluster version, so that checkpoints are persistent.
    pub fn new(seed: u64) -> Log {
        let mut log = Log {
            entries: Vec::new(),
            rng: Rng::with_seed(seed),
            revision: 1,
        };
        log.member_change(1, ConfChangeType::ConfChangeAddNode);
        log.request(InternalRaftRequest {
            cluster_version_set: Some(ClusterVersionSetRequest {
                ver: "3.7.0".into(),
            }),
            ..Default::default()
        });
        log
    }

    /// The entries behind `index`, at most `count` of them.
    pub fn behind(&self, index: u64, count: usize) -> &[Entry] {
        let rest = &self.entries[index as usize..];
        &rest[..count.min(rest.len())]
    }

    pub fn last(&self) -> u64 {
        self.entries.len() as u64
    }

    fn push(&mut self, kind: EntryType, data: Vec<u8>) {
        let index = self.last() + 1;
        self.entries.push(Entry {
            index: Some(index),
            term: Some(1 + index / 50),
            r#type: Some(kind as i32),
            data: Some(data.into()),
        });
    }

    fn request(&mut self, request: InternalRaftRequest) {
        self.push(EntryType::EntryNormal, request.encode_to_vec());
    }

    /// Adds one random entry.
    pub fn grow(&mut self) {
        match self.rng.u8(..100) {
            0..60 => self.change_keys(),
            60..65 => self.compact(),
            65..78 => self.change_leases(),
            78..82 => self.change_alarms(),
            82..88 => self.change_users(),
            88..98 => self.change_members(),
            _ => self.push(EntryType::EntryNormal, Vec::new()),
        }
    }

    fn key(&mut self) -> Vec<u8> {
        format!("key/{:02}", self.rng.u8(..25)).into_bytes()
    }

    fn lease(&mut self) -> i64 {
        self.rng.i64(1..8)
    }

    fn put(&mut self) -> PutRequest {
        let lease = match self.rng.u8(..3) {
            0 => self.lease(),
            _ => 0,
        };
        PutRequest {
            key: self.key().into(),
            value: vec![self.rng.u8(..); self.rng.usize(..400)].into(),
            lease,
            ..Default::default()
        }
    }

    fn delete(&mut self) -> DeleteRangeRequest {
        let range_end = match self.rng.bool() {
            true => self.key().into(),
            false => Default::default(),
        };
        DeleteRangeRequest {
            key: self.key().into(),
            range_end,
            prev_kv: false,
        }
    }

    fn change_keys(&mut self) {
        self.revision += 1;
        let mut request = InternalRaftRequest::default();
        match self.rng.u8(..10) {
            0..6 => request.put = Some(self.put()),
            6..8 => request.delete_range = Some(self.delete()),
            _ => {
                let op = |request| RequestOp {
                    request: Some(request),
                };
                let (delete, put) = (self.delete(), self.put());
                let put = PutRequest { lease: 0, ..put };
                request.txn = Some(TxnRequest {
                    success: vec![
                        op(Request::RequestDeleteRange(delete)),
                        op(Request::RequestPut(put)),
                    ],
                    ..Default::default()
                });
            }
        }
        self.request(request);
    }

    fn compact(&mut self) {
        let revision = self.revision - self.rng.i64(..15);
        let compaction = Some(CompactionRequest {
            revision,
            physical: false,
        });
        self.request(InternalRaftRequest {
            compaction,
            ..Default::default()
        });
    }

    fn change_leases(&mut self) {
        let id = self.lease();
        let mut request = InternalRaftRequest::default();
        match self.rng.u8(..6) {
            0..3 => {
                let ttl = self.rng.i64(1..10_000);
                request.lease_grant = Some(LeaseGrantRequest { id, ttl });
            }
            3 => request.lease_revoke = Some(LeaseRevokeRequest { id }),
            _ => {
                let remaining_ttl = self.rng.i64(..500);
                let checkpoints = vec![LeaseCheckpoint { id, remaining_ttl }];
                request.lease_checkpoint = Some(LeaseCheckpointRequest { checkpoints });
            }
        }
        self.request(request);
    }

    /// An alarm is taken back by the next entry: while it is raised, most requests are refused.
    fn change_alarms(&mut self) {
        let member_id = self.rng.u64(1..4);
        let alarm = self.rng.i32(1..3);
        let back = self.rng.u8(..8) > 0;
        for action in [1, 2] {
            let request = AlarmRequest {
                action,
                member_id,
                alarm,
            };
            if action == 1 || back {
                self.request(InternalRaftRequest {
                    alarm: Some(request),
                    ..Default::default()
                });
            }
        }
    }

    fn change_users(&mut self) {
        let (user, role) = (
            format!("user{}", self.rng.u8(..4)),
            format!("role{}", self.rng.u8(..4)),
        );
        let mut request = InternalRaftRequest::default();
        match self.rng.u8(..8) {
            0..2 => {
                request.auth_user_add = Some(AuthUserAddRequest {
                    name: user,
                    options: Some(UserAddOptions { no_password: true }),
                    ..Default::default()
                });
            }
            2 => request.auth_user_delete = Some(AuthUserDeleteRequest { name: user }),
            3..5 => request.auth_role_add = Some(AuthRoleAddRequest { name: role }),
            5 => request.auth_role_delete = Some(AuthRoleDeleteRequest { role }),
            6 => request.auth_user_grant_role = Some(AuthUserGrantRoleRequest { user, role }),
            _ => {
                request.auth_role_grant_permission = Some(AuthRoleGrantPermissionRequest {
                    name: role,
                    perm: Some(Permission {
                        perm_type: self.rng.i32(..3),
                        key: self.key().into(),
                        range_end: Default::default(),
                    }),
                });
            }
        }
        self.request(request);
    }

    fn change_members(&mut self) {
        let id = self.rng.u64(1..40);
        match self.rng.u8(..8) {
            0..2 => self.member_change(id, ConfChangeType::ConfChangeAddNode),
            2 => self.member_change(id, ConfChangeType::ConfChangeAddLearnerNode),
            3 => self.member_change(id, ConfChangeType::ConfChangeUpdateNode),
            4 if id != 1 => self.member_change(id, ConfChangeType::ConfChangeRemoveNode),
            5 => {
                let member_attributes = Some(Attributes {
                    name: format!("<member {id}>"),
                    client_urls: vec![format!("http://127.0.0.1:{id}")],
                });
                let set = ClusterMemberAttrSetRequest {
                    member_id: id,
                    member_attributes,
                };
                self.request(InternalRaftRequest {
                    cluster_member_attr_set: Some(set),
                    ..Default::default()
                });
            }
            6 => {
                let set = DowngradeInfoSetRequest {
                    enabled: self.rng.bool(),
                    ver: "3.6.0".into(),
                };
                self.request(InternalRaftRequest {
                    downgrade_info_set: Some(set),
                    ..Default::default()
                });
            }
            _ => self.change(
                ConfChangeType::ConfChangeAddNode,
                ConfChangeContext {
                    member: Member {
                        id,
                        ..Default::default()
                    },
                    is_promote: true,
                },
            ),
        }
    }

    fn member_change(&mut self, id: u64, kind: ConfChangeType) {
        let port = self.rng.u16(10_000..10_200);
        let member = Member {
            id,
            peer_urls: Some(vec![format!("http://127.0.0.1:{port}")]),
            is_learner: kind == ConfChangeType::ConfChangeAddLearnerNode,
            ..Default::default()
        };
        self.change(
            kind,
            ConfChangeContext {
                member,
                is_promote: false,
            },
        );
    }

    fn change(&mut self, kind: ConfChangeType, context: ConfChangeContext) {
        let change = ConfChange {
            id: Some(self.last() + 1000),
            r#type: Some(kind as i32),
            node_id: Some(context.member.id),
            context: Some(context.to_json().into()),
        };
        self.push(EntryType::EntryConfChange, change.encode_to_vec());
    }
}
