//! `member`: the members of the cluster.

use http::{Method, StatusCode};

use super::cluster::{Cluster, ClusterError, Member, decode, expect_status, said};
use super::failure::{BAD_ARGS, plain};
use super::http::{Action, Answer};
use super::program::{Command, Invocation};
use crate::cli::Exit;
use crate::command::run_async;
use crate::go::json;
use crate::go::quote::quote;
use crate::print::{print_bytes, print_line};
use crate::stderr;
use crate::urls::MemberUrl;

/// `member`
pub(super) const COMMAND: Command = Command::group(
    "member",
    "list, add, remove and update members",
    &[
        Command::new("list", "list the members", " ", &[], list),
        Command::new("add", "add a member", "<name> <peerURL>", &[], add),
        Command::new("remove", "remove a member", "<memberID>", &[], remove),
        Command::new(
            "update",
            "change the peer URLs of a member",
            "<memberID> <peerURLs>",
            &[],
            update,
        ),
    ],
);

/// Go's name of an error of a member.
const ERROR_TYPE: &str = "client.membersError";

const REMOVAL_HELP: &str = "For more details, read the documentation at https://github.com/coreos/\
     etcd/blob/master/Documentation/runtime-configuration.md#remove-a-member\n";

fn list(invocation: &Invocation) -> Result<(), Exit> {
    if !invocation.args.is_empty() {
        return Err(plain("No arguments accepted"));
    }
    run_async(async {
        let cluster = invocation.cluster().await?;
        let members = cluster.limited(cluster.members()).await.map_err(plain)?;
        let leader = cluster.limited(cluster.leader()).await;
        let leader = leader.map_err(|error| plain(format!("Failed to get leader:  {error}")))?;
        let lines = members.iter().map(|member| line(member, &leader.id));
        print_bytes(lines.collect::<String>().as_bytes())
    })
}

fn line(member: &Member, leader: &str) -> String {
    let id = &member.id;
    let peer_urls = member.peer_urls.join(",");
    if member.name.is_empty() {
        return format!("{id}[unstarted]: peerURLs={peer_urls}\n");
    }
    format!(
        "{id}: name={} peerURLs={peer_urls} clientURLs={} isLeader={}\n",
        member.name,
        member.client_urls.join(","),
        id == leader
    )
}

fn add(invocation: &Invocation) -> Result<(), Exit> {
    let texts = invocation.texts();
    let [name, url] = texts.as_slice() else {
        return Err(plain("Provide a name and a single member peerURL"));
    };
    run_async(async {
        let cluster = invocation.cluster().await?;
        let body = urls_json(std::slice::from_ref(url))?;
        let action = Action::new(Method::POST, "/v2/members").json(body);
        let added = cluster.limited(add_member(&cluster, &action)).await;
        let added = added.map_err(plain)?;
        print_line(&format!(
            "Added member named {name} with ID {} to cluster",
            added.id
        ))?;
        let members = cluster.limited(cluster.members()).await.map_err(plain)?;
        print_bytes(settings(name, &added.id, &members).as_bytes())
    })
}

async fn add_member(cluster: &Cluster, action: &Action) -> Result<Member, ClusterError> {
    let answer = cluster.ask(action).await?;
    expect_status(&answer, &[StatusCode::CREATED, StatusCode::CONFLICT])?;
    match answer.status {
        StatusCode::CREATED => Ok(decode(&answer, Member::TYPE, Member::of)?),
        _ => Err(said(&answer, ERROR_TYPE)),
    }
}

/// The variables with which the new member is started.
fn settings(name: &str, id: &str, members: &[Member]) -> String {
    let mut cluster = Vec::new();
    for member in members {
        let shown = if member.id == id { name } else { &member.name };
        let urls = member.peer_urls.iter();
        cluster.extend(urls.map(|url| format!("{shown}={url}")));
    }
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quote(name.as_bytes()),
        quote(cluster.join(",").as_bytes())
    )
}

