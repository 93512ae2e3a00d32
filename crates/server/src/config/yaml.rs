//! The syntax of the configuration file: YAML, and JSON with it. As in etcd, the types of scalars
//! are those of YAML 1.1.
//!
//! ```text
//! yes, On, TRUE, y → bool     1_000, 0x10, 017, 1e3 → number
//! ~, null, nothing → null     all else → text
//! ```
//!
//! Quoted scalars are always text. Only the first document is read. Aliases share the value of
//! their anchor, so that a small file cannot become a large tree; nesting is bounded.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput};

use super::literal::parse_integer;

/// A bound on nesting; the deepest key of a configuration is at 4.
const DEPTH_MAX: usize = 32;

/// A value in the file.
#[derive(Clone, Debug, PartialEq)]
pub enum Yaml {
    /// Leaves a setting as it is.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number, as JSON writes it.
    Number(String),
    /// A text.
    Text(String),
    /// A sequence.
    List(Vec<Rc<Yaml>>),
    /// A mapping; of duplicate keys the last one counts.
    Map(BTreeMap<String, Rc<Yaml>>),
}

impl Yaml {
    /// The type's name in Go's JSON errors.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Yaml::Null => "null",
            Yaml::Bool(_) => "bool",
            Yaml::Number(_) => "number",
            Yaml::Text(_) => "string",
            Yaml::List(_) => "array",
            Yaml::Map(_) => "object",
        }
    }

    /// Parses the text of a file.
    ///
    /// # Errors
    /// The text is not YAML; the message has the line.
    pub fn parse(text: &str) -> Result<Rc<Yaml>, String> {
        let mut reader = Reader {
            events: Parser::new_from_str(text),
            anchors: HashMap::new(),
        };
        loop {
            match reader.next()? {
                (Event::DocumentStart(_), _) => return reader.node(0),
                (Event::StreamEnd, _) => return Ok(Rc::new(Yaml::Null)),
                _ => {}
            }
        }
    }
}

struct Reader<'a> {
    events: Parser<'a, StrInput<'a>>,
    anchors: HashMap<usize, Rc<Yaml>>,
}

impl<'a> Reader<'a> {
    fn next(&mut self) -> Result<(Event<'a>, Span), String> {
        match self.events.next_event() {
            Some(Ok(event)) => Ok(event),
            Some(Err(error)) => Err(format!("line {}: {}", error.marker().line(), error.info())),
            None => Err("unexpected end of stream".into()),
        }
    }

    fn node(&mut self, depth: usize) -> Result<Rc<Yaml>, String> {
        let (event, span) = self.next()?;
        self.node_from(event, span, depth)
    }

    fn node_from(
        &mut self,
        event: Event<'a>,
        span: Span,
        depth: usize,
    ) -> Result<Rc<Yaml>, String> {
        if depth > DEPTH_MAX {
            return Err(format!("line {}: nested too deeply", span.start.line()));
        }
        let (node, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                let plain =
                    style == ScalarStyle::Plain && tag.is_none_or(|tag| tag.suffix != "str");
                (
                    if plain {
                        resolve(&text)
                    } else {
                        Yaml::Text(text.into_owned())
                    },
                    anchor,
                )
            }
            Event::SequenceStart(anchor, _) => (self.list(depth)?, anchor),
            Event::MappingStart(anchor, _) => (self.map(depth)?, anchor),
            Event::Alias(anchor) => {
                let known = self.anchors.get(&anchor).cloned();
                return known.ok_or_else(|| format!("line {}: unknown anchor", span.start.line()));
            }
            _ => (Yaml::Null, 0),
        };
        let node = Rc::new(node);
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        Ok(node)
    }

    fn list(&mut self, depth: usize) -> Result<Yaml, String> {
        let mut items = Vec::new();
        loop {
            match self.next()? {
                (Event::SequenceEnd, _) => return Ok(Yaml::List(items)),
                (event, span) => items.push(self.node_from(event, span, depth + 1)?),
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Yaml, String> {
        let mut map = BTreeMap::new();
        let mut merged: Vec<Rc<Yaml>> = Vec::new();
        loop {
            let (event, span) = match self.next()? {
                (Event::MappingEnd, _) => break,
                event => event,
            };
            let key = self.node_from(event, span, depth + 1)?;
            let value = self.node(depth + 1)?;
            match &*key {
                Yaml::Text(key) if key == "<<" => merged.push(value),
                Yaml::Text(key) | Yaml::Number(key) => drop(map.insert(key.clone(), value)),
                Yaml::Bool(key) => drop(map.insert(key.to_string(), value)),
                other => {
                    return Err(format!(
                        "line {}: unsupported map key of type {}",
                        span.start.line(),
                        other.kind()
                    ));
                }
            }
        }
        for node in merged {
            if let Yaml::Map(defaults) = &*node {
                for (key, value) in defaults {
                    map.entry(key.clone()).or_insert_with(|| Rc::clone(value));
                }
            }
        }
        Ok(Yaml::Map(map))
    }
}

/// The type of a plain scalar in YAML 1.1.
fn resolve(text: &str) -> Yaml {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Yaml::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Yaml::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Yaml::Bool(false);
        }
        _ => {}
    }
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return Yaml::Text(text.to_owned());
    }
    let plain = text.replace('_', "");
    if let Some(integer) = parse_integer(&plain)
        .ok()
        .filter(|n| (i128::from(i64::MIN)..=i128::from(u64::MAX)).contains(n))
    {
        return Yaml::Number(integer.to_string());
    }
    let float_chars = plain
        .bytes()
        .all(|b| b.is_ascii_digit() || matches!(b, b'+' | b'-' | b'.' | b'e' | b'E'));
    match plain.parse::<f64>() {
        Ok(float) if float_chars && float.is_finite() => Yaml::Number(json_float(float)),
        _ => Yaml::Text(text.to_owned()),
    }
}

