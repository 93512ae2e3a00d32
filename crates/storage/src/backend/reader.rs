//! A consistent view: the file as last committed, below what was written since.

use std::collections::VecDeque;
use std::iter::Peekable;
use std::ops::Bound;
use std::sync::Arc;

use super::hash::HashInPieces;
use super::layer::Layer;
use super::{BackendError, Bucket, Key, Value};
use crate::bolt::{self, Cached, Entry, Range, ReadTx};

/// The first, and the most, keys that a scan takes from a layer under one hold of its lock.
const CHUNK: (usize, usize) = (8, 256);

// A chunk of no keys would look like the end.
const _: () = assert!(0 < CHUNK.0 && CHUNK.0 <= CHUNK.1);

/// A consistent view of the database at the time of [`super::Backend::reader`]. It is cheap to open
/// and to clone. While it lives, the pages that it can see are not written again.
#[derive(Clone)]
pub struct Reader {
    /// What lies above the file, newest first.
    layers: [Option<View>; 2],
    tx: ReadTx,
}

/// A layer as far as it is visible.
#[derive(Clone)]
struct View {
    layer: Arc<Layer>,
    bound: u64,
}

impl Reader {
    /// What `pending` holds now, above `committing`, above the file.
    pub(super) fn new(
        pending: &Arc<Layer>,
        committing: Option<&Arc<Layer>>,
        tx: &ReadTx,
    ) -> Reader {
        let view = |layer: &Arc<Layer>| View {
            layer: Arc::clone(layer),
            bound: layer.bound(),
        };
        Reader {
            layers: [Some(view(pending)), committing.map(view)],
            tx: tx.clone(),
        }
    }

    /// The file without what was written since the last commit.
    pub(super) fn of_file(tx: ReadTx) -> Reader {
        Reader {
            layers: [None, None],
            tx,
        }
    }

    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// If the file cannot be read or is damaged.
    pub fn get(&self, bucket: Bucket, key: &[u8]) -> Result<Option<Value>, BackendError> {
        if let Some(value) = self.above_file(bucket, key) {
            return Ok(value);
        }
        let entry = self.tx.get(bucket.name(), key)?;
        Ok(entry.map(|entry| entry.value().into()))
    }

    /// The same without a wait for the disk, as far as memory tells: that of this process, or the
    /// system's.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn get_cached(&self, bucket: Bucket, key: &[u8]) -> Result<Cached<Value>, BackendError> {
        if let Some(value) = self.above_file(bucket, key) {
            return Ok(Cached::Known(value));
        }
        Ok(match self.tx.get_cached(bucket.name(), key)? {
            Cached::Known(entry) => Cached::Known(entry.map(|entry| entry.value().into())),
            Cached::Unknown => Cached::Unknown,
        })
    }

    /// What the layers say about a key, if they do: deleted, or a value.
    fn above_file(&self, bucket: Bucket, key: &[u8]) -> Option<Option<Value>> {
        let mut views = self.layers.iter().flatten();
        views.find_map(|view| view.layer.get(view.bound, bucket, key))
    }

    /// The same as [`Reader::get`] for many keys of a bucket, one after the other.
    pub fn lookup(&self, bucket: Bucket) -> Lookup<'_> {
        Lookup {
            reader: self,
            bucket,
            file: self.tx.lookup(bucket.name()),
        }
    }

    /// The pairs of `bucket` with `start <= key` and, if given, `key < end`, in the order of their
    /// keys.
    ///
    /// After an error, as [`Reader::get`] gives them, the iterator ends.
    pub fn range(&self, bucket: Bucket, start: &[u8], end: Option<&[u8]>) -> Scan<'_> {
        Scan(self.rows(bucket, start, end))
    }

    /// The same, of which nothing is copied out of the file's pages before it is asked for.
    pub fn rows(&self, bucket: Bucket, start: &[u8], end: Option<&[u8]>) -> Rows<'_> {
        let layers = self
            .layers
            .each_ref()
            .map(|view| LayerScan::new(view.as_ref(), bucket, start, end));
        Rows {
            layers,
            file: self.tx.range(bucket.name(), start, end).peekable(),
            failed: false,
        }
    }

    /// Keys that divide what the file has of `bucket` into about `parts` parts of about one size,
    /// ascending.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn split(&self, bucket: Bucket, parts: usize) -> Result<Vec<Box<[u8]>>, BackendError> {
        self.tx.split(bucket.name(), parts)
    }

    /// CRC-32C of the names, keys and values of all buckets, as etcd's maintenance `Hash` has it.
    /// That one skips what differs between members with the same data (`skip_meta`); the hash of
    /// `snapshot status` does not.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn hash(&self, skip_meta: bool) -> Result<u32, BackendError> {
        let mut hash = HashInPieces::new(self.clone(), skip_meta);
        loop {
            if let Some(result) = hash.step() {
                return result;
            }
        }
    }

    /// The file below, without what was written since the last commit.
    pub fn committed(&self) -> &ReadTx {
        &self.tx
    }
}

/// Looks up keys of a bucket that often lie close to each other.
pub struct Lookup<'r> {
    reader: &'r Reader,
    bucket: Bucket,
    file: bolt::Lookup<'r>,
}

