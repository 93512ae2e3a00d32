//! `elect`: campaigns in an election, or observes it.

use retcd_client::concurrency::{DEFAULT_TTL_S, Election, Session};
use retcd_proto::etcdserverpb::RangeRequest;

use super::context::{self, Context, failed};
use super::lock::{begin_session, no_lock};
use super::signal::stop_requested;
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::print::Reply;

const LONG: &str = "\
Campaigns in an election, and prints its key and proposal once elected. It leads until SIGINT or SIGTERM. With
--listen it only observes the election, and prints the leader's key and proposal whenever they change.";

/// The `elect` command.
pub(crate) fn command() -> Command {
    Command::new(
        "elect",
        "<election-name> [proposal]",
        "Campaign in an election, or observe it",
        run,
    )
    .long(LONG)
    .flags([Flag::switch("listen", "observe the election").short('l')])
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let usage = "elect takes one election name argument and an optional proposal argument";
    let listens = invocation.flags.bool("listen");
    let (name, proposal) = match invocation.args.as_slice() {
        [name] if listens => (name.clone(), None),
        [_] => return Err(Exit::bad_args("no proposal argument but -l not set")),
        [_, _] if listens => return Err(Exit::bad_args("proposal given but -l is set")),
        [name, proposal] => (name.clone(), Some(proposal.clone())),
        _ => return Err(Exit::bad_args(usage)),
    };
    let context = Context::new(invocation, false)?;
    context::run(async {
        match proposal {
            None => observe(&context, &name).await,
            Some(proposal) => campaign(&context, &name, proposal).await,
        }
    })
}

async fn observe(context: &Context, name: &[u8]) -> Result<(), Exit> {
    let client = context.client().await?;
    let mut stop = std::pin::pin!(stop_requested()?);
    let mut observer = Election::new(&client, name).observe();
    loop {
        let told = tokio::select! {
            told = observer.next() => told,
            () = &mut stop => return Ok(()),
        };
        let told = told.map_err(|_| Exit::error("elect: observer lost"))?;
        context.print(&Reply::Get(&told))?;
    }
}

async fn campaign(context: &Context, name: &[u8], proposal: Vec<u8>) -> Result<(), Exit> {
    let (lease, stop) = begin_session(&context.client().await?, DEFAULT_TTL_S).await?;
    let led = lead(context, &lease, name, proposal, stop).await;
    // Revoking the lease also deletes the candidate's key.
    let closed = lease.close().await.map_err(failed);
    led.and(closed)
}

async fn lead(
    context: &Context,
    lease: &Session,
    name: &[u8],
    proposal: Vec<u8>,
    stop: impl Future<Output = ()>,
) -> Result<(), Exit> {
    let election = Election::new(lease.client(), name);
    let mut stop = std::pin::pin!(stop);
    let leadership = tokio::select! {
        elected = election.campaign(lease, proposal) => elected.map_err(no_lock)?,
        () = &mut stop => return Err(Exit::error("context canceled")),
    };
    let own = RangeRequest {
        key: leadership.key().clone(),
        ..RangeRequest::default()
    };
    let response = lease.client().range(own).await.map_err(failed)?;
    context.print(&Reply::Get(&response))?;
    tokio::select! {
        () = stop => Ok(()),
        () = lease.ended() => Err(Exit::error("elect: session expired")),
    }
}
