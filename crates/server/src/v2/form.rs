//! The parameters of a request, in its query and its body, as Go's `net/http` reads them.
//!
//! The body counts for `POST`, `PUT` and `PATCH` if it is a form, and before the query. A semicolon
//! separates like `&`: so did the Go of etcd 3.3. Anything that cannot be read spoils it all.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use hyper::body::Incoming;
use retcd_state::v2::{Code, Error};

use super::Context;
use super::parameters::refused;
use crate::net_http::body::{self, Unread};

/// Bytes of a form or document in a body; Go's limit for forms.
pub(super) const BODY_BYTES_MAX: usize = 10 << 20;
/// Go's text for a body that does not arrive whole.
pub(super) const BROKEN: &str = "unexpected EOF";

const FORM: &str = "application/x-www-form-urlencoded";

/// Parameters in their order. The first one of a name counts.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Form(Vec<(String, String)>);

impl Form {
    /// Those of a request.
    ///
    /// # Errors
    /// What is wrong with them.
    pub(super) async fn read(context: &mut Context<'_>) -> Result<Form, Error> {
        let mut form = Form::default();
        let mut result = Ok(());
        if matches!(context.method().as_str(), "POST" | "PUT" | "PATCH") {
            result = match body(context).await {
                Ok(body) => form.add(&body),
                Err(reason) => Err(reason),
            };
        }
        result
            .and_then(|()| form.add(context.query().as_bytes()))
            .map_err(|cause| refused(Code::InvalidForm, &cause))?;
        Ok(form)
    }

    /// The value of a parameter, if it was given.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        let found = pairs.find(|(other, _)| other == name);
        found.map(|(_, value)| value.as_str())
    }

    fn add(&mut self, encoded: &[u8]) -> Result<(), String> {
        for part in encoded.split(|byte| matches!(byte, b'&' | b';')) {
            if part.is_empty() {
                continue;
            }
            let equals = part.iter().position(|byte| *byte == b'=');
            let (name, value) = match equals {
                Some(at) => (&part[..at], &part[at + 1..]),
                None => (part, &[][..]),
            };
            self.0.push((unescape(name)?, unescape(value)?));
        }
        Ok(())
    }
}

/// The body, if it is a form; otherwise nothing.
async fn body(context: &mut Context<'_>) -> Result<Bytes, String> {
    let Some(content_type) = context.head.headers().get(CONTENT_TYPE) else {
        return Ok(Bytes::new());
    };
    let content_type = String::from_utf8_lossy(content_type.as_bytes());
    match media_type(&content_type)?.as_str() {
        FORM => {
            let body = read_all(context.body).await;
            body.map_err(|unread| {
                let text = match unread {
                    Unread::TooLarge => "http: POST too large",
                    Unread::Broken => BROKEN,
                };
                text.to_owned()
            })
        }
        _ => Ok(Bytes::new()),
    }
}

/// A body.
pub(super) async fn read_all(body: &mut Incoming) -> Result<Bytes, Unread> {
    body::read(body, BODY_BYTES_MAX).await
}

/// The type in a header `Content-Type`, in small letters.
fn media_type(header: &str) -> Result<String, String> {
    let (base, parameters) = header.split_once(';').unwrap_or((header, ""));
    let base = base.trim().to_ascii_lowercase();
    if base.is_empty() {
        return match header.trim().is_empty() {
            true => Ok(base),
            false => Err("mime: no media type".to_owned()),
        };
    }
    let (kind, rest) = base.split_at(token_length(&base));
    if kind.is_empty() {
        return Err("mime: no media type".to_owned());
    }
    if !rest.is_empty() {
        let Some(subtype) = rest.strip_prefix('/') else {
            return Err("mime: expected slash after first token".to_owned());
        };
        match token_length(subtype) {
            0 => return Err("mime: expected token after slash".to_owned()),
            length if length < subtype.len() => {
                return Err("mime: unexpected content after media subtype".to_owned());
            }
            _ => {}
        }
    }
    match are_parameters(parameters) {
        true => Ok(base),
        false => Err("mime: invalid media parameter".to_owned()),
    }
}

