//! Streams: their metadata, and the snapshot stream.

use retcd_proto::etcdserverpb::maintenance_client::MaintenanceClient;
use retcd_proto::etcdserverpb::{SnapshotRequest, SnapshotResponse};
use tonic::metadata::MetadataValue;
use tonic::{Request, Streaming};

use crate::client::{Client, Service};
use crate::error::Error;
use crate::retry::Policy;

/// Adds the metadata that makes a member without a leader end the stream.
pub(crate) fn with_leader<T>(requests: T) -> Request<T> {
    let mut request = Request::new(requests);
    let value = MetadataValue::from_static("true");
    request.metadata_mut().insert("hasleader", value);
    request
}

/// A snapshot of a member's database, received in parts.
pub struct Snapshot {
    first: Option<SnapshotResponse>,
    parts: Streaming<SnapshotResponse>,
}

impl Client {
    /// Requests a snapshot of the member connected to. The deadline applies to the first part;
    /// until it arrives, the request is retried like a read.
    ///
    /// # Errors
    /// The error of the last attempt, or [`Error::DeadlineExceeded`].
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
    /// Waits for the next part; `None` at the end.
    ///
    /// # Errors
    /// The stream broke: the snapshot must be requested again.
    pub async fn next(&mut self) -> Result<Option<SnapshotResponse>, Error> {
        match self.first.take() {
            Some(first) => Ok(Some(first)),
            None => Ok(self.parts.message().await?),
        }
    }
}
