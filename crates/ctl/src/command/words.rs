//! Splitting of interactive lines into words: `"…"` with escapes, `'…'` without, or anything
//! without spaces.

use crate::cli::{Arg, Exit, ExitKind};
use crate::go::quote::unquote;

/// Splits a line into words. Like etcdctl, ignores anything between words that cannot start one.
///
/// # Errors
/// A quoted word contains an invalid escape.
pub(crate) fn split(line: &str) -> Result<Vec<Arg>, Exit> {
    let mut words = Vec::new();
    let mut rest = line;
    while let Some(first) = rest.chars().next() {
        let (word, tail) = match first {
            '"' => match quoted_end(rest) {
                Some(end) => (Some(unquote_word(&rest[..end])?), &rest[end..]),
                None => (None, &rest[1..]),
            },
            '\'' => match rest[1..].find('\'') {
                Some(end) => (Some(rest.as_bytes()[1..=end].to_vec()), &rest[end + 2..]),
                None => (None, &rest[1..]),
            },
            c if c.is_ascii_whitespace() => (None, &rest[1..]),
            _ => {
                let end = rest
                    .find(|c: char| c.is_ascii_whitespace())
                    .unwrap_or(rest.len());
                (Some(rest.as_bytes()[..end].to_vec()), &rest[end..])
            }
        };
        words.extend(word);
        rest = tail;
    }
    Ok(words)
}

/// The length of the quoted word at the start of `text`, including its quotes.
fn quoted_end(text: &str) -> Option<usize> {
    let mut chars = text.char_indices().skip(1);
    while let Some((position, c)) = chars.next() {
        match c {
            '"' => return Some(position + 1),
            '\\' => {
                chars.next();
            }
            _ => {}
        }
    }
    None
}

fn unquote_word(text: &str) -> Result<Arg, Exit> {
    unquote(text)
        .map(|(bytes, _)| bytes)
        .map_err(|error| Exit::new(ExitKind::InvalidInput, error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_words() {
        let check = |line: &str, words: &[&str]| {
            let expected: Vec<Arg> = words.iter().map(|word| word.as_bytes().to_vec()).collect();
            assert_eq!(split(line), Ok(expected), "{line}");
        };
        check("put k v", &["put", "k", "v"]);
        check(
            "put  \"a b\\n\" 'c \"d' e'f",
            &["put", "a b\n", "c \"d", "e'f"],
        );
        check(
            "watch foo --rev 1 -- echo x",
            &["watch", "foo", "--rev", "1", "--", "echo", "x"],
        );
        check("", &[]);
        check(" \t ", &[]);
        check("put \"\" ''", &["put", "", ""]);
        check("put 'open", &["put", "open"]);
        assert!(split(r#"put "\q""#).is_err());
    }
}
