//! The key space and the values under load.

use bytes::Bytes;
use fastrand::Rng;

/// Numbered keys under one prefix: `PREFIX` followed by the number in sixteen digits, so that
/// lexical and numerical order agree.
#[derive(Debug, Clone)]
pub(crate) struct KeySpace {
    /// The common prefix of all keys.
    pub(crate) prefix: String,
    /// The number of keys.
    pub(crate) count: u64,
}

impl KeySpace {
    /// Key number `at`.
    pub(crate) fn key(&self, at: u64) -> Bytes {
        format!("{}{at:016}", self.prefix).into()
    }

    /// The size of all keys with values of `value_size` bytes, and nothing around them.
    pub(crate) fn bytes(&self, value_size: usize) -> u64 {
        self.count * (self.key(0).len() + value_size) as u64
    }

    /// A random key.
    pub(crate) fn random(&self, rng: &mut Rng) -> Bytes {
        self.key(rng.u64(0..self.count))
    }

    /// The first key and the range end of everything under the prefix.
    pub(crate) fn whole(&self) -> (Bytes, Bytes) {
        let mut end = self.prefix.clone().into_bytes();
        let last = end
            .last_mut()
            .expect("the command line rejects an empty prefix");
        // A prefix is text, which has no 0xff bytes.
        *last += 1;
        (self.prefix.clone().into(), end.into())
    }
}

/// A key, which is a number behind a prefix from the command line.
pub(crate) fn text(key: &[u8]) -> &str {
    std::str::from_utf8(key).expect("a prefix is text")
}

/// A value of `size` printable bytes, determined by the state of `rng`.
pub(crate) fn value(size: usize, rng: &mut Rng) -> Bytes {
    (0..size).map(|_| rng.alphanumeric() as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_as_their_numbers_and_lie_in_the_whole_range() {
        let keys = KeySpace {
            prefix: "/bench/".into(),
            count: 2_000,
        };
        let (first, end) = keys.whole();
        assert_eq!((&first[..], &end[..]), (&b"/bench/"[..], &b"/bench0"[..]));
        for at in 0..keys.count {
            assert!(first < keys.key(at) && keys.key(at) < end);
            assert!(keys.key(at) < keys.key(at + 1));
        }
        assert_eq!(keys.key(42), "/bench/0000000000000042");
        assert_eq!(keys.bytes(77), 200_000);
    }

    #[test]
    fn values_have_their_size_and_repeat_with_the_seed() {
        let make = |seed| value(256, &mut Rng::with_seed(seed));
        assert_eq!(make(1).len(), 256);
        assert_eq!(make(1), make(1));
        assert_ne!(make(1), make(2));
    }
}
