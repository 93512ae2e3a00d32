//! The list of members as clients of the proxy see it: the proxies, so that a client that follows
//! the list stays with them.

use bytes::Bytes;
use prost::Message;
use retcd_client::prefix_end;
use retcd_proto::etcdserverpb::{Member, MemberListResponse, RangeRequest};
use serde::Deserialize;

use super::call::Call;
use crate::status::Status;

/// What a proxy registers under its address: etcd's `naming/endpoints`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Registered {
    addr: String,
    metadata: Option<String>,
}

#[derive(Deserialize, Default)]
struct Metadata {
    #[serde(default)]
    name: String,
}

/// `MemberList`.
pub(super) async fn list(call: &Call, message: Bytes) -> Result<Bytes, Status> {
    let shared = &call.thread.shared;
    let own = &shared.settings.advertise_client_url;
    if own.is_empty() {
        return call.forward(message).await;
    }
    let mut members = registered(call).await;
    if members.is_empty() {
        members.push(member(&shared.host_name, own));
    }
    let list = MemberListResponse {
        members,
        ..MemberListResponse::default()
    };
    Ok(list.encode_to_vec().into())
}

fn member(name: &str, url: &str) -> Member {
    Member {
        name: name.to_owned(),
        client_ur_ls: vec![url.to_owned()],
        ..Member::default()
    }
}

/// The proxies that have registered; none if that cannot be found out.
async fn registered(call: &Call) -> Vec<Member> {
    let settings = &call.thread.shared.settings;
    let Some(registration) = &settings.registration else {
        return Vec::new();
    };
    let Ok(client) = call.client() else {
        return Vec::new();
    };
    let prefix = format!("{}/", registration.prefix);
    let request = RangeRequest {
        range_end: prefix_end(prefix.as_bytes()).into(),
        key: prefix.into(),
        ..RangeRequest::default()
    };
    let client = client.namespace(settings.namespace.clone());
    let Ok(answer) = client.range(request).await else {
        return Vec::new();
    };
    let entries = answer.kvs.iter();
    entries.filter_map(|kv| parse(&kv.value)).collect()
}

fn parse(entry: &[u8]) -> Option<Member> {
    let registered: Registered = serde_json::from_slice(entry).ok()?;
    let metadata: Metadata = registered
        .metadata
        .and_then(|metadata| serde_json::from_str(&metadata).ok())
        .unwrap_or_default();
    Some(member(&metadata.name, &registered.addr))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_etcds() {
        let entry = br#"{"Op":0,"Addr":"127.0.0.1:23790","Metadata":"{\"name\":\"host\"}"}"#;
        assert_eq!(parse(entry), Some(member("host", "127.0.0.1:23790")));
        let bare = br#"{"Op":0,"Addr":"a:1","Metadata":null}"#;
        assert_eq!(parse(bare), Some(member("", "a:1")));
        assert_eq!(parse(br#"{"Addr":"a:1"}"#), Some(member("", "a:1")));
        assert_eq!(parse(b"x"), None);
    }
}
