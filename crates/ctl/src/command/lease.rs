//! `lease`: grants, revokes, shows and renews leases.

use std::time::Duration;

use retcd_proto::etcdserverpb::{
    LeaseGrantRequest, LeaseKeepAliveRequest, LeaseKeepAliveResponse, LeaseLeasesRequest,
    LeaseRevokeRequest, LeaseTimeToLiveRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use super::session::{self, Session};
use crate::cli::{Command, Exit, ExitKind, Flag, Invocation};
use crate::client::{Client, ClientError, Method};
use crate::go::number::parse_int;
use crate::print::{Format, Reply, print_line};

const ABOUT: &str = "Grant, renew and revoke leases";
/// Renewals are repeated after this pause when their stream breaks.
const RESUME_PAUSE: Duration = Duration::from_millis(500);

/// The command.
pub fn command() -> Command {
    let once = "renew the lease once and end";
    Command::group(
        "lease",
        ABOUT,
        vec![
            Command::new(
                "grant",
                "<ttl>",
                "Make a lease that ends after so many seconds",
                grant,
            ),
            Command::new(
                "revoke",
                "<leaseID>",
                "End a lease and delete its keys",
                revoke,
            ),
            Command::new(
                "timetolive",
                "<leaseID> [options]",
                "Show a lease",
                time_to_live,
            )
            .flags([Flag::switch(
                "keys",
                "list the keys that are attached to the lease",
            )]),
            Command::new("list", "", "List all leases", list),
            Command::new(
                "keep-alive",
                "[options] <leaseID>",
                "Renew a lease again and again",
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

/// The only argument, or an error that says which it is.
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
    let session = Session::new(invocation, false)?;
    session::run(async {
        let client = session.client().await?;
        let request = LeaseGrantRequest { ttl, id: 0 };
        let granted = session
            .ask(client.call(Method::LeaseGrant, async || {
                Ok(client
                    .lease()
                    .await?
                    .lease_grant(request)
                    .await?
                    .into_inner())
            }))
            .await;
        session.print(&Reply::LeaseGrant(
            &granted.map_err(|exit| wrap("failed to grant lease", exit))?,
        ))
    })
}

fn revoke(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let id = lease_id(&only_argument(
        invocation,
        "lease revoke command needs 1 argument",
    )?)?;
    let session = Session::new(invocation, false)?;
    session::run(async {
        let client = session.client().await?;
        let request = LeaseRevokeRequest { id };
        let revoked = session
            .ask(client.call(Method::LeaseRevoke, async || {
                Ok(client
                    .lease()
                    .await?
                    .lease_revoke(request)
                    .await?
                    .into_inner())
            }))
            .await;
        session.print(&Reply::LeaseRevoke(
            id,
            &revoked.map_err(|exit| wrap("failed to revoke lease", exit))?,
        ))
    })
}

fn wrap(context: &str, exit: Exit) -> Exit {
    Exit {
        message: exit.message.map(|message| format!("{context} ({message})")),
        ..exit
    }
}

/// The commands without a time limit end with the code of failed connections.
fn no_answer(error: ClientError) -> Exit {
    Exit::new(ExitKind::BadConnection, error)
}

fn time_to_live(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let text = only_argument(
        invocation,
        "lease timetolive command needs lease ID as argument",
    )?;
    let keys = invocation.flags.bool("keys");
    let session = Session::new(invocation, false)?;
    let request = LeaseTimeToLiveRequest {
        id: lease_id(&text)?,
        keys,
    };
    session::run(async {
        let client = session.client().await?;
        let response = client
            .call(Method::LeaseTimeToLive, async || {
                Ok(client
                    .lease()
                    .await?
                    .lease_time_to_live(request)
                    .await?
                    .into_inner())
            })
            .await;
        session.print(&Reply::LeaseTimeToLive(&response.map_err(no_answer)?, keys))
    })
}

fn list(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let session = Session::new(invocation, false)?;
    session::run(async {
        let client = session.client().await?;
        let response = client
            .call(Method::LeaseLeases, async || {
                Ok(client
                    .lease()
                    .await?
                    .lease_leases(LeaseLeasesRequest {})
                    .await?
                    .into_inner())
            })
            .await;
        session.print(&Reply::LeaseList(&response.map_err(no_answer)?))
    })
}

fn keep_alive(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let id = lease_id(&only_argument(
        invocation,
        "lease keep-alive command needs lease ID as argument",
    )?)?;
    let once = invocation.flags.bool("once");
    let session = Session::new(invocation, false)?;
    session::run(async {
        let client = session.client().await?;
        if once {
            let renew = client.call(Method::LeaseKeepAlive, async || {
                Renewals::open(&client, id).await?.next().await
            });
            let renewed = renew.await.map_err(no_answer)?;
            if renewed.ttl <= 0 {
                return Err(Exit::new(
                    ExitKind::BadConnection,
                    "etcdserver: requested lease not found",
                ));
            }
            return session.print(&Reply::LeaseKeepAlive(&renewed));
        }
        renew_until_it_ends(&session, &client, id).await?;
        if session.printer.format == Format::Simple {
            print_line(&format!("lease {id:016x} expired or revoked."))?;
        }
        Ok(())
    })
}

/// Renews the lease after each third of its time. A broken stream is opened again as long as the lease can still live.
async fn renew_until_it_ends(session: &Session, client: &Client, id: i64) -> Result<(), Exit> {
    // Until the first answer nobody knows how long the lease lives; etcd's client waits a second longer than it dials.
    let mut ends =
        tokio::time::Instant::now() + session.config.dial_timeout + Duration::from_secs(1);
    let mut is_alive = false;
    loop {
        let Ok(opened) = tokio::time::timeout_at(ends, Renewals::open(client, id)).await else {
            return Ok(());
        };
        let mut opened = match opened {
            Err(error) if !is_alive && !client.asks_elsewhere(&error) => {
                return Err(no_answer(error));
            }
            opened => opened.ok(),
        };
        while let Some(renewals) = &mut opened {
            match tokio::time::timeout_at(ends, renewals.next()).await {
                Err(_) => return Ok(()),
                Ok(Err(_)) => opened = None,
                Ok(Ok(renewed)) => {
                    let Ok(ttl @ 1..) = u64::try_from(renewed.ttl) else {
                        return Ok(());
                    };
                    is_alive = true;
                    session.print(&Reply::LeaseKeepAlive(&renewed))?;
                    let now = tokio::time::Instant::now();
                    ends = now + Duration::from_secs(ttl);
                    tokio::time::sleep_until(now + Duration::from_secs(ttl) / 3).await;
                }
            }
        }
        client.move_on();
        client.forget_login();
        tokio::time::sleep(RESUME_PAUSE).await;
    }
}

/// A stream of renewals of one lease.
struct Renewals {
    id: i64,
    requests: mpsc::Sender<LeaseKeepAliveRequest>,
    responses: Streaming<LeaseKeepAliveResponse>,
    /// Requests that have been sent and not answered.
    waiting: usize,
}

impl Renewals {
    /// Opens the stream and asks for the first renewal: a server may answer nothing before that.
    async fn open(client: &Client, id: i64) -> Result<Renewals, ClientError> {
        let (requests, receiver) = mpsc::channel(1);
        requests
            .try_send(LeaseKeepAliveRequest { id })
            .expect("the channel is new and has room");
        let responses = client
            .lease()
            .await?
            .lease_keep_alive(ReceiverStream::new(receiver))
            .await?
            .into_inner();
        Ok(Renewals {
            id,
            requests,
            responses,
            waiting: 1,
        })
    }

    async fn next(&mut self) -> Result<LeaseKeepAliveResponse, ClientError> {
        let broken = || ClientError::Incomplete("renewal");
        if self.waiting == 0 {
            self.requests
                .send(LeaseKeepAliveRequest { id: self.id })
                .await
                .map_err(|_| broken())?;
            self.waiting = 1;
        }
        let response = self.responses.message().await?.ok_or_else(broken)?;
        self.waiting = 0;
        Ok(response)
    }
}
