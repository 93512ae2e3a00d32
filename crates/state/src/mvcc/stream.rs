//! Answering a range request in chunks, for lists too long for one message.

use std::mem;

use retcd_proto::etcdserverpb::RangeRequest;

use super::reader::View;
use super::snapshot::Need;
use super::{Interval, Kvs, Projection, RangeError, RangeReply};

/// Keys in the first chunk, as etcd has it.
const FIRST_CHUNK_KEYS: i64 = 10;

/// Keys per chunk of a sorted answer.
const SORTED_CHUNK_KEYS: usize = 100;

const _: () = assert!(FIRST_CHUNK_KEYS > 0 && SORTED_CHUNK_KEYS > 0);

/// A range request that is answered piece by piece, all from one state of the keyspace.
///
/// Unlike etcd's, a stream goes on when its revision is compacted under way: its view keeps what it
/// still has to read.
pub struct RangeStream(Source);

/// Where the chunks come from.
enum Source {
    /// Nothing has been read yet.
    Unread(Box<Unread>),
    /// From the index as it was, piece by piece.
    InOrder(Box<Walk>),
    /// Sorted by something else than the key, which takes all of them first; `None` behind the last
    /// chunk.
    ///
    /// etcd 3.7.1 sorts and cuts every chunk for itself, so that a client gets keys twice and
    /// misses others; here it gets what it asked for.
    Sorted(Option<RangeReply>),
}

/// A piece of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeChunk {
    /// The next records, ascending by key.
    pub kvs: Kvs,
    /// What of them belongs into the answer.
    pub projection: Projection,
    /// In the last chunk: current revision, `more` and `count` of the whole answer, with no
    /// records.
    pub last: Option<RangeReply>,
}

impl RangeStream {
    /// Chunks grow and shrink to stay around `chunk_bytes`.
    pub(super) fn new(
        view: View,
        request: RangeRequest,
        chunk_bytes: usize,
    ) -> Result<RangeStream, RangeError> {
        view.snapshot().read_revision(request.revision)?;
        Ok(RangeStream(Source::Unread(Box::new(Unread {
            view,
            request,
            chunk_bytes,
        }))))
    }

    /// Whether all that is left is in memory; if not, the next chunk may have to wait for a disk.
    pub fn is_in_memory(&self) -> bool {
        match &self.0 {
            Source::Unread(unread) => unread.view.holds_values_of(&unread.request),
            Source::InOrder(walk) => walk.view.holds_values_of(&walk.request),
            Source::Sorted(_) => true,
        }
    }

    /// The next chunk; `None` after the last.
    pub fn next_chunk(&mut self) -> Result<Option<RangeChunk>, RangeError> {
        if let Source::Unread(_) = &self.0 {
            let Source::Unread(unread) = mem::replace(&mut self.0, Source::Sorted(None)) else {
                unreachable!("it was one a moment ago")
            };
            self.0 = unread.begin()?;
        }
        match &mut self.0 {
            Source::Unread(_) => unreachable!("it has begun"),
            Source::InOrder(walk) => walk.next_chunk(),
            Source::Sorted(rest) => Ok(next_sorted(rest)),
        }
    }
}

/// A stream as it was asked for.
struct Unread {
    view: View,
    request: RangeRequest,
    chunk_bytes: usize,
}

impl Unread {
    fn begin(self) -> Result<Source, RangeError> {
        let Unread {
            view,
            request,
            chunk_bytes,
        } = self;
        Ok(match request.sort_target != 0 && !request.count_only {
            true => Source::Sorted(Some(view.range(&request)?)),
            false => Source::InOrder(Box::new(Walk::new(view, request, chunk_bytes)?)),
        })
    }
}

fn next_sorted(rest: &mut Option<RangeReply>) -> Option<RangeChunk> {
    let reply = rest.as_mut()?;
    let len = SORTED_CHUNK_KEYS.min(reply.kvs.len());
    let mut chunk = RangeChunk {
        kvs: reply.kvs.take_first(len),
        projection: reply.projection,
        last: None,
    };
    if reply.kvs.is_empty() {
        chunk.last = rest.take();
    }
    Some(chunk)
}

/// A way through the keys in their order.
struct Walk {
    view: View,
    request: RangeRequest,
    revision: i64,
    chunk_keys: i64,
    chunk_bytes: usize,
    /// Keys still to send; negative for all of them at once.
    remaining: i64,
    total: i64,
    /// Bytes that may come back to memory.
    shown_bytes: usize,
    done: bool,
}

