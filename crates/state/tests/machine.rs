//! What the machine makes of entries beyond the keyspace: alarms, members, versions, and entries
//! that it must not pass over.

// For clippy, which lets tests unwrap.
#![cfg(test)]

use prost::Message;
use retcd_proto::etcdserverpb::{
    AlarmRequest, AlarmType, CompactionRequest, DeleteRangeRequest, InternalRaftRequest,
    LeaseCheckpoint, LeaseCheckpointRequest, LeaseGrantRequest, LeaseRevokeRequest, PutRequest,
    RangeRequest, Request as V2Request, RequestHeader, RequestOp, TxnRequest, request_op,
};
use retcd_proto::membershippb::{
    Attributes, ClusterMemberAttrSetRequest, ClusterVersionSetRequest, DowngradeInfoSetRequest,
};
use retcd_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use retcd_state::Time;
use retcd_state::machine::{Applied, ApplyError, FatalProblem, Machine, MachineOptions, Reply};
use retcd_state::membership::{ConfChangeContext, Member, MemberError};
use retcd_state::mvcc::{OpReply, Progress, Revision};
use retcd_state::v2::Answer;
use retcd_state::version::Version;
use retcd_storage::backend::{Backend, Bucket, WriteBatch};

struct Bench {
    backend: Backend,
    machine: Machine,
    index: u64,
}

impl Bench {
    fn new() -> Bench {
        Bench::on(Backend::default())
    }

    fn on(backend: Backend) -> Bench {
        let machine = Machine::open(backend.clone(), MachineOptions::default()).unwrap();
        let index = machine.applied().index;
        Bench {
            backend,
            machine,
            index,
        }
    }

    fn try_apply(
        &mut self,
        kind: EntryType,
        data: Vec<u8>,
    ) -> Result<Result<Reply, ApplyError>, FatalProblem> {
        let mut applied = self.apply(kind, data)?;
        let (_, reply) = applied.replies.pop().expect("a request is answered");
        Ok(reply)
    }

    fn apply(&mut self, kind: EntryType, data: Vec<u8>) -> Result<Applied, FatalProblem> {
        self.index += 1;
        let entry = Entry {
            index: Some(self.index),
            term: Some(3),
            r#type: Some(kind as i32),
            data: Some(data.into()),
        };
        let applied = self
            .machine
            .apply(Time::default(), &[entry])
            .map_err(|fatal| {
                assert_eq!((fatal.index, fatal.term), (self.index, 3));
                fatal.problem
            })?;
        assert_eq!(
            (applied.applied.index, applied.applied.term),
            (self.index, 3)
        );
        Ok(applied)
    }

    fn request(&mut self, request: InternalRaftRequest) -> Result<Reply, ApplyError> {
        self.try_apply(EntryType::EntryNormal, request.encode_to_vec())
            .unwrap()
    }

    fn fatal(&mut self, kind: EntryType, data: Vec<u8>) -> FatalProblem {
        self.apply(kind, data).unwrap_err()
    }

    fn put(&mut self, key: &'static str, lease: i64) -> Result<Reply, ApplyError> {
        let put = Some(PutRequest {
            key: key.into(),
            value: "v".into(),
            lease,
            ..Default::default()
        });
        self.request(InternalRaftRequest {
            put,
            ..Default::default()
        })
    }

    fn change(
        &mut self,
        kind: ConfChangeType,
        id: u64,
        context: ConfChangeContext,
    ) -> Result<Reply, ApplyError> {
        let change = ConfChange {
            r#type: Some(kind as i32),
            node_id: Some(id),
            context: Some(context.to_json().into()),
            id: Some(77),
        };
        self.try_apply(EntryType::EntryConfChange, change.encode_to_vec())
            .unwrap()
    }

    fn text(&self, bucket: Bucket, key: &str) -> Option<String> {
        let value = self.backend.reader().get(bucket, key.as_bytes()).unwrap()?;
        Some(String::from_utf8(value.to_vec()).unwrap())
    }
}

fn member(id: u64, url: &str, is_learner: bool) -> ConfChangeContext {
    let member = Member {
        id,
        peer_urls: Some(vec![url.into()]),
        is_learner,
        ..Default::default()
    };
    ConfChangeContext {
        member,
        is_promote: false,
    }
}

