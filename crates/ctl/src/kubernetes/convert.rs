//! The form in which an API server shows objects that it stores in an older one.
//!
//! API servers up to 1.20 or so keep some kinds as `v1beta1`, so that those before them can still
//! read them, and convert them to `v1` when they are asked for. What they convert is converted here
//! in the same way; what depends on which API server is asked (`batch/v1beta1`, say, of which 1.20
//! has no newer version, and 1.25 has) is shown as it is stored.

use serde_json::{Map, Value, json};

type Object = Map<String, Value>;

/// Kinds whose `v1beta1` and `v1` differ in nothing else.
const SAME_FORM: [(&str, &str); 8] = [
    (
        "admissionregistration.k8s.io",
        "MutatingWebhookConfiguration",
    ),
    (
        "admissionregistration.k8s.io",
        "ValidatingWebhookConfiguration",
    ),
    ("apiregistration.k8s.io", "APIService"),
    ("certificates.k8s.io", "CertificateSigningRequest"),
    ("coordination.k8s.io", "Lease"),
    ("networking.k8s.io", "IngressClass"),
    ("node.k8s.io", "RuntimeClass"),
    ("storage.k8s.io", "CSIDriver"),
];

/// Brings an object into the form in which it is shown; returns the version of the API that it is
/// stored in if this is another one.
pub(super) fn convert(object: &mut Object) -> Option<String> {
    let text = |name: &str| object.get(name).and_then(Value::as_str);
    let (version, kind) = (text("apiVersion")?.to_owned(), text("kind")?.to_owned());
    let spec = object.get_mut("spec").and_then(Value::as_object_mut);
    match (version.as_str(), kind.as_str()) {
        ("apps/v1", "StatefulSet") => {
            name_claims(spec?);
            return None;
        }
        ("networking.k8s.io/v1beta1", "Ingress") => convert_ingress(spec?),
        ("apiextensions.k8s.io/v1beta1", "CustomResourceDefinition") => convert_definition(spec?),
        (version, kind) => {
            let group = version.strip_suffix("/v1beta1")?;
            if !SAME_FORM.contains(&(group, kind)) {
                return None;
            }
        }
    }
    let group = version.strip_suffix("/v1beta1")?;
    object.insert("apiVersion".to_owned(), format!("{group}/v1").into());
    Some(version)
}

/// Claims of a StatefulSet are stored without what they are.
fn name_claims(spec: &mut Object) {
    for claim in objects(spec, "volumeClaimTemplates") {
        claim.insert("apiVersion".to_owned(), "v1".into());
        claim.insert("kind".to_owned(), "PersistentVolumeClaim".into());
    }
}

fn convert_ingress(spec: &mut Object) {
    if let Some(Value::Object(mut backend)) = spec.remove("backend") {
        convert_backend(&mut backend);
        spec.insert("defaultBackend".to_owned(), backend.into());
    }
    for rule in objects(spec, "rules") {
        let Some(Value::Object(http)) = rule.get_mut("http") else {
            continue;
        };
        for path in objects(http, "paths") {
            if let Some(Value::Object(backend)) = path.get_mut("backend") {
                convert_backend(backend);
            }
            // The default, for objects that are older than the field.
            path.entry("pathType")
                .or_insert_with(|| "ImplementationSpecific".into());
        }
    }
}

/// A backend is a service, whose port is a number or a name, or another object.
fn convert_backend(backend: &mut Object) {
    let name = backend.remove("serviceName").unwrap_or_else(|| "".into());
    let port = match backend.remove("servicePort").unwrap_or(Value::Null) {
        Value::String(name) => json!({"name": name}),
        Value::Number(number) if number.as_i64() != Some(0) => json!({"number": number}),
        _ => json!({}),
    };
    if name != "" || port != json!({}) {
        let service = json!({"name": name, "port": port});
        backend.insert("service".to_owned(), service);
    }
}

/// In `v1` each version of a resource has its own schema, subresources and columns.
fn convert_definition(spec: &mut Object) {
    if let Some(name) = spec.remove("version")
        && objects(spec, "versions").next().is_none()
    {
        let version = json!({"name": name, "served": true, "storage": true});
        spec.insert("versions".to_owned(), json!([version]));
    }
    let of_all = [
        ("validation", "schema"),
        ("subresources", "subresources"),
        ("additionalPrinterColumns", "additionalPrinterColumns"),
    ]
    .map(|(old, new)| (new, spec.remove(old)));
    for version in objects(spec, "versions") {
        for (name, value) in &of_all {
            if let Some(value) = value {
                version.entry(*name).or_insert_with(|| value.clone());
            }
        }
        for column in objects(version, "additionalPrinterColumns") {
            rename(column, "JSONPath", "jsonPath");
        }
    }
    let conversion = spec
        .entry("conversion")
        .or_insert_with(|| json!({"strategy": "None"}));
    if let Value::Object(conversion) = conversion {
        convert_conversion(conversion);
    }
    // True if it is not said, and not shown if it is false.
    let preserves = spec.entry("preserveUnknownFields").or_insert(true.into());
    if *preserves == false {
        spec.remove("preserveUnknownFields");
    }
}

