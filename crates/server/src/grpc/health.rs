//! gRPC's standard health service: the one service named `""` serves as long as this member does.
//!
//! With the gate `StopGRPCServiceOnDefrag` it does not while the member defragments: every request is still answered, but a client that
//! asks for its server's health, as gRPC's own balancers do, takes another member until the disk has its peace again.

use std::rc::Rc;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use retcd_proto::healthpb::health_check_response::ServingStatus;
use retcd_proto::healthpb::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};
use tokio::sync::mpsc;

use super::status::{self, Code, Status};
use super::wire::{MessageReader, ResponseBody, frame, stream_response};
use super::{Context, Framed};
use crate::runtime::{Local, Member};

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status as i32,
    }
}

fn status_of(member: &Member) -> ServingStatus {
    match member.is_serving() {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

/// `Check`.
pub async fn check(local: Rc<Local>, request: HealthCheckRequest) -> Framed {
    match request.service.as_str() {
        "" => frame(&answer(status_of(&local.member))),
        _ => Err(Status::new(Code::NotFound, "unknown service")),
    }
}

/// `List`.
pub async fn list(local: Rc<Local>, _request: HealthListRequest) -> Framed {
    let statuses = [(String::new(), answer(status_of(&local.member)))].into();
    frame(&HealthListResponse { statuses })
}

/// `Watch`: the state now, then whenever it changes, until the member stops.
pub async fn watch(
    context: Context,
    mut reader: MessageReader<Incoming>,
) -> Response<ResponseBody> {
    let request: HealthCheckRequest = match context.read_request(&mut reader).await {
        Ok(request) => request,
        Err(status) => return context.fail(status),
    };
    let (sender, receiver) = mpsc::channel(2);
    tokio::task::spawn_local(async move {
        tokio::select! {
            () = context.local.member.stopped() => context.end_stream(&sender, Err(status::STOPPED)).await,
            () = tell(&context, &request.service, &sender) => {}
        }
    });
    stream_response(receiver)
}

/// Sends the state of `service` and its changes until the client leaves.
async fn tell(context: &Context, service: &str, sender: &mpsc::Sender<Result<Bytes, Status>>) {
    let member = &context.local.member;
    let mut defragmenting = member.defragmenting.follow();
    let mut told = None;
    loop {
        defragmenting.mark_unchanged();
        let state = match service {
            "" => status_of(member),
            _ => ServingStatus::ServiceUnknown,
        };
        if told != Some(state) {
            told = Some(state);
            context.call.message_sent();
            if sender.send(frame(&answer(state))).await.is_err() {
                return;
            }
        }
        tokio::select! {
            // The member, and with it what is followed, outlives its connections.
            _ = defragmenting.changed() => {}
            () = sender.closed() => return,
        }
    }
}