fn promotion(id: u64) -> ConfChangeContext {
    ConfChangeContext {
        member: Member {
            id,
            ..Default::default()
        },
        is_promote: true,
    }
}

fn grant(id: i64) -> InternalRaftRequest {
    let lease_grant = Some(LeaseGrantRequest { id, ttl: 1000 });
    InternalRaftRequest {
        lease_grant,
        ..Default::default()
    }
}

fn revoke(id: i64) -> InternalRaftRequest {
    InternalRaftRequest {
        lease_revoke: Some(LeaseRevokeRequest { id }),
        ..Default::default()
    }
}

fn alarm(action: i32, member_id: u64, alarm: AlarmType) -> InternalRaftRequest {
    let alarm = Some(AlarmRequest {
        action,
        member_id,
        alarm: alarm as i32,
    });
    InternalRaftRequest {
        alarm,
        ..Default::default()
    }
}

fn compact(revision: i64) -> InternalRaftRequest {
    let compaction = Some(CompactionRequest {
        revision,
        physical: false,
    });
    InternalRaftRequest {
        compaction,
        ..Default::default()
    }
}

fn delete(key: &'static str) -> DeleteRangeRequest {
    DeleteRangeRequest {
        key: key.into(),
        ..Default::default()
    }
}

#[test]
fn applied_index_and_term_are_written_with_the_batch() {
    let mut bench = Bench::new();
    let value = |bench: &Bench, key: &[u8]| bench.backend.reader().get(Bucket::Meta, key).unwrap();
    assert_eq!(
        value(&bench, b"consistent_index"),
        None,
        "zeros are never written"
    );
    bench.put("a", 0).unwrap();
    // A new leader's empty entry counts too.
    bench.apply(EntryType::EntryNormal, vec![]).unwrap();
    assert_eq!(
        value(&bench, b"consistent_index").as_deref(),
        Some(&[0, 0, 0, 0, 0, 0, 0, 2][..])
    );
    assert_eq!(
        value(&bench, b"term").as_deref(),
        Some(&[0, 0, 0, 0, 0, 0, 0, 3][..])
    );
    let reopened = Bench::on(bench.backend.clone());
    assert_eq!(
        (
            reopened.machine.applied().index,
            reopened.machine.applied().term
        ),
        (2, 3)
    );
}

#[test]
fn an_entry_out_of_order_is_fatal() {
    let mut bench = Bench::new();
    bench.put("a", 0).unwrap();
    bench.index += 1;
    assert!(matches!(
        bench.fatal(EntryType::EntryNormal, vec![]),
        FatalProblem::Gap { applied: 1 }
    ));
}

#[test]
fn no_space_refuses_what_needs_some() {
    let mut bench = Bench::new();
    bench.request(grant(1)).unwrap();
    bench.put("a", 1).unwrap();
    bench.request(alarm(1, 9, AlarmType::Nospace)).unwrap();
    let mut bench = Bench::on(bench.backend);
    assert_eq!(bench.put("a", 0), Err(ApplyError::NoSpace));
    assert_eq!(bench.request(grant(2)), Err(ApplyError::NoSpace));
    let put = request_op::Request::RequestPut(PutRequest {
        key: "b".into(),
        ..Default::default()
    });
    let txn = |ops| InternalRaftRequest {
        txn: Some(TxnRequest {
            failure: ops,
            ..Default::default()
        }),
        ..Default::default()
    };
    assert_eq!(
        bench.request(txn(vec![RequestOp { request: Some(put) }])),
        Err(ApplyError::NoSpace)
    );
    let delete_op = request_op::Request::RequestDeleteRange(delete("a"));
    bench
        .request(txn(vec![RequestOp {
            request: Some(delete_op),
        }]))
        .unwrap();
    let delete_range = Some(delete("a"));
    bench
        .request(InternalRaftRequest {
            delete_range,
            ..Default::default()
        })
        .unwrap();
    bench.request(compact(2)).unwrap();
    bench.request(revoke(1)).unwrap();
    bench.request(alarm(2, 9, AlarmType::Nospace)).unwrap();
    bench.put("a", 0).unwrap();
}

