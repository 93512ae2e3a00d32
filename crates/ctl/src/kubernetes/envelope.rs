//! What a value is: protobuf in Kubernetes' envelope, JSON, encrypted, or something else.

use serde_json::{Map, Value};

use super::convert::convert;
use super::types::{META, TYPES};
use super::wire::{self, Wire};
use super::{encrypted, generic, message};

const MAGIC: &[u8] = b"k8s\0";

/// A value as it is shown.
pub(crate) struct Decoded {
    pub(crate) shown: Value,
    /// The version of the API that it is stored in, if it is shown in another one.
    pub(crate) stored_version: Option<String>,
}

/// The JSON for a value. Objects get the revision of the key's last change as their
/// `metadata.resourceVersion`, as the API server shows it; they are stored without one.
///
/// What is not of Kubernetes is shown as JSON if it is a JSON object or list, as a string if it is
/// text, and else in base64.
pub(crate) fn decode(value: &[u8], mod_revision: i64) -> Decoded {
    let about = encrypted::describe(value);
    let decoded = about.or_else(|| match is_protobuf(value) {
        true => object(value, 0),
        false => json_or_text(value),
    });
    let mut shown = decoded.unwrap_or_else(|| generic::bytes(value));
    let stored_version = shown.as_object_mut().and_then(|object| {
        set_resource_version(object, mod_revision);
        convert(object)
    });
    Decoded {
        shown,
        stored_version,
    }
}

fn json_or_text(value: &[u8]) -> Option<Value> {
    let json = serde_json::from_slice(value).ok();
    // `1` may be a number or a text: only who wrote it knows.
    let document = json.filter(|json: &Value| json.is_object() || json.is_array());
    document.or_else(|| Some(std::str::from_utf8(value).ok()?.into()))
}

/// Whether a value begins as protobuf in Kubernetes' envelope does.
pub(super) fn is_protobuf(value: &[u8]) -> bool {
    value.starts_with(MAGIC)
}

/// The object in an envelope; `None` if it is damaged.
pub(super) fn object(value: &[u8], depth: usize) -> Option<Value> {
    let envelope = wire::fields(value.strip_prefix(MAGIC)?)?;
    let type_meta = wire::fields(wire::bytes(&envelope, 1))?;
    let (api_version, kind) = (wire::text(&type_meta, 1), wire::text(&type_meta, 2));
    let raw = wire::bytes(&envelope, 2);
    let encoding = wire::text(&envelope, 3);
    let mut object = match (encoding.is_empty(), TYPES.find(&api_version, &kind)) {
        (false, _) => {
            let mut object = Map::new();
            object.insert("contentEncoding".to_owned(), encoding.into());
            object.insert("raw".to_owned(), generic::bytes(raw));
            object
        }
        (true, Some(index)) => message::decode(&TYPES, index, raw, depth)?,
        (true, None) => unknown(raw, depth)?,
    };
    object.insert("apiVersion".to_owned(), api_version.into());
    object.insert("kind".to_owned(), kind.into());
    Some(object.into())
}

/// An object of a kind that is not in the table: its metadata, which all kinds have as field 1, and
/// its other fields by number.
fn unknown(raw: &[u8], depth: usize) -> Option<Map<String, Value>> {
    let mut object = generic::message(raw, depth)?;
    let fields = wire::fields(raw)?;
    if let (Some(Wire::Bytes(bytes)), Some(index)) =
        (wire::last(&fields, 1), TYPES.find(META, "ObjectMeta"))
    {
        let metadata = message::decode(&TYPES, index, bytes, depth + 1);
        // What the table does not know has a number for a name.
        let fits = |metadata: &Map<String, Value>| {
            !metadata.is_empty() && !metadata.keys().any(|name| name.parse::<u32>().is_ok())
        };
        if let Some(metadata) = metadata.filter(fits) {
            object.remove("1");
            object.insert("metadata".to_owned(), metadata.into());
        }
    }
    Some(object)
}

fn set_resource_version(object: &mut Map<String, Value>, mod_revision: i64) {
    if !(object.contains_key("apiVersion") && object.contains_key("kind")) {
        return;
    }
    if let Some(Value::Object(metadata)) = object.get_mut("metadata") {
        let revision = mod_revision.to_string();
        metadata.insert("resourceVersion".to_owned(), revision.into());
    }
}
