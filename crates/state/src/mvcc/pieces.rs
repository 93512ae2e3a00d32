//! Reading in pieces, so that nobody's turn takes long.
//!
//! A short request can ask for all keys, in a transaction many times over, or for what is not in
//! memory. What is soon read is read at once; the rest goes on piece by piece, whenever and wherever
//! the caller sees fit, from the view that it began with. The first piece never waits for a disk.

use std::sync::Arc;

use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{RangeRequest, RequestOp, TxnRequest};

use super::range::{Ranging, ReplySize};
use super::reader::{Reader, View};
use super::snapshot::{Effort, Snapshot};
use super::txn::{Comparing, check_range};
use super::{OpReply, RangeError, RangeReply, StoreRevision, TxnReply};

/// An answer, or what there is to do for it.
pub enum Begun<T, P> {
    /// It was short work.
    Done(T),
    /// It has come to the end of its first piece.
    Long(Box<P>),
}

/// A range request that is being answered.
pub struct RangeInPieces {
    view: View,
    request: RangeRequest,
    ranging: Ranging,
}

impl RangeInPieces {
    pub(super) fn begin(
        reader: &Reader,
        request: &RangeRequest,
    ) -> Result<Begun<RangeReply, RangeInPieces>, RangeError> {
        let view = reader.view();
        let mut ranging = Ranging::begin(request, &view.snapshot(), 0)?;
        let first = ranging.step(request, &view.snapshot(), &mut { Effort::IN_MEMORY })?;
        Ok(match first {
            Some(reply) => Begun::Done(reply),
            None => Begun::Long(Box::new(RangeInPieces {
                view,
                request: request.clone(),
                ranging,
            })),
        })
    }

    /// Does a piece; the answer when that was the last one.
    ///
    /// # Errors
    /// The database cannot be read or is damaged.
    pub fn step(&mut self) -> Option<Result<RangeReply, RangeError>> {
        let RangeInPieces {
            view,
            request,
            ranging,
        } = self;
        let step = ranging.step(request, &view.snapshot(), &mut { Effort::PIECE });
        step.transpose()
    }
}

/// A transaction of [nothing but ranges](super::is_read_only) that is being answered.
pub struct TxnInPieces {
    view: View,
    request: Arc<TxnRequest>,
    reading: ReadOnly,
}

impl TxnInPieces {
    pub(super) fn begin(
        view: View,
        request: Arc<TxnRequest>,
    ) -> Result<Begun<TxnReply, TxnInPieces>, RangeError> {
        let mut reading = ReadOnly::default();
        let first = reading.step(&request, &view.snapshot(), &mut { Effort::IN_MEMORY })?;
        Ok(match first {
            Some(reply) => Begun::Done(reply),
            None => Begun::Long(Box::new(TxnInPieces {
                view,
                request,
                reading,
            })),
        })
    }

    /// Does a piece; the answer when that was the last one.
    ///
    /// # Errors
    /// A range has no answer, or all together have too long a one.
    pub fn step(&mut self) -> Option<Result<TxnReply, RangeError>> {
        let TxnInPieces {
            view,
            request,
            reading,
        } = self;
        let step = reading.step(request, &view.snapshot(), &mut { Effort::PIECE });
        step.transpose()
    }
}

/// How far a transaction of nothing but ranges has come; other operations are passed over.
#[derive(Default)]
pub(super) struct ReadOnly {
    /// The compare at which it is.
    compare: usize,
    comparing: Comparing,
    succeeded: Option<bool>,
    /// The range at which it is, behind those that have their replies.
    ranging: Option<Ranging>,
    replies: Vec<OpReply>,
    size: ReplySize,
}

impl ReadOnly {
    /// Goes on as far as `effort` allows. Always with the same request and snapshot.
    pub(super) fn step(
        &mut self,
        request: &TxnRequest,
        snapshot: &Snapshot<'_>,
        effort: &mut Effort,
    ) -> Result<Option<TxnReply>, RangeError> {
        let Some(succeeded) = self.compare(request, snapshot, effort)? else {
            return Ok(None);
        };
        let ops = branch(request, succeeded);
        while let Some(op) = ops.get(self.replies.len()) {
            if effort.is_spent() {
                return Ok(None);
            }
            effort.spend(1);
            match self.read(op, snapshot, effort)? {
                Some(reply) => self.replies.push(reply),
                None => return Ok(None),
            }
        }
        Ok(Some(TxnReply {
            revision: StoreRevision::new(snapshot.revision),
            succeeded,
            replies: std::mem::take(&mut self.replies),
        }))
    }