#[test]
fn corrupt_refuses_the_keyspace_and_leases() {
    let mut bench = Bench::new();
    bench.request(grant(1)).unwrap();
    bench.request(alarm(1, 9, AlarmType::Nospace)).unwrap();
    bench.request(alarm(1, 9, AlarmType::Corrupt)).unwrap();
    let corrupt = Err(ApplyError::Corrupt);
    assert_eq!(bench.put("a", 0), corrupt);
    let delete_range = Some(delete("a"));
    assert_eq!(
        bench.request(InternalRaftRequest {
            delete_range,
            ..Default::default()
        }),
        corrupt
    );
    let txn = Some(TxnRequest::default());
    assert_eq!(
        bench.request(InternalRaftRequest {
            txn,
            ..Default::default()
        }),
        corrupt
    );
    let range = Some(RangeRequest {
        key: "a".into(),
        ..Default::default()
    });
    assert_eq!(
        bench.request(InternalRaftRequest {
            range,
            ..Default::default()
        }),
        corrupt
    );
    assert_eq!(bench.request(compact(1)), corrupt);
    assert_eq!(bench.request(grant(2)), corrupt);
    assert_eq!(bench.request(revoke(1)), corrupt);
    let Reply::Alarm { alarms, .. } = bench.request(alarm(0, 0, AlarmType::None)).unwrap() else {
        panic!()
    };
    assert_eq!(
        alarms.iter().map(|alarm| alarm.alarm).collect::<Vec<_>>(),
        [1, 2]
    );
}

#[test]
fn alarms_answer_as_etcd() {
    let mut bench = Bench::new();
    let mut listed = |request| match bench.request(request).unwrap() {
        Reply::Alarm { alarms, .. } => alarms
            .into_iter()
            .map(|alarm| (alarm.member_id, alarm.alarm))
            .collect::<Vec<_>>(),
        other => panic!("{other:?}"),
    };
    assert_eq!(listed(alarm(1, 5, AlarmType::None)), []);
    assert_eq!(listed(alarm(1, 5, AlarmType::Nospace)), [(5, 1)]);
    assert_eq!(listed(alarm(1, 5, AlarmType::Nospace)), [(5, 1)]);
    assert_eq!(listed(alarm(1, 4, AlarmType::Corrupt)), [(4, 2)]);
    assert_eq!(listed(alarm(0, 0, AlarmType::Corrupt)), [(4, 2)]);
    assert_eq!(listed(alarm(2, 4, AlarmType::Nospace)), []);
    assert_eq!(listed(alarm(2, 4, AlarmType::Corrupt)), [(4, 2)]);
    assert_eq!(listed(alarm(9, 4, AlarmType::Corrupt)), []);
    assert_eq!(listed(alarm(0, 0, AlarmType::None)), [(5, 1)]);
}

