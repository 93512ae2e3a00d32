//! Who is sent to: the transport follows the applied membership.

use std::collections::BTreeMap;

use super::member::Member;
use crate::peer::Transport;

/// The members that the transport knows, with their peer URLs.
pub struct Peers {
    transport: Transport,
    known: BTreeMap<u64, Vec<String>>,
}

impl Peers {
    /// Nobody yet.
    pub fn new(transport: Transport) -> Peers {
        Peers {
            transport,
            known: BTreeMap::new(),
        }
    }

    /// Brings the transport up to the membership as it is now.
    pub fn follow(&mut self, member: &Member) {
        let membership = member.membership.read();
        if membership.is_removed(member.id) {
            member.removed.send_replace(true);
        }
        let others = membership.members().filter(|other| other.id != member.id);
        let now: BTreeMap<u64, Vec<String>> = others
            .map(|other| (other.id, other.peer_urls().to_vec()))
            .collect();
        drop(membership);
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
