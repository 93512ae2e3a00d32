//! Placeholders: `{{NAME}}`, `{{NAME:number:form}}`, and `{{BASE64(TEXT)}}` for a text that has some.
//!
//! An id placeholder is bound to the first number that it matches, in any form; measured values
//! match by their format.

use std::collections::HashMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The values of placeholders.
#[derive(Clone, Default)]
pub struct Bindings {
    texts: HashMap<String, String>,
    numbers: HashMap<String, u64>,
}

impl Bindings {
    /// Binds a placeholder to a text.
    pub fn set(&mut self, name: &str, text: String) {
        self.texts.insert(name.to_owned(), text);
    }

    /// Substitutes the bound placeholders in an argument or environment variable.
    pub fn fill(&self, template: &str) -> String {
        pieces(template)
            .map(|piece| match piece {
                Piece::Text(text) => text.to_owned(),
                Piece::Placeholder(name) => self
                    .texts
                    .get(name)
                    .cloned()
                    .or_else(|| self.number(name))
                    .unwrap_or_else(|| format!("{{{{{name}}}}}")),
                Piece::Base64(template) => BASE64_STANDARD.encode(self.fill(template)),
            })
            .collect()
    }

    fn number(&self, name: &str) -> Option<String> {
        let (name, form) = split_form(name);
        self.numbers.get(&name).map(|number| form.format(*number))
    }

    /// Whether `actual` matches `template`; binds placeholders at their first occurrence.
    pub fn matches(&mut self, template: &str, actual: &str) -> bool {
        let mut rest = actual;
        for piece in pieces(template) {
            let tail = match piece {
                Piece::Text(text) => rest.strip_prefix(text),
                Piece::Placeholder(name) => self.match_placeholder(name, rest),
                Piece::Base64(template) => self.match_base64(template, rest),
            };
            match tail {
                Some(tail) => rest = tail,
                None => return false,
            }
        }
        rest.is_empty()
    }

    fn match_placeholder<'a>(&mut self, name: &str, actual: &'a str) -> Option<&'a str> {
        if let Some(text) = self.texts.get(name) {
            return actual.strip_prefix(text.as_str());
        }
        let (key, form) = split_form(name);
        let shape: fn(char) -> bool = match name.split(':').next().unwrap_or_default() {
            "CLUSTER_ID" | "MEMBER_ID" | "NEW_MEMBER_ID" | "LEASE" => {
                return self.match_id(key, form, actual);
            }
            "TIME" => |c| c.is_ascii_digit() || ".hmsnµ".contains(c),
            "DATE" => |c| c.is_ascii_digit() || "-:.TZ".contains(c),
            "DBSIZE" => |c| c.is_ascii_digit() || ". kMGB".contains(c),
            "PERCENT" => |c| c.is_ascii_digit() || "%-".contains(c),
            "SHA256" => |c| c.is_ascii_digit() || c == ' ',
            "HASH" => |c| c.is_ascii_hexdigit(),
            "PTR" => |c| c.is_ascii_hexdigit() || c == 'x',
            _ => |c| c.is_ascii_digit(),
        };
        let end = actual.len() - actual.trim_start_matches(shape).len();
        // A period after a number ends the sentence.
        let end = actual[..end].trim_end_matches(['.', ' ']).len();
        (end > 0).then_some(&actual[end..])
    }

    fn match_base64<'a>(&mut self, template: &str, actual: &'a str) -> Option<&'a str> {
        let is_base64 = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
        let tail = actual.trim_start_matches(is_base64);
        let decoded = BASE64_STANDARD.decode(&actual[..actual.len() - tail.len()]);
        let text = String::from_utf8(decoded.ok()?).ok()?;
        self.matches(template, &text).then_some(tail)
    }

    /// Ids may be padded with spaces on the left.
    fn match_id<'a>(&mut self, key: String, form: Form, actual: &'a str) -> Option<&'a str> {
        let actual = actual.trim_start_matches(' ');
        let digits = actual
            .find(|c: char| !form.allows(c))
            .unwrap_or(actual.len());
        let number = form.parse(&actual[..digits])?;
        let bound = *self.numbers.entry(key).or_insert(number);
        (bound == number).then_some(&actual[digits..])
    }
}

#[derive(Clone, Copy)]
enum Form {
    Decimal,
    Hex,
    Hex16,
}

impl Form {
    fn format(self, number: u64) -> String {
        match self {
            Form::Decimal => number.to_string(),
            Form::Hex => format!("{number:x}"),
            Form::Hex16 => format!("{number:016x}"),
        }
    }

    fn allows(self, c: char) -> bool {
        match self {
            Form::Decimal => c.is_ascii_digit(),
            Form::Hex | Form::Hex16 => c.is_ascii_digit() || ('a'..='f').contains(&c),
        }
    }

    fn parse(self, digits: &str) -> Option<u64> {
        match self {
            Form::Decimal => digits.parse().ok(),
            Form::Hex => u64::from_str_radix(digits, 16).ok(),
            Form::Hex16 => u64::from_str_radix(digits, 16)
                .ok()
                .filter(|_| digits.len() == 16),
        }
    }
}

/// `LEASE:2:hex16` is `LEASE:2` in the form `hex16`.
fn split_form(name: &str) -> (String, Form) {
    let (key, form) = name.rsplit_once(':').unwrap_or((name, ""));
    match form {
        "dec" => (key.to_owned(), Form::Decimal),
        "hex" => (key.to_owned(), Form::Hex),
        "hex16" => (key.to_owned(), Form::Hex16),
        _ => (name.to_owned(), Form::Decimal),
    }
}

enum Piece<'t> {
    Text(&'t str),
    Placeholder(&'t str),
    /// The template of the text.
    Base64(&'t str),
}

fn pieces(template: &str) -> impl Iterator<Item = Piece<'_>> {
    let mut rest = template;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        if let Some(inner) = rest.strip_prefix("{{BASE64(")
            && let Some((template, tail)) = inner.split_once(")}}")
        {
            rest = tail;
            return Some(Piece::Base64(template));
        }
        if let Some(inner) = rest.strip_prefix("{{")
            && let Some(end) = inner.find("}}")
            && inner[..end]
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || "_:".contains(c))
        {
            rest = &inner[end + 2..];
            return Some(Piece::Placeholder(&inner[..end]));
        }
        // The first two bytes may be braces that do not start a placeholder.
        let skip = if rest.starts_with("{{") { 2 } else { 0 };
        let end = rest[skip..].find("{{").map_or(rest.len(), |end| end + skip);
        let (text, tail) = rest.split_at(end);
        rest = tail;
        Some(Piece::Text(text))
    })
}