#[test]
fn members_are_stored_as_go_stores_them() {
    let mut bench = Bench::new();
    let id = 0x992_7ef6_3c3f_7add;
    let add = ConfChangeType::ConfChangeAddNode;
    bench
        .change(add, id, member(id, "http://127.0.0.1:2380?a<b&c", false))
        .unwrap();
    assert_eq!(
        bench.text(Bucket::Members, "9927ef63c3f7add").unwrap(),
        r#"{"id":689753288978954973,"peerURLs":["http://127.0.0.1:2380?a\u003cb\u0026c"]}"#,
    );
    assert_eq!(
        bench.text(Bucket::Meta, "confState").unwrap(),
        r#"{"voters":[689753288978954973],"auto_leave":false}"#,
    );
    let attributes = Attributes {
        name: "a".into(),
        client_urls: vec!["http://127.0.0.1:2379".into()],
    };
    let cluster_member_attr_set = Some(ClusterMemberAttrSetRequest {
        member_id: id,
        member_attributes: Some(attributes),
    });
    bench
        .request(InternalRaftRequest {
            cluster_member_attr_set,
            ..Default::default()
        })
        .unwrap();
    let learner = ConfChangeType::ConfChangeAddLearnerNode;
    bench
        .change(learner, 5, member(5, "http://127.0.0.1:1", true))
        .unwrap();
    assert_eq!(
        bench.text(Bucket::Members, "9927ef63c3f7add").unwrap(),
        r#"{"id":689753288978954973,"peerURLs":["http://127.0.0.1:2380?a\u003cb\u0026c"],"name":"a","clientURLs":["http://127.0.0.1:2379"]}"#,
    );
    assert_eq!(
        bench.text(Bucket::Members, "5").unwrap(),
        r#"{"id":5,"peerURLs":["http://127.0.0.1:1"],"isLearner":true}"#,
    );
    assert_eq!(
        bench.text(Bucket::Meta, "confState").unwrap(),
        r#"{"voters":[689753288978954973],"learners":[5],"auto_leave":false}"#,
    );
    let before = bench.machine.membership().read().clone();
    let reopened = Bench::on(bench.backend.clone());
    assert_eq!(*reopened.machine.membership().read(), before);
    bench
        .change(
            ConfChangeType::ConfChangeRemoveNode,
            5,
            ConfChangeContext::default(),
        )
        .unwrap();
    assert_eq!(bench.text(Bucket::Members, "5"), None);
    assert_eq!(bench.text(Bucket::MembersRemoved, "5").unwrap(), "removed");
    assert!(
        Bench::on(bench.backend)
            .machine
            .membership()
            .read()
            .is_removed(5)
    );
}

#[test]
fn configuration_changes_are_judged() {
    let mut bench = Bench::new();
    let (add, learner) = (
        ConfChangeType::ConfChangeAddNode,
        ConfChangeType::ConfChangeAddLearnerNode,
    );
    let (remove, update) = (
        ConfChangeType::ConfChangeRemoveNode,
        ConfChangeType::ConfChangeUpdateNode,
    );
    let refused = |error| Err(ApplyError::Member(error));
    let none = ConfChangeContext::default;
    bench.change(add, 3, member(3, "http://a", false)).unwrap();
    assert_eq!(
        bench.change(add, 3, member(3, "http://b", false)),
        refused(MemberError::IdExists)
    );
    assert_eq!(
        bench.change(add, 4, member(4, "http://a", false)),
        refused(MemberError::PeerUrlExists)
    );
    assert_eq!(
        bench.change(remove, 9, none()),
        refused(MemberError::IdNotFound)
    );
    assert_eq!(
        bench.change(update, 9, member(9, "http://c", false)),
        refused(MemberError::IdNotFound)
    );
    bench
        .change(learner, 2, member(2, "http://b", true))
        .unwrap();
    assert_eq!(
        bench.change(learner, 4, member(4, "http://c", true)),
        refused(MemberError::TooManyLearners)
    );
    assert_eq!(
        bench.change(update, 2, member(2, "http://a", true)),
        refused(MemberError::PeerUrlExists)
    );
    bench
        .change(update, 2, member(2, "http://d", true))
        .unwrap();
    assert_eq!(
        bench.change(add, 9, promotion(9)),
        refused(MemberError::IdNotFound)
    );
    assert_eq!(
        bench.change(add, 3, promotion(3)),
        refused(MemberError::NotLearner)
    );
    let Reply::Members(members) = bench.change(add, 2, promotion(2)).unwrap() else {
        panic!()
    };
    let members: Vec<_> = members
        .iter()
        .map(|m| (m.id, m.peer_urls()[0].as_str(), m.is_learner))
        .collect();
    assert_eq!(members, [(2, "http://d", false), (3, "http://a", false)]);
    bench.change(remove, 3, none()).unwrap();
    assert_eq!(
        bench.change(add, 3, member(3, "http://z", false)),
        refused(MemberError::IdRemoved)
    );
    let membership = bench.machine.membership();
    assert_eq!(membership.read().conf_state().voters, [2]);
    assert!(membership.read().conf_state().learners.is_empty());
}

