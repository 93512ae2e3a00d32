//! Service `Election`.

use std::rc::Rc;

use retcd_member::access::Credentials;
use retcd_member::concurrency::{Led, Observer};
use retcd_proto::etcdserverpb::ResponseHeader;
use retcd_proto::v3electionpb::{
    CampaignRequest, CampaignResponse, LeaderRequest, LeaderResponse, ProclaimRequest,
    ProclaimResponse, ResignRequest, ResignResponse,
};

use super::Context;
use super::answer::{Patience, answer};
use super::encode::Plain;
use super::frames;
use super::header::{header, without_revision};
use super::reply::Reply;
use super::requests::Requests;
use super::waiting::outliving;
use crate::server::ServerThread;
use crate::status::{self, Status};

/// Pieces of answers that wait for an observer to take them before the next change is looked at.
const OBSERVE_BACKLOG: usize = 1;

/// `Campaign`.
pub(super) async fn campaign(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: CampaignRequest,
) -> Result<Plain<CampaignResponse>, Status> {
    let member = Rc::clone(&thread.member);
    let elected = outliving(async move |abandoned| {
        let elections = &member.elections;
        elections
            .campaign(&credentials, request, abandoned.wait())
            .await
    });
    let elected = elected.await?;
    Ok(Plain(CampaignResponse {
        header: Some(header(thread.server.member.origin(), elected.revision)),
        leader: Some(elected.leader),
    }))
}

/// `Proclaim`.
pub(super) async fn proclaim(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: ProclaimRequest,
) -> Result<Plain<ProclaimResponse>, Status> {
    let elections = &thread.member.elections;
    let revision = elections.proclaim(&credentials, request).await?;
    Ok(Plain(ProclaimResponse {
        header: Some(header(thread.server.member.origin(), revision)),
    }))
}

/// `Resign`.
pub(super) async fn resign(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: ResignRequest,
) -> Result<Plain<ResignResponse>, Status> {
    let elections = &thread.member.elections;
    let revision = elections.resign(&credentials, request).await?;
    Ok(Plain(ResignResponse {
        header: Some(header(thread.server.member.origin(), revision)),
    }))
}

/// `Leader`.
pub(super) async fn leader(
    thread: Rc<ServerThread>,
    credentials: Credentials,
    request: LeaderRequest,
) -> Result<Plain<LeaderResponse>, Status> {
    let elections = &thread.member.elections;
    let led = elections.leader(&credentials, &request.name).await?;
    Ok(Plain(leader_response(&thread, led)))
}

fn leader_response(thread: &ServerThread, led: Led) -> LeaderResponse {
    LeaderResponse {
        header: Some(ResponseHeader {
            revision: led.revision,
            ..without_revision(thread.server.member.origin())
        }),
        kv: Some(led.kv),
    }
}

/// `Observe`: who leads, and every leader and value after.
pub(super) async fn observe(context: Context, mut reader: Requests) -> Reply {
    let request: LeaderRequest = match context.read_request(&mut reader).await {
        Ok(request) => request,
        Err(status) => return context.fail(status),
    };
    let (sender, receiver) = frames::channel(OBSERVE_BACKLOG);
    tokio::task::spawn_local(async move {
        let thread = Rc::clone(&context.thread);
        let elections = &thread.member.elections;
        let observer = elections.observe(context.credentials.clone(), &request.name);
        let mut leaderless = context.leaderless();
        let ended = tokio::select! {
            ended = tell(&context, observer, &sender) => ended,
            () = leaderless.wait() => Err(status::NO_LEADER),
            () = thread.server.member.signals.stopped() => Err(status::STOPPED),
            () = sender.closed() => Err(status::CLIENT_GONE),
        };
        context.end_stream(&sender, ended).await;
    });
    Reply::Stream(receiver)
}

async fn tell(
    context: &Context,
    mut observer: Observer,
    sender: &frames::Sender,
) -> Result<(), Status> {
    loop {
        let led = observer.next().await.map_err(Status::of_step)?;
        let response = Plain(leader_response(&context.thread, led));
        let response = answer(&context.thread, response).await?;
        context.count_sent(response.len());
        let pieces = response.into_pieces();
        if !context.deliver(pieces, Patience::Unbounded, sender).await? {
            return Err(status::CLIENT_GONE);
        }
    }
}
