//! `get --decode` shows objects as Kubernetes' API server would, and names what cannot be shown.

mod harness;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use harness::{Member, etcdctl, run};

const OBJECTS: &str = include_str!("data/kubernetes.jsonl");

/// Key, value and JSON of an object of the file.
fn object(name: &str) -> (String, Vec<u8>, Value) {
    let objects = OBJECTS
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let object = objects.into_iter().find(|object| object["name"] == name);
    let mut object = object.expect("it is there");
    let value = BASE64_STANDARD.decode(object["value"].as_str().expect("text"));
    let key = object["key"].as_str().expect("text").to_owned();
    (key, value.expect("base64"), object["shown"].take())
}

#[test]
fn objects_are_shown_with_the_revision_of_their_key() {
    let member = Member::start();
    let mut expected = Vec::new();
    for (index, name) in ["configmap", "customresource-widget", "pod-terminating"]
        .iter()
        .enumerate()
    {
        let (key, value, mut shown) = object(name);
        assert_eq!(member.run(&["put", &key], &value).stdout, "OK\n");
        shown["metadata"]["resourceVersion"] = (2 + index).to_string().into();
        expected.push((key, shown));
    }
    let done = member.run(&["get", "--prefix", "/registry/", "--decode=json"], "");
    assert!(done.status.success(), "{done:?}");
    let shown = done
        .stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let all: Vec<Value> = expected.iter().map(|(_, shown)| shown.clone()).collect();
    assert_eq!(shown.collect::<Vec<_>>(), all);

    let (key, _) = &expected[0];
    let yaml = member.run(&["get", key, "--decode"], "").stdout;
    let head =
        format!("# {key}\n# 627 bytes, version 1, created at revision 2, changed at revision 2\n");
    let body = yaml.strip_prefix(&head).unwrap_or_else(|| panic!("{yaml}"));
    assert!(body.starts_with("apiVersion: v1\n"), "{yaml}");
    assert!(body.contains("\nkind: ConfigMap\nmetadata:\n"), "{yaml}");

    member.run(
        &["put", "/registry/secrets/a/b"],
        b"k8s:enc:aescbc:v1:key-1:\xfe\xff\0",
    );
    let done = member.run(&["get", "/registry/secrets/a/b", "--decode=json"], "");
    let about =
        json!({"encrypted": {"provider": "aescbc", "version": "v1", "key": "key-1", "bytes": 3}});
    assert_eq!(
        serde_json::from_str::<Value>(&done.stdout).expect("JSON"),
        about
    );
    let none = member.run(&["get", "/registry/nothing", "--decode"], "");
    assert_eq!((none.stdout.as_str(), none.status.code()), ("", Some(0)));
}

#[test]
fn other_forms_of_output_are_refused() {
    let refused = |args: &[&str], error: &str| {
        let done = run(etcdctl(&[&["get", "k", "--decode"], args].concat()), "");
        assert_eq!(
            (done.errors(), done.status.code()),
            (format!("Error: {error}"), Some(128))
        );
    };
    refused(
        &["--decode=xml"],
        "unknown form \"xml\" of `--decode`, use `--decode=yaml` or `--decode=json`",
    );
    refused(
        &["--keys-only"],
        "`--decode` and `--keys-only` cannot be set at the same time, choose one",
    );
    refused(
        &["-w", "table"],
        "`--decode` is only for `--write-out=simple`, use `--decode=json` instead of `--write-out=table`",
    );
}