/// Raft is told of every change; a refused one must not count there either.
#[test]
fn refused_changes_reach_raft_without_a_node() {
    let mut bench = Bench::new();
    let mut apply = |index, id| {
        let change = ConfChange {
            r#type: Some(ConfChangeType::ConfChangeAddNode as i32),
            node_id: Some(id),
            context: Some(member(id, "http://a", false).to_json().into()),
            id: Some(5),
        };
        let entry = Entry {
            index: Some(index),
            term: Some(1),
            r#type: Some(EntryType::EntryConfChange as i32),
            data: Some(change.encode_to_vec().into()),
        };
        let applied = bench.machine.apply(Time::default(), &[entry]).unwrap();
        assert!(applied.cluster_changed);
        let change = &applied.conf_changes[0];
        (
            applied.replies[0].0,
            change.change.node_id(),
            change.conf_state.voters.clone(),
        )
    };
    assert_eq!(apply(1, 8), (5, 8, vec![8]));
    assert_eq!(apply(2, 9), (5, 0, vec![8]));
}

#[test]
fn damaged_configuration_changes_are_fatal() {
    let change = |kind, context: &'static str| ConfChange {
        r#type: Some(kind),
        node_id: Some(1),
        context: Some(context.into()),
        id: None,
    };
    for change in [
        change(0, ""),
        change(0, "{"),
        change(3, "[]"),
        change(17, "{}"),
    ] {
        let problem = Bench::new().fatal(EntryType::EntryConfChange, change.encode_to_vec());
        assert!(matches!(problem, FatalProblem::ConfChange(_)), "{problem}");
    }
    let problem = Bench::new().fatal(EntryType::EntryConfChangeV2, vec![]);
    assert!(matches!(problem, FatalProblem::ConfChangeV2));
}

