//! Answers to ranges, for serializable reads.
//!
//! A serializable read may be answered with what was true a while ago, so it may come from here.
//! An entry lives until something is written *through this proxy* that touches its range, until a
//! linearizable read of the same request replaces it, or until it is the one that was not used for
//! longest when there are more than [`ENTRIES_MAX`], or more than [`BYTES_MAX`] in them. As in etcd,
//! what is written elsewhere is not noticed.
//!
//! Requests are told apart by their encoding, with `serializable` set. Answers are kept as they
//! came. Unlike in etcd, requests with a token neither find nor leave anything here: who may read
//! what is for members to say.

use std::collections::{BTreeMap, HashMap, HashSet};

use bytes::Bytes;
use prost::Message;
use retcd_proto::etcdserverpb::RangeRequest;

/// As many as etcd's proxy keeps.
const ENTRIES_MAX: usize = 2048;
/// Of all entries together, in keys and answers. etcd's proxy has no such limit, and keeps thousands
/// of long lists.
const BYTES_MAX: usize = 256 << 20;
/// The end of a range without end.
const FROM_KEY: &[u8] = b"\0";

/// See the [module](self).
#[derive(Default)]
pub(super) struct Cache {
    entries: HashMap<Bytes, Entry>,
    /// What is in them.
    bytes: usize,
    /// Entries by when they were used last.
    by_use: BTreeMap<u64, Bytes>,
    uses: u64,
    /// Entries of the newest revision that are one key each, by the key.
    keys: HashMap<Bytes, HashSet<Bytes>>,
    /// Entries of the newest revision that are ranges.
    ranges: HashSet<Bytes>,
    compacted: i64,
    /// Reads that members are asked for.
    reads: HashMap<ReadId, Read>,
    reads_begun: u64,
}

/// A read under way; see [`Cache::begin_read`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct ReadId(u64);

struct Read {
    key: Bytes,
    range_end: Bytes,
    /// Whether something was written meanwhile that the answer may lack.
    is_overtaken: bool,
}

struct Entry {
    answer: Bytes,
    key: Bytes,
    range_end: Bytes,
    revision: i64,
    last_use: u64,
}

impl Entry {
    fn bytes(&self) -> usize {
        self.key.len() + self.range_end.len() + self.answer.len()
    }
}

/// What the cache says to a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Cached {
    Answer(Bytes),
    Nothing,
    /// A compaction through this proxy has removed the revision.
    Compacted,
}

/// How a request is known here.
pub(super) fn id(request: &RangeRequest) -> Bytes {
    let request = RangeRequest {
        serializable: true,
        ..request.clone()
    };
    request.encode_to_vec().into()
}

impl Cache {
    pub(super) fn find(&mut self, request: &RangeRequest) -> Cached {
        if request.revision > 0 && request.revision < self.compacted {
            self.remove(&id(request));
            return Cached::Compacted;
        }
        let id = id(request);
        let Some(entry) = self.entries.get_mut(&id) else {
            return Cached::Nothing;
        };
        self.by_use.remove(&entry.last_use);
        self.uses += 1;
        entry.last_use = self.uses;
        self.by_use.insert(self.uses, id);
        Cached::Answer(entry.answer.clone())
    }

    /// A member is asked for a range. Whatever is written until [`Cache::end_read`] may be newer than
    /// the answer.
    pub(super) fn begin_read(&mut self, request: &RangeRequest) -> ReadId {
        self.reads_begun += 1;
        let id = ReadId(self.reads_begun);
        let read = Read {
            key: request.key.clone(),
            range_end: request.range_end.clone(),
            is_overtaken: false,
        };
        self.reads.insert(id, read);
        id
    }

    /// Keeps the answer to a read, unless it may be old already.
    pub(super) fn end_read(&mut self, id: ReadId, request: &RangeRequest, answer: Bytes) {
        let read = self.reads.remove(&id);
        if read.is_some_and(|read| request.revision > 0 || !read.is_overtaken) {
            self.insert(request, answer);
        }
    }

    /// A read has no answer.
    pub(super) fn abandon_read(&mut self, id: ReadId) {
        self.reads.remove(&id);
    }