impl Lookup<'_> {
    /// The value of `key`, if there is one.
    ///
    /// # Errors
    /// As [`Reader::get`].
    pub fn get(&mut self, key: &[u8]) -> Result<Option<Value>, BackendError> {
        if let Some(value) = self.reader.above_file(self.bucket, key) {
            return Ok(value);
        }
        Ok(self.file.get(key)?.map(Value::from))
    }
}

/// A key and its value, wherever they lie.
pub struct Row(Source);

enum Source {
    Layer(Key, Value),
    File(Entry),
}

impl Row {
    /// The key.
    pub fn key(&self) -> &[u8] {
        match &self.0 {
            Source::Layer(key, _) => key,
            Source::File(entry) => entry.key(),
        }
    }

    /// The value.
    pub fn value(&self) -> &[u8] {
        match &self.0 {
            Source::Layer(_, value) => value,
            Source::File(entry) => entry.value(),
        }
    }

    /// Both, in memory of their own.
    pub fn into_pair(self) -> (Key, Value) {
        match self.0 {
            Source::Layer(key, value) => (key, value),
            Source::File(entry) => (entry.key().into(), entry.value().into()),
        }
    }
}

/// The pairs of a bucket within bounds.
pub struct Scan<'r>(Rows<'r>);

impl Iterator for Scan<'_> {
    type Item = Result<(Key, Value), BackendError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.0.next().map(|row| row.map(Row::into_pair))
    }
}

/// The rows of a bucket within bounds.
pub struct Rows<'r> {
    layers: [LayerScan<'r>; 2],
    file: Peekable<Range<'r>>,
    failed: bool,
}

impl Rows<'_> {
    fn advance(&mut self) -> Result<Option<Row>, BackendError> {
        loop {
            let [above, below] = &mut self.layers;
            if above.is_over() && below.is_over() {
                let entry = self.file.next().transpose()?;
                return Ok(entry.map(|entry| Row(Source::File(entry))));
            }
            let file = match self.file.next_if(Result::is_err) {
                Some(failed) => return failed.map(|_| None),
                None => self
                    .file
                    .peek()
                    .and_then(|entry| entry.as_ref().ok())
                    .map(Entry::key),
            };
            let heads = [above.peek(), below.peek(), file];
            let Some(key) = heads.into_iter().flatten().min() else {
                return Ok(None);
            };
            let at = heads.map(|head| head == Some(key));
            // Newer sources hide older ones; all that stand at this key go on.
            let from_file = if at[2] {
                self.file.next().transpose()?
            } else {
                None
            };
            let from_below = if at[1] { below.take() } else { None };
            let from_above = if at[0] { above.take() } else { None };
            let found = match (from_above.or(from_below), from_file) {
                (Some((key, value)), _) => value.map(|value| Source::Layer(key, value)),
                (None, entry) => entry.map(Source::File),
            };
            if let Some(source) = found {
                return Ok(Some(Row(source)));
            }
        }
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, BackendError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.advance();
        self.failed = next.is_err();
        next.transpose()
    }
}

/// A walk over a layer that takes its lock for a chunk of keys at a time.
struct LayerScan<'r> {
    view: Option<&'r View>,
    bucket: Bucket,
    chunk: VecDeque<(Key, Option<Value>)>,
    chunk_max: usize,
    /// Where the next chunk begins.
    from: Bound<Key>,
    end: Option<Key>,
}

impl<'r> LayerScan<'r> {
    fn new(
        view: Option<&'r View>,
        bucket: Bucket,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> LayerScan<'r> {
        // Bounds the wrong way round are an empty range.
        let view = view.filter(|_| end.is_none_or(|end| start < end));
        let (from, end) = (Bound::Included(start.into()), end.map(Key::from));
        LayerScan {
            view,
            bucket,
            chunk: VecDeque::new(),
            chunk_max: CHUNK.0,
            from,
            end,
        }
    }

    fn is_over(&self) -> bool {
        self.view.is_none() && self.chunk.is_empty()
    }

    fn peek(&mut self) -> Option<&[u8]> {
        if self.chunk.is_empty() {
            self.fill();
        }
        self.chunk.front().map(|(key, _)| &**key)
    }

    fn take(&mut self) -> Option<(Key, Option<Value>)> {
        self.chunk.pop_front()
    }

    fn fill(&mut self) {
        let Some(View { layer, bound }) = self.view else {
            return;
        };
        let end = self
            .end
            .as_deref()
            .map_or(Bound::Unbounded, Bound::Excluded);
        let keys = (self.from.as_ref().map(|key| &**key), end);
        let found = layer.range(*bound, self.bucket, keys, self.chunk_max, &mut self.chunk);
        let (most, len) = (self.chunk_max, self.chunk.len());
        assert!(
            found == len && found <= most,
            "{found} keys found, {len} kept, of {most}"
        );
        if found < self.chunk_max {
            self.view = None;
        }
        if let Some((last, _)) = self.chunk.back() {
            self.from = Bound::Excluded(last.clone());
        }
        self.chunk_max = (self.chunk_max * 2).min(CHUNK.1);
    }
}
