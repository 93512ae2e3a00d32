//! Requests as the log tells them, in etcd's form (etcd v3.7:
//! api/etcdserverpb/raft_internal_stringer.go): who asked for what, with the size of values in place of
//! values, and without passwords and tokens.

use std::fmt::Write as _;

use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    DeleteRangeRequest, InternalRaftRequest, PutRequest, RangeRequest, Request as V2Request,
    RequestOp, TxnRequest,
};
use retcd_proto::raftpb::{Entry, EntryType};
use retcd_state::entry::LoggedRequest;
use retcd_state::request::Operation;

/// Operations of a transaction that are told.
const OPS_MAX: usize = 16;
/// Bytes of a key that are told.
const KEY_BYTES_MAX: usize = 256;

/// What `entry` asks for; empty if that is nothing, as in a leader's first.
pub(crate) fn of_entry(entry: &Entry) -> String {
    if entry.r#type() != EntryType::EntryNormal {
        return "conf_change:<>".to_owned();
    }
    if entry.data().is_empty() {
        return String::new();
    }
    match LoggedRequest::of(entry) {
        Ok(LoggedRequest::V3(request)) => of_request(&request),
        Ok(LoggedRequest::V2(request)) => of_v2(&request),
        Err(_) => String::new(),
    }
}

fn of_v2(request: &V2Request) -> String {
    format!(
        "v2:<method:{} path:{} value_size:{} >",
        key(request.method().as_bytes()),
        key(request.path().as_bytes()),
        request.val().len()
    )
}

fn of_request(request: &InternalRaftRequest) -> String {
    let header = request.header.clone().unwrap_or_default();
    let mut text = format!("header:<ID:{}", header.id);
    if !header.username.is_empty() {
        let _ = write!(
            text,
            " username:{:?} auth_revision:{}",
            header.username, header.auth_revision
        );
    }
    text.push_str(" > ");
    text + &if let Some(put) = &request.put {
        format!("put:<{}>", of_put(put))
    } else if let Some(txn) = &request.txn {
        format!("txn:<{}>", of_txn(txn))
    } else if let Some(range) = &request.range {
        format!("range:<{}>", of_range(range))
    } else if let Some(delete) = &request.delete_range {
        format!("delete_range:<{}>", of_delete(delete))
    } else if let Some(grant) = &request.lease_grant {
        format!(
            "lease_grant:<ttl:{}-second id:{:016x}>",
            grant.ttl, grant.id
        )
    } else if let Some(revoke) = &request.lease_revoke {
        format!("lease_revoke:<id:{:016x}>", revoke.id)
    } else if let Some(compaction) = &request.compaction {
        format!("compaction:<revision:{} >", compaction.revision)
    } else {
        format!("{}:<>", Operation::of(request).name())
    }
}

fn of_put(put: &PutRequest) -> String {
    let mut text = format!("key:{} value_size:{} ", key(&put.key), put.value.len());
    if put.lease != 0 {
        let _ = write!(text, "lease:{} ", put.lease);
    }
    text
}

/// A range as etcd tells it.
pub(crate) fn of_range(range: &RangeRequest) -> String {
    let mut text = format!("key:{} ", key(&range.key));
    if !range.range_end.is_empty() {
        let _ = write!(text, "range_end:{} ", key(&range.range_end));
    }
    for (name, value) in [("limit", range.limit), ("revision", range.revision)] {
        if value != 0 {
            let _ = write!(text, "{name}:{value} ");
        }
    }
    for (name, set) in [
        ("serializable", range.serializable),
        ("keys_only", range.keys_only),
        ("count_only", range.count_only),
    ] {
        if set {
            let _ = write!(text, "{name}:true ");
        }
    }
    text
}

fn of_delete(delete: &DeleteRangeRequest) -> String {
    let mut text = format!("key:{} ", key(&delete.key));
    if !delete.range_end.is_empty() {
        let _ = write!(text, "range_end:{} ", key(&delete.range_end));
    }
    text
}

fn of_txn(txn: &TxnRequest) -> String {
    let compare = txn.compare.iter().take(OPS_MAX);
    let compare: Vec<String> = compare
        .map(|compare| {
            format!(
                "target:{} key:{} ",
                compare.target().as_str_name(),
                key(&compare.key)
            )
        })
        .collect();
    format!(
        "compare:<{}> success:<{}> failure:<{}>",
        compare.join(" "),
        of_ops(&txn.success),
        of_ops(&txn.failure)
    )
}

