//! What requests cost against the space quota.
//!
//! The quota counts the bytes in use, not the size of the file: a compaction alone brings it down.
//! Requests are checked before they are proposed; deletions, compactions and revocations cost
//! nothing and always pass.

use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::{PutRequest, RequestOp, TxnRequest};

/// What a put costs beyond its key and value, in bytes.
const PUT_OVERHEAD: u64 = 256;
/// What a lease costs, in bytes.
pub const LEASE_GRANT_COST: u64 = 64;

/// Whether a request of `cost` bytes fits in.
pub fn fits(bytes_in_use: u64, cost: u64, quota_bytes: u64) -> bool {
    cost == 0 || bytes_in_use.saturating_add(cost) < quota_bytes
}

/// The cost of a put in bytes.
pub fn put_cost(request: &PutRequest) -> u64 {
    PUT_OVERHEAD + request.key.len() as u64 + request.value.len() as u64
}

/// The cost of a transaction in bytes: that of its dearer branch.
pub fn txn_cost(request: &TxnRequest) -> u64 {
    branch_cost(&request.success).max(branch_cost(&request.failure))
}

fn branch_cost(ops: &[RequestOp]) -> u64 {
    ops.iter().map(op_cost).sum()
}

fn op_cost(op: &RequestOp) -> u64 {
    match &op.request {
        Some(Request::RequestPut(put)) => put_cost(put),
        Some(Request::RequestTxn(txn)) => txn.visit(txn_cost),
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn put(bytes: usize) -> PutRequest {
        PutRequest {
            key: vec![0; bytes].into(),
            value: vec![0; bytes].into(),
            ..Default::default()
        }
    }

    #[test]
    fn a_txn_costs_its_dearer_branch_with_what_is_nested() {
        let op = |request| RequestOp {
            request: Some(request),
        };
        let nested = TxnRequest {
            failure: vec![op(Request::RequestPut(put(10)))],
            ..Default::default()
        };
        let txn = TxnRequest {
            success: vec![
                op(Request::RequestPut(put(1))),
                op(Request::RequestTxn(nested.into())),
            ],
            failure: vec![op(Request::RequestPut(put(100)))],
            ..Default::default()
        };
        assert_eq!(put_cost(&put(3)), 262);
        assert_eq!(txn_cost(&txn), 258 + 276);
        assert_eq!(txn_cost(&TxnRequest::default()), 0);
    }

    #[test]
    fn what_costs_nothing_always_fits() {
        assert!(fits(1000, 0, 10));
        assert!(fits(9, 1, 11));
        assert!(!fits(10, 1, 11));
    }
}
