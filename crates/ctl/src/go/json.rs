//! JSON as Go's `encoding/json` encodes structs: fields in declaration order, `omitempty`,
//! HTML-safe escapes, bytes in base64.
//!
//! This is a writer rather than `serde`, because one message has several forms (ids in hexadecimal,
//! flattened headers, capitalized names), and each is easiest to read as a list of fields.

use std::fmt::{Display, Write};

/// Writes one JSON object; [`object`] adds the braces.
pub(crate) struct Object<'o> {
    out: &'o mut String,
    empty: bool,
}

/// Appends an object with the fields written by `fields`.
pub(crate) fn object(out: &mut String, fields: impl FnOnce(&mut Object<'_>)) {
    out.push('{');
    fields(&mut Object { out, empty: true });
    out.push('}');
}

/// Appends an array with one element per item.
pub(crate) fn array<T>(
    out: &mut String,
    items: impl IntoIterator<Item = T>,
    element: impl Fn(&mut String, T),
) {
    out.push('[');
    for (index, item) in items.into_iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        element(out, item);
    }
    out.push(']');
}

/// Appends a string.
pub(crate) fn string(out: &mut String, text: &str) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\x08' => out.push_str("\\b"),
            '\x0c' => out.push_str("\\f"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\0'..' ' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => {
                write!(out, "\\u{:04x}", u32::from(c)).expect("writing to a String cannot fail");
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

/// Appends bytes as a string in padded standard base64.
pub(crate) fn bytes(out: &mut String, bytes: &[u8]) {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    out.push('"');
    for chunk in bytes.chunks(3) {
        let group = chunk
            .iter()
            .fold(0u32, |group, byte| group << 8 | u32::from(*byte))
            << (8 * (3 - chunk.len()));
        for position in 0..4 {
            let sextet = (group >> (18 - 6 * position)) & 63;
            out.push(if position <= chunk.len() {
                char::from(ALPHABET[sextet as usize])
            } else {
                '='
            });
        }
    }
    out.push('"');
}

impl Object<'_> {
    /// Writes a field name and returns the output, for the caller to write the value.
    pub(crate) fn field(&mut self, name: &str) -> &mut String {
        if !self.empty {
            self.out.push(',');
        }
        self.empty = false;
        string(self.out, name);
        self.out.push(':');
        self.out
    }

    /// Writes a number or boolean, even if it is zero.
    pub(crate) fn value(&mut self, name: &str, value: impl Display) {
        write!(self.field(name), "{value}").expect("writing to a String cannot fail");
    }

    /// Writes a number or boolean unless it is zero or false.
    pub(crate) fn value_opt<T: Display + Default + PartialEq>(&mut self, name: &str, value: T) {
        if value != T::default() {
            self.value(name, value);
        }
    }

    /// Writes a string, even if it is empty.
    pub(crate) fn string(&mut self, name: &str, value: &str) {
        string(self.field(name), value);
    }

    /// Writes a string unless it is empty.
    pub(crate) fn string_opt(&mut self, name: &str, value: &str) {
        if !value.is_empty() {
            self.string(name, value);
        }
    }

    /// Writes bytes unless they are empty.
    pub(crate) fn bytes_opt(&mut self, name: &str, value: &[u8]) {
        if !value.is_empty() {
            bytes(self.field(name), value);
        }
    }

    /// Writes an array unless it is empty.
    pub(crate) fn array_opt<T>(
        &mut self,
        name: &str,
        items: &[T],
        element: impl Fn(&mut String, &T),
    ) {
        if !items.is_empty() {
            array(self.field(name), items, element);
        }
    }

    /// Writes a message if it is present.
    pub(crate) fn object_opt<T>(
        &mut self,
        name: &str,
        message: Option<&T>,
        fields: impl Fn(&mut Object<'_>, &T),
    ) {
        if let Some(message) = message {
            object(self.field(name), |o| fields(o, message));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_as_go_does() {
        let mut out = String::new();
        string(&mut out, "a\"\\\u{1}\n<>&\u{2028}ü");
        assert_eq!(out, r#""a\"\\\u0001\n\u003c\u003e\u0026\u2028ü""#);
    }

    #[test]
    fn encodes_base64_with_padding() {
        let check = |text: &[u8], encoded: &str| {
            let mut out = String::new();
            bytes(&mut out, text);
            assert_eq!(out, format!("\"{encoded}\""));
        };
        check(b"", "");
        check(b"a", "YQ==");
        check(b"ab", "YWI=");
        check(b"abc", "YWJj");
        check(b"\xff\xfe\xfd\xfc", "//79/A==");
    }

    #[test]
    fn leaves_out_what_is_empty() {
        let mut out = String::new();
        object(&mut out, |o| {
            o.value_opt("zero", 0);
            o.value("kept", 0);
            o.string_opt("none", "");
            o.bytes_opt("no bytes", b"");
            o.array_opt("list", &[1, 2], |out, item| *out += &item.to_string());
            o.object_opt("absent", None::<&i32>, |_, _| ());
            o.object_opt("message", Some(&3), |o, n| o.value("n", n));
        });
        assert_eq!(out, r#"{"kept":0,"list":[1,2],"message":{"n":3}}"#);
    }
}
