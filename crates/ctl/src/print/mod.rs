//! Output formats, a module each, and [`Reply`], which covers everything that can be printed.
//!
//! The bytes on stdout are interface. A format that does not support a reply returns
//! [`Unsupported`]; as in etcd's tools, the request has been made by then.

mod columns;
mod fields;
mod json;
mod protobuf;
mod rows;
mod simple;
mod table;

use std::io::{self, Write};

use retcd_log::go_io_error;
use retcd_proto::etcdserverpb as pb;

use crate::cli::{Exit, ExitKind};

pub(crate) use columns::{aligned as aligned_columns, render as render_columns};
pub(crate) use table::render as render_table;

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// Lines for people and shell scripts.
    Simple,
    /// `"Name" : value` lines.
    Fields,
    /// One JSON object.
    Json,
    /// The encoded response message.
    Protobuf,
    /// A table with borders.
    Table,
}

impl Format {
    /// Parses the name of a format.
    pub(crate) fn parse(name: &str) -> Option<Format> {
        Some(match name {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return None,
        })
    }

    /// The name of the format.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Format::Simple => "simple",
            Format::Fields => "fields",
            Format::Json => "json",
            Format::Protobuf => "protobuf",
            Format::Table => "table",
        }
    }
}

/// The health of an endpoint.
pub(crate) struct Health {
    /// The endpoint as given by the user.
    pub(crate) endpoint: String,
    /// Empty if it is healthy.
    pub(crate) error: String,
    /// The response time in Go's format; empty if the client could not be created.
    pub(crate) took: String,
}

/// The response of an endpoint.
pub(crate) struct Answer<R> {
    /// The endpoint as given by the user.
    pub(crate) endpoint: String,
    /// The response.
    pub(crate) response: R,
}

/// A membership change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MemberChange {
    /// A member was removed.
    Remove,
    /// A member's peer URLs changed.
    Update,
    /// A learner was promoted.
    Promote,
}

/// The action of a downgrade request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Downgrade {
    /// Checks whether a downgrade is possible.
    Validate,
    /// Starts a downgrade.
    Enable,
    /// Cancels a downgrade.
    Cancel,
}

/// The result of a change of users or roles. Such replies differ in one line only.
pub(crate) struct AuthChange<'r> {
    /// The line printed by `simple`.
    pub(crate) line: String,
    /// The response header, the only content of the response.
    pub(crate) header: Option<&'r pb::ResponseHeader>,
    /// Whether `fields` prints it.
    pub(crate) has_fields: bool,
}

/// Everything that can be printed.
pub(crate) enum Reply<'r> {
    /// `put`
    Put(&'r pb::PutResponse),
    /// `get`
    Get(&'r pb::RangeResponse),
    /// `del`
    Delete(&'r pb::DeleteRangeResponse),
    /// `txn`
    Txn(&'r pb::TxnResponse),
    /// `watch`
    Watch(&'r pb::WatchResponse),
    /// `lease grant`
    LeaseGrant(&'r pb::LeaseGrantResponse),
    /// `lease revoke`
    LeaseRevoke(i64, &'r pb::LeaseRevokeResponse),
    /// `lease keep-alive`
    LeaseKeepAlive(&'r pb::LeaseKeepAliveResponse),
    /// `lease timetolive`, and whether its keys were requested
    LeaseTimeToLive(&'r pb::LeaseTimeToLiveResponse, bool),
    /// `lease list`
    LeaseList(&'r pb::LeaseLeasesResponse),
    /// `member add`
    MemberAdd(&'r pb::MemberAddResponse),
    /// `member remove`, `update`, `promote`: the member id, and the response
    MemberChange(
        MemberChange,
        u64,
        Option<&'r pb::ResponseHeader>,
        &'r [pb::Member],
    ),
    /// `member list`
    MemberList(&'r pb::MemberListResponse),
    /// `endpoint health`
    Health(&'r [Health]),
    /// `endpoint status`
    Status(&'r [Answer<pb::StatusResponse>]),
    /// `endpoint hashkv`
    HashKv(&'r [Answer<pb::HashKvResponse>]),
    /// `move-leader`: the old leader and the new one
    MoveLeader(u64, u64, &'r pb::MoveLeaderResponse),
    /// `downgrade`
    Downgrade(Downgrade, &'r pb::DowngradeResponse),
    /// `alarm`
    Alarm(&'r pb::AlarmResponse),
    /// Changes of users and roles
    AuthChange(AuthChange<'r>),
    /// `auth status`
    AuthStatus(&'r pb::AuthStatusResponse),
    /// `user get`
    UserGet(&'r str, &'r pb::AuthUserGetResponse),
    /// `user list`
    UserList(&'r pb::AuthUserListResponse),
    /// `role get`
    RoleGet(&'r str, &'r pb::AuthRoleGetResponse),
    /// `role list`
    RoleList(&'r pb::AuthRoleListResponse),
}

/// A format does not support a reply.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Unsupported {
    /// The reason; `None` for the default text.
    pub(crate) reason: Option<String>,
}

impl Unsupported {
    const USUAL: Unsupported = Unsupported { reason: None };
}

/// The output options.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Printer {
    /// The format.
    pub(crate) format: Format,
    /// Print keys, values and ids in hexadecimal, where the format supports it.
    pub(crate) hex: bool,
    /// Omit keys in `simple`.
    pub(crate) values_only: bool,
}

impl Printer {
    /// Prints a reply to stdout.
    ///
    /// # Errors
    /// The format does not support it, or stdout is closed.
    pub(crate) fn print(&self, reply: &Reply<'_>) -> Result<(), Exit> {
        let bytes = self.render(reply).map_err(|unsupported| {
            let usual = || format!("{} not supported as output format", self.format.name());
            Exit::new(
                ExitKind::BadFeature,
                unsupported.reason.unwrap_or_else(usual),
            )
        })?;
        print_bytes(&bytes)
    }

    fn render(&self, reply: &Reply<'_>) -> Result<Vec<u8>, Unsupported> {
        match self.format {
            Format::Simple => Ok(simple::render(reply, self.hex, self.values_only)),
            Format::Fields => fields::render(reply, self.hex).map(String::into_bytes),
            Format::Json => json::render(reply, self.hex).map(String::into_bytes),
            Format::Protobuf => protobuf::render(reply),
            Format::Table => rows::table(reply).map(String::into_bytes),
        }
    }
}

/// Writes bytes to stdout and flushes.
///
/// # Errors
/// Stdout is closed: a silent exit, with the code that shells report for SIGPIPE.
pub(crate) fn print_bytes(bytes: &[u8]) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::silent(141),
            _ => Exit::error(format!("cannot write to stdout: {}", go_io_error(&error))),
        })
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`print_bytes`].
pub(crate) fn print_line(line: &str) -> Result<(), Exit> {
    print_bytes(format!("{line}\n").as_bytes())
}
