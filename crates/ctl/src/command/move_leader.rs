//! `move-leader`: transfers leadership to another member.

use retcd_client::{Client, Error};
use retcd_proto::etcdserverpb::{MoveLeaderRequest, StatusRequest};

use super::context::{self, Context, failed};
use crate::cli::{Command, Exit, Invocation};
use crate::go::number::parse_uint;
use crate::print::Reply;

/// The `move-leader` command.
pub(crate) fn command() -> Command {
    Command::new(
        "move-leader",
        "<transferee-member-id>",
        "Transfer leadership to another member",
        run,
    )
}

fn run(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let texts = invocation.texts();
    let [target] = texts.as_slice() else {
        return Err(Exit::bad_args("move-leader command needs 1 argument"));
    };
    let target_id = parse_uint(target, 16).map_err(Exit::bad_args)?;
    let context = Context::new(invocation, false)?;
    context::run(async {
        context.client().await?;
        let (client, leader) = find_leader(&context).await?;
        let request = MoveLeaderRequest { target_id };
        let limited = client.with_timeout(context.command_timeout);
        let moved = limited.move_leader(request).await.map_err(failed)?;
        context.print(&Reply::MoveLeader(leader, target_id, &moved))
    })
}

/// Finds the endpoint of the leader, which alone can transfer leadership.
async fn find_leader(context: &Context) -> Result<(Client, u64), Exit> {
    let endpoints = &context.config.endpoints;
    for endpoint in endpoints {
        let client = context.client_of(endpoint).await?;
        let limited = client.with_timeout(context.command_timeout);
        let status = limited.status(StatusRequest {}).await.map_err(failed)?;
        let header = status.header.ok_or(Error::Incomplete("header"));
        if header.map_err(failed)?.member_id == status.leader {
            return Ok((client, status.leader));
        }
    }
    Err(Exit::bad_args(format!(
        "no leader endpoint given at [{}]",
        endpoints.join(" ")
    )))
}
