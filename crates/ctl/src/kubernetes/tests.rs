//! Objects as an API server of 1.20 stored them, and the JSON that it showed for each.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

const OBJECTS: &str = include_str!("../../tests/data/kubernetes.jsonl");

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Object {
    name: String,
    stored_as: String,
    mod_revision: i64,
    value: String,
    shown: Value,
}

fn objects() -> Vec<Object> {
    let objects = OBJECTS.lines().map(serde_json::from_str);
    objects
        .collect::<Result<_, _>>()
        .expect("the file is valid")
}

#[test]
fn objects_are_shown_as_the_api_server_shows_them() {
    let objects = objects();
    assert_eq!(objects.len(), 51);
    for object in objects {
        let value = BASE64_STANDARD.decode(&object.value).expect("valid base64");
        let decoded = super::decode(&value, object.mod_revision);
        assert_eq!(decoded.shown, object.shown, "{}", object.name);
        let (stored, _) = object.stored_as.rsplit_once('/').expect("version and kind");
        let differs = object.shown["apiVersion"] != stored;
        assert_eq!(
            decoded.stored_version.as_deref(),
            differs.then_some(stored),
            "{}",
            object.name
        );
    }
}

/// What is shown for a value.
fn decode(value: &[u8], mod_revision: i64) -> Value {
    super::decode(value, mod_revision).shown
}

/// The value of an object of the file.
fn value_of(name: &str) -> Vec<u8> {
    let object = objects().into_iter().find(|object| object.name == name);
    BASE64_STANDARD
        .decode(object.expect("it is there").value)
        .expect("valid base64")
}

#[test]
fn kinds_that_are_not_known_are_shown_by_field_numbers() {
    let mut value = value_of("namespace");
    let at = value
        .windows(9)
        .position(|part| part == b"Namespace")
        .expect("its kind");
    value[at..at + 9].copy_from_slice(b"Nomespace");
    let decoded = decode(&value, 7);
    assert_eq!(decoded["kind"], "Nomespace");
    assert_eq!(decoded["metadata"]["name"], "shop");
    assert_eq!(decoded["metadata"]["resourceVersion"], "7");
    assert_eq!(
        (&decoded["2"], &decoded["3"]),
        (&json!({"1": "kubernetes"}), &json!({"1": "Active"}))
    );
}

#[test]
fn fields_that_are_not_known_are_shown_by_number() {
    // A ConfigMap with a field 99 of text, and a field 4 (`immutable`) that is no number.
    let value =
        b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x0d\x0a\x00\x9a\x06\x03new\x22\x03odd";
    let shown = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"resourceVersion": "1"},
        "99": "new", "4": "odd",
    });
    assert_eq!(decode(value, 1), shown);
}

#[test]
fn objects_of_objects_are_shown() {
    let value = b"k8s\0\x0a\x18\x0a\x07apps/v1\x12\x0dNothing\x0a\x00\x01";
    assert!(
        decode(value, 1).is_string(),
        "a damaged value is shown in base64"
    );
    let inner = value_of("namespace");
    let mut raw = vec![0x0a];
    prost::encoding::encode_varint(inner.len() as u64, &mut raw);
    raw.extend(inner);
    let mut object = vec![0x0a, 0x00, 0x12];
    prost::encoding::encode_varint(raw.len() as u64, &mut object);
    object.extend(raw);
    let mut value = b"k8s\0\x0a\x1d\x0a\x07apps/v1\x12\x12ControllerRevision\x12".to_vec();
    prost::encoding::encode_varint(object.len() as u64, &mut value);
    value.extend(object);
    let decoded = decode(&value, 1);
    assert_eq!(decoded["data"]["kind"], "Namespace", "{decoded}");
}

#[test]
fn other_values_are_shown_as_what_they_are() {
    // A number, to its writer, or a text: only who wrote it knows.
    assert_eq!(decode(b"1399", 1), json!("1399"));
    assert_eq!(decode(b"plain text", 1), json!("plain text"));
    assert_eq!(decode(b"{\"a\":1}", 1), json!({"a": 1}));
    assert_eq!(decode(b"", 1), json!(""));
    assert_eq!(decode(b"\xff\xfe", 1), json!("//4="));
    assert_eq!(decode(b"k8s\0\xff", 1), json!("azhzAP8="));
}

#[test]
fn no_bytes_panic() {
    let mut random = fastrand::Rng::with_seed(1);
    for object in objects() {
        let value = BASE64_STANDARD.decode(&object.value).expect("valid base64");
        for _ in 0..20 {
            let mut value = value.clone();
            for _ in 0..random.usize(1..4) {
                let at = random.usize(4..value.len());
                value[at] = random.u8(..);
            }
            value.truncate(random.usize(4..=value.len()));
            decode(&value, 1);
        }
    }
}
