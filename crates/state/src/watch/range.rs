//! The keys that a watcher watches.

use std::sync::Arc;

use super::Refusal;

/// A single key or an interval of keys. Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum KeyRange {
    /// What most watchers watch of whom there are many, and small therefore.
    Key(Arc<[u8]>),
    /// Of more than one key.
    Interval(Arc<Interval>),
}

/// The keys from a start on.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Interval {
    pub(super) start: Box<[u8]>,
    pub(super) end: IntervalEnd,
}

/// Where an [`Interval`] ends. The order of the variants is that of the ends.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum IntervalEnd {
    /// Keys below this one.
    Before(Box<[u8]>),
    /// All keys from the start on.
    Open,
}

impl KeyRange {
    /// Reads a create request's `key` and `range_end`: an empty key is the smallest one (`"\0"`),
    /// an empty end means the key alone, an end of `"\0"` means everything from the key on.
    ///
    /// The bytes are copied: slices of a receive buffer would keep all of it for the watcher's
    /// life.
    pub(super) fn parse(key: &[u8], range_end: &[u8]) -> Result<KeyRange, Refusal> {
        let start: &[u8] = if key.is_empty() { b"\0" } else { key };
        let end = match range_end {
            [] => return Ok(KeyRange::Key(start.into())),
            [0] => IntervalEnd::Open,
            end if start >= end => return Err(Refusal::EmptyRange),
            end => IntervalEnd::Before(end.into()),
        };
        let start = start.into();
        Ok(KeyRange::Interval(Arc::new(Interval { start, end })))
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match self {
            KeyRange::Key(only) => **only == *key,
            KeyRange::Interval(interval) => *interval.start <= *key && interval.end.is_beyond(key),
        }
    }
}

impl IntervalEnd {
    /// Whether an interval that ends here and starts at or before `key` contains it.
    pub(super) fn is_beyond(&self, key: &[u8]) -> bool {
        match self {
            IntervalEnd::Before(end) => key < &**end,
            IntervalEnd::Open => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_etcds_ranges() {
        let contains = |key: &[u8], end: &[u8], probe: &[u8]| {
            KeyRange::parse(key, end).map(|range| range.contains(probe))
        };
        assert_eq!(contains(b"a", b"", b"a"), Ok(true));
        assert_eq!(contains(b"a", b"", b"a\0"), Ok(false));
        assert_eq!(contains(b"a", b"c", b"a"), Ok(true));
        assert_eq!(contains(b"a", b"c", b"bzz"), Ok(true));
        assert_eq!(contains(b"a", b"c", b"c"), Ok(false));
        assert_eq!(contains(b"b", b"\0", b"a"), Ok(false));
        assert_eq!(contains(b"b", b"\0", b"\xff\xff"), Ok(true));
        assert_eq!(contains(b"", b"", b"\0"), Ok(true));
        assert_eq!(contains(b"", b"", b"a"), Ok(false));
        assert_eq!(contains(b"", b"\0", b"\0"), Ok(true));
        assert_eq!(contains(b"c", b"a", b"b"), Err(Refusal::EmptyRange));
        assert_eq!(contains(b"a", b"a", b"a"), Err(Refusal::EmptyRange));
    }
}
