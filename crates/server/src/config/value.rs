//! The types of flags: how each parses a text (from the command line, the environment or the
//! table's defaults) and a value of the configuration file, by Go's syntax and with Go's error
//! messages.

use std::collections::BTreeSet;

use super::gates::FeatureGates;
use super::literal::{NumberError, parse_bool, parse_integer};
use super::url::Url;
use super::yaml::Yaml;
use crate::log::GoDuration;

/// A field of the configuration that a flag can set.
pub trait FlagValue {
    /// Sets it to a text from the command line or the environment.
    ///
    /// # Errors
    /// The text is not valid; the message is Go's.
    fn set(&mut self, text: &str) -> Result<(), String>;

    /// Sets it to a value from the configuration file.
    ///
    /// # Errors
    /// The value has another type or is not valid.
    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError>;

    /// As on the command line.
    fn text(&self) -> String;

    /// Whether the flag may be given without a value.
    fn is_bool_flag(&self) -> bool {
        false
    }

    /// As in the configuration file.
    fn yaml(&self) -> String {
        quoted(&self.text())
    }

    /// Whether it is a negative number or duration.
    fn is_negative(&self) -> bool {
        false
    }
}

/// Why a value from the configuration file is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// It has another type than Go's field; both by their names in Go.
    Mismatch {
        /// `string`, `number -1`, …
        found: String,
        /// `uint`, `[]string`, …
        wanted: &'static str,
    },
    /// It is a text that is not valid.
    Invalid(String),
}

impl ValueError {
    fn mismatch(node: &Yaml, wanted: &'static str) -> ValueError {
        ValueError::Mismatch {
            found: node.kind().to_owned(),
            wanted,
        }
    }
}

fn text_of(node: &Yaml) -> Result<&str, ValueError> {
    match node {
        Yaml::Text(text) => Ok(text),
        other => Err(ValueError::mismatch(other, "string")),
    }
}

fn texts_of(node: &Yaml) -> Result<Vec<String>, ValueError> {
    match node {
        Yaml::List(items) => items
            .iter()
            .map(|item| text_of(item).map(str::to_owned))
            .collect(),
        other => Err(ValueError::mismatch(other, "[]string")),
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

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
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

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
        match node {
            Yaml::Bool(value) => *self = *value,
            other => return Err(ValueError::mismatch(other, "bool")),
        }
        Ok(())
    }

    fn text(&self) -> String {
        self.to_string()
    }

    fn yaml(&self) -> String {
        self.text()
    }

    fn is_bool_flag(&self) -> bool {
        true
    }
}

/// `usize` stands for Go's `uint` and `isize` for `int`; from the types of the same size they
/// differ only in error messages.
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

            fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
                let Yaml::Number(number) = node else {
                    return Err(ValueError::mismatch(node, $go_name));
                };
                *self = number.parse().map_err(|_| ValueError::Mismatch {
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
        *self = text.parse().map_err(|_| "parse error")?;
        Ok(())
    }

    /// Whole nanoseconds.
    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
        self.0.set_yaml(node).map_err(|error| match error {
            ValueError::Mismatch { found, .. } => ValueError::Mismatch {
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
    /// As in etcd, an empty text changes nothing.
    fn set(&mut self, text: &str) -> Result<(), String> {
        if !text.is_empty() {
            *self = Url::parse_list(text).map_err(|error| error.to_string())?;
        }
        Ok(())
    }

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
        self.set(text_of(node)?).map_err(ValueError::Invalid)
    }

    fn text(&self) -> String {
        self.iter().map(Url::as_str).collect::<Vec<_>>().join(",")
    }
}

/// A comma-separated list; in the file a list.
impl FlagValue for Vec<String> {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = text.split(',').map(str::to_owned).collect();
        Ok(())
    }

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
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

/// A comma-separated set; in the file a list.
impl FlagValue for BTreeSet<String> {
    fn set(&mut self, text: &str) -> Result<(), String> {
        *self = text.split(',').map(str::to_owned).collect();
        Ok(())
    }

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
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

/// Values of the `Host` header that requests without TLS may have; `*` allows any. A
/// comma-separated text, in the file, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(pub BTreeSet<String>);

impl FlagValue for HostNames {
    fn set(&mut self, text: &str) -> Result<(), String> {
        self.0.set(text)
    }

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
        match text_of(node)? {
            "" => Ok(()),
            text => self.set(text).map_err(ValueError::Invalid),
        }
    }

    fn text(&self) -> String {
        self.0.text()
    }
}

/// Origins that browsers may send requests from, as `scheme://host:port`; `*` allows any. A
/// comma-separated text, in the file, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(pub BTreeSet<String>);

impl FlagValue for Origins {
    fn set(&mut self, text: &str) -> Result<(), String> {
        if text == "*" {
            // As in etcd, this does not replace what an earlier flag has set.
            self.0.insert("*".into());
            return Ok(());
        }
        let urls = Url::parse_list(text).map_err(|error| error.to_string())?;
        self.0 = urls.iter().map(Url::to_string).collect();
        Ok(())
    }

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
        match text_of(node)? {
            "" => Ok(()),
            text => self.set(text).map_err(ValueError::Invalid),
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

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
        self.apply(text_of(node)?).map_err(ValueError::Invalid)
    }

    fn text(&self) -> String {
        FeatureGates::text(self)
    }
}

/// One of a few texts. As in etcd, any text is accepted from the file here, and checked later if at
/// all.
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

            fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
                self.0.set_yaml(node)
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
    /// What to do when discovery fails: `exit`. `proxy` is parsed, too, and refused later.
    Fallback, ["exit", "proxy"]
);
/// `--enable-v2`: whether API v2 is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum EnableV2 {
    /// Not said: it is, as long as API v3 knows no users.
    #[default]
    Unset,
    /// It is, whoever asks.
    On,
    /// It is not.
    Off,
}

impl From<bool> for EnableV2 {
    fn from(on: bool) -> EnableV2 {
        if on { EnableV2::On } else { EnableV2::Off }
    }
}

impl FlagValue for EnableV2 {
    fn set(&mut self, text: &str) -> Result<(), String> {
        let mut on = false;
        on.set(text)?;
        *self = on.into();
        Ok(())
    }

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
        let mut on = false;
        on.set_yaml(node)?;
        *self = on.into();
        Ok(())
    }

    fn text(&self) -> String {
        match self {
            EnableV2::Unset => String::new(),
            EnableV2::On => true.to_string(),
            EnableV2::Off => false.to_string(),
        }
    }

    fn yaml(&self) -> String {
        self.text()
    }

    fn is_bool_flag(&self) -> bool {
        true
    }
}

/// Phases of the removal of the v2 store. etcd 3.7 parses and ignores them.
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

    fn set_yaml(&mut self, node: &Yaml) -> Result<(), ValueError> {
        self.0.set_yaml(node)
    }

    fn text(&self) -> String {
        self.0.clone()
    }
}
