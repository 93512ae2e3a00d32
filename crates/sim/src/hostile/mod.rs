//! Who wishes the cluster ill: puts things into the log that no honest program would.
//!
//! They come as from a member of another program, which forwards what its clients have sent it:
//! past all checks that are made before the log. All members must make the same of each, and none
//! may stop. What stops etcd's members as well (bytes that are no request, unknown kinds) is left
//! out; `tests/hostile` says what that is.
//!
//! Some is left out because a cluster that does as it is told is of no use for the rest of the run:
//! alarms, users and roles that the administrator counts on, leases that outlive the world, members
//! that nobody starts, a compaction at 0 (from then on the newest hash that is asked for is that of
//! revision 0, as in etcd).

pub mod draw;

use std::time::Duration;

use bytes::Bytes;
use fastrand::Rng;
use prost::{Message, encoding};
use retcd_proto::etcdserverpb::{InternalRaftRequest, LeaseGrantRequest};
use retcd_proto::raftpb::{ConfChange, ConfChangeType, Entry, EntryType};
use retcd_proto::wire;
use retcd_state::Time;
use retcd_state::machine::{Machine, MachineOptions};
use retcd_state::version::Version;
use retcd_storage::backend::Backend;

use crate::client::any_host;
use crate::context::{Context, Event};
use crate::request::Request;
use crate::users::Credentials;

/// The client number that operations of the hostile client have.
pub const HOSTILE: usize = usize::MAX - 2;
/// Nobody answers what came from another member.
const PATIENCE: Duration = Duration::from_secs(1);
/// The longest lease in seconds.
const TTL_MAX: i64 = 8;
/// The fields of the log's request that are about users and roles.
const OF_USERS: std::ops::Range<u32> = 1000..1300;
/// The oldest cluster whose members tell each other things by requests of today.
const OLDEST_SPOKEN: Version = Version::new(3, 5, 0);
/// Seconds from which on a time to live is refused.
const TTL_REFUSED: i64 = 9_000_000_001;

/// Lets something happen that nobody honest does.
pub(crate) fn harass(cx: &mut Context) {
    if let Some(entry) = any(cx) {
        cx.log.expect_strange(&entry);
        let request = Request::Smuggled(Box::new(entry));
        let host = any_host(cx);
        cx.ask(HOSTILE, host, request, Credentials::Nobody, PATIENCE);
    } else if let Some(id) = only_voter(cx) {
        let change = ConfChange {
            r#type: Some(ConfChangeType::ConfChangeRemoveNode as i32),
            node_id: Some(id),
            ..Default::default()
        };
        cx.leaving.insert(id);
        let (host, request) = (any_host(cx), Request::Change(Box::new(change)));
        cx.ask(HOSTILE, host, request, Credentials::Nobody, PATIENCE);
    }
    let pause = cx.between_us(10_000, 300_000);
    cx.after(pause, Event::Harass);
}

fn only_voter(cx: &Context) -> Option<u64> {
    let mut voters = cx.log.members.iter().filter(|(_, learner)| !**learner);
    let first = voters.next().map(|(id, _)| *id);
    first.filter(|_| voters.next().is_none())
}

/// The next entry, if the world can bear it.
fn any(cx: &mut Context) -> Option<Entry> {
    let (kind, data) = match cx.rng.u8(..8) {
        0 => (EntryType::EntryConfChange, conf_change(cx)),
        1 if cx.rng.bool() => (EntryType::EntryConfChangeV2, conf_change(cx)),
        1 | 2 => of_members(&mut cx.rng),
        _ => (EntryType::EntryNormal, forwarded(&mut cx.rng)?),
    };
    let entry = Entry {
        r#type: Some(kind as i32),
        data: Some(data),
        ..Default::default()
    };
    // Members drop changes of the membership that nobody could make.
    let goes_in = kind == EntryType::EntryNormal;
    (!goes_in || is_bearable(&entry) && stops_nobody(&entry)).then_some(entry)
}

