//! gRPC's standard health service: the one service named `""` serves as long as this member does.
//!
//! With the gate `StopGRPCServiceOnDefrag` it does not while the member defragments: every request
//! is still answered, but a client that asks for its server's health, as gRPC's own balancers do,
//! uses another member until the defragmentation is over.

use std::convert::Infallible;
use std::rc::Rc;

use retcd_member::access::Credentials;
use retcd_proto::healthpb::health_check_response::ServingStatus;
use retcd_proto::healthpb::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse,
};

use super::Context;
use super::encode::Plain;
use super::frames;
use super::reply::Reply;
use super::requests::Requests;
use crate::server::{Server, ServerThread};
use crate::status::{self, Code, Status};

/// States that wait for a client to take them before the next change is looked at.
const WATCH_BACKLOG: usize = 2;

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status as i32,
    }
}

fn status_of(server: &Server) -> ServingStatus {
    match server.is_serving() {
        true => ServingStatus::Serving,
        false => ServingStatus::NotServing,
    }
}

/// `Check`.
pub(super) async fn check(
    thread: Rc<ServerThread>,
    _credentials: Credentials,
    request: HealthCheckRequest,
) -> Result<Plain<HealthCheckResponse>, Status> {
    match request.service.as_str() {
        "" => Ok(Plain(answer(status_of(&thread.server)))),
        _ => Err(Status::new(Code::NotFound, "unknown service")),
    }
}

/// `List`.
pub(super) async fn list(
    thread: Rc<ServerThread>,
    _credentials: Credentials,
    _request: HealthListRequest,
) -> Result<Plain<HealthListResponse>, Status> {
    let statuses = [(String::new(), answer(status_of(&thread.server)))].into();
    Ok(Plain(HealthListResponse { statuses }))
}

/// `Watch`: the state now, then whenever it changes, until the member stops.
pub(super) async fn watch(context: Context, mut reader: Requests) -> Reply {
    let request: HealthCheckRequest = match context.read_request(&mut reader).await {
        Ok(request) => request,
        Err(status) => return context.fail(status),
    };
    let (sender, receiver) = frames::channel(WATCH_BACKLOG);
    tokio::task::spawn_local(async move {
        let ended = tokio::select! {
            () = context.thread.server.member.signals.stopped() => status::STOPPED,
            Err(ended) = tell(&context, &request.service, &sender) => ended,
        };
        context.end_stream(&sender, Err(ended)).await;
    });
    Reply::Stream(receiver)
}

/// Sends the state of `service` and its changes until the client leaves.
async fn tell(
    context: &Context,
    service: &str,
    sender: &frames::Sender,
) -> Result<Infallible, Status> {
    let server = &context.thread.server;
    let mut defragmenting = server.defragmenting.follow();
    let mut told = None;
    loop {
        defragmenting.mark_unchanged();
        let state = match service {
            "" => status_of(server),
            _ => ServingStatus::ServiceUnknown,
        };
        if told != Some(state) {
            told = Some(state);
            context.send(sender, &answer(state)).await?;
        }
        tokio::select! {
            // The member, and with it what is followed, outlives its connections.
            _ = defragmenting.changed() => {}
            () = sender.closed() => return Err(status::CLIENT_GONE),
        }
    }
}