    /// Whether all compares hold. Then nothing is read if a range of the chosen branch has no
    /// answer.
    fn compare(
        &mut self,
        request: &TxnRequest,
        snapshot: &Snapshot<'_>,
        effort: &mut Effort,
    ) -> Result<Option<bool>, RangeError> {
        if self.succeeded.is_some() {
            return Ok(self.succeeded);
        }
        let mut succeeded = true;
        while let Some(compare) = request.compare.get(self.compare) {
            if effort.is_spent() {
                return Ok(None);
            }
            effort.spend(1);
            match self.comparing.step(compare, snapshot, effort)? {
                Some(true) => self.compare += 1,
                Some(false) => {
                    succeeded = false;
                    break;
                }
                None => return Ok(None),
            }
        }
        for op in branch(request, succeeded) {
            if let Some(Request::RequestRange(range)) = &op.request {
                check_range(snapshot, range)?;
            }
        }
        self.succeeded = Some(succeeded);
        Ok(self.succeeded)
    }

    fn read(
        &mut self,
        op: &RequestOp,
        snapshot: &Snapshot<'_>,
        effort: &mut Effort,
    ) -> Result<Option<OpReply>, RangeError> {
        let Some(Request::RequestRange(request)) = &op.request else {
            return Ok(Some(OpReply::Empty));
        };
        let mut ranging = match self.ranging.take() {
            Some(ranging) => ranging,
            None => Ranging::begin(request, snapshot, self.size.bytes())?,
        };
        let Some(reply) = ranging.step(request, snapshot, effort)? else {
            self.ranging = Some(ranging);
            return Ok(None);
        };
        self.size.add(&reply)?;
        Ok(Some(OpReply::Range(reply)))
    }
}

/// The operations that are executed if the compares hold, or if they do not.
fn branch(request: &TxnRequest, succeeded: bool) -> &[RequestOp] {
    match succeeded {
        true => &request.success,
        false => &request.failure,
    }
}

#[cfg(test)]
mod tests {
    use fastrand::Rng;
    use retcd_proto::etcdserverpb::Compare;
    use retcd_proto::etcdserverpb::compare::TargetUnion;
    use retcd_storage::backend::{Backend, WriteBatch};

    use super::*;
    use crate::Jobs;
    use crate::mvcc::{Interval, Keyspace, Loaded};

    fn key(rng: &mut Rng) -> Vec<u8> {
        format!("k{:02}", rng.u8(..60)).into_bytes()
    }

    /// A keyspace in which most keys were changed or deleted more than once.
    fn keyspace(rng: &mut Rng) -> Keyspace {
        let backend = Backend::default();
        let loaded = Loaded::read(&backend.reader(), usize::MAX, Jobs::default()).unwrap();
        let mut keyspace = Keyspace::new(backend.clone(), loaded, 0);
        let mut batch = WriteBatch::default();
        for _ in 0..300 {
            let mut changes = keyspace.begin(&mut batch);
            match rng.u8(..3) {
                0 => drop(changes.delete_range(Interval::Key(&key(rng)))),
                _ => drop(changes.put(&key(rng), &[rng.u8(..)], 0)),
            }
            changes.finish();
        }
        backend.write(batch);
        keyspace.publish(1);
        keyspace
    }

    fn range(rng: &mut Rng) -> RangeRequest {
        RangeRequest {
            key: key(rng).into(),
            range_end: match rng.u8(..4) {
                0 => "".into(),
                1 => "\0".into(),
                _ => key(rng).into(),
            },
            limit: rng.i64(-1..20),
            revision: if rng.bool() { rng.i64(1..200) } else { 0 },
            sort_order: rng.i32(0..3),
            sort_target: rng.i32(0..5),
            count_only: rng.u8(..5) == 0,
            keys_only: rng.bool(),
            max_mod_revision: if rng.u8(..4) == 0 { 100 } else { 0 },
            ..Default::default()
        }
    }

    fn compare(rng: &mut Rng) -> Compare {
        Compare {
            key: key(rng).into(),
            range_end: if rng.bool() { "\0".into() } else { "".into() },
            result: rng.i32(0..4),
            target: rng.i32(0..3),
            target_union: Some(TargetUnion::ModRevision(rng.i64(..3))),
        }
    }

    /// Steps until there is an answer, with an effort of a few keys each; how many they were.
    fn in_steps<T>(
        rng: &mut Rng,
        mut step: impl FnMut(&mut Effort) -> Result<Option<T>, RangeError>,
    ) -> (Result<T, RangeError>, usize) {
        for steps in 1..10_000 {
            match step(&mut Effort::of(rng.usize(1..20))) {
                Ok(None) => {}
                Ok(Some(answer)) => return (Ok(answer), steps),
                Err(error) => return (Err(error), steps),
            }
        }
        panic!("no end is in sight");
    }

