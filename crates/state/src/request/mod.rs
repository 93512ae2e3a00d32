//! What is wrong with a request whatever the state: checked before it is proposed.

mod duplicates;
mod operation;

use retcd_proto::etcdserverpb::range_request::{SortOrder, SortTarget};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{
    DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest,
};

use duplicates::has_duplicates;
pub use operation::Operation;

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The key is empty.
    #[error("key is not provided")]
    EmptyKey,
    /// An operation of a transaction names nothing to do.
    #[error("key not found")]
    EmptyOp,
    /// A value although the old one is to be kept.
    #[error("value is provided")]
    ValueProvided,
    /// A lease although the old one is to be kept.
    #[error("lease is provided")]
    LeaseProvided,
    /// Unknown sort order or target.
    #[error("invalid sort option")]
    InvalidSortOption,
    /// More compares or operations than allowed.
    #[error("too many operations in txn request")]
    TooManyOps,
    /// A key is put twice, or put and deleted.
    #[error("duplicate key given in txn request")]
    DuplicateKey,
    /// A stream sorted by anything but the key.
    #[error("RangeStream does not support custom sort orders")]
    StreamSorted,
    /// A stream with bounds on revisions.
    #[error("RangeStream does not support revision filters")]
    StreamFiltered,
}

/// Checks a range.
pub fn check_range(request: &RangeRequest) -> Result<(), RequestError> {
    check_key(&request.key)?;
    let order = SortOrder::try_from(request.sort_order);
    let target = SortTarget::try_from(request.sort_target);
    if order.is_ok() && target.is_ok() {
        Ok(())
    } else {
        Err(RequestError::InvalidSortOption)
    }
}

/// Checks a range that is to be answered in chunks.
pub fn check_range_stream(request: &RangeRequest) -> Result<(), RequestError> {
    check_range(request)?;
    let by_key = request.sort_target() == SortTarget::Key;
    match request.sort_order() {
        SortOrder::None => {}
        SortOrder::Ascend if by_key => {}
        _ => return Err(RequestError::StreamSorted),
    }
    let bounds = [
        request.min_mod_revision,
        request.max_mod_revision,
        request.min_create_revision,
        request.max_create_revision,
    ];
    if bounds == [0; 4] {
        Ok(())
    } else {
        Err(RequestError::StreamFiltered)
    }
}

/// Checks a put.
pub fn check_put(request: &PutRequest) -> Result<(), RequestError> {
    check_key(&request.key)?;
    if request.ignore_value && !request.value.is_empty() {
        return Err(RequestError::ValueProvided);
    }
    if request.ignore_lease && request.lease != 0 {
        return Err(RequestError::LeaseProvided);
    }
    Ok(())
}

/// Checks a deletion.
pub fn check_delete_range(request: &DeleteRangeRequest) -> Result<(), RequestError> {
    check_key(&request.key)
}

/// Checks the form of a transaction of at most `ops_max` compares and as many operations per
/// branch; what a level uses up is not available to those nested in it. Returns the number of
/// compares and operations, nested ones too.
///
/// Takes no longer than to decode the request; [`check_duplicates`] is the other, costlier half.
pub fn check_txn(request: &TxnRequest, ops_max: usize) -> Result<usize, RequestError> {
    let mut total = 0;
    check_ops(request, ops_max, &mut total)?;
    Ok(total)
}

/// Checks that no branch of a transaction puts a key twice, or puts and deletes it.
pub fn check_duplicates(request: &TxnRequest) -> Result<(), RequestError> {
    if has_duplicates(&request.success) || has_duplicates(&request.failure) {
        Err(RequestError::DuplicateKey)
    } else {
        Ok(())
    }
}

fn check_key(key: &[u8]) -> Result<(), RequestError> {
    if key.is_empty() {
        Err(RequestError::EmptyKey)
    } else {
        Ok(())
    }
}

fn check_ops(request: &TxnRequest, ops_max: usize, total: &mut usize) -> Result<(), RequestError> {
    let ops = request
        .compare
        .len()
        .max(request.success.len())
        .max(request.failure.len());
    let left = ops_max.checked_sub(ops).ok_or(RequestError::TooManyOps)?;
    *total += request.compare.len() + request.success.len() + request.failure.len();
    request
        .compare
        .iter()
        .try_for_each(|compare| check_key(&compare.key))?;
    request
        .success
        .iter()
        .chain(&request.failure)
        .try_for_each(|op| check_op(op, left, total))
}

