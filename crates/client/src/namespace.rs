//! Prefixing of keys (etcd's Go client: client/v3/namespace).

use bytes::{BufMut, Bytes, BytesMut};
use retcd_proto::etcdserverpb::request_op::Request;
use retcd_proto::etcdserverpb::response_op::Response;
use retcd_proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseTimeToLiveResponse, PutRequest, PutResponse,
    RangeRequest, RangeResponse, TxnRequest, TxnResponse, WatchCreateRequest,
};
use retcd_proto::mvccpb::{Event, KeyValue};
use retcd_proto::with_stack;
use tonic::Code;

use crate::error::Error;
use crate::range_end::{FROM_KEY, prefix_end};

/// A prefix of all keys; empty by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Namespace(Bytes);

impl Namespace {
    /// The namespace `prefix` inside this one.
    pub(crate) fn nested(&self, prefix: &[u8]) -> Namespace {
        Namespace(self.prefixed(prefix))
    }

    /// Adds the prefix to a key.
    fn prefixed(&self, key: &[u8]) -> Bytes {
        let mut whole = BytesMut::with_capacity(self.0.len() + key.len());
        whole.put_slice(&self.0);
        whole.put_slice(key);
        whole.freeze()
    }

    /// Adds the prefix to a key and a range end. The resulting range does not extend beyond the
    /// namespace.
    fn prefix_interval(&self, key: &mut Bytes, range_end: &mut Bytes) {
        if self.0.is_empty() {
            return;
        }
        *key = self.prefixed(key);
        *range_end = match range_end.as_ref() {
            b"" => return,
            FROM_KEY => prefix_end(&self.0).into(),
            end => self.prefixed(end),
        };
    }

    /// The server rejects empty keys, but would not notice one that has been prefixed.
    fn reject_empty(&self, key: &[u8]) -> Result<(), Error> {
        if key.is_empty() && !self.0.is_empty() {
            return Err(Error::Refused {
                code: Code::InvalidArgument,
                message: "etcdserver: key is not provided".to_owned(),
            });
        }
        Ok(())
    }

    pub(crate) fn prefix_get(&self, request: &mut RangeRequest) -> Result<(), Error> {
        if request.range_end.is_empty() {
            self.reject_empty(&request.key)?;
        }
        self.prefix_interval(&mut request.key, &mut request.range_end);
        Ok(())
    }

    pub(crate) fn prefix_put(&self, request: &mut PutRequest) -> Result<(), Error> {
        self.reject_empty(&request.key)?;
        self.prefix_interval(&mut request.key, &mut Bytes::new());
        Ok(())
    }

    pub(crate) fn prefix_delete(&self, request: &mut DeleteRangeRequest) -> Result<(), Error> {
        if request.range_end.is_empty() {
            self.reject_empty(&request.key)?;
        }
        self.prefix_interval(&mut request.key, &mut request.range_end);
        Ok(())
    }

    pub(crate) fn prefix_txn(&self, request: &mut TxnRequest) -> Result<(), Error> {
        if self.0.is_empty() {
            return Ok(());
        }
        for compare in &mut request.compare {
            self.prefix_interval(&mut compare.key, &mut compare.range_end);
        }
        for op in request.success.iter_mut().chain(&mut request.failure) {
            match &mut op.request {
                Some(Request::RequestRange(range)) => self.prefix_get(range)?,
                Some(Request::RequestPut(put)) => self.prefix_put(put)?,
                Some(Request::RequestDeleteRange(delete)) => self.prefix_delete(delete)?,
                Some(Request::RequestTxn(nested)) => {
                    let mut inner = std::mem::take(nested).into_inner();
                    with_stack(|| self.prefix_txn(&mut inner))?;
                    *nested = inner.into();
                }
                None => {}
            }
        }
        Ok(())
    }

    pub(crate) fn prefix_watch(&self, request: &mut WatchCreateRequest) {
        // A watch on the empty key starts at the first key.
        self.prefix_interval(&mut request.key, &mut request.range_end);
    }

    /// Removes the prefix from a key of a response.
    fn unprefix(&self, kv: &mut KeyValue) {
        kv.key = kv.key.slice(self.0.len().min(kv.key.len())..);
    }

    pub(crate) fn unprefix_range(&self, response: &mut RangeResponse) {
        response.kvs.iter_mut().for_each(|kv| self.unprefix(kv));
    }

