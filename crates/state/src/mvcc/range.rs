//! Answering a range request from a [`Snapshot`] of the keyspace.

use std::cmp::Ordering;

use retcd_proto::etcdserverpb::RangeRequest;
use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use retcd_storage::backend::BackendError;

use super::snapshot::{Effort, Gathered, Need, Snapshot, Wanted};
use super::values::Asked;
use super::{Attributes, DamagedRecord, Kvs, Record, Revision, StoreRevision};

/// Bucket `key` could not be read.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// The backend failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The value of a row is no record.
    #[error("{record} at revision {}.{} in bucket key", .revision.main, .revision.sub)]
    Damaged {
        /// That of the row.
        revision: Revision,
        /// What it has.
        record: DamagedRecord,
    },
    /// A key of bucket `key` is no revision.
    #[error("bucket key has a key that is no revision: {0:02x?}")]
    NoRevision(Box<[u8]>),
    /// A row's record is not the one that was put there: it has another revision than its key says,
    /// or another key or length than the index knows.
    #[error("the record at revision {}.{} in bucket key is another one", .0.main, .0.sub)]
    Misplaced(Revision),
    /// A compaction mark in bucket meta is no revision.
    #[error("bucket meta has a compaction mark that is no revision: {0:02x?}")]
    BadCompactionMark(Box<[u8]>),
    /// The index knows a revision that the backend does not have.
    #[error("revision {}.{} is missing in bucket key", .0.main, .0.sub)]
    Missing(Revision),
}

/// Why a range request has no answer.
#[derive(Debug, thiserror::Error)]
pub enum RangeError {
    /// The revision has been compacted.
    #[error("required revision has been compacted")]
    Compacted,
    /// The revision has not been written yet.
    #[error("required revision is a future revision")]
    FutureRevision,
    /// The answer is longer than a message can be; it was given up at so many bytes.
    #[error("an answer of {0} bytes or more is too large")]
    ReplyTooLarge(usize),
    /// The store failed; nothing is wrong with the request.
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// What of each record belongs into the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Projection {
    /// Everything.
    Full,
    /// All but the value: `keys_only`.
    WithoutValue,
}

impl Projection {
    /// The projection that `request` asks for.
    pub fn of(request: &RangeRequest) -> Projection {
        // etcd 3.7 answers most of these from its index, which has no leases; etcd up to 3.6 shows
        // them, too.
        match request.keys_only {
            false => Projection::Full,
            true => Projection::WithoutValue,
        }
    }
}

/// The answer to a range request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeReply {
    /// The current revision, whichever revision was asked for.
    pub revision: StoreRevision,
    /// The records. What `projection` leaves out may be in them or not; the encoder leaves it out.
    pub kvs: Kvs,
    /// Whether the limit cut records off.
    pub more: bool,
    /// Number of keys in the range at the revision asked for, whatever limit and filters.
    pub count: i64,
    /// What of `kvs` belongs into the answer.
    pub projection: Projection,
}

/// What the ranges of a transaction have been answered with so far.
///
/// A short transaction can ask for a whole range many times over. What no message could hold is not
/// gathered to its end.
#[derive(Default)]
pub(super) struct ReplySize {
    bytes: usize,
}

impl ReplySize {
    /// The longest message that gRPC's clients and servers in Go send.
    pub(super) const MAX: usize = i32::MAX as usize;

    /// So far, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Takes `reply` in, with no more than its records surely take in the message, or that there is
    /// none because it would be too large.
    pub(super) fn take(
        &mut self,
        reply: Result<RangeReply, RangeError>,
    ) -> Result<RangeReply, RangeError> {
        match &reply {
            Ok(reply) => self.add(reply)?,
            Err(RangeError::ReplyTooLarge(bytes)) => self.bytes += bytes,
            Err(_) => {}
        }
        reply
    }

    /// Takes `reply` in.
    pub(super) fn add(&mut self, reply: &RangeReply) -> Result<(), RangeError> {
        self.bytes += match reply.projection {
            Projection::Full => reply.kvs.lengths().sum::<usize>(),
            Projection::WithoutValue => {
                let keys = reply.kvs.attributes().map(|kv| kv.key().len());
                keys.sum::<usize>()
            }
        };
        self.check()
    }

    /// Refuses what has become too large.
    pub(super) fn check(&self) -> Result<(), RangeError> {
        match self.bytes <= Self::MAX {
            true => Ok(()),
            false => Err(RangeError::ReplyTooLarge(self.bytes)),
        }
    }
}

