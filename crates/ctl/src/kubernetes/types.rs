//! The types of Kubernetes' stored objects: field numbers, JSON names and types.
//!
//! `types.txt` holds them, a line per message below the version of the API that defines it:
//!
//! ```text
//! [apps/v1]
//! Deployment: 1=metadata:meta.k8s.io/v1#ObjectMeta~ 2=spec:DeploymentSpec~ …
//!             │ │        │                        └ left out of the JSON if it is zero
//!             │ │        └ a type of the same version, or of another one before `#`
//!             │ └ the name in JSON
//!             └ the field number
//! ```
//!
//! Before a type, `?` says that it may be absent, `[]` is a list, `{}` a map from strings. `^` marks
//! a message whose fields stand among those of the message around it. Kinds were removed from
//! Kubernetes over time, but are still in databases: the table has those of 1.20 and of 1.35.
//! `conformance/kubernetes` makes it, and says how.

use std::collections::HashMap;
use std::sync::LazyLock;

/// The table, read when it is first used.
pub(super) static TYPES: LazyLock<Types> = LazyLock::new(|| {
    Types::parse(include_str!("types.txt")).expect("a test reads the whole table")
});

/// The version that defines the types of metadata.
pub(super) const META: &str = "meta.k8s.io/v1";

/// All messages.
pub(super) struct Types {
    messages: Vec<Message>,
    index: HashMap<(&'static str, &'static str), usize>,
}

/// A message: its fields, by number.
#[derive(Debug, Default)]
pub(super) struct Message {
    pub(super) fields: Vec<Field>,
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    pub(super) number: u32,
    /// Its name in JSON; empty if it is inline.
    pub(super) name: &'static str,
    pub(super) shape: Shape,
    pub(super) kind: Kind,
    /// Whether it is left out of the JSON if it is zero or empty.
    pub(super) omit_empty: bool,
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// One.
    One,
    /// One or none.
    Optional,
    /// One message, whose fields stand among those of the message around it.
    Inline,
    /// Any number.
    List,
    /// Any number, each with a key.
    Map,
}

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Bool,
    Int,
    Uint,
    Double,
    Float,
    String,
    Bytes,
    /// Seconds and nanoseconds since 1970, shown to the second.
    Time,
    /// As [`Kind::Time`], shown to the microsecond.
    MicroTime,
    /// Nanoseconds, shown as Go shows durations.
    Duration,
    /// A text in a message.
    Quantity,
    /// A number or a text.
    IntOrString,
    /// A message that holds only a list of texts, and is shown as this list.
    Items,
    /// A message that holds JSON, or an object of its own.
    Raw,
    /// The message with this index.
    Message(usize),
}

impl Types {
    fn parse(text: &'static str) -> Option<Types> {
        let mut lines = Vec::new();
        let mut version = "";
        for line in text.lines().filter(|line| !line.is_empty()) {
            match line
                .strip_prefix('[')
                .and_then(|line| line.strip_suffix(']'))
            {
                Some(name) => version = name,
                None => lines.push((version, line.split_once(':')?)),
            }
        }
        let names = lines.iter().enumerate();
        let index = names
            .map(|(position, (version, (name, _)))| ((*version, *name), position))
            .collect();
        let mut types = Types {
            messages: Vec::new(),
            index,
        };
        for (version, (_, fields)) in lines {
            let fields = fields.split_whitespace();
            let fields: Option<Vec<Field>> =
                fields.map(|field| types.field(version, field)).collect();
            types.messages.push(Message { fields: fields? });
        }
        Some(types)
    }

    fn field(&self, version: &'static str, text: &'static str) -> Option<Field> {
        let (number, text) = text.split_once('=')?;
        let (name, text) = text.split_once(':')?;
        let kind = text.trim_end_matches(['~', '^']);
        let modifiers = &text[kind.len()..];
        let shapes = [
            ("?", Shape::Optional),
            ("[]", Shape::List),
            ("{}", Shape::Map),
        ];
        let shape = shapes.iter().find(|(prefix, _)| kind.starts_with(prefix));
        let (kind, shape) = match shape {
            Some((prefix, shape)) => (&kind[prefix.len()..], *shape),
            None if modifiers.contains('^') => (kind, Shape::Inline),
            None => (kind, Shape::One),
        };
        Some(Field {
            number: number.parse().ok()?,
            name,
            shape,
            kind: self.kind(version, kind)?,
            omit_empty: modifiers.contains('~'),
        })
    }

    fn kind(&self, version: &'static str, text: &'static str) -> Option<Kind> {
        Some(match text {
            "bool" => Kind::Bool,
            "int" => Kind::Int,
            "uint" => Kind::Uint,
            "double" => Kind::Double,
            "float" => Kind::Float,
            "string" => Kind::String,
            "bytes" => Kind::Bytes,
            "time" => Kind::Time,
            "microtime" => Kind::MicroTime,
            "duration" => Kind::Duration,
            "quantity" => Kind::Quantity,
            "intorstring" => Kind::IntOrString,
            "items" => Kind::Items,
            "raw" => Kind::Raw,
            name => {
                let name = name.split_once('#').unwrap_or((version, name));
                Kind::Message(*self.index.get(&name)?)
            }
        })
    }

    /// The message with an index.
    pub(super) fn message(&self, index: usize) -> &Message {
        &self.messages[index]
    }

    /// The index of a kind of objects.
    pub(super) fn find(&self, api_version: &str, kind: &str) -> Option<usize> {
        self.index.get(&(api_version, kind)).copied()
    }
}

impl Message {
    /// The field with a number.
    pub(super) fn field(&self, number: u32) -> Option<&Field> {
        let position = self
            .fields
            .binary_search_by_key(&number, |field| field.number);
        position.ok().map(|position| &self.fields[position])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_complete() {
        assert!(TYPES.find("v1", "Pod").is_some());
        assert!(TYPES.find("policy/v1beta1", "PodSecurityPolicy").is_some());
        assert!(TYPES.find("resource.k8s.io/v1", "ResourceSlice").is_some());
        assert_eq!(TYPES.find("v1", "Nothing"), None);
        for message in &TYPES.messages {
            let numbers: Vec<u32> = message.fields.iter().map(|field| field.number).collect();
            assert!(numbers.is_sorted_by(|a, b| a < b), "{message:?}");
            for field in &message.fields {
                let is_inline = field.shape == Shape::Inline;
                assert_eq!(field.name.is_empty(), is_inline, "{field:?}");
            }
        }
    }

    #[test]
    fn reads_the_notation() {
        let types = Types::parse("[a/v1]\nA: 1=m:b/v1#B~ 2=:B^ 3=l:[]?\n").is_none();
        assert!(types, "there is no type `?`");
        let types =
            Types::parse("[a/v1]\nA: 1=m:b/v1#B~ 2=:A^ 7=l:[]int 9=o:?bool~\n\n[b/v1]\nB:\n")
                .expect("valid");
        let message = types.message(types.find("a/v1", "A").expect("it is there"));
        let shown: Vec<_> = message
            .fields
            .iter()
            .map(|field| {
                (
                    field.number,
                    field.name,
                    field.shape,
                    field.kind,
                    field.omit_empty,
                )
            })
            .collect();
        let expected = [
            (1, "m", Shape::One, Kind::Message(1), true),
            (2, "", Shape::Inline, Kind::Message(0), false),
            (7, "l", Shape::List, Kind::Int, false),
            (9, "o", Shape::Optional, Kind::Bool, true),
        ];
        assert_eq!(shown, expected);
        assert!(message.field(3).is_none() && message.field(7).is_some());
    }
}
