//! gRPC's standard health service: the one service named `""` serves as long as this member does.

use std::rc::Rc;

use hyper::Response;
use hyper::body::Incoming;
use retcd_proto::healthpb::health_check_response::ServingStatus;
use retcd_proto::healthpb::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use tokio::sync::mpsc;

use super::status::{self, Code, Status};
use super::wire::{MessageReader, ResponseBody, frame, stream_response};
use super::{Context, Framed, read_request};
use crate::runtime::Local;

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status as i32,
    }
}

/// `Check`.
pub async fn check(_local: Rc<Local>, request: HealthCheckRequest) -> Framed {
    match request.service.as_str() {
        "" => frame(&answer(ServingStatus::Serving)),
        _ => Err(Status::new(Code::NotFound, "unknown service")),
    }
}

/// `List`.
pub async fn list(_local: Rc<Local>, _request: HealthListRequest) -> Framed {
    let statuses = [(String::new(), answer(ServingStatus::Serving))].into();
    frame(&HealthListResponse { statuses })
}

/// `Watch`: the state now, then whenever it changes, which is when the member stops.
pub async fn watch(
    context: Context,
    mut reader: MessageReader<Incoming>,
) -> Response<ResponseBody> {
    let request: HealthCheckRequest = match read_request(&mut reader).await {
        Ok(request) => request,
        Err(status) => return context.fail(status),
    };
    context.count_received(&request);
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_local(async move {
        let state = match request.service.as_str() {
            "" => ServingStatus::Serving,
            _ => ServingStatus::ServiceUnknown,
        };
        context.call.message_sent();
        if sender.send(frame(&answer(state))).await.is_err() {
            return;
        }
        tokio::select! {
            () = context.local.member.stopped() => context.end_stream(&sender, Err(status::STOPPED)).await,
            () = sender.closed() => {}
        }
    });
    stream_response(receiver)
}
