//! `--log-rotation-config-json`, read as Go reads it: names in any case, unknown ones ignored.

use std::time::Duration;

use retcd_log::Rotation;
use retcd_proto::go_json;
use serde_json::{Map, Value};

use super::verify::VerifyError;

const MEBIBYTE: u64 = 1 << 20;
/// What `maxsize` 0 stands for.
const MEBIBYTES_DEFAULT: u64 = 100;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Reads `text`.
///
/// # Errors
/// It is no JSON, or a field is of another type.
pub(super) fn parse(text: &str) -> Result<Rotation, VerifyError> {
    let fields = fields(text)?;
    let mebibytes = match fields.count("maxsize")? {
        0 => MEBIBYTES_DEFAULT,
        count => count,
    };
    let (days, backups) = (fields.count("maxage")?, fields.count("maxbackups")?);
    Ok(Rotation {
        bytes_max: mebibytes.saturating_mul(MEBIBYTE),
        age_max: (days > 0).then(|| DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX))),
        backups_max: (backups > 0).then(|| usize::try_from(backups).unwrap_or(usize::MAX)),
        local_time: fields.switch("localtime")?,
        compress: fields.switch("compress")?,
    })
}

struct Fields(Map<String, Value>);

fn fields(text: &str) -> Result<Fields, VerifyError> {
    match go_json::parse(text.as_bytes()) {
        Ok(Value::Object(fields)) => Ok(Fields(fields)),
        Ok(Value::Null) => Ok(Fields(Map::new())),
        Ok(other) => Err(VerifyError::Rotation(format!(
            "json: cannot unmarshal {} into Go value of type embed.logRotationConfig",
            kind(&other)
        ))),
        Err(error) => Err(VerifyError::RotationSyntax(error.to_string())),
    }
}

impl Fields {
    fn get(&self, name: &str) -> &Value {
        let mut fields = self.0.iter();
        let found = fields.find(|(other, _)| other.eq_ignore_ascii_case(name));
        found.map_or(&Value::Null, |(_, value)| value)
    }

    /// A number from 0 on; 0 if there is none.
    fn count(&self, name: &str) -> Result<u64, VerifyError> {
        match self.get(name) {
            Value::Null => Ok(0),
            Value::Number(number) => match number.as_u64() {
                Some(count) => Ok(count),
                None if number.is_i64() => Err(VerifyError::Rotation(format!(
                    "{name} must be >=0 (set to {number})"
                ))),
                None => Err(mismatch(name, &format!("number {number}"), "int")),
            },
            other => Err(mismatch(name, kind(other), "int")),
        }
    }

    fn switch(&self, name: &str) -> Result<bool, VerifyError> {
        match self.get(name) {
            Value::Null => Ok(false),
            Value::Bool(on) => Ok(*on),
            other => Err(mismatch(name, kind(other), "bool")),
        }
    }
}

fn mismatch(name: &str, found: &str, wanted: &str) -> VerifyError {
    VerifyError::Rotation(format!(
        "json: cannot unmarshal {found} into Go struct field logRotationConfig.Logger.{name} of type {wanted}"
    ))
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

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Rotation = Rotation {
        bytes_max: 100 * MEBIBYTE,
        age_max: None,
        backups_max: None,
        local_time: false,
        compress: false,
    };

    #[test]
    fn the_default_and_every_field() {
        let default = r#"{"maxsize": 100, "maxage": 0, "maxbackups": 0, "localtime": false, "compress": false}"#;
        for text in [default, "{}", "null", r#"{"maxsize":null,"more":[1]}"#] {
            assert_eq!(parse(text).unwrap(), DEFAULT, "{text}");
        }
        let all = r#"{"MaxSize":7,"maxage":2,"MAXBACKUPS":3,"localTime":true,"compress":true,"filename":"x"}"#;
        let expected = Rotation {
            bytes_max: 7 * MEBIBYTE,
            age_max: Some(2 * DAY),
            backups_max: Some(3),
            local_time: true,
            compress: true,
        };
        assert_eq!(parse(all).unwrap(), expected);
    }

    #[test]
    fn what_is_wrong_is_told_in_etcds_words() {
        let check = |text, expected| assert_eq!(parse(text).unwrap_err().to_string(), expected);
        for text in ["", "{", "{\"maxsize\":"] {
            check(
                text,
                "improperly formatted log rotation config: unexpected end of JSON input",
            );
        }
        check(
            "x",
            "improperly formatted log rotation config: invalid character 'x' looking for beginning of value",
        );
        check(
            r#"{"maxsize": true}"#,
            "invalid log rotation config: json: cannot unmarshal bool into Go struct field logRotationConfig.Logger.maxsize of type int",
        );
        check(
            r#"{"maxage": 1.5}"#,
            "invalid log rotation config: json: cannot unmarshal number 1.5 into Go struct field logRotationConfig.Logger.maxage of type int",
        );
        check(
            r#"{"compress": "yes"}"#,
            "invalid log rotation config: json: cannot unmarshal string into Go struct field logRotationConfig.Logger.compress of type bool",
        );
        check(
            "[]",
            "invalid log rotation config: json: cannot unmarshal array into Go value of type embed.logRotationConfig",
        );
        check(
            r#"{"maxsize": -1}"#,
            "invalid log rotation config: maxsize must be >=0 (set to -1)",
        );
    }
}
