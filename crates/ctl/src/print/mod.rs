//! What commands print: one room per output format, one [`Reply`] for everything that can be printed.
//!
//! The bytes on stdout are interface. A format that cannot show a reply says so by returning [`Unsupported`]; by then the
//! request has been made, as in etcd's tools.

mod fields;
mod json;
mod protobuf;
mod rows;
mod simple;
mod table;

use std::io::{self, Write};

use retcd_proto::etcdserverpb as pb;

use crate::cli::{Exit, ExitKind};

pub use table::render as render_table;

/// An output format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Lines for people and shell scripts.
    Simple,
    /// `"Name" : value` lines.
    Fields,
    /// One JSON object.
    Json,
    /// The response message as it came.
    Protobuf,
    /// A table with a frame.
    Table,
}

impl Format {
    /// The format with this name.
    pub fn parse(name: &str) -> Option<Format> {
        Some(match name {
            "simple" => Format::Simple,
            "fields" => Format::Fields,
            "json" => Format::Json,
            "protobuf" => Format::Protobuf,
            "table" => Format::Table,
            _ => return None,
        })
    }

    /// The format's name.
    pub fn name(self) -> &'static str {
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
pub struct Health {
    /// The endpoint as the user wrote it.
    pub endpoint: String,
    /// Empty if it is healthy.
    pub error: String,
    /// How long its answer took, in Go's form; empty if no client could be made.
    pub took: String,
}

/// What an endpoint answered.
pub struct Answer<R> {
    /// The endpoint as the user wrote it.
    pub endpoint: String,
    /// Its response.
    pub response: R,
}

/// A change of the membership.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberChange {
    /// A member left.
    Remove,
    /// A member has other peer URLs.
    Update,
    /// A learner became a voter.
    Promote,
}

/// Which downgrade request was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Downgrade {
    /// Whether it would be possible.
    Validate,
    /// It began.
    Enable,
    /// It ended.
    Cancel,
}

/// What a change of users and roles did; such replies differ only in one line.
pub struct AuthChange<'r> {
    /// The line that `simple` prints.
    pub line: String,
    /// The header of the response, which is all that is in it.
    pub header: Option<&'r pb::ResponseHeader>,
    /// Whether `fields` shows it.
    pub has_fields: bool,
}

/// Everything that can be printed.
pub enum Reply<'r> {
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
    /// `lease timetolive`, and whether its keys were asked for
    LeaseTimeToLive(&'r pb::LeaseTimeToLiveResponse, bool),
    /// `lease list`
    LeaseList(&'r pb::LeaseLeasesResponse),
    /// `member add`
    MemberAdd(&'r pb::MemberAddResponse),
    /// `member remove`, `update`, `promote`: whose, and what it answered
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
    /// `move-leader`: from whom, to whom
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

/// A reply that a format cannot show.
#[derive(Debug, PartialEq, Eq)]
pub struct Unsupported {
    /// Why; `None` for the usual sentence.
    pub reason: Option<String>,
}

impl Unsupported {
    const USUAL: Unsupported = Unsupported { reason: None };
}

/// How replies are printed.
#[derive(Clone, Copy, Debug)]
pub struct Printer {
    /// The format.
    pub format: Format,
    /// Whether keys, values and ids are shown in hexadecimal, where the format knows how.
    pub hex: bool,
    /// Whether `simple` leaves out keys.
    pub values_only: bool,
}

impl Printer {
    /// Prints a reply on stdout.
    ///
    /// # Errors
    /// The format cannot show it, or nobody reads stdout any more.
    pub fn print(&self, reply: &Reply<'_>) -> Result<(), Exit> {
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

/// Writes bytes to stdout at once.
///
/// # Errors
/// Nobody reads stdout any more: silent, with the code that shells show for a broken pipe.
pub fn print_bytes(bytes: &[u8]) -> Result<(), Exit> {
    let mut stdout = io::stdout().lock();
    stdout
        .write_all(bytes)
        .and_then(|()| stdout.flush())
        .map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Exit::silent(141),
            _ => Exit::error(format!("cannot write to stdout: {error}")),
        })
}

/// Writes a line to stdout.
///
/// # Errors
/// As [`print_bytes`].
pub fn print_line(line: &str) -> Result<(), Exit> {
    print_bytes(format!("{line}\n").as_bytes())
}
