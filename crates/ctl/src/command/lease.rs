//! `lease`: grants, revokes, shows and renews leases.

use retcd_client::KeepAliveError;
use retcd_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseLeasesRequest, LeaseRevokeRequest, LeaseTimeToLiveRequest,
};

use super::context::{self, Context, failed};
use crate::cli::{Command, Exit, ExitKind, Flag, Invocation};
use crate::go::number::parse_int;
use crate::print::{Format, Reply, print_line};

const ABOUT: &str = "Grant, renew and revoke leases";

/// The `lease` command.
pub(crate) fn command() -> Command {
    let once = "renew the lease once and end";
    Command::group(
        "lease",
        ABOUT,
        vec![
            Command::new(
                "grant",
                "<ttl>",
                "Grant a lease with a time to live in seconds",
                grant,
            ),
            Command::new(
                "revoke",
                "<leaseID>",
                "Revoke a lease and delete its keys",
                revoke,
            ),
            Command::new(
                "timetolive",
                "<leaseID> [options]",
                "Show a lease",
                time_to_live,
            )
            .flags([Flag::switch("keys", "list the keys attached to the lease")]),
            Command::new("list", "", "List all leases", list),
            Command::new(
                "keep-alive",
                "[options] <leaseID>",
                "Keep a lease alive",
                keep_alive,
            )
            .flags([Flag::switch("once", once)]),
        ],
    )
}

fn lease_id(text: &str) -> Result<i64, Exit> {
    parse_int(text, 16)
        .map_err(|error| Exit::bad_args(format!("bad lease ID arg ({error}), expecting ID in Hex")))
}

/// The only argument, or an error that names it.
fn only_argument(invocation: &Invocation<'_>, usage: &str) -> Result<String, Exit> {
    let mut texts = invocation.texts();
    if texts.len() != 1 {
        return Err(Exit::bad_args(usage));
    }
    Ok(texts.remove(0))
}

fn grant(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let ttl = only_argument(invocation, "lease grant command needs TTL argument")?;
    let ttl = parse_int(&ttl, 10).map_err(|error| Exit::bad_args(format!("bad TTL ({error})")))?;
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let request = LeaseGrantRequest { ttl, id: 0 };
        let granted = client.lease_grant(request).await;
        let granted = granted.map_err(|error| wrap("failed to grant lease", failed(error)))?;
        context.print(&Reply::LeaseGrant(&granted))
    })
}

fn revoke(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let id = lease_id(&only_argument(
        invocation,
        "lease revoke command needs 1 argument",
    )?)?;
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let request = LeaseRevokeRequest { id };
        let revoked = client.lease_revoke(request).await;
        let revoked = revoked.map_err(|error| wrap("failed to revoke lease", failed(error)))?;
        context.print(&Reply::LeaseRevoke(id, &revoked))
    })
}

fn wrap(context: &str, exit: Exit) -> Exit {
    Exit {
        message: exit.message.map(|message| format!("{context} ({message})")),
        ..exit
    }
}

/// Commands without a timeout exit with the code of connection failures.
fn no_answer(error: impl std::fmt::Display) -> Exit {
    Exit::new(ExitKind::BadConnection, error)
}

fn time_to_live(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let text = only_argument(
        invocation,
        "lease timetolive command needs lease ID as argument",
    )?;
    let keys = invocation.flags.bool("keys");
    let context = Context::new(invocation, false)?;
    let request = LeaseTimeToLiveRequest {
        id: lease_id(&text)?,
        keys,
    };
    context::run(async {
        let client = context.client().await?;
        let response = client.lease_time_to_live(request).await;
        context.print(&Reply::LeaseTimeToLive(&response.map_err(no_answer)?, keys))
    })
}

fn list(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.client().await?;
        let response = client.lease_leases(LeaseLeasesRequest {}).await;
        context.print(&Reply::LeaseList(&response.map_err(no_answer)?))
    })
}

fn keep_alive(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let id = lease_id(&only_argument(
        invocation,
        "lease keep-alive command needs lease ID as argument",
    )?)?;
    let once = invocation.flags.bool("once");
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.client().await?;
        if once {
            let renewed = client.keep_alive_once(id).await.map_err(no_answer)?;
            return context.print(&Reply::LeaseKeepAlive(&renewed));
        }
        let mut keep_alive = client.keep_alive(id);
        loop {
            match keep_alive.next().await {
                Ok(renewed) => context.print(&Reply::LeaseKeepAlive(&renewed))?,
                Err(KeepAliveError::Ended) => break,
                Err(error) => return Err(no_answer(error)),
            }
        }
        if context.printer.format == Format::Simple {
            print_line(&format!("lease {id:016x} expired or revoked."))?;
        }
        Ok(())
    })
}
