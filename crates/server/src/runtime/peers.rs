//! Keeps the transport's peers in step with the applied membership.

use std::collections::BTreeMap;

use retcd_member::Shared;
use retcd_state::membership::Membership;

use crate::peer::Transport;

/// The members that the transport knows, with their peer URLs.
pub(super) struct PeerSet {
    own_id: u64,
    transport: Transport,
    known: BTreeMap<u64, Vec<String>>,
}

impl PeerSet {
    /// The other members of `member`'s cluster.
    pub(super) fn of(member: &Shared, transport: Transport) -> PeerSet {
        let mut peers = PeerSet {
            own_id: member.id,
            transport,
            known: BTreeMap::new(),
        };
        peers.follow(&member.state.membership.read());
        peers
    }

    /// Brings the transport up to the membership.
    pub(super) fn follow(&mut self, membership: &Membership) {
        let others = membership.members().filter(|other| other.id != self.own_id);
        let now: BTreeMap<u64, Vec<String>> = others
            .map(|other| (other.id, other.peer_urls().to_vec()))
            .collect();
        for id in self.known.keys().filter(|id| !now.contains_key(id)) {
            self.transport.remove_peer(*id);
        }
        for (id, urls) in &now {
            match self.known.get(id) {
                None => self.transport.add_peer(*id, urls),
                Some(known) if known != urls => self.transport.update_peer(*id, urls),
                Some(_) => {}
            }
        }
        self.known = now;
    }
}