#[test]
fn cluster_version_and_downgrade_are_stored() {
    let mut bench = Bench::new();
    let set = |ver: &str| InternalRaftRequest {
        cluster_version_set: Some(ClusterVersionSetRequest { ver: ver.into() }),
        ..Default::default()
    };
    bench.request(set("3.6.0")).unwrap();
    assert_eq!(
        bench.text(Bucket::Cluster, "clusterVersion").unwrap(),
        "3.6.0"
    );
    assert_eq!(
        bench.machine.update_storage_version().unwrap(),
        Some(Version::new(3, 6, 0))
    );
    assert_eq!(bench.machine.update_storage_version().unwrap(), None);
    assert_eq!(bench.text(Bucket::Meta, "storageVersion").unwrap(), "3.6.0");
    for (enabled, ver, json) in [
        (
            true,
            "3.5.0",
            r#"{"target-version":"3.5.0","enabled":true}"#,
        ),
        (false, "3.5.0", r#"{"target-version":"","enabled":false}"#),
    ] {
        let downgrade_info_set = Some(DowngradeInfoSetRequest {
            enabled,
            ver: ver.into(),
        });
        bench
            .request(InternalRaftRequest {
                downgrade_info_set,
                ..Default::default()
            })
            .unwrap();
        assert_eq!(bench.text(Bucket::Cluster, "downgrade").unwrap(), json);
        let reopened = Bench::on(bench.backend.clone());
        let membership = reopened.machine.membership();
        assert_eq!(membership.read().downgrade().enabled, enabled);
        assert_eq!(
            membership.read().cluster_version(),
            Some(Version::new(3, 6, 0))
        );
    }
    let problem = bench.fatal(EntryType::EntryNormal, set("three").encode_to_vec());
    assert!(matches!(problem, FatalProblem::BadVersion(_)));
}

#[test]
fn checkpoints_survive_from_3_6_on() {
    let checkpoint = |id, remaining_ttl| InternalRaftRequest {
        lease_checkpoint: Some(LeaseCheckpointRequest {
            checkpoints: vec![LeaseCheckpoint { id, remaining_ttl }],
        }),
        ..Default::default()
    };
    for (version, left) in [("3.5.0", 1000), ("3.6.0", 77)] {
        let mut bench = Bench::new();
        let cluster_version_set = Some(ClusterVersionSetRequest {
            ver: version.into(),
        });
        bench
            .request(InternalRaftRequest {
                cluster_version_set,
                ..Default::default()
            })
            .unwrap();
        bench.request(grant(1)).unwrap();
        bench.request(checkpoint(1, 77)).unwrap();
        bench.request(checkpoint(2, 77)).unwrap();
        let reopened = Bench::on(bench.backend);
        let lessor = reopened.machine.lessor();
        assert_eq!(
            lessor
                .lock()
                .time_to_live(1, Time::default(), false)
                .unwrap()
                .ttl,
            left
        );
    }
}

#[test]
fn api_v2_entries_of_older_members_are_understood() {
    let v2 = |method: &str, path: &str, val: &str| V2Request {
        id: Some(12),
        method: Some(method.into()),
        path: Some(path.into()),
        val: Some(val.into()),
        ..Default::default()
    };
    let wrapped = |request: &V2Request| {
        InternalRaftRequest {
            v2: Some(request.encode_to_vec().into()),
            ..Default::default()
        }
        .encode_to_vec()
    };
    let bare = |request: &V2Request| request.encode_to_vec();
    // etcd's encoder writes all fields but two, whether they are set or not: the empty path of a
    // `SYNC` looks like a request of a range.
    let whole = |request: &V2Request| {
        V2Request {
            path: Some(request.path().to_owned()),
            val: Some(request.val().to_owned()),
            dir: Some(false),
            prev_value: Some(String::new()),
            prev_index: Some(0),
            expiration: Some(0),
            wait: Some(false),
            since: Some(0),
            recursive: Some(false),
            sorted: Some(false),
            quorum: Some(false),
            time: Some(request.time()),
            stream: Some(false),
            ..request.clone()
        }
        .encode_to_vec()
    };
    for encode in [&wrapped as &dyn Fn(&V2Request) -> Vec<u8>, &bare, &whole] {
        let mut bench = Bench::new();
        bench
            .change(
                ConfChangeType::ConfChangeAddNode,
                0xab,
                member(0xab, "http://a", false),
            )
            .unwrap();
        let attributes = v2(
            "PUT",
            "/0/members/ab/attributes",
            r#"{"name":"n","clientURLs":["http://c"]}"#,
        );
        for request in [
            v2("PUT", "/0/version", "3.5.0"),
            attributes,
            v2("SYNC", "", ""),
        ] {
            bench
                .try_apply(EntryType::EntryNormal, encode(&request))
                .unwrap()
                .unwrap();
        }
        let membership = bench.machine.membership();
        assert_eq!(
            membership.read().cluster_version(),
            Some(Version::new(3, 5, 0))
        );
        let named = membership.read().member(0xab).unwrap().clone();
        assert_eq!(
            (named.name.as_str(), named.client_urls()),
            ("n", &["http://c".to_owned()][..])
        );
        // As a leader writes it.
        let sync = V2Request {
            id: Some(13),
            method: Some("SYNC".into()),
            time: Some(1),
            ..Default::default()
        };
        let reply = bench.try_apply(EntryType::EntryNormal, encode(&sync));
        let Ok(Ok(Reply::V2(Ok(Answer::Expired(0))))) = reply else {
            panic!("{reply:?}");
        };
        let put = encode(&v2("PUT", "/1/foo", "bar"));
        let reply = bench.try_apply(EntryType::EntryNormal, put).unwrap();
        let Ok(Reply::V2(Ok(Answer::Event(event)))) = reply else {
            panic!("{reply:?}");
        };
        assert_eq!((event.node.key.as_str(), event.index()), ("/1/foo", 4));
    }
}

#[test]
fn what_cannot_be_read_is_fatal() {
    let problem = Bench::new().fatal(EntryType::EntryNormal, vec![0xff; 9]);
    assert!(
        matches!(problem, FatalProblem::Undecodable { bytes: 9, .. }),
        "{problem}"
    );
    let header = Some(RequestHeader {
        id: 4,
        ..Default::default()
    });
    let unknown = InternalRaftRequest {
        header,
        ..Default::default()
    }
    .encode_to_vec();
    let problem = Bench::new().fatal(EntryType::EntryNormal, unknown);
    assert!(matches!(problem, FatalProblem::UnknownRequest), "{problem}");
}

#[test]
fn damaged_rows_are_refused_at_open() {
    let key = Revision { main: 2, sub: 0 }.to_key();
    let rows: [(Bucket, &[u8], &[u8], &str); 8] = [
        (Bucket::Key, &key, b"\x0a\x05k", "damaged record"),
        (
            Bucket::Key,
            &key[..16],
            b"\x0a\x01k\x10\x02\x18\x02\x20\x01",
            "no revision",
        ),
        (
            Bucket::Key,
            &key,
            b"\x0a\x01k\x10\x02\x18\x03\x20\x01",
            "is another one",
        ),
        (Bucket::Meta, b"consistent_index", b"1", "consistent_index"),
        (Bucket::Meta, b"finishedCompactRev", b"1", "compaction mark"),
        (
            Bucket::Meta,
            b"storageVersion",
            b"3.8.0",
            "version \"3.8.0\" is not supported",
        ),
        (Bucket::Members, b"xyz", b"{}", "no member id"),
        (Bucket::Cluster, b"clusterVersion", b"x", "no version"),
    ];
    for (bucket, key, value, expected) in rows {
        let backend = Backend::default();
        let mut batch = WriteBatch::default();
        // Rows before revision 1 are not looked at; all of these keys are beyond.
        batch.put(bucket, key, value.into());
        backend.write(batch);
        let error = Machine::open(backend, MachineOptions::default())
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains(expected),
            "{error:?} instead of {expected:?}"
        );
    }
}

