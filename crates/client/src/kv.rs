//! Keys: the methods that a namespace completes.

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
    /// What the last attempt ended with; the deadline is over.
    pub async fn range(&self, mut request: RangeRequest) -> Result<RangeResponse, Error> {
        self.namespace.enter_range(&mut request)?;
        let mut response = self.range_anywhere(request).await?;
        self.namespace.leave_range(&mut response);
        Ok(response)
    }

    /// Reads a range that the server sends in parts, so that neither side needs it as one message.
    /// If the stream breaks off, it is read again from the start.
    ///
    /// # Errors
    /// What the last attempt ended with; the deadline is over.
    pub async fn range_stream(&self, mut request: RangeRequest) -> Result<RangeResponse, Error> {
        self.namespace.enter_range(&mut request)?;
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
        self.namespace.leave_range(&mut response);
        Ok(response)
    }

    /// Writes a key. The request is not made again once it may have been executed.
    ///
    /// # Errors
    /// What the last attempt ended with; the deadline is over.
    pub async fn put(&self, mut request: PutRequest) -> Result<PutResponse, Error> {
        self.namespace.enter_put(&mut request)?;
        let mut response = self.put_anywhere(request).await?;
        self.namespace.leave_put(&mut response);
        Ok(response)
    }

    /// Deletes a key or a range of keys. The request is not made again once it may have been
    /// executed.
    ///
    /// # Errors
    /// What the last attempt ended with; the deadline is over.
    pub async fn delete_range(
        &self,
        mut request: DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Error> {
        self.namespace.enter_delete(&mut request)?;
        let mut response = self.delete_range_anywhere(request).await?;
        self.namespace.leave_delete(&mut response);
        Ok(response)
    }

    /// Executes a transaction. The request is not made again once it may have been executed.
    ///
    /// # Errors
    /// What the last attempt ended with; the deadline is over.
    pub async fn txn(&self, mut request: TxnRequest) -> Result<TxnResponse, Error> {
        self.namespace.enter_txn(&mut request)?;
        let mut response = self.txn_anywhere(request).await?;
        self.namespace.leave_txn(&mut response);
        Ok(response)
    }

    /// Executes a transaction of which the caller knows that a second execution changes nothing
    /// (because its comparisons fail then, or because it leads to the same state). It is made again
    /// as long as a read would be.
    ///
    /// # Errors
    /// What the last attempt ended with; the deadline is over.
    pub async fn repeatable_txn(&self, mut request: TxnRequest) -> Result<TxnResponse, Error> {
        self.namespace.enter_txn(&mut request)?;
        let mut response = self.repeatable_txn_anywhere(request).await?;
        self.namespace.leave_txn(&mut response);
        Ok(response)
    }

    /// Shows a lease, and the keys of the namespace that are attached to it.
    ///
    /// # Errors
    /// What the last attempt ended with; the deadline is over.
    pub async fn lease_time_to_live(
        &self,
        request: LeaseTimeToLiveRequest,
    ) -> Result<LeaseTimeToLiveResponse, Error> {
        let mut response = self.lease_time_to_live_anywhere(request).await?;
        self.namespace.leave_lease(&mut response);
        Ok(response)
    }
}