/// A float as Go's JSON writes it.
fn json_float(float: f64) -> String {
    let size = float.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let text = format!("{float:e}");
        return if text.contains("e-") {
            text
        } else {
            text.replace('e', "e+")
        };
    }
    float.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn show(node: &Yaml) -> String {
        match node {
            Yaml::Null => "null".into(),
            Yaml::Bool(value) => value.to_string(),
            Yaml::Number(number) => number.clone(),
            Yaml::Text(text) => format!("{text:?}"),
            Yaml::List(items) => format!(
                "[{}]",
                items
                    .iter()
                    .map(|item| show(item))
                    .collect::<Vec<_>>()
                    .join(" ")
            ),
            Yaml::Map(map) => {
                let pairs: Vec<String> = map
                    .iter()
                    .map(|(key, value)| format!("{key}:{}", show(value)))
                    .collect();
                format!("{{{}}}", pairs.join(" "))
            }
        }
    }

    fn check(text: &str, expected: &str) {
        let got =
            Yaml::parse(text).map_or_else(|error| format!("error: {error}"), |node| show(&node));
        assert_eq!(got, expected, "for {text:?}");
    }

    #[test]
    fn scalars_have_the_types_of_yaml_1_1() {
        check(
            "[yes, Off, y, TRUE, ~, null, ]",
            "[true false true true null null]",
        );
        check(
            "[1, -1, 0x10, 017, 1_000, 1e3, 1.5, 1e23]",
            "[1 -1 16 15 1000 1000 1.5 1e+23]",
        );
        check(
            "[18446744073709551615, 18446744073709551616]",
            "[18446744073709551615 18446744073709552000]",
        );
        check(
            "['yes', \"5\", 10m, 127.0.0.1, http://a:1]",
            "[\"yes\" \"5\" \"10m\" \"127.0.0.1\" \"http://a:1\"]",
        );
    }

    #[test]
    fn structures_and_aliases() {
        check("", "null");
        check("# only a comment\n", "null");
        check("a: 1\nb:\n  c: x\na: 2\n", "{a:2 b:{c:\"x\"}}");
        check("{\"name\": \"m1\", \"5\": true}", "{5:true name:\"m1\"}");
        check(
            "a: &x {p: 1, q: 2}\nb: *x\nc: {<<: *x, q: 3}\n",
            "{a:{p:1 q:2} b:{p:1 q:2} c:{p:1 q:3}}",
        );
        check("a: 1\n---\na: 2\n", "{a:1}");
    }

    #[test]
    fn bad_files_are_errors() {
        for text in ["a: b: c", "name: \"x", "[a", "{a: 1", "*x", "? [a]\n: 1"] {
            let error = Yaml::parse(text).expect_err(text);
            assert!(!error.is_empty(), "for {text:?}");
        }
        check(&"[".repeat(40), "error: line 1: nested too deeply");
    }
}
