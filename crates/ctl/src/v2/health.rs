//! `cluster-health`: asks each member for its health.

use std::time::Duration;

use http::Method;
use retcd_proto::go_json::{self, JsonError, Object};

use super::cluster::{Cluster, ClusterError, Member};
use super::debug;
use super::failure::{self, NOT_HEALTHY, SERVER_ERROR};
use super::http::{Action, AttemptError};
use super::options::Flag;
use super::program::{Command, Invocation};
use crate::cli::Exit;
use crate::command::{run_async, until_interrupted};
use crate::print::{print_bytes, print_line};

const PAUSE: Duration = Duration::from_secs(10);

/// A member without a quorum takes its time to find out. `--timeout` does not apply.
const HEALTH_TIMEOUT: Duration = Duration::from_secs(30);

/// `cluster-health`
pub(super) const COMMAND: Command = Command::new(
    "cluster-health",
    "check whether the members are healthy",
    " ",
    &[Flag::switch(
        &["forever", "f"],
        "check every 10 seconds until the command is interrupted",
    )],
    run,
);

fn run(invocation: &Invocation) -> Result<(), Exit> {
    let forever = invocation.options.switch("forever");
    let check = check_members(invocation, forever);
    match forever {
        true => until_interrupted(check),
        false => run_async(check),
    }
}

async fn check_members(invocation: &Invocation, forever: bool) -> Result<(), Exit> {
    // etcd 3.3 looks at the certificates before everything else here, and has this code for them.
    let dialer = invocation.dialer();
    dialer.map_err(|error| failure::error(SERVER_ERROR, error))?;
    let cluster = invocation.given_cluster()?;
    if invocation.globals.switch("debug") {
        debug::show_cluster(&cluster.endpoints);
    }
    let members = match cluster.members().await {
        Ok(members) => members,
        Err(error) => {
            print_line("cluster may be unhealthy: failed to list members")?;
            return Err(failure::request(&error));
        }
    };
    loop {
        let healthy = check_all(&cluster, &members).await?;
        print_line(summary(healthy, members.len()))?;
        if !forever {
            return match healthy == members.len() {
                true => Ok(()),
                false => Err(Exit::silent(NOT_HEALTHY)),
            };
        }
        print_bytes(b"\nnext check after 10 second...\n\n")?;
        tokio::time::sleep(PAUSE).await;
    }
}

fn summary(healthy: usize, members: usize) -> &'static str {
    match healthy {
        healthy if healthy == members => "cluster is healthy",
        0 => "cluster is unavailable",
        _ => "cluster is degraded",
    }
}

/// Checks the members one by one; returns how many are healthy.
async fn check_all(cluster: &Cluster, members: &[Member]) -> Result<usize, Exit> {
    let mut healthy = 0;
    for member in members {
        healthy += usize::from(check(cluster, member).await?);
    }
    Ok(healthy)
}

async fn check(cluster: &Cluster, member: &Member) -> Result<bool, Exit> {
    let id = &member.id;
    if member.client_urls.is_empty() {
        let reason = "no available published client urls";
        print_line(&format!("member {id} is unreachable: {reason}"))?;
        return Ok(false);
    }
    for url in &member.client_urls {
        match ask(cluster, url).await {
            Ok(true) => {
                print_line(&format!(
                    "member {id} is healthy: got healthy result from {url}"
                ))?;
                return Ok(true);
            }
            Ok(false) => {
                print_line(&format!(
                    "member {id} is unhealthy: got unhealthy result from {url}"
                ))?;
                return Ok(false);
            }
            Err(error) => print_line(&format!(
                "failed to check the health of member {id} on {url}: {error}"
            ))?,
        }
    }
    let urls = member.client_urls.join(" ");
    print_line(&format!(
        "member {id} is unreachable: [{urls}] are all unreachable"
    ))?;
    Ok(false)
}

/// Whether the member at `url` says that it is healthy.
async fn ask(cluster: &Cluster, url: &str) -> Result<bool, ClusterError> {
    let action = Action::new(Method::GET, "/health");
    let http = cluster.http.with_header_timeout(HEALTH_TIMEOUT);
    let answer = http.exchange(url, &action).await;
    let answer = answer.map_err(|error| ClusterError::Said(connection_text(url, &error)))?;
    Ok(parse(&answer.body)?)
}

fn connection_text(url: &str, error: &AttemptError) -> String {
    format!("Get \"{url}/health\": {error}")
}

/// `{"health":"true"}`, or `true` without quotes as members before 3.2 say.
fn parse(body: &[u8]) -> Result<bool, JsonError> {
    let value = go_json::parse(body)?;
    let text = Object::of(&value, "struct { Health string }");
    if let Ok(health) = text.and_then(|page| page.string("Health")) {
        return Ok(health == "true");
    }
    Object::of(&value, "struct { Health bool }")?.bool("Health")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_a_text_or_a_boolean() {
        let healthy = |body: &str| parse(body.as_bytes()).map_err(|error| error.to_string());
        assert_eq!(healthy(r#"{"health":"true","reason":""}"#), Ok(true));
        assert_eq!(healthy(r#"{"health":true}"#), Ok(true));
        assert_eq!(healthy("{\"health\":\"false\"}\n"), Ok(false));
        assert_eq!(healthy("{}"), Ok(false));
        assert_eq!(healthy("null"), Ok(false));
        let error = |text: &str| Err(text.to_owned());
        assert_eq!(healthy(""), error("unexpected end of JSON input"));
        let number = "json: cannot unmarshal number into Go struct field .Health of type bool";
        assert_eq!(healthy(r#"{"health":1}"#), error(number));
    }

    #[test]
    fn a_cluster_is_healthy_if_all_members_are() {
        assert_eq!(summary(3, 3), "cluster is healthy");
        assert_eq!(summary(2, 3), "cluster is degraded");
        assert_eq!(summary(0, 3), "cluster is unavailable");
    }
}
