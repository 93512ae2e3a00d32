//! `--log-rotation-config-json`, read as Go reads it: names in any case, unknown ones ignored.

use std::time::Duration;

use retcd_log::Rotation;
use retcd_proto::go_json::{self, JsonError, Object};

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
    let value = go_json::parse(text.as_bytes()).map_err(refusal)?;
    let config = Object::of(&value, "embed.logRotationConfig").map_err(refusal)?;
    let fields = config.embedded("Logger");
    let mebibytes = match count(&fields, "maxsize")? {
        0 => MEBIBYTES_DEFAULT,
        count => count,
    };
    let (days, backups) = (count(&fields, "maxage")?, count(&fields, "maxbackups")?);
    Ok(Rotation {
        bytes_max: mebibytes.saturating_mul(MEBIBYTE),
        age_max: (days > 0).then(|| DAY.saturating_mul(u32::try_from(days).unwrap_or(u32::MAX))),
        backups_max: (backups > 0).then(|| usize::try_from(backups).unwrap_or(usize::MAX)),
        local_time: fields.bool("localtime").map_err(refusal)?,
        compress: fields.bool("compress").map_err(refusal)?,
    })
}

fn count(fields: &Object<'_>, name: &str) -> Result<u64, VerifyError> {
    let number = fields.int(name).map_err(refusal)?;
    u64::try_from(number)
        .map_err(|_| VerifyError::Rotation(format!("{name} must be >=0 (set to {number})")))
}

fn refusal(error: JsonError) -> VerifyError {
    match error {
        JsonError::Value { .. } | JsonError::Field { .. } => {
            VerifyError::Rotation(error.to_string())
        }
        JsonError::Syntax(_) | JsonError::Unsupported(_) => {
            VerifyError::RotationSyntax(error.to_string())
        }
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
            r#"{"maxbackups": 9223372036854775808}"#,
            "invalid log rotation config: json: cannot unmarshal number 9223372036854775808 into Go struct field logRotationConfig.Logger.maxbackups of type int",
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