    pub(crate) fn unprefix_put(&self, response: &mut PutResponse) {
        response.prev_kv.iter_mut().for_each(|kv| self.unprefix(kv));
    }

    pub(crate) fn unprefix_delete(&self, response: &mut DeleteRangeResponse) {
        response
            .prev_kvs
            .iter_mut()
            .for_each(|kv| self.unprefix(kv));
    }

    pub(crate) fn unprefix_txn(&self, response: &mut TxnResponse) {
        if self.0.is_empty() {
            return;
        }
        for op in &mut response.responses {
            match &mut op.response {
                Some(Response::ResponseRange(range)) => self.unprefix_range(range),
                Some(Response::ResponsePut(put)) => self.unprefix_put(put),
                Some(Response::ResponseDeleteRange(delete)) => self.unprefix_delete(delete),
                Some(Response::ResponseTxn(nested)) => {
                    let mut inner = std::mem::take(nested).into_inner();
                    with_stack(|| self.unprefix_txn(&mut inner));
                    *nested = inner.into();
                }
                None => {}
            }
        }
    }

    pub(crate) fn unprefix_events(&self, events: &mut [Event]) {
        for event in events {
            let kvs = event.kv.iter_mut().chain(&mut event.prev_kv);
            kvs.for_each(|kv| self.unprefix(kv));
        }
    }

    /// Also drops keys outside the namespace, which the lease may have.
    pub(crate) fn unprefix_lease(&self, response: &mut LeaseTimeToLiveResponse) {
        response.keys.retain_mut(|key| {
            let is_inside = key.starts_with(&self.0);
            if is_inside {
                *key = key.slice(self.0.len()..);
            }
            is_inside
        });
    }
}

#[cfg(test)]
mod tests {
    use retcd_proto::etcdserverpb::RequestOp;

    use super::*;

    fn check(prefix: &[u8], key: &[u8], end: &[u8], whole_key: &[u8], whole_end: &[u8]) {
        let mut request = RangeRequest {
            key: key.to_vec().into(),
            range_end: end.to_vec().into(),
            ..RangeRequest::default()
        };
        let namespace = Namespace::default().nested(prefix);
        assert_eq!(namespace.prefix_get(&mut request), Ok(()));
        let shown = (request.key.as_ref(), request.range_end.as_ref());
        assert_eq!(shown, (whole_key, whole_end), "{prefix:?} {key:?} {end:?}");
    }

    #[test]
    fn ranges_stay_within_the_namespace() {
        check(b"", b"k", b"\0", b"k", b"\0");
        check(b"a/", b"k", b"", b"a/k", b"");
        check(b"a/", b"k", b"m", b"a/k", b"a/m");
        check(b"a/", b"k", b"\0", b"a/k", b"a0");
        check(b"a/", b"", b"\0", b"a/", b"a0");
        check(b"a\xff", b"k", b"\0", b"a\xffk", b"b");
        // No key follows a prefix that consists of 0xff bytes only.
        check(b"\xff", b"k", b"\0", b"\xffk", b"\0");
    }

    #[test]
    fn empty_keys_are_rejected() {
        let namespace = Namespace::default().nested(b"a/");
        let mut put = PutRequest::default();
        let refused = namespace
            .prefix_put(&mut put)
            .map_err(|error| error.to_string());
        assert_eq!(refused, Err("etcdserver: key is not provided".to_owned()));
    }

    #[test]
    fn nested_transactions_are_prefixed() {
        let op = |request| RequestOp {
            request: Some(request),
        };
        let put = |key: &str| {
            op(Request::RequestPut(PutRequest {
                key: key.to_owned().into(),
                ..PutRequest::default()
            }))
        };
        let txn = |prefix: &str| {
            let mut txn = TxnRequest::default();
            for depth in 0..500 {
                let inner = op(Request::RequestTxn(txn.into()));
                txn = TxnRequest {
                    success: vec![put(&format!("{prefix}{depth}"))],
                    failure: vec![inner],
                    ..TxnRequest::default()
                };
            }
            txn
        };
        let namespace = Namespace::default().nested(b"a/").nested(b"b/");
        let mut prefixed = txn("");
        assert_eq!(namespace.prefix_txn(&mut prefixed), Ok(()));
        assert!(prefixed == txn("a/b/"));
        assert!(prefixed != txn("a/"));
    }
}
