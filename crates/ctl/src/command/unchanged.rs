//! Writing many keys without writing over what others write.
//!
//! A batch of keys is read, and written in one transaction that compares every key with what was read.
//! If a comparison fails, the batch is read again. So a transaction that is sent twice has no effect
//! the second time, and a command that ended early can be run again.

use std::collections::BTreeMap;

use bytes::Bytes;
use retcd_client::{Client, Error};
use retcd_proto::etcdserverpb::compare::{CompareResult, CompareTarget, TargetUnion};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::response_op::Response;
use retcd_proto::etcdserverpb::{Compare, PutRequest, RangeRequest, RequestOp, TxnRequest};
use retcd_proto::mvccpb::KeyValue;

use super::context::failed;
use crate::cli::Exit;

/// How often a batch is tried whose keys somebody else writes.
pub(super) const ATTEMPTS_MAX: usize = 10;
/// Bytes of keys and values of a transaction, below what a member takes as a request by default
/// (1.5 MiB), of which comparisons name the keys once more.
pub(super) const BATCH_BYTES_MAX: usize = 1 << 20;

pub(super) const LEASE_NOT_FOUND: &str = "etcdserver: requested lease not found";

/// Reads keys, all as of one revision. Those that are not there are not in the result.
///
/// # Errors
/// The request failed.
pub(super) async fn read_keys<'k>(
    client: &Client,
    keys: impl Iterator<Item = &'k [u8]>,
) -> Result<BTreeMap<Bytes, KeyValue>, Error> {
    let range = |key: &[u8]| RequestOp {
        request: Some(Request::RequestRange(RangeRequest {
            key: key.to_vec().into(),
            ..RangeRequest::default()
        })),
    };
    let request = TxnRequest {
        success: keys.map(range).collect(),
        ..TxnRequest::default()
    };
    let response = client.repeatable_txn(request).await?;
    let ranges = response
        .responses
        .into_iter()
        .filter_map(|part| match part.response {
            Some(Response::ResponseRange(range)) => Some(range.kvs),
            _ => None,
        });
    Ok(ranges
        .flatten()
        .map(|found| (found.key.clone(), found))
        .collect())
}

/// Compares a key with what was read of it. The create revision of a key that is not there is 0.
pub(super) fn unchanged(key: &[u8], seen: Option<&KeyValue>) -> Compare {
    let (target, value) = match seen {
        None => (CompareTarget::Create, TargetUnion::CreateRevision(0)),
        Some(seen) => (
            CompareTarget::Mod,
            TargetUnion::ModRevision(seen.mod_revision),
        ),
    };
    Compare {
        result: CompareResult::Equal.into(),
        target: target.into(),
        key: key.to_vec().into(),
        target_union: Some(value),
        ..Compare::default()
    }
}

/// Puts a key.
pub(super) fn put(key: &[u8], value: &[u8], lease: i64) -> RequestOp {
    RequestOp {
        request: Some(Request::RequestPut(PutRequest {
            key: key.to_vec().into(),
            value: value.to_vec().into(),
            lease,
            ..PutRequest::default()
        })),
    }
}

/// A failed write, with a next step where there is one. `largest` is the name of the largest value
/// of the batch, and its bytes.
pub(super) fn next_step(error: Error, largest: Option<(&str, usize)>) -> Exit {
    let largest = largest.map_or_else(String::new, |(name, bytes)| {
        format!(" The largest value is that of {name}: {bytes} bytes.")
    });
    let step = match &error {
        Error::RequestTooLarge { .. } => {
            format!("Raise --max-request-bytes of this command.{largest}")
        }
        Error::Refused { message, .. } => match message.as_str() {
            "etcdserver: too many operations in txn request" => {
                "Choose a smaller --batch.".to_owned()
            }
            "etcdserver: request is too large" => {
                format!("Raise --max-request-bytes of the members.{largest}")
            }
            "etcdserver: mvcc: database space exceeded" => {
                "Raise --quota-backend-bytes of the members, or compact and defragment, and disarm \
                 the alarm."
                    .to_owned()
            }
            "etcdserver: permission denied" | "etcdserver: user name is empty" => {
                "API v3 has users: name one with --user that may read and write the keys."
                    .to_owned()
            }
            _ => return failed(error),
        },
        _ => return failed(error),
    };
    let exit = failed(error);
    Exit {
        message: exit.message.map(|text| format!("{text}\n{step}")),
        ..exit
    }
}

/// Others write the keys of a batch all the time.
pub(super) fn contended() -> Exit {
    Exit::error(
        "others write the same keys in API v3 all the time\nStop them, and run the command again.",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_transaction_compares_with_what_was_read() {
        let seen = KeyValue {
            mod_revision: 7,
            ..KeyValue::default()
        };
        let target = |seen| unchanged(b"/k", seen).target_union;
        assert_eq!(target(None), Some(TargetUnion::CreateRevision(0)));
        assert_eq!(target(Some(&seen)), Some(TargetUnion::ModRevision(7)));
    }
}