fn check_op(op: &RequestOp, ops_max: usize, total: &mut usize) -> Result<(), RequestError> {
    match &op.request {
        Some(Request::RequestRange(range)) => check_range(range),
        Some(Request::RequestPut(put)) => check_put(put),
        Some(Request::RequestDeleteRange(delete)) => check_delete_range(delete),
        Some(Request::RequestTxn(txn)) => txn.visit(|txn| check_ops(txn, ops_max, total)),
        None => Err(RequestError::EmptyOp),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(key: &'static str) -> RequestOp {
        let put = PutRequest {
            key: key.into(),
            ..Default::default()
        };
        RequestOp {
            request: Some(Request::RequestPut(put)),
        }
    }

    fn delete(key: &'static str, range_end: &'static str) -> RequestOp {
        let delete = DeleteRangeRequest {
            key: key.into(),
            range_end: range_end.into(),
            ..Default::default()
        };
        RequestOp {
            request: Some(Request::RequestDeleteRange(delete)),
        }
    }

    fn branches(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> TxnRequest {
        TxnRequest {
            success,
            failure,
            ..Default::default()
        }
    }

    fn nested(success: Vec<RequestOp>, failure: Vec<RequestOp>) -> RequestOp {
        RequestOp {
            request: Some(Request::RequestTxn(branches(success, failure).into())),
        }
    }

    #[track_caller]
    fn check(ops: Vec<RequestOp>, expected: Result<(), RequestError>) {
        for txn in [branches(ops.clone(), vec![]), branches(vec![], ops)] {
            let checked = check_txn(&txn, 16).and_then(|_| check_duplicates(&txn));
            assert_eq!(checked, expected);
        }
    }

    #[test]
    fn a_key_is_put_once_and_not_deleted() {
        let duplicate = Err(RequestError::DuplicateKey);
        check(vec![put("a"), put("b")], Ok(()));
        check(vec![put("a"), put("a")], duplicate);
        check(vec![put("a"), delete("a", "")], duplicate);
        check(vec![delete("a", "c"), put("b")], duplicate);
        check(vec![delete("a", "c"), put("c")], Ok(()));
        check(vec![delete("a", "c"), delete("b", "d")], Ok(()));
        check(vec![delete("a", "\0"), put("b")], Ok(()));
        check(vec![put("a"), nested(vec![put("a")], vec![])], duplicate);
        check(
            vec![put("a"), nested(vec![], vec![delete("a", "b")])],
            duplicate,
        );
        check(
            vec![delete("a", "b"), nested(vec![put("a")], vec![])],
            duplicate,
        );
        check(vec![nested(vec![put("a")], vec![put("a")])], Ok(()));
        check(
            vec![
                nested(vec![put("a")], vec![]),
                nested(vec![], vec![put("a")]),
            ],
            duplicate,
        );
        check(
            vec![
                nested(vec![put("a")], vec![]),
                nested(vec![delete("a", "")], vec![]),
            ],
            Ok(()),
        );
    }

    #[test]
    fn limits_shrink_with_every_level() {
        let deep = nested(vec![nested(vec![put("a"), put("b")], vec![])], vec![]);
        // Both nested transactions and both puts.
        assert_eq!(check_txn(&branches(vec![deep.clone()], vec![]), 4), Ok(4));
        assert_eq!(
            check_txn(&branches(vec![deep], vec![]), 3),
            Err(RequestError::TooManyOps)
        );
        assert_eq!(
            check_txn(&branches(vec![put("a")], vec![]), 0),
            Err(RequestError::TooManyOps)
        );
    }

    #[test]
    fn operations_are_checked_like_requests() {
        check(vec![put("")], Err(RequestError::EmptyKey));
        check(vec![delete("", "b")], Err(RequestError::EmptyKey));
        check(
            vec![RequestOp { request: None }],
            Err(RequestError::EmptyOp),
        );
        let range = RangeRequest {
            key: "a".into(),
            sort_order: 9,
            ..Default::default()
        };
        check(
            vec![RequestOp {
                request: Some(Request::RequestRange(range)),
            }],
            Err(RequestError::InvalidSortOption),
        );
        let keep = PutRequest {
            key: "a".into(),
            value: "b".into(),
            ignore_value: true,
            ..Default::default()
        };
        assert_eq!(check_put(&keep), Err(RequestError::ValueProvided));
        let keep = PutRequest {
            key: "a".into(),
            lease: 1,
            ignore_lease: true,
            ..Default::default()
        };
        assert_eq!(check_put(&keep), Err(RequestError::LeaseProvided));
    }

    #[test]
    fn streams_are_neither_sorted_nor_filtered() {
        let range = RangeRequest {
            key: "a".into(),
            ..Default::default()
        };
        assert_eq!(check_range_stream(&range), Ok(()));
        assert_eq!(
            check_range_stream(&RangeRequest {
                sort_order: 1,
                ..range.clone()
            }),
            Ok(())
        );
        let sorted = [(2, 0), (1, 1), (2, 4)];
        for (sort_order, sort_target) in sorted {
            let range = RangeRequest {
                sort_order,
                sort_target,
                ..range.clone()
            };
            assert_eq!(check_range_stream(&range), Err(RequestError::StreamSorted));
        }
        let range = RangeRequest {
            max_create_revision: 3,
            ..range
        };
        assert_eq!(
            check_range_stream(&range),
            Err(RequestError::StreamFiltered)
        );
    }
}
