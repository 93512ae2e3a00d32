//! The lines of an export. `docs/etcdctl.md` describes them for others.
//!
//! ```text
//! {"format":"etcdctl-export/1","prefix":"/app/","revision":1429}
//! {"lease":"694d9e5b4c2a1f03","ttl":3571,"grantedTTL":3600}
//! {"key":"/app/login","value":"alive","lease":"694d9e5b4c2a1f03","createRevision":7,…}
//! {"keyBase64":"L2FwcC//","valueBase64":"//4=",…}
//! {"end":true,"keys":2,"leases":1}
//! ```
//!
//! A lease stands before its first key. The last line tells a complete export from one that was cut
//! off.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::{Deserialize, Serialize};

/// The format, and its version.
const FORMAT: &str = "etcdctl-export/1";

/// A line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// The first line.
    Head { prefix: Vec<u8>, revision: i64 },
    /// A lease, with its remaining and its original time to live in seconds.
    Lease {
        id: i64,
        ttl_s: i64,
        granted_ttl_s: i64,
    },
    /// A key.
    Key(Key),
    /// The last line.
    End { keys: u64, leases: u64 },
}

/// A key with its value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Key {
    pub(super) key: Vec<u8>,
    pub(super) value: Vec<u8>,
    /// The id of its lease, 0 for none.
    pub(super) lease: i64,
    /// Where it comes from, for people: an import does not need it.
    pub(super) source: Source,
}

/// Revisions and version of a key in the exported cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Source {
    pub(super) create_revision: i64,
    pub(super) mod_revision: i64,
    pub(super) version: i64,
}

/// All fields of all lines.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Fields {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    prefix_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    value_base64: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lease: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<i64>,
    #[serde(rename = "grantedTTL", skip_serializing_if = "Option::is_none")]
    granted_ttl: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    create_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mod_revision: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    end: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keys: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    leases: Option<u64>,
}

impl Line {
    /// The line with its end.
    pub(super) fn to_text(&self) -> String {
        let mut fields = Fields::default();
        match self {
            Line::Head { prefix, revision } => {
                fields.format = Some(FORMAT.to_owned());
                (fields.prefix, fields.prefix_base64) = text(prefix);
                fields.revision = Some(*revision);
            }
            Line::Lease {
                id,
                ttl_s,
                granted_ttl_s,
            } => {
                fields.lease = Some(format!("{id:x}"));
                fields.ttl = Some(*ttl_s);
                fields.granted_ttl = Some(*granted_ttl_s);
            }
            Line::Key(key) => {
                (fields.key, fields.key_base64) = text(&key.key);
                (fields.value, fields.value_base64) = text(&key.value);
                fields.lease = (key.lease != 0).then(|| format!("{:x}", key.lease));
                fields.create_revision = Some(key.source.create_revision);
                fields.mod_revision = Some(key.source.mod_revision);
                fields.version = Some(key.source.version);
            }
            Line::End { keys, leases } => {
                fields.end = Some(true);
                (fields.keys, fields.leases) = (Some(*keys), Some(*leases));
            }
        }
        serde_json::to_string(&fields).expect("its keys are strings") + "\n"
    }

    /// Parses a line.
    ///
    /// # Errors
    /// The text of the reason.
    pub(super) fn parse(line: &[u8]) -> Result<Line, String> {
        let fields: Fields = serde_json::from_slice(line).map_err(|error| error.to_string())?;
        if let Some(format) = &fields.format {
            return match format == FORMAT {
                true => Ok(Line::Head {
                    prefix: bytes("prefix", fields.prefix, fields.prefix_base64)?,
                    revision: fields.revision.unwrap_or(0),
                }),
                false => Err(format!(
                    "unknown format {format:?}, this etcdctl reads {FORMAT:?}"
                )),
            };
        }
        if fields.end == Some(true) {
            return Ok(Line::End {
                keys: fields.keys.ok_or("the end has no number of keys")?,
                leases: fields.leases.unwrap_or(0),
            });
        }
        let lease = fields.lease.as_deref().map_or(Ok(0), lease_id)?;
        if fields.key.is_some() || fields.key_base64.is_some() {
            let key = bytes("key", fields.key, fields.key_base64)?;
            if key.is_empty() {
                return Err("the key is empty".to_owned());
            }
            return Ok(Line::Key(Key {
                key,
                value: bytes("value", fields.value, fields.value_base64)?,
                lease,
                source: Source {
                    create_revision: fields.create_revision.unwrap_or(0),
                    mod_revision: fields.mod_revision.unwrap_or(0),
                    version: fields.version.unwrap_or(0),
                },
            }));
        }
        match (lease, fields.ttl) {
            (0, _) => Err("neither a key nor a lease".to_owned()),
            (_, None) => Err("the lease has no ttl".to_owned()),
            (id, Some(ttl_s)) => Ok(Line::Lease {
                id,
                ttl_s,
                granted_ttl_s: fields.granted_ttl.unwrap_or(ttl_s),
            }),
        }
    }
}