    /// Whatever is searched, by the filter or for the first in some order.
    #[test]
    fn a_search_holds_little_more_than_what_it_finds() {
        let mut rng = Rng::with_seed(10);
        let view = keyspace(&mut rng).reader().view();
        let all = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            ..Default::default()
        };
        let keys = view.range(&all).unwrap().kvs.len();
        let newest = view.revision;
        for (limit, min_mod_revision) in [(2, 0), (2, newest - 100), (0, newest - 4)] {
            for sort_target in 0..5 {
                let request = RangeRequest {
                    limit,
                    sort_order: 2,
                    sort_target,
                    min_mod_revision,
                    ..all.clone()
                };
                let mut ranging = Ranging::begin(&request, &view.snapshot(), 0).unwrap();
                let reply = loop {
                    let mut effort = Effort::of(3);
                    let step = ranging.step(&request, &view.snapshot(), &mut effort);
                    match step.unwrap() {
                        Some(reply) => break reply,
                        None => assert!(ranging.held() <= 5, "{} of {keys}", ranging.held()),
                    }
                };
                assert!(keys > 30 && !reply.kvs.is_empty() && reply.kvs.len() <= 5);
                assert_eq!(reply.count as usize, keys);
                assert_eq!(reply.more, limit > 0);
            }
        }
    }

    #[test]
    fn in_pieces_an_answer_is_the_same() {
        let mut rng = Rng::with_seed(9);
        let view = keyspace(&mut rng).reader().view();
        let (mut long, mut read) = (0, 0);
        for _ in 0..2000 {
            let request = range(&mut rng);
            let mut ranging = Ranging::begin(&request, &view.snapshot(), 0).unwrap();
            let (reply, steps) = in_steps(&mut rng, |effort| {
                ranging.step(&request, &view.snapshot(), effort)
            });
            assert_eq!(reply.unwrap(), view.range(&request).unwrap(), "{request:?}");
            long += usize::from(steps > 3);

            let op = |rng: &mut Rng| RequestOp {
                request: Some(Request::RequestRange(range(rng))),
            };
            let request = TxnRequest {
                compare: (0..rng.usize(..4)).map(|_| compare(&mut rng)).collect(),
                success: (0..3).map(|_| op(&mut rng)).collect(),
                failure: (0..2).map(|_| op(&mut rng)).collect(),
            };
            let mut reading = ReadOnly::default();
            let (reply, _) = in_steps(&mut rng, |effort| {
                reading.step(&request, &view.snapshot(), effort)
            });
            match (reply, view.txn(&request)) {
                (Ok(reply), Ok(expected)) => assert_eq!(reply, expected, "{request:?}"),
                (reply, expected) => panic!("{reply:?} instead of {expected:?}"),
            }
            read += 1;
        }
        assert!(
            long > 200 && read == 2000,
            "{long} of them took more than three steps"
        );
    }

    /// Long values make a piece short, and what is looked at for its value does not pile up.
    #[test]
    fn a_search_among_long_values_holds_few() {
        let backend = Backend::default();
        let mut keyspace = {
            let loaded = Loaded::read(&backend.reader(), 0, Jobs::default()).unwrap();
            Keyspace::new(backend.clone(), loaded, 0)
        };
        let mut batch = WriteBatch::default();
        let mut changes = keyspace.begin(&mut batch);
        for number in 0..200_u32 {
            changes.put(&number.to_be_bytes(), &[number as u8; 100_000], 0);
        }
        changes.finish();
        backend.write(batch);
        keyspace.publish(1);
        let view = keyspace.reader().view();
        let request = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            limit: 3,
            sort_order: 2,
            sort_target: 4,
            ..Default::default()
        };
        let mut ranging = Ranging::begin(&request, &view.snapshot(), 0).unwrap();
        let mut steps = 0;
        let reply = loop {
            let step = ranging.step(&request, &view.snapshot(), &mut { Effort::PIECE });
            match step.unwrap() {
                Some(reply) => break reply,
                None => assert!(ranging.held() <= 60, "{} of 200", ranging.held()),
            }
            steps += 1;
        };
        assert!(steps >= 200 / 7, "{steps}");
        let keys = reply.kvs.attributes().map(|kv| kv.key()[3]);
        assert_eq!(keys.collect::<Vec<_>>(), [199, 198, 197]);
    }

    /// Whoever waits for a transaction that looks at all keys again and again is not held up by it.
    #[test]
    fn a_piece_is_bounded_however_often_all_keys_are_named() {
        let mut rng = Rng::with_seed(3);
        let view = keyspace(&mut rng).reader().view();
        let all = RangeRequest {
            key: "\0".into(),
            range_end: "\0".into(),
            count_only: true,
            revision: 150,
            ..Default::default()
        };
        let op = RequestOp {
            request: Some(Request::RequestRange(all)),
        };
        let request = TxnRequest {
            success: vec![op; 100],
            ..Default::default()
        };
        let mut reading = ReadOnly::default();
        let mut steps = 1;
        while reading
            .step(&request, &view.snapshot(), &mut Effort::of(10))
            .unwrap()
            .is_none()
        {
            steps += 1;
        }
        assert!(steps > 400, "{steps}");
    }
}
