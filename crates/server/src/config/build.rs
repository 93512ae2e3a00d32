//! A configuration while it is read: what has been set, by which name, and what to log about it.

use std::collections::BTreeMap;

use super::Config;
use super::args;
use super::literal::parse_bool;
use super::table::{self, Effect, Flag, Verdict};
use super::value::ValueError;
use super::verify::VerifyError;
use super::yaml::Yaml;
use crate::log::{self, Record};
use crate::log_record;

pub(super) struct Builder {
    pub(super) config: Config,
    pub(super) log: log::Options,
    pub(super) notes: Vec<Record>,
    /// Flags that have been set, each with the name that was used, which may be a former one.
    given: BTreeMap<&'static str, &'static str>,
    /// The first error about older flags, reported when everything has been read.
    first_error: Option<VerifyError>,
}

/// A value for a flag.
#[derive(Clone, Copy)]
pub(super) enum Input<'a> {
    /// From the command line or the environment.
    Text(&'a str),
    /// From the configuration file.
    Yaml(&'a Yaml),
}

impl Input<'_> {
    fn text(self) -> String {
        match self {
            Input::Text(text) => text.to_owned(),
            Input::Yaml(Yaml::Text(text) | Yaml::Number(text)) => text.clone(),
            Input::Yaml(Yaml::Bool(value)) => value.to_string(),
            Input::Yaml(other) => other.kind().to_owned(),
        }
    }

    fn bool(self) -> Result<bool, ValueError> {
        match self {
            Input::Yaml(Yaml::Bool(value)) => Ok(*value),
            Input::Yaml(other) => Err(ValueError::Mismatch {
                found: other.kind().to_owned(),
                wanted: "bool",
            }),
            Input::Text(text) => {
                parse_bool(text).ok_or_else(|| ValueError::Invalid("parse error".into()))
            }
        }
    }
}

impl Builder {
    pub(super) fn new() -> Builder {
        Builder {
            config: Config::from_table(),
            log: log::Options::default(),
            notes: Vec::new(),
            given: BTreeMap::new(),
            first_error: None,
        }
    }

    pub(super) fn note(&mut self, record: Record) {
        self.notes.push(record);
    }

    pub(super) fn note_running(&mut self, args: &[String]) {
        let args = args::redacted(args);
        self.note(log_record!(Info, None, "Running: "; "args" => args));
    }

    /// Whether a flag has been set, by its name or a former one.
    pub(super) fn is_given(&self, name: &str) -> bool {
        self.given.contains_key(name)
    }

    /// Whether a flag has been set by this very name.
    pub(super) fn is_spelled(&self, name: &str) -> bool {
        self.given.values().any(|&spelling| spelling == name)
    }

    pub(super) fn take_first_error(&mut self) -> Option<VerifyError> {
        self.first_error.take()
    }

    /// Whether a flag may be given without a value.
    pub(super) fn is_bool_flag(&mut self, flag: &Flag) -> bool {
        match flag.effect {
            Effect::Field(field) => field(&mut self.config).is_bool_flag(),
            Effect::Renamed(now) => self.is_bool_flag(current(now)),
            Effect::Gate(_) | Effect::Shorthand(..) | Effect::Ignored => true,
            Effect::Retired { .. } => false,
        }
    }

    /// Sets a flag.
    pub(super) fn set(&mut self, flag: &'static Flag, input: Input<'_>) -> Result<(), ValueError> {
        match flag.effect {
            Effect::Field(_) => self.set_field(flag, flag.name, input)?,
            Effect::Renamed(now) => {
                self.set_field(current(now), flag.name, input)?;
                self.warn_renamed(flag.name, &format!("--{now}"));
            }
            Effect::Gate(gate) => {
                let switch = format!("{gate}={}", input.bool()?);
                self.config
                    .feature_gates
                    .apply(&switch)
                    .expect("the table names existing gates");
                self.given.insert(flag.name, flag.name);
                self.warn_renamed(flag.name, &format!("--feature-gates={switch}"));
            }
            Effect::Shorthand(now, value) => {
                if input.bool()? {
                    self.set_field(current(now), flag.name, Input::Text(value))?;
                    self.warn_renamed(flag.name, &format!("--{now}={value}"));
                }
            }
            Effect::Retired { verdict } => {
                let value = input.text();
                self.judge(flag.name, &value, verdict(&value));
                self.given.insert(flag.name, flag.name);
            }
            Effect::Ignored => drop(self.given.insert(flag.name, flag.name)),
        }
        Ok(())
    }

    fn set_field(
        &mut self,
        flag: &'static Flag,
        spelling: &'static str,
        input: Input<'_>,
    ) -> Result<(), ValueError> {
        let Effect::Field(field) = flag.effect else {
            unreachable!(
                "the table renames to fields only, and {} is none",
                flag.name
            )
        };
        match input {
            Input::Text(text) => field(&mut self.config)
                .set(text)
                .map_err(ValueError::Invalid)?,
            Input::Yaml(node) => field(&mut self.config).set_yaml(node)?,
        }
        if let Some(other) = self.given.insert(flag.name, spelling)
            && other != spelling
        {
            self.report(VerifyError::TwoSpellings(other, spelling));
        }
        Ok(())
    }

    fn judge(&mut self, name: &'static str, value: &str, verdict: Verdict) {
        match verdict {
            Verdict::Harmless => {}
            Verdict::Without => self.note(log_record!(
                Warn, None, format!("--{name} has no effect: what it asks for is not part of etcd any more");
                "value" => value
            )),
            Verdict::Refused => self.report(VerifyError::Retired(name, value.to_owned())),
        }
    }

    fn report(&mut self, error: VerifyError) {
        self.first_error.get_or_insert(error);
    }

    fn warn_renamed(&mut self, name: &str, now: &str) {
        // The message begins as that of etcd 3.6, which scripts may match.
        let message = format!(
            "--{name} is deprecated in v3.6 and will be decommissioned in v3.7. Use '{now}' instead."
        );
        self.note(log_record!(Warn, None, message));
    }

    /// Defaults that depend on which flags have been set. etcd changes them before it verifies.
    pub(super) fn adjust_defaults(&mut self) {
        if self.is_given("listen-client-urls") && !self.is_given("advertise-client-urls") {
            self.config.advertise_client_urls.clear();
        }
        let config = &self.config;
        let discovers = !config.discovery_srv.is_empty()
            || !config.discovery_srv_name.is_empty()
            || !config.discovery.endpoints.is_empty();
        if discovers && !self.is_given("initial-cluster") {
            self.config.initial_cluster.clear();
        }
    }
}

fn current(name: &'static str) -> &'static Flag {
    table::find(name).unwrap_or_else(|| unreachable!("the table renames to {name}, which it lacks"))
}
