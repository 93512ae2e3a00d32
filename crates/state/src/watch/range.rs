//! The keys that a watcher watches.

use super::Refusal;

/// A single key or an interval of keys.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyRange {
    pub(super) start: Box<[u8]>,
    pub(super) end: RangeEnd,
}

/// Where a [`KeyRange`] ends. The order of the variants is that of the ends of ranges with one
/// start.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum RangeEnd {
    /// The range is its start alone.
    Single,
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
        let start: Box<[u8]> = if key.is_empty() { b"\0" } else { key }.into();
        let end = match range_end {
            [] => RangeEnd::Single,
            [0] => RangeEnd::Open,
            end if *start >= *end => return Err(Refusal::EmptyRange),
            end => RangeEnd::Before(end.into()),
        };
        Ok(KeyRange { start, end })
    }

    pub(super) fn contains(&self, key: &[u8]) -> bool {
        match &self.end {
            RangeEnd::Single => *self.start == *key,
            end => *self.start <= *key && end.is_beyond(key),
        }
    }
}

impl RangeEnd {
    /// Whether an interval that ends here and starts at or before `key` contains it.
    pub(super) fn is_beyond(&self, key: &[u8]) -> bool {
        match self {
            RangeEnd::Single => false,
            RangeEnd::Before(end) => key < &**end,
            RangeEnd::Open => true,
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
