//! `get --decode`: values as documents, for people who look into the store of a Kubernetes cluster.

use std::io::IsTerminal;

use retcd_proto::mvccpb::KeyValue;
use serde_json::Value;
use serde_saphyr::{SerializerOptions, ser_options};

use crate::cli::{Exit, Flag, FlagSet};
use crate::go::quote::quote;
use crate::kubernetes::{self, Decoded};
use crate::print::Format;

/// The form of the documents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A document per key, with a comment that names the key.
    Yaml,
    /// A document per key, indented.
    Json,
    /// A line per key.
    JsonLines,
}

/// The flag of `get`.
pub(super) fn flag() -> Flag {
    Flag::text(
        "decode",
        "",
        "show the values as documents, those of Kubernetes decoded: yaml or json",
    )
    .bare("yaml")
}

/// The form that the flags ask for; `None` without `--decode`.
///
/// # Errors
/// The form is unknown, or other flags ask for something else.
pub(super) fn form(flags: &FlagSet, format: Format) -> Result<Option<Form>, Exit> {
    if !flags.given("decode") {
        return Ok(None);
    }
    let form = match flags.text("decode") {
        "yaml" => Form::Yaml,
        "json" if std::io::stdout().is_terminal() => Form::Json,
        "json" => Form::JsonLines,
        other => {
            let other = quote(other.as_bytes());
            return Err(Exit::bad_args(format!(
                "unknown form {other} of `--decode`, use `--decode=yaml` or `--decode=json`"
            )));
        }
    };
    for other in ["keys-only", "count-only", "print-value-only", "hex"] {
        if flags.bool(other) {
            return Err(Exit::bad_args(format!(
                "`--decode` and `--{other}` cannot be set at the same time, choose one"
            )));
        }
    }
    if format != Format::Simple {
        return Err(Exit::bad_args(format!(
            "`--decode` is only for `--write-out=simple`, use `--decode=json` instead of \
             `--write-out={}`",
            format.name()
        )));
    }
    Ok(Some(form))
}

/// The documents.
pub(super) fn render(kvs: &[KeyValue], form: Form) -> String {
    let documents = kvs.iter().map(|kv| {
        let decoded = kubernetes::decode(&kv.value, kv.mod_revision);
        let Decoded { shown, .. } = &decoded;
        match form {
            Form::Yaml => format!("{}{}", head(kv, &decoded), yaml(shown)),
            Form::Json => format!("{shown:#}\n"),
            Form::JsonLines => format!("{shown}\n"),
        }
    });
    let separator = if form == Form::Yaml { "---\n" } else { "" };
    documents.collect::<Vec<_>>().join(separator)
}

fn head(kv: &KeyValue, decoded: &Decoded) -> String {
    let key = match std::str::from_utf8(&kv.key) {
        Ok(key) if !key.chars().any(char::is_control) => key.to_owned(),
        _ => quote(&kv.key),
    };
    let lease = match kv.lease {
        0 => String::new(),
        id => format!(", lease {id:x}"),
    };
    let stored_as = match &decoded.stored_version {
        Some(version) => format!(", stored as {version}"),
        None => String::new(),
    };
    format!(
        "# {key}\n# {} bytes, version {}, created at revision {}, changed at revision {}{lease}{stored_as}\n",
        kv.value.len(),
        kv.version,
        kv.create_revision,
        kv.mod_revision
    )
}

fn yaml(value: &Value) -> String {
    // Long lines stay lines, as kubectl shows them.
    let options: SerializerOptions = ser_options! { folded_wrap_chars: usize::MAX };
    // JSON is YAML, too.
    serde_saphyr::to_string_with_options(value, options).unwrap_or_else(|_| format!("{value}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value: &str) -> KeyValue {
        KeyValue {
            key: key.as_bytes().to_vec().into(),
            value: value.as_bytes().to_vec().into(),
            create_revision: 2,
            mod_revision: 3,
            version: 2,
            lease: 0x1f,
        }
    }

    #[test]
    fn yaml_has_a_document_per_key() {
        let object = "{\"kind\":\"K\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"on\",\"n\":[\"1\",1,\"a\\nb\\n\"]}}";
        let text = "\
# /a
# 76 bytes, version 2, created at revision 2, changed at revision 3, lease 1f
apiVersion: v1
kind: K
metadata:
  \"n\":
  - \"1\"
  - 1
  - |
    a
    b
  name: \"on\"
  resourceVersion: \"3\"
---
# \"\\n\"
# 4 bytes, version 2, created at revision 2, changed at revision 3, lease 1f
text
";
        assert_eq!(
            render(&[kv("/a", object), kv("\n", "text")], Form::Yaml),
            text
        );
    }

    #[test]
    fn yaml_says_in_which_version_an_object_is_stored() {
        let object = "{\"apiVersion\":\"storage.k8s.io/v1beta1\",\"kind\":\"CSIDriver\"}";
        let text = "\
# /a
# 58 bytes, version 2, created at revision 2, changed at revision 3, lease 1f, stored as storage.k8s.io/v1beta1
apiVersion: storage.k8s.io/v1
kind: CSIDriver
";
        assert_eq!(render(&[kv("/a", object)], Form::Yaml), text);
    }

    #[test]
    fn json_has_a_line_per_key() {
        let text = render(&[kv("a", "{\"b\": [1]}"), kv("c", "d")], Form::JsonLines);
        assert_eq!(text, "{\"b\":[1]}\n\"d\"\n");
        let text = render(&[kv("a", "{\"b\": 1}")], Form::Json);
        assert_eq!(text, "{\n  \"b\": 1\n}\n");
        assert_eq!(render(&[], Form::Json), "");
    }
}
