//! The environment: `ETCD_MAX_TXN_OPS=5` is `--max-txn-ops=5`.
//!
//! An empty variable counts as unset. A variable given together with its flag is an error. A
//! variable without a flag is logged, but without its value: container images keep passwords for
//! their own scripts in such variables.

use super::Refusal;
use super::args::reason;
use super::build::{Builder, Input};
use super::table::{FLAGS, Flag};
use super::verify::VerifyError;
use crate::log_record;

/// Variables that are not for flags.
const FOREIGN: [&str; 3] = ["ETCD_VERIFY", "ETCD_UNSUPPORTED_ARCH", "ETCD_CONFIG_FILE"];

pub(super) fn apply(env: &[(String, String)], builder: &mut Builder) -> Result<(), Refusal> {
    let on_command_line: Vec<String> = FLAGS
        .iter()
        .filter(|flag| builder.is_spelled(flag.name))
        .map(Flag::variable)
        .collect();
    let value_of = |name: &str| {
        env.iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
            .filter(|v| !v.is_empty())
    };
    if let Some(value) = value_of("ETCD_VERSION") {
        builder.note(log_record!(
            Warn, None, "cannot set special environment variable"; "key" => "ETCD_VERSION", "value" => value
        ));
    }
    let mut flags: Vec<&'static Flag> = FLAGS
        .iter()
        .filter(|flag| flag.name != "version" && flag.name != "config-file")
        .collect();
    flags.sort_by_key(|flag| flag.name);
    let mut used = Vec::new();
    let mut bad = None;
    for flag in flags {
        let variable = flag.variable();
        let Some(value) = value_of(&variable).filter(|_| !on_command_line.contains(&variable))
        else {
            continue;
        };
        match builder.set(flag, Input::Text(value)) {
            Ok(()) => builder.note(log_record!(
                Info, None, "recognized and used environment variable";
                "variable-name" => variable, "variable-value" => flag.redact(value)
            )),
            // As in etcd, the last error wins.
            Err(error) => {
                bad = Some(VerifyError::Variable {
                    value: value.to_owned(),
                    name: variable.clone(),
                    reason: reason(error),
                });
            }
        }
        used.push(variable);
    }
    for (name, _) in env {
        if on_command_line.contains(name) {
            return Err(Refusal::Fatal(log_record!(
                Fatal,
                None,
                "conflicting environment variable is shadowed by corresponding command-line flag (either unset environment variable or disable flag))";
                "environment-variable" => name
            )));
        }
        let foreign = FOREIGN.contains(&name.as_str()) || name == "ETCD_VERSION";
        if name.starts_with("ETCD_") && !used.contains(name) && !foreign {
            builder.note(log_record!(
                Warn, None, "unrecognized environment variable"; "environment-variable" => name
            ));
        }
    }
    bad.map_or(Ok(()), |error| Err(error.into()))
}