/// A range of keys, as requests give it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interval<'a> {
    /// One key.
    Key(&'a [u8]),
    /// All keys from `start`, up to but without `end` if there is one.
    Range {
        /// The first key.
        start: &'a [u8],
        /// The key behind the last; `None` for no bound.
        end: Option<&'a [u8]>,
    },
}

impl<'a> Interval<'a> {
    /// The interval of a request's `key` and `range_end`: an empty end is a single key, one zero
    /// byte no end at all.
    pub fn new(key: &'a [u8], range_end: &'a [u8]) -> Interval<'a> {
        match range_end {
            b"" => Interval::Key(key),
            b"\0" => Interval::Range {
                start: key,
                end: None,
            },
            end => Interval::Range {
                start: key,
                end: Some(end),
            },
        }
    }

    /// Whether `key` lies inside.
    pub fn contains(&self, key: &[u8]) -> bool {
        match *self {
            Interval::Key(only) => key == only,
            Interval::Range { start, end } => key >= start && end.is_none_or(|end| key < end),
        }
    }
}

/// A range request that is being answered.
pub(super) struct Ranging {
    sort: Option<Sort>,
    at: i64,
    limit: Option<usize>,
    wanted: Wanted,
    gathered: Gathered,
    /// Records that were found so far, those too that have been left out again.
    matched: usize,
    /// Records that were kept of them.
    kept: usize,
    is_sorted: bool,
    /// The record whose value is read next, of those that a search has left.
    next_left: usize,
    /// Records that the keyspace is to be told of when it is not locked any more.
    shown: Vec<Record>,
}

impl Ranging {
    /// Refuses what has no answer. It is a part of one whose other parts have `beside` bytes.
    pub(super) fn begin(
        request: &RangeRequest,
        snapshot: &Snapshot<'_>,
        beside: usize,
    ) -> Result<Ranging, RangeError> {
        let sort = Sort::of(request);
        let at = snapshot.read_revision(request.revision)?;
        let limit = usize::try_from(request.limit)
            .ok()
            .filter(|limit| *limit > 0);
        let filter = Filter::of(request);
        let keys = match limit {
            _ if request.count_only => 0,
            Some(limit) if !is_whole(request) => limit.saturating_add(usize::from(sort.is_some())),
            _ => usize::MAX,
        };
        let sorts_values = sort.is_some_and(|sort| sort.target == SortTarget::Value);
        let need = match Projection::of(request) {
            _ if sorts_values => Need::Record,
            Projection::Full => Need::Answer,
            Projection::WithoutValue => Need::Attributes,
        };
        let wanted = Wanted {
            keys,
            need,
            filter,
            is_search: is_whole(request) && (!filter.is_none() || limit.is_some()),
        };
        Ok(Ranging {
            sort,
            at,
            limit,
            wanted,
            gathered: Gathered::beside(beside),
            matched: 0,
            kept: 0,
            is_sorted: false,
            next_left: 0,
            shown: Vec::new(),
        })
    }

    /// Goes on as far as `effort` allows; the answer, when there is nothing left to do. Always of
    /// the same request and snapshot.
    pub(super) fn step(
        &mut self,
        request: &RangeRequest,
        snapshot: &Snapshot<'_>,
        effort: &mut Effort,
    ) -> Result<Option<RangeReply>, RangeError> {
        let interval = Interval::new(&request.key, &request.range_end);
        loop {
            let (wanted, gathered, mut piece) = (&self.wanted, &mut self.gathered, effort.piece());
            let is_whole = snapshot.gather(interval, self.at, wanted, gathered, &mut piece)?;
            effort.spend_piece(piece);
            self.leave_out();
            if is_whole {
                break;
            }
            // One that is not spent has come to what it must not wait for.
            if effort.is_spent() || !piece.is_spent() {
                return Ok(None);
            }
        }
        self.sort();
        let (found, next) = (&mut self.gathered.found, &mut self.next_left);
        if self.wanted.is_search && !snapshot.read_left(found, next, effort)? {
            return Ok(None);
        }
        Ok(Some(self.finish(request, snapshot)))
    }

    /// Leaves out what is not in the answer, whatever will be found, so that a search through
    /// everything holds little more than what it is for.
    fn leave_out(&mut self) {
        let found = &mut self.gathered.found;
        self.matched += found.len() - self.kept;
        if let (true, Some(limit)) = (self.wanted.is_search, self.limit) {
            match self.sort {
                Some(sort) if found.is_heavy_for(limit) => {
                    found.keep_first(limit, |a, b| sort.compare(a, b));
                }
                Some(_) => {}
                None => found.truncate(limit),
            }
        }
        self.kept = found.len();
    }

