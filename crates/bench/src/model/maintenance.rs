//! The services `Maintenance` and `Health` of a model, as far as scenarios need them.

use retcd_proto::etcdserverpb as pb;
use retcd_proto::etcdserverpb::maintenance_server::Maintenance;
use retcd_proto::healthpb;
use retcd_proto::healthpb::health_server::Health;
use tonic::{Request, Response, Status};

use super::{Model, Replies};

/// The length of each of the two parts of a snapshot.
const SNAPSHOT_PART_LEN: usize = 1_000;

fn unused<T>() -> Result<T, Status> {
    Err(Status::unimplemented("no scenario sends it"))
}

#[tonic::async_trait]
impl Maintenance for Model {
    type SnapshotStream = Replies<pb::SnapshotResponse>;

    async fn defragment(
        &self,
        _: Request<pb::DefragmentRequest>,
    ) -> Result<Response<pb::DefragmentResponse>, Status> {
        self.keyspace().defragmentations += 1;
        Ok(Response::new(pb::DefragmentResponse::default()))
    }

    async fn snapshot(
        &self,
        _: Request<pb::SnapshotRequest>,
    ) -> Result<Response<Self::SnapshotStream>, Status> {
        self.keyspace().snapshots += 1;
        let part = || pb::SnapshotResponse {
            blob: vec![0; SNAPSHOT_PART_LEN].into(),
            ..pb::SnapshotResponse::default()
        };
        let parts = [Ok(part()), Ok(part())];
        Ok(Response::new(Box::pin(tokio_stream::iter(parts))))
    }

    async fn status(
        &self,
        _: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        unused()
    }

    async fn alarm(
        &self,
        _: Request<pb::AlarmRequest>,
    ) -> Result<Response<pb::AlarmResponse>, Status> {
        unused()
    }

    async fn hash(
        &self,
        _: Request<pb::HashRequest>,
    ) -> Result<Response<pb::HashResponse>, Status> {
        unused()
    }

    async fn hash_kv(
        &self,
        _: Request<pb::HashKvRequest>,
    ) -> Result<Response<pb::HashKvResponse>, Status> {
        unused()
    }

    async fn move_leader(
        &self,
        _: Request<pb::MoveLeaderRequest>,
    ) -> Result<Response<pb::MoveLeaderResponse>, Status> {
        unused()
    }

    async fn downgrade(
        &self,
        _: Request<pb::DowngradeRequest>,
    ) -> Result<Response<pb::DowngradeResponse>, Status> {
        unused()
    }
}

#[tonic::async_trait]
impl Health for Model {
    type WatchStream = Replies<healthpb::HealthCheckResponse>;

    async fn check(
        &self,
        _: Request<healthpb::HealthCheckRequest>,
    ) -> Result<Response<healthpb::HealthCheckResponse>, Status> {
        let mut response = healthpb::HealthCheckResponse::default();
        response.set_status(healthpb::health_check_response::ServingStatus::Serving);
        Ok(Response::new(response))
    }

    async fn list(
        &self,
        _: Request<healthpb::HealthListRequest>,
    ) -> Result<Response<healthpb::HealthListResponse>, Status> {
        unused()
    }

    async fn watch(
        &self,
        _: Request<healthpb::HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        unused()
    }
}
