//! JSON in the bodies of requests, as Go reads it into a struct: names of fields in any case,
//! and `null` is nothing.

use serde::Serialize;
use serde_json::{Map, Value};

/// An object, or `null`.
pub(super) struct Document(Map<String, Value>);

impl Document {
    /// A whole text.
    ///
    /// # Errors
    /// Why it is none, in Go's words where these say more than that.
    pub(super) fn parse(text: &[u8]) -> Result<Document, String> {
        match serde_json::from_slice(text) {
            Ok(value) => Document::of(value)
                .map_err(|found| format!("json: cannot unmarshal {found} into Go value")),
            Err(error) if error.is_eof() => Err("unexpected end of JSON input".to_owned()),
            Err(_) => Err(match text.trim_ascii_start() {
                [first, ..] if !b"{[\"-0123456789tfn".contains(first) => format!(
                    "invalid character {:?} looking for beginning of value",
                    char::from(*first)
                ),
                _ => "invalid JSON".to_owned(),
            }),
        }
    }

    /// The first value of a text; what follows does not matter.
    pub(super) fn first(text: &[u8]) -> Option<Document> {
        let mut values = serde_json::Deserializer::from_slice(text).into_iter();
        Document::of(values.next()?.ok()?).ok()
    }

    fn of(value: Value) -> Result<Document, &'static str> {
        match value {
            Value::Null => Ok(Document(Map::new())),
            Value::Object(fields) => Ok(Document(fields)),
            other => Err(kind(&other)),
        }
    }

    fn get(&self, name: &str) -> &Value {
        let mut fields = self.0.iter().rev();
        let found = fields.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map_or(&Value::Null, |(_, value)| value)
    }

    /// A text; empty if there is none.
    ///
    /// # Errors
    /// What there is instead.
    pub(super) fn string(&self, name: &str) -> Result<String, &'static str> {
        match self.get(name) {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text.clone()),
            other => Err(kind(other)),
        }
    }

    /// A list of texts.
    ///
    /// # Errors
    /// What there is instead, of the list or in it.
    pub(super) fn strings(&self, name: &str) -> Result<Option<Vec<String>>, &'static str> {
        let list = match self.get(name) {
            Value::Null => return Ok(None),
            Value::Array(list) => list,
            other => return Err(kind(other)),
        };
        let texts = list.iter().map(|value| match value {
            Value::Null => Ok(String::new()),
            Value::String(text) => Ok(text.clone()),
            other => Err(kind(other)),
        });
        texts.collect::<Result<_, _>>().map(Some)
    }

    /// An object in it; an empty one if there is none.
    ///
    /// # Errors
    /// What there is instead.
    pub(super) fn document(&self, name: &str) -> Result<Document, &'static str> {
        Document::of(self.get(name).clone())
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// JSON of plain structs, escaped as Go escapes it.
pub(super) fn to_json(value: &impl Serialize) -> String {
    let text = crate::net_http::reply::to_json(value);
    // These characters occur within strings only.
    text.replace('<', "\\u003c")
        .replace('>', "\\u003e")
        .replace('&', "\\u0026")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_as_go_finds_them() {
        let text = br#"{"USER":"u","roles":["a",null],"n":5,"o":{"x":"y"},"z":null}"#;
        let document = Document::parse(text).unwrap();
        assert_eq!(document.string("user"), Ok("u".into()));
        assert_eq!(document.string("none"), Ok(String::new()));
        assert_eq!(document.string("n"), Err("number"));
        let roles = Some(vec!["a".to_owned(), String::new()]);
        assert_eq!(document.strings("roles"), Ok(roles));
        assert_eq!(document.strings("z"), Ok(None));
        assert_eq!(document.strings("o"), Err("object"));
        let inner = document.document("O").unwrap();
        assert_eq!(inner.string("x"), Ok("y".into()));
        assert!(document.document("n").is_err());
    }

    #[test]
    fn what_is_no_document_is_said_so() {
        let error = |text: &str| Document::parse(text.as_bytes()).err();
        for (text, expected) in [
            ("", "unexpected end of JSON input"),
            ("{\"a\":[", "unexpected end of JSON input"),
            (
                " xx",
                "invalid character 'x' looking for beginning of value",
            ),
            ("{\"a\" 1}", "invalid JSON"),
            ("5", "json: cannot unmarshal number into Go value"),
        ] {
            assert_eq!(error(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(error("null"), None);
    }

    #[test]
    fn the_first_value_is_enough() {
        let first = |text: &str| Document::first(text.as_bytes());
        let document = first("{\"a\":\"b\"} and more").unwrap();
        assert_eq!(document.string("a"), Ok("b".into()));
        assert!(first("xx").is_none() && first("").is_none() && first("[]").is_none());
    }

    #[test]
    fn text_is_escaped() {
        assert_eq!(to_json(&"<a&b>"), "\"\\u003ca\\u0026b\\u003e\"");
    }
}