/// What a client has sent, as the member that it sent it to forwards it: the bytes as they were,
/// and a header.
fn forwarded(rng: &mut Rng) -> Option<Bytes> {
    let mut bytes = draw::client_request(rng);
    let request: InternalRaftRequest = wire::decode(bytes.clone().into()).ok()?;
    if !draw::is_of_client(&request) {
        return None;
    }
    let header = InternalRaftRequest {
        header: Some(draw::header(rng)),
        ..Default::default()
    };
    bytes.extend(header.encode_to_vec());
    Some(bytes.into())
}

/// What members of older and newer programs tell each other.
fn of_members(rng: &mut Rng) -> (EntryType, Bytes) {
    let bytes = match rng.bool() {
        true => draw::v2(rng).encode_to_vec(),
        false => {
            let mut request = InternalRaftRequest {
                header: Some(draw::header(rng)),
                ..Default::default()
            };
            draw::set_of_members(&mut request, rng);
            request.encode_to_vec()
        }
    };
    (EntryType::EntryNormal, draw::damaged(bytes, rng).into())
}

/// Changes of members that there are, but for removals, which are of others.
fn conf_change(cx: &mut Context) -> Bytes {
    let mut change = draw::conf_change(&mut cx.rng);
    let members: Vec<u64> = cx.log.members.keys().copied().collect();
    if change.r#type != Some(ConfChangeType::ConfChangeRemoveNode as i32) && !members.is_empty() {
        let (old, new) = (change.node_id(), members[cx.rng.usize(..members.len())]);
        let context = String::from_utf8_lossy(change.context());
        let context = context.replace(&format!("\"id\":{old}"), &format!("\"id\":{new}"));
        change.context = Some(context.into_bytes().into());
        change.node_id = Some(new);
    }
    change.encode_to_vec().into()
}

/// Whether a run in which this is executed goes on to prove something.
fn is_bearable(entry: &Entry) -> bool {
    let data = entry.data.clone().unwrap_or_default();
    let Ok(r) = wire::decode::<InternalRaftRequest>(data.clone()) else {
        return true;
    };
    let lasts = |grant: &LeaseGrantRequest| (TTL_MAX + 1..TTL_REFUSED).contains(&grant.ttl);
    let of_root = data.windows(4).any(|window| window == b"root");
    r.alarm.is_none()
        && r.compaction
            .as_ref()
            .is_none_or(|compaction| compaction.revision != 0)
        && !r.lease_grant.as_ref().is_some_and(lasts)
        && match parts_of_users(&r) {
            0 => true,
            1 => !of_root,
            // Who is logged out by it could not be told from its answer.
            _ => false,
        }
}

/// How many of its requests are about users and roles.
fn parts_of_users(r: &InternalRaftRequest) -> usize {
    let mut left = &r.encode_to_vec()[..];
    let mut parts = 0;
    while let Ok((number, wire_type)) = encoding::decode_key(&mut left) {
        parts += usize::from(OF_USERS.contains(&number));
        let context = encoding::DecodeContext::default();
        encoding::skip_field(wire_type, number, &mut left, context)
            .expect("it was encoded a moment ago");
    }
    parts
}

/// Whether etcd's members, too, go on behind it: that does not depend on anything but the entry.
fn stops_nobody(entry: &Entry) -> bool {
    let mut machine = Machine::open(Backend::default(), MachineOptions::default())
        .expect("an empty database can be read");
    let first = Entry {
        index: Some(1),
        term: Some(1),
        ..entry.clone()
    };
    machine.apply(Time::default(), &[first]).is_ok() && is_spoken(&machine)
}

/// Whether the members speak the cluster's version. They stop at a newer one, and speak to an older
/// one in requests that the model does not know.
fn is_spoken(machine: &Machine) -> bool {
    let version = machine.membership().read().cluster_version();
    version.is_none_or(|version| (OLDEST_SPOKEN..=Version::STORAGE).contains(&version))
}
