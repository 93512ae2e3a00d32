//! Whatever is committed has one fate on every member.
//!
//! Random entries, most of them such as no honest program writes, go to two machines: one at a time
//! to the first, in batches to the second. Neither may panic, both must give the same answers, and
//! end with the same rows. A machine may refuse an entry only for a reason for which etcd's members
//! stop as well; which these are stands in `excuse`. What a client has sent is never among them.

#![cfg(test)]
// Clippy takes only functions with `#[test]` for tests, and not what they share.
#![allow(clippy::unwrap_used)]

mod several;

use fastrand::Rng;
use retcd_proto::etcdserverpb::{InternalRaftRequest, RequestHeader};
use retcd_proto::raftpb::{ConfChange, Entry, EntryType};
use retcd_proto::wire::{self, WireError};
use retcd_sim::hostile::draw;
use retcd_state::Time;
use retcd_state::machine::{Fatal, FatalProblem, Machine, MachineOptions};
use retcd_state::membership::check_form;
use retcd_storage::backend::{Backend, Bucket};

/// A machine, and what its entries came to.
struct Member {
    backend: Backend,
    machine: Machine,
    fates: Vec<String>,
}

impl Member {
    fn new() -> Member {
        let backend = Backend::default();
        Member {
            machine: Machine::open(backend.clone(), MachineOptions::default()).unwrap(),
            backend,
            fates: Vec::new(),
        }
    }

    /// Applies the entries behind each other. One that stops the member must have been alone, and
    /// is passed over.
    fn apply(&mut self, entries: &[(EntryType, Vec<u8>)]) -> Result<(), String> {
        let next = self.machine.applied().index + 1;
        let numbered = entries.iter().zip(next..);
        let numbered: Vec<Entry> = numbered
            .map(|((kind, data), index)| entry(index, *kind, data))
            .collect();
        match self.machine.apply(Time::default(), &numbered) {
            Ok(applied) => {
                let replies = applied.replies.iter();
                let fates = replies.map(|(id, reply)| format!("{id} {reply:?}"));
                self.fates.extend(fates);
                Ok(())
            }
            Err(fatal) => {
                excuse(&fatal, &numbered[(fatal.index - next) as usize]);
                self.restart();
                Err(fatal.problem.to_string())
            }
        }
    }

    fn restart(&mut self) {
        self.machine = Machine::open(self.backend.clone(), MachineOptions::default()).unwrap();
    }

    fn rows(&self) -> Vec<(Bucket, Vec<u8>, Vec<u8>)> {
        let reader = self.backend.reader();
        let rows = Bucket::ALL.iter().flat_map(|bucket| {
            let rows = reader.range(*bucket, b"", None);
            rows.map(|row| {
                let (key, value) = row.unwrap();
                (*bucket, key.to_vec(), value.to_vec())
            })
            .collect::<Vec<_>>()
        });
        rows.collect()
    }
}

fn entry(index: u64, kind: EntryType, data: &[u8]) -> Entry {
    Entry {
        index: Some(index),
        term: Some(2),
        r#type: Some(kind as i32),
        data: Some(data.to_vec().into()),
    }
}

/// Panics if etcd could have gone on.
#[track_caller]
fn excuse(fatal: &Fatal, entry: &Entry) {
    let data = || entry.data.clone().unwrap_or_default();
    let request = || wire::decode::<InternalRaftRequest>(data()).unwrap();
    let excused = match &fatal.problem {
        // Nothing but an API v2 request that is none is nothing that etcd 3.7 knows.
        FatalProblem::Undecodable { .. } => match wire::decode::<InternalRaftRequest>(data()) {
            Ok(request) => request.v2.is_some(),
            Err(_) => true,
        },
        FatalProblem::NotUtf8 { .. } => {
            wire::decode::<InternalRaftRequest>(data()) == Err(WireError::NotUtf8)
        }
        FatalProblem::UnknownRequest => {
            let InternalRaftRequest { header, id, .. } = request();
            let nothing_else = InternalRaftRequest {
                header,
                id,
                ..Default::default()
            };
            request() == nothing_else
        }
        FatalProblem::BadVersion(_) => true,
        FatalProblem::ConfChangeV2 => entry.r#type() == EntryType::EntryConfChangeV2,
        FatalProblem::ConfChange(_) => {
            let change: ConfChange = wire::decode(data()).unwrap();
            check_form(&change).is_err()
        }
        FatalProblem::Gap { .. } | FatalProblem::UnknownType(_) | FatalProblem::Storage(_) => false,
    };
    assert!(excused, "{fatal}: {entry:02x?}");
}

#[test]
fn entries_of_any_form_have_one_fate() {
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        let (mut one_by_one, mut in_batches) = (Member::new(), Member::new());
        for _ in 0..30 {
            let batch: Vec<_> = (0..rng.usize(1..12))
                .map(|_| draw::entry(&mut rng))
                .collect();
            let mut sound = Vec::new();
            for entry in batch {
                match one_by_one.apply(std::slice::from_ref(&entry)) {
                    Ok(()) => sound.push(entry),
                    Err(stopped) => {
                        in_batches.apply(&std::mem::take(&mut sound)).unwrap();
                        assert_eq!(in_batches.apply(&[entry]), Err(stopped), "seed {seed}");
                    }
                }
            }
            in_batches.apply(&sound).unwrap();
            if rng.u8(..5) == 0 {
                in_batches.restart();
            }
        }
        assert_eq!(one_by_one.fates, in_batches.fates, "seed {seed}");
        assert_eq!(one_by_one.rows(), in_batches.rows(), "seed {seed}");
    }
}

/// A request that a member has decoded and checked is one that all members can apply.
#[test]
fn what_a_client_sends_stops_nobody() {
    for seed in 0..40 {
        let mut rng = Rng::with_seed(seed);
        let mut member = Member::new();
        for id in 1..300 {
            let bytes = draw::client_request(&mut rng);
            let Ok(mut request) = wire::decode::<InternalRaftRequest>(bytes.into()) else {
                continue;
            };
            if !draw::is_of_client(&request) {
                continue;
            }
            request.header = Some(RequestHeader {
                id,
                ..Default::default()
            });
            let data = prost::Message::encode_to_vec(&request);
            let index = member.machine.applied().index + 1;
            let entry = entry(index, EntryType::EntryNormal, &data);
            let applied = member.machine.apply(Time::default(), &[entry]);
            let applied =
                applied.unwrap_or_else(|fatal| panic!("seed {seed}: {fatal}: {request:?}"));
            assert_eq!(applied.replies[0].0, id);
        }
    }
}

/// What no member of etcd 3.7 can read must not be taken for a request of API v2 that does nothing:
/// members of 3.6 have added the role, and this one would go on without it.
#[test]
fn a_name_that_is_no_text_is_not_passed_over() {
    let role_add = b"\x82\x4b\x04\x0a\x02r\xff";
    let header = b"\xa2\x06\x02\x08\x05";
    let data = [&header[..], &role_add[..]].concat();
    let mut machine = Member::new().machine;
    let applied = machine.apply(Time::default(), &[entry(1, EntryType::EntryNormal, &data)]);
    let stopped = applied.unwrap_err();
    assert!(
        matches!(stopped.problem, FatalProblem::NotUtf8 { .. }),
        "{stopped}"
    );
    assert!(stopped.to_string().contains("start etcd 3.6"), "{stopped}");
}