    fn insert(&mut self, request: &RangeRequest, answer: Bytes) {
        if request.revision > 0 && request.revision < self.compacted {
            return;
        }
        let id = id(request);
        self.remove(&id);
        let entry = Entry {
            answer,
            key: request.key.clone(),
            range_end: request.range_end.clone(),
            revision: request.revision,
            last_use: self.uses + 1,
        };
        if entry.bytes() > BYTES_MAX {
            return;
        }
        self.uses += 1;
        self.by_use.insert(self.uses, id.clone());
        if entry.revision == 0 {
            match entry.range_end.is_empty() {
                true => {
                    let of_key = self.keys.entry(entry.key.clone()).or_default();
                    of_key.insert(id.clone());
                }
                false => drop(self.ranges.insert(id.clone())),
            }
        }
        self.bytes += entry.bytes();
        self.entries.insert(id, entry);
        while (self.entries.len() > ENTRIES_MAX || self.bytes > BYTES_MAX)
            && let Some((_, oldest)) = self.by_use.first_key_value()
        {
            let oldest = oldest.clone();
            self.remove(&oldest);
        }
    }

    /// Forgets what a write of `key`, or of the range up to `range_end`, has made old. Entries of a
    /// revision do not grow old.
    ///
    /// To be called before a write is passed on and again when it was answered: a read between the
    /// two may have been executed before the write.
    pub(super) fn invalidate(&mut self, key: &[u8], range_end: &[u8]) {
        for read in self.reads.values_mut() {
            read.is_overtaken |= overlap((&read.key, &read.range_end), (key, range_end));
        }
        let mut old: Vec<Bytes> = match range_end.is_empty() {
            true => self.keys.get(key).into_iter().flatten().cloned().collect(),
            false => {
                let within = |(own, _): &(&Bytes, _)| overlap((own, b""), (key, range_end));
                let keys = self.keys.iter().filter(within);
                keys.flat_map(|(_, ids)| ids.iter().cloned()).collect()
            }
        };
        old.extend(self.ranges.iter().filter_map(|id| {
            let entry = &self.entries[id];
            overlap((&entry.key, &entry.range_end), (key, range_end)).then(|| id.clone())
        }));
        old.iter().for_each(|id| self.remove(id));
    }

    /// Remembers a compaction that this proxy has passed on.
    pub(super) fn compact(&mut self, revision: i64) {
        self.compacted = self.compacted.max(revision);
    }

