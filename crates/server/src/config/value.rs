//! Values of flags: what a text on the command line, a default, or a node of the configuration file means for each
//! type, in Go's grammar and Go's words.

use std::collections::BTreeSet;

use super::gates::FeatureGates;
use super::literal::{NumberError, parse_bool, parse_duration, parse_integer};
use super::url::Url;
use super::yaml::Node;
use crate::log::GoDuration;

/// A field of the configuration that a flag can set.
pub trait FlagValue {
    /// Takes a value from the command line or the environment.
    ///
    /// # Errors
    /// What is wrong with the text, in Go's words.
    fn set(&mut self, text: &str) -> Result<(), String>;

    /// Takes a value from the configuration file.
    ///
    /// # Errors
    /// When the node is of another type, or its text is wrong.
    fn set_node(&mut self, node: &Node) -> Result<(), NodeError>;

    /// The value as it would be given on the command line.
    fn text(&self) -> String;

    /// Whether the flag can stand without a value.
    fn is_switch(&self) -> bool {
        false
    }

    /// The value as it would be given in the configuration file.
    fn yaml(&self) -> String {
        quoted(&self.text())
    }

    /// Whether it is a number or a span of time below zero.
    fn is_negative(&self) -> bool {
        false
    }
}

/// Why a node of the file cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NodeError {
    /// The node is of another type than the Go field; both are named as Go does.
    Mismatch {
        /// `string`, `number -1`, …
        found: String,
        /// `uint`, `[]string`, …
        wanted: &'static str,
    },
    /// The node's text has no such value.
    Invalid(String),
}

impl NodeError {
    fn mismatch(node: &Node, wanted: &'static str) -> NodeError {
        NodeError::Mismatch {
            found: node.kind().to_owned(),
            wanted,
        }
    }
}

fn text_of(node: &Node) -> Result<&str, NodeError> {
    match node {
        Node::Text(text) => Ok(text),
        other => Err(NodeError::mismatch(other, "string")),
    }
}

fn texts_of(node: &Node) -> Result<Vec<String>, NodeError> {
    match node {
        Node::List(items) => items
            .iter()
            .map(|item| text_of(item).map(str::to_owned))
            .collect(),
        other => Err(NodeError::mismatch(other, "[]string")),
    }
}

fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

impl FlagValue for String {
    fn set(&mut self, text: &str) -> Result<(), String> {
        text.clone_into(self);
        Ok(())
    }

    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        text_of(node)?.clone_into(self);
        Ok(())
    }

    fn text(&self) -> String {
        self.clone()
    }
}

impl FlagValue for bool {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = parse_bool(text).ok_or("parse error")?;
        Ok(())
    }

    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        match node {
            Node::Bool(value) => *self = *value,
            other => return Err(NodeError::mismatch(other, "bool")),
        }
        Ok(())
    }

    fn text(&self) -> String {
        self.to_string()
    }

    fn yaml(&self) -> String {
        self.text()
    }

    fn is_switch(&self) -> bool {
        true
    }
}

/// Go has two sizes of integer of each sign, which differ in error texts of the file only. Rust's types stand for
/// them: `usize` for `uint`, `isize` for `int`.
macro_rules! integer_value {
    ($type:ty, $go_name:literal, $words:expr) => {
        impl FlagValue for $type {
            fn set(&mut self, text: &str) -> Result<(), String> {
                let words: fn(&str, NumberError) -> String = $words;
                let number = parse_integer(text).map_err(|error| words(text, error))?;
                let signed_text = text.starts_with(['-', '+']) && <$type>::MIN == 0;
                if signed_text {
                    return Err(words(text, NumberError::Syntax));
                }
                *self = <$type>::try_from(number).map_err(|_| words(text, NumberError::Range))?;
                Ok(())
            }

            fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
                let Node::Number(number) = node else {
                    return Err(NodeError::mismatch(node, $go_name));
                };
                *self = number.parse().map_err(|_| NodeError::Mismatch {
                    found: format!("number {number}"),
                    wanted: $go_name,
                })?;
                Ok(())
            }

            fn text(&self) -> String {
                self.to_string()
            }

            fn yaml(&self) -> String {
                self.text()
            }

            fn is_negative(&self) -> bool {
                i128::try_from(*self).is_ok_and(|number| number < 0)
            }
        }
    };
}

fn flag_words(_: &str, error: NumberError) -> String {
    match error {
        NumberError::Syntax => "parse error".into(),
        NumberError::Range => "value out of range".into(),
    }
}

fn parse_uint_words(text: &str, error: NumberError) -> String {
    let reason = match error {
        NumberError::Syntax => "invalid syntax",
        NumberError::Range => "value out of range",
    };
    format!("strconv.ParseUint: parsing {text:?}: {reason}")
}

integer_value!(usize, "uint", flag_words);
integer_value!(u64, "uint64", flag_words);
integer_value!(isize, "int", flag_words);
integer_value!(i64, "int64", flag_words);
integer_value!(u32, "uint32", parse_uint_words);