fn remove(invocation: &Invocation) -> Result<(), Exit> {
    let texts = invocation.texts();
    let [id] = texts.as_slice() else {
        return Err(plain("Provide a single member ID"));
    };
    run_async(async {
        let cluster = invocation.cluster().await?;
        let members = cluster.limited(cluster.members()).await.map_err(|error| {
            plain(format!(
                "Error while verifying ID against known members: {error}"
            ))
        })?;
        for member in members.iter().filter(|member| member.name == *id) {
            stderr::write_line(format_args!(
                "Found a member named {id}; if this is correct, please use its ID, eg:\n\
                 \tetcdctl member remove {}\n{REMOVAL_HELP}",
                member.id
            ));
        }
        if !members.iter().any(|member| member.id == *id) {
            let text = format!("Couldn't find a member in the cluster with an ID of {id}.");
            return Err(plain(text));
        }
        let action = Action::new(Method::DELETE, format!("/v2/members/{id}"));
        // A member that is gone for good is removed.
        let expected = [StatusCode::NO_CONTENT, StatusCode::GONE];
        let removed = cluster.limited(change(&cluster, &action, &expected)).await;
        if let Err(error) = removed {
            // The line has no end in etcd 3.3.
            stderr::write_part(format_args!(
                "Received an error trying to remove member {id}: {error}"
            ));
            return Err(Exit::silent(BAD_ARGS));
        }
        print_line(&format!("Removed member {id} from cluster"))
    })
}

async fn change(
    cluster: &Cluster,
    action: &Action,
    expected: &[StatusCode],
) -> Result<Answer, ClusterError> {
    let answer = cluster.ask(action).await?;
    expect_status(&answer, expected)?;
    Ok(answer)
}

fn update(invocation: &Invocation) -> Result<(), Exit> {
    let texts = invocation.texts();
    let [id, urls] = texts.as_slice() else {
        return Err(plain(
            "Provide an ID and a list of comma separated peerURL \
             (0xabcd http://example.com,http://example1.com)",
        ));
    };
    run_async(async {
        let cluster = invocation.cluster().await?;
        let urls: Vec<String> = urls.split(',').map(str::to_owned).collect();
        let body = urls_json(&urls)?;
        let path = format!("/v2/members/{}", super::store::segment(id.as_bytes()));
        let action = Action::new(Method::PUT, path).json(body);
        let expected = [
            StatusCode::NO_CONTENT,
            StatusCode::NOT_FOUND,
            StatusCode::CONFLICT,
        ];
        let answer = cluster.limited(change(&cluster, &action, &expected)).await;
        let answer = answer.map_err(plain)?;
        if answer.status != StatusCode::NO_CONTENT {
            return Err(plain(said(&answer, ERROR_TYPE)));
        }
        print_line(&format!("Updated member with ID {id} in cluster"))
    })
}

/// The body of a request with peer URLs, in order.
///
/// # Errors
/// One is not valid.
fn urls_json(urls: &[String]) -> Result<String, Exit> {
    let parsed: Result<Vec<MemberUrl>, _> = urls.iter().map(|url| MemberUrl::parse(url)).collect();
    let mut parsed = parsed.map_err(plain)?;
    parsed.sort();
    let mut body = String::new();
    json::object(&mut body, |o| {
        let array = o.field("peerURLs");
        json::array(array, &parsed, |out, url| json::string(out, url.as_str()));
    });
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_without_a_name_have_not_started() {
        let mut member = Member {
            id: "a1".to_owned(),
            peer_urls: vec!["http://a:1".to_owned(), "http://b:1".to_owned()],
            ..Member::default()
        };
        let text = "a1[unstarted]: peerURLs=http://a:1,http://b:1\n";
        assert_eq!(line(&member, "a1"), text);
        let new = settings("new", "a1", std::slice::from_ref(&member));
        let text = "\nETCD_NAME=\"new\"\nETCD_INITIAL_CLUSTER=\"new=http://a:1,new=http://b:1\"\n\
                    ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n";
        assert_eq!(new, text);
        member.name = "m1".to_owned();
        let text = "a1: name=m1 peerURLs=http://a:1,http://b:1 clientURLs= isLeader=true\n";
        assert_eq!(line(&member, "a1"), text);
    }

    #[test]
    fn peer_urls_are_checked_and_sorted() {
        let body = |urls: &[&str]| {
            let urls: Vec<String> = urls.iter().map(|url| (*url).to_owned()).collect();
            urls_json(&urls).map_err(|exit| exit.message.unwrap_or_default())
        };
        let sorted = r#"{"peerURLs":["http://a:1","http://b:1"]}"#;
        assert_eq!(body(&["http://b:1", "http://a:1"]), Ok(sorted.to_owned()));
        let refusal = "URL scheme must be http, https, unix, or unixs: foo";
        assert_eq!(body(&["foo"]), Err(refusal.to_owned()));
    }
}