fn convert_conversion(conversion: &mut Object) {
    let mut webhook = Object::new();
    for (old, new) in [
        ("webhookClientConfig", "clientConfig"),
        ("conversionReviewVersions", "conversionReviewVersions"),
    ] {
        if let Some(value) = conversion.remove(old) {
            webhook.insert(new.to_owned(), value);
        }
    }
    if !webhook.is_empty() {
        conversion.insert("webhook".to_owned(), webhook.into());
    }
}

fn rename(object: &mut Object, old: &str, new: &str) {
    if let Some(value) = object.remove(old) {
        object.insert(new.to_owned(), value);
    }
}

/// The objects of a list in an object.
fn objects<'o>(object: &'o mut Object, name: &str) -> impl Iterator<Item = &'o mut Object> {
    let list = object.get_mut(name).and_then(Value::as_array_mut);
    list.into_iter().flatten().filter_map(Value::as_object_mut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(stored: Value, shown: Value) {
        let version = stored["apiVersion"].as_str().map(str::to_owned);
        let changes = stored["apiVersion"] != shown["apiVersion"];
        let Value::Object(mut object) = stored else {
            panic!("no object: {stored}");
        };
        assert_eq!(convert(&mut object), version.filter(|_| changes));
        assert_eq!(Value::Object(object), shown);
    }

    #[test]
    fn a_backend_is_a_service_or_another_object() {
        let ingress = |version: &str, spec: Value| json!({"apiVersion": version, "kind": "Ingress", "spec": spec});
        let (old, new) = ("networking.k8s.io/v1beta1", "networking.k8s.io/v1");
        let bucket = json!({"kind": "Bucket", "name": "b"});
        check(
            ingress(
                old,
                json!({
                    "backend": {"serviceName": "a", "servicePort": "http"},
                    "rules": [{"host": "no.paths"}, {"http": {"paths": [
                        {"backend": {"serviceName": "b", "servicePort": 80}},
                        {"backend": {"servicePort": 0, "resource": bucket}, "pathType": "Exact"},
                    ]}}],
                }),
            ),
            ingress(
                new,
                json!({
                    "defaultBackend": {"service": {"name": "a", "port": {"name": "http"}}},
                    "rules": [{"host": "no.paths"}, {"http": {"paths": [
                        {
                            "backend": {"service": {"name": "b", "port": {"number": 80}}},
                            "pathType": "ImplementationSpecific",
                        },
                        {"backend": {"resource": bucket}, "pathType": "Exact"},
                    ]}}],
                }),
            ),
        );
    }

    #[test]
    fn versions_of_a_definition_have_what_it_had() {
        let definition = |version: &str, spec: Value| json!({"apiVersion": version, "kind": "CustomResourceDefinition", "spec": spec});
        let (old, new) = ("apiextensions.k8s.io/v1beta1", "apiextensions.k8s.io/v1");
        let column = |path: &str| json!({"name": "Age", path: ".spec.age"});
        check(
            definition(
                old,
                json!({"version": "v1", "validation": {"openAPIV3Schema": {}}, "additionalPrinterColumns": [column("JSONPath")]}),
            ),
            definition(
                new,
                json!({
                    "versions": [{
                        "name": "v1", "served": true, "storage": true, "schema": {"openAPIV3Schema": {}},
                        "additionalPrinterColumns": [column("jsonPath")],
                    }],
                    "conversion": {"strategy": "None"}, "preserveUnknownFields": true,
                }),
            ),
        );
        check(
            definition(
                old,
                json!({
                    "version": "v1",
                    "versions": [{"name": "v1", "schema": {"a": 1}, "additionalPrinterColumns": [column("JSONPath")]}, {"name": "v2"}],
                    "conversion": {
                        "strategy": "Webhook", "webhookClientConfig": {"url": "https://a"}, "conversionReviewVersions": ["v1beta1"],
                    },
                    "preserveUnknownFields": false,
                }),
            ),
            definition(
                new,
                json!({
                    "versions": [{"name": "v1", "schema": {"a": 1}, "additionalPrinterColumns": [column("jsonPath")]}, {"name": "v2"}],
                    "conversion": {
                        "strategy": "Webhook",
                        "webhook": {"clientConfig": {"url": "https://a"}, "conversionReviewVersions": ["v1beta1"]},
                    },
                }),
            ),
        );
    }

    #[test]
    fn what_an_api_server_may_show_in_either_version_is_left_alone() {
        for (version, kind) in [
            ("batch/v1beta1", "CronJob"),
            ("example.com/v1beta1", "Lease"),
            ("networking.k8s.io/v1", "Ingress"),
            // Of another server, and no objects of these kinds.
            ("networking.k8s.io/v1beta1", "Ingress"),
        ] {
            let object = json!({"apiVersion": version, "kind": kind, "spec": []});
            check(object.clone(), object);
        }
        check(json!({"kind": "Lease"}), json!({"kind": "Lease"}));
    }
}