/// A restore that bumps the revision leaves an empty record at the new one and schedules a
/// compaction there.
#[test]
fn a_bumped_restore_opens() {
    let mut bench = Bench::new();
    bench.put("a", 0).unwrap();
    bench.put("a", 0).unwrap();
    let bump = Revision { main: 1000, sub: 0 }.to_key();
    let mut batch = WriteBatch::default();
    batch.put(Bucket::Key, &bump, b""[..].into());
    batch.put(Bucket::Meta, b"scheduledCompactRev", bump[..].into());
    bench.backend.write(batch);

    let mut bench = Bench::on(bench.backend);
    let reader = bench.machine.reader();
    assert_eq!(
        (reader.revision(), reader.compacted_revision()),
        (1000, 1000)
    );
    assert!(bench.machine.is_compacting());
    let finished = bench.machine.compaction_step(100).unwrap();
    assert_eq!(
        finished,
        Progress::Finished {
            revision: 1000,
            deleted: 1
        }
    );
    let all = RangeRequest {
        key: "\0".into(),
        range_end: "\0".into(),
        ..Default::default()
    };
    let reply = reader.range(&all).unwrap();
    let revisions = reply.kvs.attributes().map(|kv| kv.mod_revision());
    assert_eq!((reply.count, revisions.collect()), (1, vec![3]));
    assert!(reader.hash_kv(1000).is_ok());
    bench.put("b", 0).unwrap();
    assert_eq!(reader.revision(), 1001);
    let rows = bench.backend.reader();
    assert_eq!(
        rows.range(Bucket::Key, b"", None).count(),
        3,
        "a, the mark and b"
    );
}

/// Compacted away up to the head, the newest row may be older than the store.
#[test]
fn the_revision_does_not_go_back_after_a_compaction() {
    let mut bench = Bench::new();
    bench.put("a", 0).unwrap();
    bench.put("b", 0).unwrap();
    let delete_range = Some(delete("b"));
    bench
        .request(InternalRaftRequest {
            delete_range,
            ..Default::default()
        })
        .unwrap();
    let delete_range = Some(delete("c"));
    bench
        .request(InternalRaftRequest {
            delete_range,
            ..Default::default()
        })
        .unwrap();
    bench.request(compact(4)).unwrap();
    while bench.machine.compaction_step(1).unwrap() != Progress::Idle {}
    // What versions before 3.5.16 do: the tombstone at the compaction goes as well.
    let mut batch = WriteBatch::default();
    batch.delete(
        Bucket::Key,
        &Revision { main: 4, sub: 0 }.to_tombstone_key(),
    );
    bench.backend.write(batch);
    let bench = Bench::on(bench.backend);
    let reader = bench.machine.reader();
    assert_eq!(
        (
            reader.revision(),
            reader.compacted_revision(),
            reader.keys_total()
        ),
        (4, 4, 1)
    );
}