impl Walk {
    fn new(view: View, request: RangeRequest, chunk_bytes: usize) -> Result<Walk, RangeError> {
        let mut request = request;
        // The natural order, without filters; only the projection depends on the sort target.
        request.sort_order = 0;
        (request.min_mod_revision, request.max_mod_revision) = (0, 0);
        (request.min_create_revision, request.max_create_revision) = (0, 0);
        let count = RangeRequest {
            count_only: true,
            ..request.clone()
        };
        let total = view.range(&count)?.count;
        let revision = view.snapshot().read_revision(request.revision)?;
        let remaining = if request.limit == 0 {
            i64::MAX
        } else {
            request.limit
        };
        Ok(Walk {
            view,
            request,
            revision,
            chunk_keys: FIRST_CHUNK_KEYS,
            chunk_bytes,
            remaining,
            total,
            shown_bytes: 0,
            done: false,
        })
    }

    fn next_chunk(&mut self) -> Result<Option<RangeChunk>, RangeError> {
        if self.done {
            return Ok(None);
        }
        let projection = Projection::of(&self.request);
        let mut chunk = RangeChunk {
            kvs: Kvs::default(),
            projection,
            last: None,
        };
        let limit = if self.remaining < 0 {
            i64::MAX
        } else {
            self.chunk_keys.min(self.remaining)
        };
        let mut more = false;
        if !self.request.count_only {
            let interval = Interval::new(&self.request.key, &self.request.range_end);
            let limit = usize::try_from(limit).unwrap_or(usize::MAX);
            let need = match projection {
                Projection::Full => Need::Answer,
                Projection::WithoutValue => Need::Attributes,
            };
            let snapshot = self.view.snapshot();
            let wanted = (limit, need);
            (chunk.kvs, more) =
                snapshot.page(interval, self.revision, wanted, &mut self.shown_bytes)?;
        }
        let sent = chunk.kvs.len() as i64;
        self.remaining = if self.remaining < 0 {
            0
        } else {
            self.remaining - sent
        };
        self.done = !more || self.remaining == 0;
        if self.done {
            if self.request.limit == 0 && !self.request.count_only {
                let sent = i64::MAX - self.remaining;
                assert_eq!(sent, self.total, "records sent, and keys counted");
            }
            let revision = self.view.revision();
            chunk.last = Some(RangeReply {
                revision,
                kvs: Kvs::default(),
                more,
                count: self.total,
                projection,
            });
        } else {
            self.advance(&chunk.kvs);
        }
        Ok(Some(chunk))
    }

    /// Goes on behind the last of `kvs` and sizes the next chunk by this one.
    fn advance(&mut self, kvs: &Kvs) {
        if let Some(last) = kvs.attributes().last() {
            let mut next = last.key().to_vec();
            next.push(0);
            self.request.key = next.into();
        }
        let bytes: usize = kvs.lengths().sum();
        if bytes < self.chunk_bytes / 2 {
            self.chunk_keys = self.chunk_keys.saturating_mul(2);
        } else if bytes > self.chunk_bytes.saturating_mul(2) {
            self.chunk_keys = (self.chunk_keys / 2).max(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use retcd_storage::backend::{Backend, WriteBatch};

    use super::*;
    use crate::Jobs;
    use crate::mvcc::{Keyspace, Loaded};

    /// However small chunks are to be, each brings the client further.
    #[test]
    fn a_chunk_has_a_key_at_least() {
        let backend = Backend::default();
        let loaded = Loaded::read(&backend.reader(), usize::MAX, Jobs::default()).unwrap();
        let mut keyspace = Keyspace::new(backend.clone(), loaded, 0);
        let mut batch = WriteBatch::default();
        let keys: Vec<String> = (0..40).map(|number| format!("k{number:02}")).collect();
        for key in &keys {
            let mut changes = keyspace.begin(&mut batch);
            changes.put(key.as_bytes(), &[b'v'; 100], 0);
            changes.finish();
        }
        backend.write(batch);
        keyspace.publish(1);
        let request = RangeRequest {
            key: "k".into(),
            range_end: "l".into(),
            ..RangeRequest::default()
        };
        let mut stream = keyspace.reader().range_stream(request, 1).unwrap();
        let (mut sizes, mut streamed) = (Vec::new(), Vec::new());
        while let Some(chunk) = stream.next_chunk().unwrap() {
            assert!(!chunk.kvs.is_empty(), "behind chunks of {sizes:?} keys");
            sizes.push(chunk.kvs.len());
            let keys = chunk.kvs.attributes().map(|kv| kv.key());
            streamed.extend(keys.map(|key| String::from_utf8_lossy(key).into_owned()));
        }
        assert_eq!(streamed, keys);
        assert_eq!((sizes[0], sizes.last()), (10, Some(&1)), "{sizes:?}");
    }
}
