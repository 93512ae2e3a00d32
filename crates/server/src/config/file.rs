//! The configuration file, which replaces the command line and the environment.
//!
//! Keys are the names of flags, some of them in nested mappings, in any case. Unknown keys are
//! skipped with a warning (etcd skips them silently), so that files of older versions load.
//! Durations are whole nanoseconds. Of several errors, the one is reported that etcd would find
//! first.

use std::io;

use super::Refusal;
use super::build::{Builder, Input};
use super::table::{Effect, FLAGS, Flag, Section};
use super::value::ValueError;
use super::verify::VerifyError;
use super::yaml::Yaml;
use crate::log::go_io_error;
use crate::log_record;

/// Kinds of errors in a file, in the order in which etcd looks for them.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum ErrorKind {
    /// A value of the wrong type. Among each other these are in the order of the keys.
    Type,
    Gates,
    NoPeerSection,
    /// An invalid URL, by the position of its key in [`URL_KEYS`].
    Url(usize),
    Origins,
}

/// The keys with URLs, in the order in which etcd reads them.
const URL_KEYS: [&str; 6] = [
    "listen-peer-urls",
    "listen-client-urls",
    "listen-client-http-urls",
    "initial-advertise-peer-urls",
    "advertise-client-urls",
    "listen-metrics-urls",
];

pub(super) fn apply(
    path: &str,
    read: &dyn Fn(&str) -> io::Result<Vec<u8>>,
    builder: &mut Builder,
) -> Result<(), Refusal> {
    let bytes = read(path).map_err(|error| {
        let call = if error.kind() == io::ErrorKind::IsADirectory {
            "read"
        } else {
            "open"
        };
        VerifyError::File(format!("{call} {path}: {}", go_io_error(&error)))
    })?;
    let text = String::from_utf8(bytes).map_err(|_| {
        VerifyError::File("error converting YAML to JSON: yaml: invalid UTF-8".into())
    })?;
    let root = Yaml::parse(&text).map_err(|error| {
        VerifyError::File(format!("error converting YAML to JSON: yaml: {error}"))
    })?;
    let default_cluster = builder.config.initial_cluster.clone();
    let mut walk = Walk {
        builder,
        errors: Vec::new(),
    };
    walk.section(&root, Section::Top);
    walk.errors.sort_by(|(a, _), (b, _)| a.cmp(b));
    if let Some((_, refusal)) = walk.errors.into_iter().next() {
        return Err(refusal);
    }
    let config = &mut builder.config;
    let discovers = !config.discovery_srv.is_empty() || !config.discovery.endpoints.is_empty();
    if discovers && config.initial_cluster == default_cluster {
        config.initial_cluster.clear();
    }
    if config.initial_cluster_state.0.is_empty() {
        config.initial_cluster_state.0 = "new".into();
    }
    if config.self_signed_cert_validity_years == 0 {
        config.self_signed_cert_validity_years = 1;
    }
    Ok(())
}

struct Walk<'a> {
    builder: &'a mut Builder,
    errors: Vec<(ErrorKind, Refusal)>,
}

impl Walk<'_> {
    fn section(&mut self, node: &Yaml, section: Section) {
        match node {
            Yaml::Null if section == Section::PeerSecurity => {
                self.errors.push((
                    ErrorKind::NoPeerSection,
                    VerifyError::File("invalid peer-transport-security".into()).into(),
                ));
            }
            Yaml::Null => {}
            Yaml::Map(map) => {
                for (key, value) in map {
                    self.entry(section, key, value);
                }
            }
            other => {
                let (field, wanted) = section.go_struct();
                let place = if field.is_empty() {
                    format!("Go value of type {wanted}")
                } else {
                    format!("Go struct field {field} of type {wanted}")
                };
                self.type_error(other.kind(), &place);
            }
        }
    }

    fn entry(&mut self, section: Section, key: &str, node: &Yaml) {
        let leaf = key.to_lowercase();
        let path = if section == Section::Top {
            leaf.clone()
        } else {
            format!("{}.{leaf}", section.path())
        };
        if let Some(&nested) = Section::NESTED.iter().find(|nested| nested.path() == path) {
            return self.section(node, nested);
        }
        match FLAGS.iter().find(|flag| flag.key.is_some_and(|key| key.path() == path)) {
            Some(flag) => self.flag(flag, node),
            None => self.builder.note(log_record!(Warn, None, "unknown key in the configuration file is ignored"; "key" => path)),
        }
    }

    fn flag(&mut self, flag: &'static Flag, node: &Yaml) {
        if *node == Yaml::Null {
            return;
        }
        let Err(error) = self.builder.set(flag, Input::Yaml(node)) else {
            return;
        };
        let key = flag.key.expect("flags without a key are not found by key");
        match error {
            ValueError::Mismatch { found, wanted } => {
                self.type_error(
                    &found,
                    &format!(
                        "Go struct field {} of type {wanted}",
                        key.section.go_field(key.leaf)
                    ),
                );
            }
            ValueError::Invalid(reason) => self.text_error(flag, &reason),
        }
    }

    fn type_error(&mut self, found: &str, place: &str) {
        let text = format!(
            "error unmarshaling JSON: while decoding JSON: json: cannot unmarshal {found} into {place}"
        );
        self.errors
            .push((ErrorKind::Type, VerifyError::File(text).into()));
    }

    fn text_error(&mut self, flag: &Flag, reason: &str) {
        let print = |stderr: String, exit_code| Refusal::Print {
            stdout: String::new(),
            stderr,
            exit_code,
        };
        let kind = if let Some(place) = URL_KEYS.iter().position(|&key| key == flag.name) {
            // etcd's message has the wrong name here. Scripts may match it.
            let name = if flag.name == "advertise-client-urls" {
                "advertise-peer-urls"
            } else {
                flag.name
            };
            (
                ErrorKind::Url(place),
                print(format!("unexpected error setting up {name}: {reason}\n"), 1),
            )
        } else if flag.name == "cors" {
            (
                ErrorKind::Origins,
                print(
                    format!("panic: new UniqueURLs should never fail: {reason}\n"),
                    2,
                ),
            )
        } else {
            debug_assert!(
                matches!(flag.effect, Effect::Field(_)),
                "{} refuses texts",
                flag.name
            );
            (
                ErrorKind::Gates,
                VerifyError::File(reason.to_owned()).into(),
            )
        };
        self.errors.push(kind);
    }
}