/// Requests like this are refused, but a log may hold them. Each event tells of the pair before all of
/// it, as in etcd.
#[test]
fn events_of_keys_that_change_twice_tell_what_was_before_the_transaction() {
    let mut bench = Bench::new();
    for key in ["a", "b", "c"] {
        bench.put(key, 0).unwrap();
    }
    let op = |request| RequestOp {
        request: Some(request),
    };
    let put = |key: &'static str| {
        op(request_op::Request::RequestPut(PutRequest {
            key: key.into(),
            value: "new".into(),
            ..Default::default()
        }))
    };
    let delete = |key| op(request_op::Request::RequestDeleteRange(delete(key)));
    let txn = TxnRequest {
        success: vec![
            put("a"),
            delete("a"),
            put("b"),
            delete("b"),
            put("c"),
            put("c"),
        ],
        ..Default::default()
    };
    let request = InternalRaftRequest {
        txn: Some(txn),
        ..Default::default()
    };
    let applied = bench.apply(EntryType::EntryNormal, request.encode_to_vec());
    let (_, events) = applied.unwrap().events.pop().unwrap();
    let told: Vec<_> = events
        .iter()
        .map(|event| {
            let prev = event.prev.record().unwrap();
            (event.record.key(), prev.key(), prev.value())
        })
        .collect();
    let expected = [b"a", b"a", b"b", b"b", b"c", b"c"];
    assert_eq!(told, expected.map(|key| (&key[..], &key[..], &b"v"[..])));
}

#[test]
fn a_put_that_keeps_the_lease_keeps_its_key_attached() {
    let mut bench = Bench::new();
    bench.request(grant(7)).unwrap();
    bench.put("k", 7).unwrap();
    let put = PutRequest {
        key: "k".into(),
        value: "new".into(),
        ignore_lease: true,
        ..Default::default()
    };
    let put = Some(put);
    bench
        .request(InternalRaftRequest {
            put,
            ..Default::default()
        })
        .unwrap();
    let kv = |bench: &Bench| {
        let request = RangeRequest {
            key: "k".into(),
            ..Default::default()
        };
        let reply = bench.machine.reader().range(&request).unwrap();
        reply.kvs.first().unwrap()
    };
    let kept = kv(&bench).expect("the key is there");
    assert_eq!((&kept.value[..], kept.lease), (&b"new"[..], 7));
    bench.request(revoke(7)).unwrap();
    assert_eq!(kv(&bench), None);
}

/// History is read from the database, which gets a batch at its end, unless somebody asks before.
#[test]
fn a_transaction_reads_what_its_own_batch_has_superseded() {
    let mut bench = Bench::new();
    let put = |value: &'static str| InternalRaftRequest {
        put: Some(PutRequest {
            key: "k".into(),
            value: value.into(),
            ..Default::default()
        }),
        ..Default::default()
    };
    let past = RangeRequest {
        key: "k".into(),
        revision: 2,
        ..Default::default()
    };
    let read = InternalRaftRequest {
        range: Some(past.clone()),
        ..Default::default()
    };
    let txn = InternalRaftRequest {
        txn: Some(TxnRequest {
            success: vec![RequestOp {
                request: Some(request_op::Request::RequestRange(past)),
            }],
            ..Default::default()
        }),
        ..Default::default()
    };
    for (reading, of_batch) in [read, txn].into_iter().zip(0..) {
        let requests = [put("old"), put("new"), reading];
        let entries: Vec<Entry> = (bench.index + 1..)
            .zip(requests)
            .map(|(index, request)| Entry {
                index: Some(index),
                term: Some(3),
                r#type: Some(EntryType::EntryNormal as i32),
                data: Some(request.encode_to_vec().into()),
            })
            .collect();
        bench.index += 3;
        let applied = bench.machine.apply(Time::default(), &entries).unwrap();
        let (_, reply) = applied.replies.into_iter().next_back().unwrap();
        let range = match reply.unwrap() {
            Reply::Range(range) => range,
            Reply::Txn(txn) => match txn.replies.into_iter().next() {
                Some(OpReply::Range(range)) => range,
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        };
        let kv = range.kvs.first().unwrap().unwrap();
        assert_eq!(kv.value, "old", "batch {of_batch}");
        bench = Bench::new();
    }
}