impl FlagValue for GoDuration {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = parse_duration(text).map_err(|_| "parse error")?;
        Ok(())
    }

    /// The file has whole nanoseconds.
    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        self.0.set_node(node).map_err(|error| match error {
            NodeError::Mismatch { found, .. } => NodeError::Mismatch {
                found,
                wanted: "time.Duration",
            },
            other => other,
        })
    }

    fn text(&self) -> String {
        self.to_string()
    }

    fn yaml(&self) -> String {
        self.0.to_string()
    }

    fn is_negative(&self) -> bool {
        self.0 < 0
    }
}

impl FlagValue for Vec<Url> {
    /// An empty text leaves the value as it is, as in etcd.
    fn set(&mut self, text: &str) -> Result<(), String> {
        if !text.is_empty() {
            *self = Url::parse_list(text).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        self.set(text_of(node)?).map_err(NodeError::Invalid)
    }

    fn text(&self) -> String {
        self.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
    }
}

/// A comma separated list in the order given; a list in the file.
impl FlagValue for Vec<String> {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = text.split(',').map(str::to_owned).collect();
        Ok(())
    }

    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        *self = texts_of(node)?;
        Ok(())
    }

    fn text(&self) -> String {
        self.join(",")
    }

    fn yaml(&self) -> String {
        format!(
            "[{}]",
            self.iter()
                .map(|item| quoted(item))
                .collect::<Vec<_>>()
                .join(", ")
        )
    }
}

/// A comma separated set; a list in the file.
impl FlagValue for BTreeSet<String> {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = text.split(',').map(str::to_owned).collect();
        Ok(())
    }

    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        *self = texts_of(node)?.into_iter().collect();
        Ok(())
    }

    fn text(&self) -> String {
        self.iter()
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(",")
    }

    fn yaml(&self) -> String {
        format!(
            "[{}]",
            self.iter()
                .map(|item| quoted(item))
                .collect::<Vec<_>>()
                .join(", ")
        )
    }
}

/// The values of the `Host` header that plain HTTP requests may have; `*` allows any. One text, also in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(pub BTreeSet<String>);

impl FlagValue for HostNames {
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.0.set(text)
    }

    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        match text_of(node)? {
            "" => Ok(()),
            text => self.set(text).map_err(NodeError::Invalid),
        }
    }

    fn text(&self) -> String {
        self.0.text()
    }
}

/// The origins that browsers may call from, `scheme://host:port` each; `*` allows any. One text, also in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(pub BTreeSet<String>);

impl FlagValue for Origins {
    fn set(&mut self, text: &str) -> Result<(), String> {
        if text == "*" {
            // etcd keeps the origins of an earlier occurrence beside `*`.
            self.0.insert("*".into());
            return Ok(());
        }
        let urls = Url::parse_list(text).map_err(|error| error.to_string())?;
        self.0 = urls.iter().map(Url::to_string).collect();
        Ok(())
    }

    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        match text_of(node)? {
            "" => Ok(()),
            text => self.set(text).map_err(NodeError::Invalid),
        }
    }

    fn text(&self) -> String {
        self.0.text()
    }
}

impl FlagValue for FeatureGates {
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.apply(text)
    }

    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        self.apply(text_of(node)?).map_err(NodeError::Invalid)
    }

    fn text(&self) -> String {
        FeatureGates::text(self)
    }
}

/// A text of a fixed choice on the command line. In the file any text passes here and is judged later or never, as
/// in etcd.
macro_rules! choice {
    ($(#[$doc:meta])* $name:ident, [$($choice:literal),+]) => {
        $(#[$doc])*
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct $name(pub String);

        impl FlagValue for $name {
            fn set(&mut self, text: &str) -> Result<(), String> {
                if ![$($choice),+].contains(&text) {
                    return Err("invalid value".into());
                }
                self.0.set(text)
            }

            fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
                self.0.set_node(node)
            }

            fn text(&self) -> String {
                self.0.clone()
            }
        }
    };
}

choice!(
    /// `new` or `existing`.
    ClusterState, ["new", "existing"]
);
choice!(
    /// What to do when discovery fails: `exit` only; `proxy` is known and refused later.
    Fallback, ["exit", "proxy"]
);
/// A phase of the end of the v2 store, or several. etcd 3.7 reads and ignores it; in the file any text passes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct V2Deprecation(pub String);

impl FlagValue for V2Deprecation {
    fn set(&mut self, text: &str) -> Result<(), String> {
        const PHASES: [&str; 4] = [
            "write-only",
            "write-only-skip-check",
            "write-only-drop-data",
            "gone",
        ];
        match text.split(',').find(|phase| !PHASES.contains(phase)) {
            Some(unknown) => Err(format!("invalid value {unknown:?}")),
            None => self.0.set(text),
        }
    }

    fn set_node(&mut self, node: &Node) -> Result<(), NodeError> {
        self.0.set_node(node)
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}