fn lease_id(text: &str) -> Result<i64, String> {
    let id = u64::from_str_radix(text, 16).ok().filter(|id| *id != 0);
    let id = id.ok_or_else(|| format!("bad lease id {text:?}, expecting hexadecimal"))?;
    Ok(id.cast_signed())
}

/// Bytes as a text, or in base64 if they are none.
fn text(bytes: &[u8]) -> (Option<String>, Option<String>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (Some(text.to_owned()), None),
        Err(_) => (None, Some(BASE64_STANDARD.encode(bytes))),
    }
}

/// The bytes of one of two fields.
fn bytes(name: &str, text: Option<String>, base64: Option<String>) -> Result<Vec<u8>, String> {
    match (text, base64) {
        (Some(text), None) => Ok(text.into_bytes()),
        (None, Some(base64)) => BASE64_STANDARD
            .decode(base64)
            .map_err(|error| format!("{name}Base64: {error}")),
        (None, None) => Err(format!("there is neither {name} nor {name}Base64")),
        (Some(_), Some(_)) => Err(format!("there is both {name} and {name}Base64")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_what_they_were() {
        let check = |line: &Line, text: &str| {
            assert_eq!(line.to_text(), format!("{text}\n"));
            assert_eq!(Line::parse(text.as_bytes()).as_ref(), Ok(line), "{text}");
        };
        let prefix = b"/app/".to_vec();
        check(
            &Line::Head {
                prefix,
                revision: 9,
            },
            r#"{"format":"etcdctl-export/1","prefix":"/app/","revision":9}"#,
        );
        check(
            &Line::Lease {
                id: -1,
                ttl_s: 5,
                granted_ttl_s: 60,
            },
            r#"{"lease":"ffffffffffffffff","ttl":5,"grantedTTL":60}"#,
        );
        let source = Source {
            create_revision: 2,
            mod_revision: 3,
            version: 2,
        };
        let mut key = Key {
            key: b"a\n".to_vec(),
            value: Vec::new(),
            lease: 31,
            source,
        };
        check(
            &Line::Key(key.clone()),
            r#"{"key":"a\n","value":"","lease":"1f","createRevision":2,"modRevision":3,"version":2}"#,
        );
        (key.key, key.value, key.lease) = (b"\xff".to_vec(), b"\xff\xfe".to_vec(), 0);
        check(
            &Line::Key(key),
            r#"{"keyBase64":"/w==","valueBase64":"//4=","createRevision":2,"modRevision":3,"version":2}"#,
        );
        check(
            &Line::End { keys: 2, leases: 1 },
            r#"{"end":true,"keys":2,"leases":1}"#,
        );
    }

    #[test]
    fn names_what_is_wrong() {
        let check = |text: &str, reason: &str| {
            assert_eq!(
                Line::parse(text.as_bytes()),
                Err(reason.to_owned()),
                "{text}"
            );
        };
        check(
            r#"{"format":"x"}"#,
            r#"unknown format "x", this etcdctl reads "etcdctl-export/1""#,
        );
        check(r#"{"key":"a"}"#, "there is neither value nor valueBase64");
        check(
            r#"{"key":"a","keyBase64":"YQ==","value":""}"#,
            "there is both key and keyBase64",
        );
        check(r#"{"key":"","value":""}"#, "the key is empty");
        check(
            r#"{"key":"a","value":"b","lease":"x"}"#,
            r#"bad lease id "x", expecting hexadecimal"#,
        );
        check(r#"{"lease":"1"}"#, "the lease has no ttl");
        check("{}", "neither a key nor a lease");
        let unknown = Line::parse(br#"{"key":"a","value":"b","x":2}"#);
        assert!(unknown.is_err_and(|error| error.starts_with("unknown field `x`")));
        assert!(Line::parse(b"{").is_err_and(|error| error.starts_with("EOF while parsing")));
        assert!(
            Line::parse(br#"{"key":"a","valueBase64":"*"}"#)
                .is_err_and(|e| e.starts_with("valueBase64: "))
        );
    }
}
