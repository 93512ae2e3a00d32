//! Requests on keys, which a namespace prefixes.

use retcd_proto::etcdserverpb::kv_client::KvClient;
use retcd_proto::etcdserverpb::{
    DeleteRangeRequest, DeleteRangeResponse, LeaseTimeToLiveRequest, LeaseTimeToLiveResponse,
    PutRequest, PutResponse, RangeRequest, RangeResponse, TxnRequest, TxnResponse,
};

use crate::client::{Client, Service};
use crate::error::Error;
use crate::retry::Policy;

impl Client {
    /// Reads a key or a range of keys.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn range(&self, mut request: RangeRequest) -> Result<RangeResponse, Error> {
        self.namespace.prefix_get(&mut request)?;
        let mut response = self.range_raw(request).await?;
        self.namespace.unprefix_range(&mut response);
        Ok(response)
    }

    /// Reads a range as a stream of parts, so that neither side has to hold it as one message. If
    /// the stream breaks, the range is read again from the start.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn range_stream(&self, mut request: RangeRequest) -> Result<RangeResponse, Error> {
        self.namespace.prefix_get(&mut request)?;
        self.check_size(&request)?;
        let response_bytes_max = self.shared.config.response_bytes_max;
        let collect = |service: Service| {
            let request = request.clone();
            async move {
                let mut stub = KvClient::new(service).max_decoding_message_size(response_bytes_max);
                let mut parts = stub.range_stream(request).await?.into_inner();
                let mut whole = RangeResponse::default();
                while let Some(part) = parts.message().await? {
                    let part = part
                        .range_response
                        .ok_or(Error::Incomplete("range response"))?;
                    whole.header = part.header.or(whole.header);
                    whole.kvs.extend(part.kvs);
                    whole.more |= part.more;
                    whole.count = whole.count.max(part.count);
                }
                Ok(whole)
            }
        };
        let mut response = self.call(Policy::Repeatable, collect).await?;
        self.namespace.unprefix_range(&mut response);
        Ok(response)
    }

    /// Writes a key. Not retried once it may have been executed.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn put(&self, mut request: PutRequest) -> Result<PutResponse, Error> {
        self.namespace.prefix_put(&mut request)?;
        let mut response = self.put_raw(request).await?;
        self.namespace.unprefix_put(&mut response);
        Ok(response)
    }

    /// Deletes a key or a range of keys. Not retried once it may have been executed.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn delete_range(
        &self,
        mut request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        self.namespace.prefix_delete(&mut request)?;
        let mut response = self.delete_range_raw(request).await?;
        self.namespace.unprefix_delete(&mut response);
        Ok(response)
    }

    /// Executes a transaction. Not retried once it may have been executed.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn txn(&self, mut request: TxnRequest) -> Result<TxnResponse, Error> {
        self.namespace.prefix_txn(&mut request)?;
        let mut response = self.txn_raw(request).await?;
        self.namespace.unprefix_txn(&mut response);
        Ok(response)
    }

    /// Executes an idempotent transaction: executing it again must have no effect, because its
    /// comparisons fail then or because it leads to the same state. Retried like a read.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn repeatable_txn(&self, mut request: TxnRequest) -> Result<TxnResponse, Error> {
        self.namespace.prefix_txn(&mut request)?;
        let mut response = self.repeatable_txn_raw(request).await?;
        self.namespace.unprefix_txn(&mut response);
        Ok(response)
    }

    /// Returns a lease's time to live and, if requested, its keys within the namespace.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        let mut response = self.lease_time_to_live_raw(request).await?;
        self.namespace.unprefix_lease(&mut response);
        Ok(response)
    }
}
