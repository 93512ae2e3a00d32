//! Range ends.

/// A range end of `\0` means no end: the range contains all keys from its start on.
pub const FROM_KEY: &[u8] = b"\0";

/// The first key after all keys with this prefix; [`FROM_KEY`] if there is none.
pub fn prefix_end(prefix: &[u8]) -> Vec<u8> {
    match prefix.iter().rposition(|byte| *byte < 0xff) {
        Some(last) => {
            let mut end = prefix[..=last].to_vec();
            end[last] += 1;
            end
        }
        None => FROM_KEY.to_vec(),
    }
}

/// Key and range end of all keys with this prefix.
pub fn prefix_range(prefix: &[u8]) -> (Vec<u8>, Vec<u8>) {
    if prefix.is_empty() {
        return from_key_range(prefix);
    }
    (prefix.to_vec(), prefix_end(prefix))
}

/// Key and range end of all keys from `key` on.
pub fn from_key_range(key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let key = if key.is_empty() { FROM_KEY } else { key };
    (key.to_vec(), FROM_KEY.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_follows_the_prefix() {
        assert_eq!(prefix_end(b"a/"), b"a0");
        assert_eq!(prefix_end(b"a\xff\xff"), b"b");
        assert_eq!(prefix_end(b"\xff"), FROM_KEY);
        assert_eq!(prefix_range(b""), (b"\0".to_vec(), b"\0".to_vec()));
        assert_eq!(from_key_range(b"k"), (b"k".to_vec(), b"\0".to_vec()));
    }
}