/// Whether it is a list of `name=value`, separated by semicolons; a value may be quoted.
fn are_parameters(text: &str) -> bool {
    let mut rest = text.trim();
    while !rest.is_empty() {
        let name = token_length(rest);
        let Some(value) = rest[name..].trim_start().strip_prefix('=') else {
            return false;
        };
        let value = value.trim_start();
        let length = match value.strip_prefix('"') {
            Some(quoted) => quoted_length(quoted).map(|length| length + 1),
            None => Some(token_length(value)),
        };
        let Some(length) = length.filter(|&length| length > 0 && name > 0) else {
            return false;
        };
        rest = value[length..].trim_start();
        if let Some(next) = rest.strip_prefix(';') {
            rest = next.trim_start();
        } else if !rest.is_empty() {
            return false;
        }
    }
    true
}

/// Bytes up to and with the closing quotation mark.
fn quoted_length(text: &str) -> Option<usize> {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'"' if !escaped => return Some(at + 1),
            b'\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    None
}

fn token_length(text: &str) -> usize {
    let is_part = |byte: u8| byte.is_ascii_graphic() && !b"()<>@,;:\\\"/[]?=".contains(&byte);
    text.bytes().take_while(|byte| is_part(*byte)).count()
}

/// Resolves `%XX` and `+`. Bytes that are not UTF-8 are replaced.
fn unescape(text: &[u8]) -> Result<String, String> {
    let is_plain = !text
        .iter()
        .fold(false, |any, byte| any | matches!(byte, b'%' | b'+'));
    let bytes = match is_plain {
        true => text.to_vec(),
        false => unescape_bytes(text)?,
    };
    Ok(match String::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => retcd_proto::wire::text_of(error.as_bytes()),
    })
}

fn unescape_bytes(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((&first, tail)) = rest.split_first() {
        match (first, tail) {
            (b'%', [high, low, after @ ..])
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or_default() as u8;
                bytes.push(digit(*high) << 4 | digit(*low));
                rest = after;
                continue;
            }
            (b'%', _) => {
                let escape = String::from_utf8_lossy(&rest[..rest.len().min(3)]);
                return Err(format!("invalid URL escape {escape:?}"));
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(byte),
        }
        rest = tail;
    }
    Ok(bytes)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// The form of a body before a query.
    pub(in super::super) fn form(body: &str, query: &str) -> Result<Form, String> {
        let mut form = Form::default();
        form.add(body.as_bytes())?;
        form.add(query.as_bytes())?;
        Ok(form)
    }

    #[test]
    fn the_first_value_counts() {
        let form = form("a=1&a=2&b=x%3d+y", "b=z&c&;d=4;&&").unwrap();
        assert_eq!(form.get("a"), Some("1"));
        assert_eq!(form.get("b"), Some("x= y"));
        assert_eq!(form.get("c"), Some(""));
        assert_eq!(form.get("d"), Some("4"));
        assert_eq!(form.get("e"), None);
    }

    #[test]
    fn broken_escapes_are_named() {
        for (text, escape) in [
            ("a=%zz1", "%zz"),
            ("a=1&%", "%"),
            ("a=%4", "%4"),
            ("a=%4;", "%4"),
        ] {
            let error = form("", text).unwrap_err();
            assert_eq!(error, format!("invalid URL escape {escape:?}"), "{text}");
        }
        assert_eq!(form("a=%ff%C3%A9", "").unwrap().get("a"), Some("\u{fffd}é"));
        let cut = form("a=%E2%82x", "").unwrap();
        assert_eq!(cut.get("a"), Some("\u{fffd}\u{fffd}x"));
    }

    #[test]
    fn types_of_bodies_are_read_as_go_reads_them() {
        for (header, expected) in [
            ("application/x-www-form-urlencoded", Ok(FORM)),
            (
                "APPLICATION/X-www-form-urlencoded ; charset=utf-8;",
                Ok(FORM),
            ),
            (
                "application/x-www-form-urlencoded; a=\"x;\\\"y\"; b=c",
                Ok(FORM),
            ),
            ("text", Ok("text")),
            ("", Ok("")),
            ("; charset=utf-8", Err("mime: no media type")),
            ("foo/", Err("mime: expected token after slash")),
            ("foo bar", Err("mime: expected slash after first token")),
            ("a/b c", Err("mime: unexpected content after media subtype")),
            ("a/b; c", Err("mime: invalid media parameter")),
            ("a/b; c=\"d", Err("mime: invalid media parameter")),
            ("a/b; =d", Err("mime: invalid media parameter")),
            ("a/b; c=d e", Err("mime: invalid media parameter")),
        ] {
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(media_type(header), expected, "{header:?}");
        }
    }
}
