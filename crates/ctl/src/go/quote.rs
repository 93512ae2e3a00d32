//! Go's quoted strings: formatting with `%q`, and unquoting of user input.

use std::fmt::Write;

/// `text` as a double-quoted Go string; bytes that are not UTF-8 become `\xNN`.
pub(crate) fn quote(text: &[u8]) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for chunk in text.utf8_chunks() {
        chunk
            .valid()
            .chars()
            .for_each(|c| push_escaped(&mut quoted, c));
        for byte in chunk.invalid() {
            write!(quoted, "\\x{byte:02x}").expect("writing to a String cannot fail");
        }
    }
    quoted.push('"');
    quoted
}

/// A list of strings as Go prints it with `%q`: `["a" "b"]`.
pub(crate) fn quote_list(items: &[String]) -> String {
    let quoted: Vec<String> = items.iter().map(|item| quote(item.as_bytes())).collect();
    format!("[{}]", quoted.join(" "))
}

fn push_escaped(quoted: &mut String, c: char) {
    match c {
        '"' => quoted.push_str("\\\""),
        '\\' => quoted.push_str("\\\\"),
        '\x07' => quoted.push_str("\\a"),
        '\x08' => quoted.push_str("\\b"),
        '\x0c' => quoted.push_str("\\f"),
        '\n' => quoted.push_str("\\n"),
        '\r' => quoted.push_str("\\r"),
        '\t' => quoted.push_str("\\t"),
        '\x0b' => quoted.push_str("\\v"),
        c if is_print(c) => quoted.push(c),
        c => {
            let code = u32::from(c);
            match code {
                0..0x20 | 0x7f => write!(quoted, "\\x{code:02x}"),
                0x80..0x1_0000 => write!(quoted, "\\u{code:04x}"),
                _ => write!(quoted, "\\U{code:08x}"),
            }
            .expect("writing to a String cannot fail");
        }
    }
}

/// `strconv.IsPrint`: letters, marks, numbers, punctuation, symbols and the ASCII space.
fn is_print(c: char) -> bool {
    // The standard library's debug format escapes the same categories, and a leading combining
    // mark.
    let mut text = String::from("a");
    text.push(c);
    matches!(c, '\'' | '"' | '\\') || text.escape_debug().count() == 2
}

/// Why a quoted string is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum UnquoteError {
    /// The text does not start with a quote.
    #[error("expected quoted string")]
    NotQuoted,
    /// The closing quote is missing.
    #[error("unexpected EOF")]
    Unterminated,
    /// An unknown escape sequence, or a raw newline.
    #[error("invalid syntax")]
    Syntax,
}

/// Unquotes the string (`"…"` with escapes or `` `…` ``) at the start of `text`; returns its bytes
/// and the remaining text.
pub(crate) fn unquote(text: &str) -> Result<(Vec<u8>, &str), UnquoteError> {
    if let Some(raw) = text.strip_prefix('`') {
        let (content, rest) = raw.split_once('`').ok_or(UnquoteError::Unterminated)?;
        return Ok((content.replace('\r', "").into_bytes(), rest));
    }
    let body = text.strip_prefix('"').ok_or(UnquoteError::NotQuoted)?;
    let mut bytes = Vec::new();
    let mut rest = body;
    loop {
        let mut chars = rest.chars();
        match chars.next().ok_or(UnquoteError::Unterminated)? {
            '"' => return Ok((bytes, chars.as_str())),
            '\n' => return Err(UnquoteError::Syntax),
            '\\' => rest = unescape(chars.as_str(), &mut bytes)?,
            c => {
                bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
                rest = chars.as_str();
            }
        }
    }
}

/// Decodes the escape sequence that follows a backslash.
fn unescape<'t>(text: &'t str, bytes: &mut Vec<u8>) -> Result<&'t str, UnquoteError> {
    let kind = text.chars().next().ok_or(UnquoteError::Unterminated)?;
    let rest = &text[kind.len_utf8()..];
    let simple = match kind {
        'a' => 0x07,
        'b' => 0x08,
        'f' => 0x0c,
        'n' => b'\n',
        'r' => b'\r',
        't' => b'\t',
        'v' => 0x0b,
        '\\' => b'\\',
        '"' => b'"',
        'x' => return unescape_number(rest, 2, 16, bytes),
        'u' => return unescape_number(rest, 4, 16, bytes),
        'U' => return unescape_number(rest, 8, 16, bytes),
        '0'..='7' => return unescape_number(text, 3, 8, bytes),
        _ => return Err(UnquoteError::Syntax),
    };
    bytes.push(simple);
    Ok(rest)
}

fn unescape_number<'t>(
    text: &'t str,
    digits: usize,
    radix: u32,
    bytes: &mut Vec<u8>,
) -> Result<&'t str, UnquoteError> {
    let number = text.get(..digits).ok_or(UnquoteError::Syntax)?;
    if !number.bytes().all(|b| char::from(b).is_digit(radix)) {
        return Err(UnquoteError::Syntax);
    }
    let code = u32::from_str_radix(number, radix).map_err(|_| UnquoteError::Syntax)?;
    // `\xNN` and `\NNN` are bytes, `\u` and `\U` are characters.
    if digits < 4 {
        bytes.push(u8::try_from(code).map_err(|_| UnquoteError::Syntax)?);
    } else {
        let c = char::from_u32(code).ok_or(UnquoteError::Syntax)?;
        bytes.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes());
    }
    Ok(&text[digits..])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_as_go_does() {
        let check = |text: &[u8], quoted: &str| assert_eq!(quote(text), quoted);
        check(b"plain", "\"plain\"");
        check(b"a\"b\\c'd", r#""a\"b\\c'd""#);
        check(
            b"\x00\x07\x08\t\n\x0b\x0c\r\x1f\x7f",
            r#""\x00\a\b\t\n\v\f\r\x1f\x7f""#,
        );
        check(b"\xff\xfe", r#""\xff\xfe""#);
        check("ü日本\u{301}😀".as_bytes(), "\"ü日本\u{301}😀\"");
        check(
            "\u{80}\u{ad}\u{2028}\u{e0001}".as_bytes(),
            r#""\u0080\u00ad\u2028\U000e0001""#,
        );
        assert_eq!(quote_list(&["sh".into(), "a b".into()]), r#"["sh" "a b"]"#);
    }

    #[test]
    fn reads_what_it_wrote() {
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..2000 {
            let bytes: Vec<u8> = (0..random.usize(0..12)).map(|_| random.u8(..)).collect();
            assert_eq!(unquote(&(quote(&bytes) + " rest")), Ok((bytes, " rest")));
        }
    }

    #[test]
    fn reads_escapes_and_refuses_the_rest() {
        let check = |text: &str, expected: Result<&[u8], UnquoteError>| {
            assert_eq!(
                unquote(text).map(|(bytes, _)| bytes),
                expected.map(<[u8]>::to_vec),
                "{text}"
            );
        };
        check(r#""\x41\101é\U0001F600""#, Ok("AA\u{e9}😀".as_bytes()));
        check(r"`a\n`", Ok(br"a\n"));
        check("x", Err(UnquoteError::NotQuoted));
        check("\"open", Err(UnquoteError::Unterminated));
        check(r#""\q""#, Err(UnquoteError::Syntax));
        check(r#""\400""#, Err(UnquoteError::Syntax));
        check(r#""\xé""#, Err(UnquoteError::Syntax));
        check(r#""\ud800""#, Err(UnquoteError::Syntax));
    }
}
