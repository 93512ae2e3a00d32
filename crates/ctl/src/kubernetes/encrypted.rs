//! The head of values that are encrypted at rest, which names who can decrypt them.
//!
//! ```text
//! k8s:enc:aescbc:v1:KEY:…         aesgcm and secretbox alike; KEY names a key of the configuration
//! k8s:enc:kms:v1:PLUGIN:…
//! k8s:enc:kms:v2:PLUGIN:          k8s.io/kms EncryptedObject; its field 2 is the id of the key
//! ```

use serde_json::{Map, Value};

use super::wire;

const PREFIX: &[u8] = b"k8s:enc:";

/// What the head of an encrypted value tells; `None` if it is not encrypted.
pub(super) fn describe(value: &[u8]) -> Option<Value> {
    let rest = value.strip_prefix(PREFIX)?;
    let mut parts = rest.splitn(4, |byte| *byte == b':');
    let mut part = || {
        parts
            .next()
            .map(|part| String::from_utf8_lossy(part).into_owned())
    };
    let (provider, version, name) = (part()?, part()?, part()?);
    let payload = parts.next()?;
    let mut about = Map::new();
    let is_kms = provider == "kms";
    about.insert("provider".to_owned(), provider.into());
    if is_kms && version == "v2" {
        let id = wire::fields(payload).map(|fields| wire::text(&fields, 2));
        id.into_iter().filter(|id| !id.is_empty()).for_each(|id| {
            about.insert("keyID".to_owned(), id.into());
        });
    }
    about.insert("version".to_owned(), version.into());
    about.insert(
        if is_kms { "plugin" } else { "key" }.to_owned(),
        name.into(),
    );
    about.insert("bytes".to_owned(), payload.len().into());
    let mut object = Map::new();
    object.insert("encrypted".to_owned(), about.into());
    Some(object.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names_provider_and_key() {
        let check = |value: &[u8], about: Value| {
            assert_eq!(describe(value), Some(json!({"encrypted": about})));
        };
        check(
            b"k8s:enc:aescbc:v1:key1:\xff:\0",
            json!({"provider": "aescbc", "version": "v1", "key": "key1", "bytes": 3}),
        );
        check(
            b"k8s:enc:kms:v1:vault:\x01\x02",
            json!({"provider": "kms", "version": "v1", "plugin": "vault", "bytes": 2}),
        );
        check(
            b"k8s:enc:kms:v2:vault:\x0a\x01\xff\x12\x04id-7",
            json!({"provider": "kms", "version": "v2", "plugin": "vault", "keyID": "id-7", "bytes": 9}),
        );
        assert_eq!(describe(b"k8s:enc:aescbc:v1:key1"), None);
        assert_eq!(describe(b"{}"), None);
    }
}
