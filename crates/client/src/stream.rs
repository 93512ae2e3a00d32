//! Streams: how they are opened, and the one that has an end.

use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};

use crate::client::{Client, Service};
use crate::error::Error;
use crate::retry::Policy;

/// A stream on which a member without a leader shall say so instead of staying silent.
pub(crate) fn with_leader<T>(requests: T) -> Request<T> {
    let mut request = Request::new(requests);
    let value = MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", value);
    request
}

/// A copy of a member's database on its way.
pub struct Snapshot {
    first: Option<SnapshotResponse>,
    parts: Streaming<SnapshotResponse>,
}

impl Client {
    /// Begins to copy the database of the connection's member. The deadline is for the first part;
    /// until that has come, the request is made again as a read would be.
    ///
    /// # Errors
    /// What the last attempt ended with; the deadline is over.
    pub async fn snapshot(&self) -> Result<Snapshot, Error> {
        let response_bytes_max = self.shared.config.response_bytes_max;
        let open = |service: Service| async move {
            let stub = MaintenanceClient::new(service);
            let mut stub = stub.max_decoding_message_size(response_bytes_max);
            let mut parts = stub.snapshot(SnapshotRequest {}).await?.into_inner();
            let first = parts.message().await?;
            Ok(Snapshot { first, parts })
        };
        self.call(Policy::Repeatable, open).await
    }
}

impl Snapshot {
    /// Waits for the next part; none at the end.
    ///
    /// # Errors
    /// The stream broke off: the copy has to be made again.
    pub async fn next(&mut self) -> Result<Option<SnapshotResponse>, Error> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => Ok(self.parts.message().await?),
        }
    }
}