    /// Puts what was found in order, and cuts it off at the limit.
    fn sort(&mut self) {
        if self.is_sorted {
            return;
        }
        let found = &mut self.gathered.found;
        if let Some(sort) = self.sort {
            found.sort(|a, b| sort.compare(a, b));
        }
        if let Some(limit) = self.limit {
            found.truncate(limit);
        }
        self.kept = found.len();
        self.is_sorted = true;
    }

    /// For [`Shared::show`](super::keyspace::Shared::show), after an answer from a locked index.
    pub(super) fn into_shown(self) -> Vec<Record> {
        self.shown
    }

    /// Records that it has in hand.
    #[cfg(test)]
    pub(super) fn held(&self) -> usize {
        self.gathered.found.len()
    }

    fn finish(&mut self, request: &RangeRequest, snapshot: &Snapshot<'_>) -> RangeReply {
        let Gathered {
            mut found,
            looked_at,
            count,
            ..
        } = std::mem::take(&mut self.gathered);
        let shown = found.take_shown();
        self.shown = snapshot.values.show(shown, Asked::by(request));
        // The index counts its keys beside them: what was counted is what was looked at.
        let keys = self.wanted.keys.min(count as usize);
        let at = self.at;
        assert_eq!(looked_at, keys, "of {count} keys at revision {at}");
        let matched = match self.wanted.filter.is_none() {
            true => count as usize,
            false => self.matched,
        };
        RangeReply {
            revision: StoreRevision::new(snapshot.revision),
            kvs: found.into_kvs(&snapshot.values),
            more: !request.count_only && self.limit.is_some_and(|limit| matched > limit),
            count,
            projection: Projection::of(request),
        }
    }
}

/// Whether all keys of the range have to be looked at, whatever the limit.
///
/// A target without an order sorts what the limit lets through, and one key more: odd, but so etcd
/// v3.7 does it (server/etcdserver/txn/range.go).
pub(super) fn is_whole(request: &RangeRequest) -> bool {
    let ordered = request.sort_order() != SortOrder::None;
    !Filter::of(request).is_none() || (ordered && Sort::of(request).is_some())
}

/// An order other than that of the keys.
#[derive(Clone, Copy)]
struct Sort {
    target: SortTarget,
    descending: bool,
}

impl Sort {
    /// `None` also for orders and targets that are none. Clients are refused them; in an entry of
    /// the log they must not keep the rest of a transaction from being applied, which etcd does
    /// without a look at them.
    fn of(request: &RangeRequest) -> Option<Sort> {
        let order = SortOrder::try_from(request.sort_order).ok()?;
        let target = SortTarget::try_from(request.sort_target).ok()?;
        let descending = order == SortOrder::Descend;
        (descending || target != SortTarget::Key).then_some(Sort { target, descending })
    }

    /// Those that are equal otherwise are in the order of their keys, whatever the direction.
    fn compare(self, a: &Record, b: &Record) -> Ordering {
        let ordering = match self.target {
            SortTarget::Key => a.key().cmp(b.key()),
            SortTarget::Version => a.version().cmp(&b.version()),
            SortTarget::Create => a.create_revision().cmp(&b.create_revision()),
            SortTarget::Mod => a.mod_revision().cmp(&b.mod_revision()),
            SortTarget::Value => a.value().cmp(b.value()),
        };
        let directed = match self.descending {
            true => ordering.reverse(),
            false => ordering,
        };
        directed.then_with(|| a.key().cmp(b.key()))
    }
}

/// The revisions that a request wants; zeros are no bounds.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Filter {
    min_mod: i64,
    max_mod: i64,
    min_create: i64,
    max_create: i64,
}

impl Filter {
    fn of(request: &RangeRequest) -> Filter {
        Filter {
            min_mod: request.min_mod_revision,
            max_mod: request.max_mod_revision,
            min_create: request.min_create_revision,
            max_create: request.max_create_revision,
        }
    }

    /// Whether everything passes.
    pub(super) fn is_none(self) -> bool {
        self == Filter::default()
    }

    pub(super) fn passes(self, kv: &Attributes) -> bool {
        let passes = |min: i64, max: i64, revision: i64| {
            (min == 0 || revision >= min) && (max == 0 || revision <= max)
        };
        self.is_none()
            || passes(self.min_mod, self.max_mod, kv.mod_revision())
                && passes(self.min_create, self.max_create, kv.create_revision())
    }
}
