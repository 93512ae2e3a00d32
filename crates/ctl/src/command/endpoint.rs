//! `endpoint`: queries each endpoint.

use std::time::Instant;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use retcd_client::{Client, Error};
use retcd_log::GoDuration;
use retcd_proto::etcdserverpb::{AlarmType, HashKvRequest, RangeRequest, StatusRequest};

use super::alarm;
use super::context::{self, Context, log_last_attempt};
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::print::{Answer, Health, Reply};
use crate::stderr;

const STATUS_LONG: &str = "\
Shows the status of each endpoint. With the simple format the columns are: endpoint, ID, version, storage version, \
db size, in use, percentage not in use, quota, is leader, is learner, raft term, raft index, raft applied index, \
errors, downgrade target version, downgrade enabled.";

/// The `endpoint` command.
pub(crate) fn command() -> Command {
    Command::group(
        "endpoint",
        "Query the health, status and hash of endpoints",
        vec![
            Command::new("health", "", "Check the health of each endpoint", health),
            Command::new("status", "", "Show the status of each endpoint", status)
                .long(STATUS_LONG),
            Command::new(
                "hashkv",
                "",
                "Show the hash of each endpoint's keyspace",
                hash_kv,
            )
            .flags([Flag::int(
                "rev",
                0,
                "hash up to this revision (0 means the latest)",
            )]),
        ],
    )
    .persistent([Flag::switch(
        "cluster",
        "query all members in the member list",
    )])
}

fn health(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let of_cluster = invocation.flags.bool("cluster");
    let context = Context::new(invocation, false)?;
    context::run(async {
        let endpoints = context.each_endpoint(of_cluster).await?;
        let mut checks: FuturesUnordered<_> = endpoints
            .into_iter()
            .map(|endpoint| check_health(&context, endpoint))
            .collect();
        let mut list = Vec::new();
        while let Some(health) = checks.next().await {
            list.push(health);
        }
        context.print(&Reply::Health(&list))?;
        if list.iter().any(|health| !health.error.is_empty()) {
            return Err(Exit::error("unhealthy cluster"));
        }
        Ok(())
    })
}

/// An endpoint is healthy if it completes a linearizable read and has no alarms.
async fn check_health(context: &Context, endpoint: String) -> Health {
    let client = match context.client_of(&endpoint).await {
        Ok(client) => client,
        Err(exit) => {
            return Health {
                endpoint,
                error: exit.message.unwrap_or_default(),
                took: String::new(),
            };
        }
    };
    let start = Instant::now();
    let mut took = String::new();
    let client = client.with_timeout(context.command_timeout);
    let checked = async {
        let read = read_any_key(&client).await;
        took = GoDuration::from(start.elapsed()).to_string();
        match read {
            // A permission error shows that the cluster works.
            Err(error) if error.is_answer("etcdserver: permission denied") => {}
            read => read?,
        }
        Ok(active_alarms(&client).await)
    };
    let error = match checked.await {
        Ok(alarms) => alarms,
        Err(error) => {
            log_last_attempt(&error);
            Error::to_string(&error)
        }
    };
    if took.is_empty() {
        took = GoDuration::from(start.elapsed()).to_string();
    }
    Health {
        endpoint,
        error,
        took,
    }
}

async fn read_any_key(client: &Client) -> Result<(), Error> {
    let request = RangeRequest {
        key: "health".into(),
        ..RangeRequest::default()
    };
    client.range(request).await.map(|_| ())
}

/// The sentence about active alarms; empty if there are none.
async fn active_alarms(client: &Client) -> String {
    let Ok(response) = alarm::active(client).await else {
        return "Unable to fetch the alarm list".to_owned();
    };
    if response.alarms.is_empty() {
        return String::new();
    }
    let names = response.alarms.iter().map(|member| match member.alarm() {
        AlarmType::Nospace => "NOSPACE ",
        AlarmType::Corrupt => "CORRUPT ",
        AlarmType::None => "UNKNOWN ",
    });
    format!("Active Alarm(s): {}", names.collect::<String>())
}

fn status(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let of_cluster = invocation.flags.bool("cluster");
    let context = Context::new(invocation, false)?;
    context::run(async {
        let (answers, error) = ask_each(&context, of_cluster, "status", async |client| {
            client.status(StatusRequest {}).await
        })
        .await?;
        context.print(&Reply::Status(&answers))?;
        // The error of each endpoint has already been printed.
        error.map_or(Ok(()), |_| Err(Exit::silent(1)))
    })
}

fn hash_kv(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let of_cluster = invocation.flags.bool("cluster");
    let request = HashKvRequest {
        revision: invocation.flags.int("rev"),
    };
    let context = Context::new(invocation, false)?;
    context::run(async {
        let (answers, error) = ask_each(&context, of_cluster, "hash", async |client| {
            client.hash_kv(request).await
        })
        .await?;
        context.print(&Reply::HashKv(&answers))?;
        error.map_or(Ok(()), |error| Err(Exit::error(error)))
    })
}

/// Queries the endpoints in turn; prints each error and returns the last one.
async fn ask_each<R>(
    context: &Context,
    of_cluster: bool,
    what: &str,
    request: impl AsyncFn(Client) -> Result<R, Error>,
) -> Result<(Vec<Answer<R>>, Option<Error>), Exit> {
    let mut answers = Vec::new();
    let mut last_error = None;
    for endpoint in context.each_endpoint(of_cluster).await? {
        let client = context.client_of(&endpoint).await?;
        match request(client.with_timeout(context.command_timeout)).await {
            Ok(response) => answers.push(Answer { endpoint, response }),
            Err(error) => {
                log_last_attempt(&error);
                stderr::write_line(format_args!(
                    "Failed to get the {what} of endpoint {endpoint} ({error})"
                ));
                last_error = Some(error);
            }
        }
    }
    Ok((answers, last_error))
}