fn of_ops(ops: &[RequestOp]) -> String {
    let told = ops.iter().take(OPS_MAX).map(|op| match &op.request {
        Some(Request::RequestPut(put)) => format!("request_put:<{}>", of_put(put)),
        Some(Request::RequestRange(range)) => format!("request_range:<{}>", of_range(range)),
        Some(Request::RequestDeleteRange(delete)) => {
            format!("request_delete_range:<{}>", of_delete(delete))
        }
        Some(Request::RequestTxn(_)) => "request_txn:<>".to_owned(),
        None => String::new(),
    });
    let mut told: Vec<String> = told.collect();
    if ops.len() > OPS_MAX {
        told.push(format!("and {} more", ops.len() - OPS_MAX));
    }
    told.join(" ")
}

/// Bytes in quotation marks, as protobuf's text form has them but for what is UTF-8.
fn key(key: &[u8]) -> String {
    match key.split_at_checked(KEY_BYTES_MAX) {
        Some((begin, rest)) if !rest.is_empty() => {
            format!("{:?}...", String::from_utf8_lossy(begin))
        }
        _ => format!("{:?}", String::from_utf8_lossy(key)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message;
    use retcd_proto::etcdserverpb::{AuthUserAddRequest, RequestHeader};

    fn text(request: InternalRaftRequest) -> String {
        let request = InternalRaftRequest {
            header: Some(RequestHeader {
                id: 7,
                username: "root".to_owned(),
                auth_revision: 3,
            }),
            ..request
        };
        let entry = Entry {
            data: Some(request.encode_to_vec().into()),
            ..Entry::default()
        };
        let text = of_entry(&entry);
        let header = "header:<ID:7 username:\"root\" auth_revision:3 > ";
        text.strip_prefix(header).expect(&text).to_owned()
    }

    fn put(value: &'static str) -> PutRequest {
        PutRequest {
            key: "foo".into(),
            value: value.into(),
            ..PutRequest::default()
        }
    }

    #[test]
    fn values_and_passwords_stay_out_of_the_log() {
        let told = text(InternalRaftRequest {
            put: Some(put("secret")),
            ..Default::default()
        });
        assert_eq!(told, "put:<key:\"foo\" value_size:6 >");
        let op = RequestOp {
            request: Some(Request::RequestPut(put("secret"))),
        };
        let told = text(InternalRaftRequest {
            txn: Some(TxnRequest {
                success: vec![op; 20],
                ..Default::default()
            }),
            ..Default::default()
        });
        assert!(
            told.starts_with("txn:<compare:<> success:<request_put:<key:\"foo\" value_size:6 > "),
            "{told}"
        );
        assert!(told.ends_with("and 4 more> failure:<>>"), "{told}");
        assert!(!told.contains("secret"), "{told}");
        let told = text(InternalRaftRequest {
            auth_user_add: Some(AuthUserAddRequest {
                name: "u".to_owned(),
                password: "secret".to_owned(),
                ..Default::default()
            }),
            ..Default::default()
        });
        assert_eq!(told, "AuthUserAdd:<>");
    }

    /// Before 3.5 a request of API v2 was an entry of its own.
    #[test]
    fn requests_of_api_v2_are_told_in_either_form() {
        let request = V2Request {
            id: Some(7),
            method: Some("PUT".to_owned()),
            path: Some("/1/foo".to_owned()),
            val: Some("secret".to_owned()),
            ..V2Request::default()
        };
        let alone = request.encode_to_vec();
        let wrapped = InternalRaftRequest {
            v2: Some(alone.clone().into()),
            ..Default::default()
        };
        for data in [alone, wrapped.encode_to_vec()] {
            let entry = Entry {
                data: Some(data.into()),
                ..Entry::default()
            };
            let expected = "v2:<method:\"PUT\" path:\"/1/foo\" value_size:6 >";
            assert_eq!(of_entry(&entry), expected);
        }
        assert_eq!(of_entry(&Entry::default()), "", "a leader's first");
    }
}
