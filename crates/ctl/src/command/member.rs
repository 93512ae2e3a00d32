//! `member`: lists and changes the members of the cluster.

use retcd_client::{Client, Error};
use retcd_proto::etcdserverpb::{
    Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberListResponse,
    MemberPromoteRequest, MemberRemoveRequest, MemberUpdateRequest,
};

use super::context::{self, Context, failed};
use super::get::serializable;
use crate::cli::{Command, Exit, Flag, Invocation};
use crate::go::number::parse_uint;
use crate::go::quote::quote;
use crate::print::{Format, MemberChange, Reply, print_bytes};
use crate::urls::MemberUrl;

const DEFAULT_CONSISTENCY: &str = "l";

const LIST_LONG: &str = "\
Lists the members. With the simple format the columns are: ID, Status, Name, Peer Addrs, Client Addrs, Is Learner.";

/// The `member` command.
pub(crate) fn command() -> Command {
    Command::group(
        "member",
        "List, add, remove and change members",
        vec![
            Command::new("add", "<memberName> [options]", "Add a member", add).flags([
                Flag::text(
                    "peer-urls",
                    "",
                    "the new member's peer URLs, separated by commas",
                ),
                Flag::switch("learner", "add the member as a learner"),
            ]),
            Command::new("remove", "<memberID>", "Remove a member", remove),
            Command::new(
                "update",
                "<memberID> [options]",
                "Change the peer URLs of a member",
                update,
            )
            .flags([Flag::text(
                "peer-urls",
                "",
                "the member's peer URLs, separated by commas",
            )]),
            Command::new(
                "promote",
                "<memberID>",
                "Promote a learner to a voting member",
                promote,
            ),
            Command::new("list", "", "List all members", list_members)
                .long(LIST_LONG)
                .flags([Flag::text(
                    "consistency",
                    DEFAULT_CONSISTENCY,
                    "linearizable (l) or serializable (s)",
                )]),
        ],
    )
}

/// Lists the members.
///
/// # Errors
/// The request failed.
pub(crate) async fn list(client: &Client, linearizable: bool) -> Result<MemberListResponse, Error> {
    client.member_list(MemberListRequest { linearizable }).await
}

fn member_id(invocation: &Invocation<'_>) -> Result<u64, Exit> {
    let texts = invocation.texts();
    let [id] = texts.as_slice() else {
        return Err(Exit::bad_args("member ID is not provided"));
    };
    parse_uint(id, 16).map_err(|error| {
        Exit::bad_args(format!("bad member ID arg ({error}), expecting ID in Hex"))
    })
}

fn peer_urls(invocation: &Invocation<'_>) -> Result<Vec<String>, Exit> {
    match invocation.flags.text("peer-urls") {
        "" => Err(Exit::bad_args("member peer urls not provided")),
        urls => Ok(urls.split(',').map(str::to_owned).collect()),
    }
}

/// Rejects invalid peer URLs with the exit code of failed requests: etcd's client validates them as
/// part of the request.
fn check_urls(urls: &[String]) -> Result<(), Exit> {
    urls.iter()
        .try_for_each(|url| MemberUrl::parse(url).map(|_| ()))
        .map_err(Exit::error)
}

fn add(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let texts = invocation.texts();
    let name = match texts.as_slice() {
        [] => return Err(Exit::bad_args("member name not provided")),
        [name] => name,
        texts => return Err(Exit::bad_args(too_many_arguments(texts))),
    };
    let peer_ur_ls = peer_urls(invocation)?;
    let urls = invocation.flags.text("peer-urls").to_owned();
    let request = MemberAddRequest {
        peer_ur_ls,
        is_learner: invocation.flags.bool("learner"),
    };
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        check_urls(&request.peer_ur_ls)?;
        let response = client.member_add(request).await.map_err(failed)?;
        context.print(&Reply::MemberAdd(&response))?;
        if context.printer.format == Format::Simple {
            print_bytes(settings_of_new_member(name, &urls, &response).as_bytes())?;
        }
        Ok(())
    })
}

/// Older versions took the URLs as arguments.
fn too_many_arguments(texts: &[String]) -> String {
    let urls = texts
        .iter()
        .filter(|text| text.to_lowercase().starts_with("http"));
    let hints: String = urls
        .map(|url| format!(", did you mean --peer-urls={url}"))
        .collect();
    format!("too many arguments{hints}")
}

/// The environment for the server of the new member.
fn settings_of_new_member(name: &str, urls: &str, response: &MemberAddResponse) -> String {
    let new_id = response.member.as_ref().map(|member| member.id);
    let mut cluster = Vec::new();
    for member in &response.members {
        let shown = if Some(member.id) == new_id {
            name
        } else {
            &member.name
        };
        cluster.extend(member.peer_ur_ls.iter().map(|url| format!("{shown}={url}")));
    }
    format!(
        "\nETCD_NAME={}\nETCD_INITIAL_CLUSTER={}\nETCD_INITIAL_ADVERTISE_PEER_URLS={}\n\
         ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n",
        quote(name.as_bytes()),
        quote(cluster.join(",").as_bytes()),
        quote(urls.as_bytes())
    )
}

fn remove(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let id = member_id(invocation)?;
    change(invocation, MemberChange::Remove, id, async |client| {
        let response = client.member_remove(MemberRemoveRequest { id }).await?;
        Ok((response.header, response.members))
    })
}

fn update(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let id = member_id(invocation)?;
    let request = MemberUpdateRequest {
        id,
        peer_ur_ls: peer_urls(invocation)?,
    };
    check_urls(&request.peer_ur_ls)?;
    change(invocation, MemberChange::Update, id, async |client| {
        let response = client.member_update(request).await?;
        Ok((response.header, response.members))
    })
}

fn promote(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    let id = member_id(invocation)?;
    change(invocation, MemberChange::Promote, id, async |client| {
        let response = client.member_promote(MemberPromoteRequest { id }).await?;
        Ok((response.header, response.members))
    })
}

type Changed = (
    Option<retcd_proto::etcdserverpb::ResponseHeader>,
    Vec<Member>,
);

fn change(
    invocation: &mut Invocation<'_>,
    kind: MemberChange,
    id: u64,
    request: impl AsyncFnOnce(&Client) -> Result<Changed, Error>,
) -> Result<(), Exit> {
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let (header, members) = request(&client).await.map_err(failed)?;
        context.print(&Reply::MemberChange(kind, id, header.as_ref(), &members))
    })
}

fn list_members(invocation: &mut Invocation<'_>) -> Result<(), Exit> {
    // Like etcdctl, the error text names the default instead of the value.
    let serializable = serializable(invocation.flags.text("consistency"), DEFAULT_CONSISTENCY)?;
    let context = Context::new(invocation, false)?;
    context::run(async {
        let client = context.limited_client().await?;
        let members = list(&client, !serializable).await.map_err(failed)?;
        context.print(&Reply::MemberList(&members))
    })
}
