//! The requests of API v2 that etcd before 3.6 left in the log.
//!
//! Besides users' data they carried what members told each other: a member's name and client URLs,
//! and the cluster's version. Only the latter two are understood here.

use retcd_proto::etcdserverpb::Request;
use retcd_proto::membershippb::Attributes;
use retcd_proto::number;
use serde::Deserialize;

/// What a request means to the state machine.
#[derive(Debug, PartialEq)]
pub(crate) enum Meaning<'a> {
    /// It changes nothing.
    Nothing,
    /// The cluster's version is this.
    ClusterVersion(&'a str),
    /// The member has published these attributes.
    Attributes(u64, Attributes),
    /// It changes a user's data.
    Other,
}

/// Member attributes as etcd stored them in API v2's tree.
#[derive(Deserialize)]
struct AttributesJson {
    #[serde(default)]
    name: String,
    #[serde(default, rename = "clientURLs")]
    client_urls: Option<Vec<String>>,
}

pub(crate) fn parse(request: &Request) -> Meaning<'_> {
    match (request.method(), request.path()) {
        // A leader's clock for expiring keys, and a read through the log.
        ("SYNC" | "QGET" | "", _) => Meaning::Nothing,
        ("PUT", "/0/version") => Meaning::ClusterVersion(request.val()),
        ("PUT", path) => parse_attributes(path, request.val()).unwrap_or(Meaning::Other),
        _ => Meaning::Other,
    }
}

fn parse_attributes<'a>(path: &str, json: &str) -> Option<Meaning<'a>> {
    let id = path
        .strip_prefix("/0/members/")?
        .strip_suffix("/attributes")?;
    let id = number::hexadecimal(id)?;
    let AttributesJson { name, client_urls } = serde_json::from_str(json).ok()?;
    Some(Meaning::Attributes(
        id,
        Attributes {
            name,
            client_urls: client_urls.unwrap_or_default(),
        },
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, path: &str, val: &str) -> Request {
        Request {
            method: Some(method.into()),
            path: Some(path.into()),
            val: Some(val.into()),
            ..Default::default()
        }
    }

    #[test]
    fn what_members_tell_each_other_is_understood() {
        assert_eq!(
            parse(&request("PUT", "/0/version", "3.5.0")),
            Meaning::ClusterVersion("3.5.0")
        );
        let json = r#"{"name":"a","clientURLs":["http://127.0.0.1:2379"]}"#;
        let attributes = Attributes {
            name: "a".into(),
            client_urls: vec!["http://127.0.0.1:2379".into()],
        };
        let put = request("PUT", "/0/members/9927ef63c3f7add/attributes", json);
        assert_eq!(
            parse(&put),
            Meaning::Attributes(0x992_7ef6_3c3f_7add, attributes)
        );
        assert_eq!(parse(&request("SYNC", "", "")), Meaning::Nothing);
        assert_eq!(parse(&Request::default()), Meaning::Nothing);
    }

    #[test]
    fn users_data_is_not() {
        for (method, path, val) in [
            ("PUT", "/1/foo", "bar"),
            ("DELETE", "/1/foo", ""),
            ("POST", "/0/version", "3.5.0"),
            ("PUT", "/0/members/zz/attributes", "{}"),
            ("PUT", "/0/members/1/attributes", "no json"),
            ("PUT", "/0/members/1/raftAttributes", "{}"),
        ] {
            assert_eq!(
                parse(&request(method, path, val)),
                Meaning::Other,
                "{method} {path}"
            );
        }
    }
}