    /// Forgets all.
    pub(super) fn clear(&mut self) {
        let mut reads = std::mem::take(&mut self.reads);
        reads.values_mut().for_each(|read| read.is_overtaken = true);
        *self = Cache {
            compacted: self.compacted,
            reads_begun: self.reads_begun,
            reads,
            ..Cache::default()
        };
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    fn remove(&mut self, id: &Bytes) {
        let Some(entry) = self.entries.remove(id) else {
            return;
        };
        self.bytes -= entry.bytes();
        self.by_use.remove(&entry.last_use);
        self.ranges.remove(id);
        if let Some(ids) = self.keys.get_mut(&entry.key) {
            ids.remove(id);
            if ids.is_empty() {
                self.keys.remove(&entry.key);
            }
        }
    }
}

/// Whether two ranges, as keys and ends of requests have them, share a key.
fn overlap(one: (&[u8], &[u8]), other: (&[u8], &[u8])) -> bool {
    starts_before_end(one.0, other) && starts_before_end(other.0, one)
}

/// Whether `key` is below the end of a range.
fn starts_before_end(key: &[u8], (start, end): (&[u8], &[u8])) -> bool {
    match end {
        b"" => key <= start,
        FROM_KEY => true,
        end => key < end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(key: &str, end: &str) -> RangeRequest {
        RangeRequest {
            key: Bytes::copy_from_slice(key.as_bytes()),
            range_end: Bytes::copy_from_slice(end.as_bytes()),
            ..RangeRequest::default()
        }
    }

    fn at(key: &str, revision: i64) -> RangeRequest {
        RangeRequest {
            revision,
            ..range(key, "")
        }
    }

    fn cached(cache: &mut Cache, request: &RangeRequest) -> bool {
        matches!(cache.find(request), Cached::Answer(_))
    }

    #[test]
    fn a_linearizable_read_answers_serializable_ones() {
        let mut cache = Cache::default();
        let mut read = range("a", "");
        cache.insert(&read, "1".into());
        read.serializable = true;
        assert_eq!(cache.find(&read), Cached::Answer("1".into()));
        cache.insert(&read, "2".into());
        assert_eq!(cache.find(&range("a", "")), Cached::Answer("2".into()));
        assert_eq!(cache.len(), 1);
    }

    #[test]
    fn writes_remove_what_they_touch() {
        let requests = [
            range("a", ""),
            range("b", ""),
            range("a", "c"),
            range("b", "\0"),
            range("\0", "\0"),
        ];
        let left = |key: &str, end: &str| -> Vec<usize> {
            let mut cache = Cache::default();
            for request in &requests {
                cache.insert(request, Bytes::new());
            }
            cache.invalidate(key.as_bytes(), end.as_bytes());
            let kept = requests.iter().enumerate();
            kept.filter(|(_, request)| cached(&mut cache, request))
                .map(|(number, _)| number)
                .collect()
        };
        assert_eq!(left("a", ""), [1, 3]);
        assert_eq!(left("b", ""), [0]);
        assert_eq!(left("c", ""), [0, 1, 2]);
        assert_eq!(left("b", "c"), [0]);
        assert_eq!(left("a", "\0"), [0; 0]);
        assert_eq!(left("0", "a"), [0, 1, 2, 3]);
        assert_eq!(left("c", "\0"), [0, 1, 2]);
    }

    #[test]
    fn an_answer_that_a_write_has_overtaken_is_not_kept() {
        let kept = |key: &str, end: &str| {
            let mut cache = Cache::default();
            let read = cache.begin_read(&range("a", "c"));
            cache.invalidate(key.as_bytes(), end.as_bytes());
            cache.end_read(read, &range("a", "c"), Bytes::new());
            assert!(cache.reads.is_empty());
            cached(&mut cache, &range("a", "c"))
        };
        assert!(!kept("b", ""));
        assert!(!kept("b", "x"));
        assert!(kept("c", ""));
        let mut cache = Cache::default();
        let (cleared, abandoned) = (
            cache.begin_read(&range("a", "")),
            cache.begin_read(&range("b", "")),
        );
        cache.clear();
        cache.end_read(cleared, &range("a", ""), Bytes::new());
        cache.abandon_read(abandoned);
        assert_eq!((cache.len(), cache.reads.len()), (0, 0));
    }

    #[test]
    fn a_revision_stays_until_it_is_compacted() {
        let mut cache = Cache::default();
        cache.insert(&at("a", 5), "5".into());
        cache.insert(&at("a", 7), "7".into());
        cache.insert(&at("a", 0), "new".into());
        cache.invalidate(b"a", b"");
        assert!(cached(&mut cache, &at("a", 5)));
        assert!(!cached(&mut cache, &at("a", 0)));
        cache.compact(7);
        assert_eq!(cache.find(&at("a", 5)), Cached::Compacted);
        assert!(cached(&mut cache, &at("a", 7)));
        cache.insert(&at("a", 0), "new".into());
        assert!(cached(&mut cache, &at("a", 0)));
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn answers_have_a_bound_in_bytes() {
        let third: Bytes = vec![0_u8; BYTES_MAX / 3].into();
        let mut cache = Cache::default();
        for key in ["a", "b"] {
            cache.insert(&range(key, ""), third.clone());
            // The same again takes no more.
            cache.insert(&range(key, ""), third.clone());
        }
        assert_eq!(cache.len(), 2);
        cache.insert(&range("c", ""), third);
        assert!(!cached(&mut cache, &range("a", "")));
        assert!(cached(&mut cache, &range("b", "")));
        // What is longer than all together may be takes nothing away from others.
        cache.insert(&range("d", ""), vec![0_u8; BYTES_MAX].into());
        assert!(!cached(&mut cache, &range("d", "")));
        assert_eq!(cache.len(), 2);
    }

    #[test]
    fn what_was_not_used_for_longest_goes_first() {
        let mut cache = Cache::default();
        for number in 0..ENTRIES_MAX {
            cache.insert(&range(&number.to_string(), ""), Bytes::new());
        }
        assert!(cached(&mut cache, &range("0", "")));
        cache.insert(&range("one more", "z"), Bytes::new());
        assert!(cached(&mut cache, &range("0", "")));
        assert!(!cached(&mut cache, &range("1", "")));
        assert_eq!(cache.len(), ENTRIES_MAX);
        cache.clear();
        assert_eq!((cache.len(), cache.by_use.len(), cache.bytes), (0, 0, 0));
        assert!(cache.keys.is_empty() && cache.ranges.is_empty());
    }
}
