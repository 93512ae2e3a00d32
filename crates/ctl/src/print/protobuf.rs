//! `-w protobuf`: the encoded response message, without length or newline.

use prost::Message;
use retcd_proto::etcdserverpb as pb;

use super::{MemberChange, Reply, Unsupported};

/// Encodes a reply.
pub(crate) fn render(reply: &Reply<'_>) -> Result<Vec<u8>, Unsupported> {
    Ok(match reply {
        Reply::Put(response) => response.encode_to_vec(),
        Reply::Get(response) => response.encode_to_vec(),
        Reply::Delete(response) => response.encode_to_vec(),
        Reply::Txn(response) => response.encode_to_vec(),
        Reply::Watch(response) => watch(response),
        // etcd's client wraps these in structs of its own, of which only the header is a message.
        Reply::LeaseGrant(response) => header(response.header.as_ref()),
        Reply::LeaseKeepAlive(response) => header(response.header.as_ref()),
        Reply::LeaseTimeToLive(response, _) => header(response.header.as_ref()),
        Reply::LeaseList(response) => header(response.header.as_ref()),
        Reply::LeaseRevoke(_, response) => return Err(revoke(response)),
        Reply::MemberAdd(response) => response.encode_to_vec(),
        Reply::MemberChange(change, _, header, members) => member_change(*change, *header, members),
        Reply::MemberList(response) => response.encode_to_vec(),
        Reply::MoveLeader(_, _, response) => response.encode_to_vec(),
        Reply::Downgrade(_, response) => response.encode_to_vec(),
        Reply::Alarm(response) => response.encode_to_vec(),
        Reply::AuthChange(change) => {
            // All of these responses consist of a header in field 1.
            pb::AuthEnableResponse {
                header: change.header.copied(),
            }
            .encode_to_vec()
        }
        Reply::AuthStatus(response) => response.encode_to_vec(),
        Reply::UserGet(_, response) => response.encode_to_vec(),
        Reply::UserList(response) => response.encode_to_vec(),
        Reply::RoleGet(_, response) => response.encode_to_vec(),
        Reply::RoleList(response) => response.encode_to_vec(),
        Reply::Health(_) | Reply::Status(_) | Reply::HashKv(_) => return Err(Unsupported::USUAL),
    })
}

fn header(header: Option<&pb::ResponseHeader>) -> Vec<u8> {
    header.map_or_else(Vec::new, Message::encode_to_vec)
}

fn watch(response: &pb::WatchResponse) -> Vec<u8> {
    let shown = pb::WatchResponse {
        header: response.header,
        events: response.events.clone(),
        compact_revision: response.compact_revision,
        canceled: response.canceled,
        created: response.created,
        ..Default::default()
    };
    shown.encode_to_vec()
}

fn member_change(
    change: MemberChange,
    header: Option<&pb::ResponseHeader>,
    members: &[pb::Member],
) -> Vec<u8> {
    let (header, members) = (header.copied(), members.to_vec());
    match change {
        MemberChange::Remove => pb::MemberRemoveResponse { header, members }.encode_to_vec(),
        MemberChange::Update => pb::MemberUpdateResponse { header, members }.encode_to_vec(),
        MemberChange::Promote => pb::MemberPromoteResponse { header, members }.encode_to_vec(),
    }
}

/// etcdctl prints the response with the state that Go's protobuf keeps in each message, of which one
/// part is an address in memory, and with the bytes of unknown fields and the size behind it.
fn revoke(response: &pb::LeaseRevokeResponse) -> Unsupported {
    let header = response.header.unwrap_or_default();
    let message = format!(
        "cluster_id:{}  member_id:{}  revision:{}  raft_term:{}",
        header.cluster_id, header.member_id, header.revision, header.raft_term
    );
    Unsupported {
        reason: Some(format!(
            "marshal unsupported for type *clientv3.LeaseRevokeResponse \
             (&{{{{{{}} [] [] {response:p}}} {message} [] 0}})"
        )),
    }
}
