//! Members compare what they have.
//!
//! | check | when | what |
//! |---|---|---|
//! | initial | before a member serves, with the gate `InitialCorruptCheck` | its newest revision with each peer's |
//! | periodic | every `--corrupt-check-time`, at the leader | the same |
//! | compaction | every `--compact-hash-check-time`, at the leader, with the gate `CompactHashCheck` | the sums that compactions made |
//!
//! The first refuses to start. The others raise the alarm CORRUPT for the member that is wrong, as
//! far as that can be told. Hashes can be compared where they were made behind the same compaction.
//! A member that does not answer is no reason for an alarm. What was found is true whoever leads
//! when it enters the log: an alarm may be sent on. Matched is etcd v3.7:
//! `server/etcdserver/corrupt.go`.

use std::collections::BTreeMap;
use std::rc::Rc;

use futures_util::future::join_all;
use retcd_log::{Hex, Text};
use retcd_proto::etcdserverpb::AlarmType;
use retcd_state::membership::Member;
use retcd_state::mvcc::{self, KeyspaceHash, RangeError};

use crate::Error;
use crate::core::Core;
use crate::peers::{PeerError, PeerHash, Peers};

/// What a peer answered.
struct Answered {
    id: u64,
    answer: Result<PeerHash, PeerError>,
}

/// Asks each of the members for its hash at `revision`.
async fn peer_hashes(peers: &dyn Peers, members: Vec<Member>, revision: i64) -> Vec<Answered> {
    let asked = members.into_iter().map(|member| async move {
        let answer = peers.hash_kv(&member, revision).await;
        // A member without URLs has not been heard of.
        (answer != Err(PeerError::NoUrl)).then_some(Answered {
            id: member.id,
            answer,
        })
    });
    join_all(asked).await.into_iter().flatten().collect()
}

/// A member that is about to start.
pub struct Starting<'a> {
    /// Its id.
    pub id: u64,
    /// Its data.
    pub reader: &'a mvcc::Reader,
    /// The other members.
    pub peers: Vec<Member>,
}

/// Why a member must not start.
#[derive(Debug, thiserror::Error)]
pub enum InitialCheckError {
    /// Its data cannot be read.
    #[error("{0:x} failed to fetch hash ({1})")]
    Unreadable(u64, RangeError),
    /// Its data is not that of the others.
    #[error("{0:x} found data inconsistency with peers")]
    Inconsistent(u64),
}

/// The initial check.
///
/// # Errors
/// The member's data differs from that of a peer.
pub async fn check_initially(
    member: Starting<'_>,
    peers: &dyn Peers,
) -> Result<(), InitialCheckError> {
    let own_id = member.id;
    retcd_log::info!("starting initial corruption check"; "local-member-id" => Hex(own_id));
    let (own, _) = member
        .reader
        .hash_kv(0)
        .map_err(|error| InitialCheckError::Unreadable(own_id, error))?;
    let mut differ = false;
    for peer in peer_hashes(peers, member.peers, own.revision).await {
        // What kept a peer from answering is in the log.
        let Ok(theirs) = peer.answer else { continue };
        if theirs.hash == own.hash {
            continue;
        }
        let comparable = theirs.compact_revision == own.compact_revision;
        differ |= comparable;
        let message = match comparable {
            true => "found different hash values from remote peer",
            false => "found different compact revision values from remote peer",
        };
        retcd_log::warn!(message; "local-member-id" => Hex(own_id),
            "local-member-revision" => own.revision, "local-member-compact-revision" => own.compact_revision,
            "local-member-hash" => own.hash, "remote-peer-id" => Hex(peer.id),
            "remote-peer-revision" => theirs.current_revision,
            "remote-peer-compact-revision" => theirs.compact_revision, "remote-peer-hash" => theirs.hash);
    }
    if differ {
        return Err(InitialCheckError::Inconsistent(own_id));
    }
    retcd_log::info!("initial corruption checking passed; no corruption"; "local-member-id" => Hex(own_id));
    Ok(())
}

/// The checks of a leader.
pub(crate) struct CorruptionChecks {
    core: Rc<Core>,
}

impl CorruptionChecks {
    pub(crate) fn new(core: &Rc<Core>) -> CorruptionChecks {
        CorruptionChecks {
            core: Rc::clone(core),
        }
    }

    /// `--corrupt-check-time`.
    pub(crate) async fn run_periodic(&self) {
        let Some(interval) = self.core.shared.config.corrupt_check else {
            return;
        };
        retcd_log::info!("enabled corruption checking";
            "local-member-id" => Hex(self.core.shared.id), "interval" => interval);
        loop {
            self.core.clock.sleep(interval).await;
            if !self.core.read_index.leads().await {
                continue;
            }
            if let Err(error) = self.check_periodically().await {
                retcd_log::warn!("failed to check hash KV"; "error" => Text(&error));
            }
        }
    }

    async fn check_periodically(&self) -> Result<(), Error> {
        let (before, _) = self.core.hash_kv(0).await?;
        let peers = self.ask_peers(before.revision).await;
        self.core.read_index.linearizable().await?;
        let (after, revision) = self.core.hash_kv(0).await?;
        let revision = revision.get();
        let answered: Vec<(u64, PeerHash)> = peers
            .into_iter()
            .filter_map(|peer| Some((peer.id, peer.answer.ok()?)))
            .collect();
        let suspect = suspect(self.core.shared.id, before, after, revision, &answered);
        if let Some((id, reason)) = suspect {
            retcd_log::warn!(reason; "leader-revision" => revision,
                "leader-compact-revision" => after.compact_revision,
                "leader-hash" => before.hash, "follower-peer-id" => Hex(id));
            self.core.proposer.raise_alarm(id, AlarmType::Corrupt).await;
        }
        retcd_log::info!("finished peer corruption check"; "number-of-peers-checked" => answered.len());
        Ok(())
    }

    /// `--compact-hash-check-time`.
    pub(crate) async fn run_compaction(&self) {
        let Some(interval) = self.core.shared.config.compact_hash_check else {
            return;
        };
        let mut checked = 0;
        loop {
            self.core.clock.sleep(interval).await;
            if self.core.read_index.leads().await {
                self.check_compactions(&mut checked).await;
            }
        }
    }

    /// Compares the newest compaction that all members have made. `checked` is the newest revision
    /// that was found equal everywhere.
    async fn check_compactions(&self, checked: &mut i64) {
        let own_id = self.core.shared.id;
        retcd_log::info!("starting compact hash check"; "local-member-id" => Hex(own_id),
            "timeout" => self.core.shared.config.limits.request_timeout);
        let hashes = self.core.shared.state.reader.compaction_hashes();
        let mut number = 0;
        for own in hashes.into_iter().filter(|own| own.revision > *checked) {
            number += 1;
            let peers = self.ask_peers(own.revision).await;
            if peers.is_empty() {
                continue;
            }
            match compare(own_id, own, &peers) {
                Verdict::Incomplete => {
                    retcd_log::warn!("skipped revision in compaction hash check; was not able to check all peers";
                        "number-of-peers" => peers.len(), "revision" => own.revision);
                }
                Verdict::Equal => {
                    retcd_log::info!("successfully checked hash on whole cluster";
                        "number-of-peers-checked" => peers.len(), "revision" => own.revision,
                        "compactRevision" => own.compact_revision);
                    *checked = (*checked).max(own.revision);
                    break;
                }
                Verdict::Corrupt(ids) => {
                    for id in &ids {
                        retcd_log::error!("Detected compaction hash mismatch"; "leader-id" => Hex(own_id),
                            "leader-revision" => own.revision, "leader-compact-revision" => own.compact_revision,
                            "leader-hash" => own.hash, "peer-id" => Hex(*id));
                    }
                    join_all(
                        ids.iter()
                            .map(|id| self.core.proposer.raise_alarm(*id, AlarmType::Corrupt)),
                    )
                    .await;
                    break;
                }
            }
        }
        retcd_log::info!("finished compaction hash check"; "number-of-hashes-checked" => number);
    }

    async fn ask_peers(&self, revision: i64) -> Vec<Answered> {
        let own_id = self.core.shared.id;
        let others = {
            let membership = self.core.shared.state.membership.read();
            let others = membership.members().filter(|member| member.id != own_id);
            others.cloned().collect()
        };
        peer_hashes(&*self.core.peers, others, revision).await
    }
}

/// The first member that cannot be right, and why. `before` and `after` are the leader's hashes
/// before and after its peers answered; the latter when the leader was at `revision`.
fn suspect(
    own_id: u64,
    before: KeyspaceHash,
    after: KeyspaceHash,
    revision: i64,
    peers: &[(u64, PeerHash)],
) -> Option<(u64, &'static str)> {
    let same_state =
        before.revision == after.revision && before.compact_revision == after.compact_revision;
    if same_state && before.hash != after.hash {
        return Some((own_id, "found hash mismatch"));
    }
    peers.iter().find_map(|(id, peer)| {
        let reason = if peer.current_revision > revision {
            "revision from follower must be less than or equal to leader's"
        } else if peer.compact_revision > after.compact_revision {
            "compact revision from follower must be less than or equal to leader's"
        } else if peer.compact_revision == before.compact_revision && peer.hash != before.hash {
            "same compact revision then hashes must match"
        } else {
            return None;
        };
        Some((*id, reason))
    })
}

/// What a comparison of compactions says.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// All members have the same.
    Equal,
    /// Those that could be compared have the same.
    Incomplete,
    /// These members have something else than the majority; 0 if there is none.
    Corrupt(Vec<u64>),
}

fn compare(own_id: u64, own: KeyspaceHash, peers: &[Answered]) -> Verdict {
    let mut members = BTreeMap::from([(own.hash, vec![own_id])]);
    let mut compared = 0;
    for peer in peers {
        match &peer.answer {
            Ok(theirs) if theirs.compact_revision == own.compact_revision => {
                compared += 1;
                members.entry(theirs.hash).or_default().push(peer.id);
            }
            answer => {
                let reason = match answer {
                    Ok(_) => "another compaction before",
                    Err(_) => "no response",
                };
                retcd_log::warn!("Skipped peer's hash"; "number-of-peers" => peers.len(),
                    "leader-id" => Hex(own_id), "peer-id" => Hex(peer.id), "reason" => reason);
            }
        }
    }
    if members.len() == 1 {
        return match compared == peers.len() {
            true => Verdict::Equal,
            false => Verdict::Incomplete,
        };
    }
    let quorum = peers.len().div_ceil(2) + 1;
    let majority = members.iter().find(|(_, ids)| ids.len() >= quorum);
    match majority.map(|(hash, _)| *hash) {
        None => Verdict::Corrupt(vec![0]),
        Some(hash) => {
            members.remove(&hash);
            Verdict::Corrupt(members.into_values().flatten().collect())
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is guarded: a member that is right is never called corrupt, and one that is wrong is,
    //! as soon as it can be known.
    use super::*;

    fn own(hash: u32, compact_revision: i64, revision: i64) -> KeyspaceHash {
        KeyspaceHash {
            hash,
            compact_revision,
            revision,
        }
    }

    fn theirs(hash: u32, compact_revision: i64, current_revision: i64) -> PeerHash {
        PeerHash {
            hash,
            current_revision,
            compact_revision,
            hash_revision: current_revision,
        }
    }

    #[test]
    fn the_periodic_check_names_who_cannot_be_right() {
        let check = |before, after, revision, peers: &[PeerHash]| {
            let peers: Vec<(u64, PeerHash)> = (2..).zip(peers.iter().copied()).collect();
            suspect(1, before, after, revision, &peers).map(|(id, _)| id)
        };
        let same = own(7, 3, 10);
        assert_eq!(
            check(same, same, 10, &[theirs(7, 3, 10), theirs(7, 3, 9)]),
            None
        );
        // The leader's own answer changed although nothing did.
        assert_eq!(check(same, own(8, 3, 10), 10, &[]), Some(1));
        // Writes or a compaction meanwhile explain it.
        assert_eq!(check(same, own(8, 3, 11), 11, &[]), None);
        assert_eq!(check(same, own(8, 5, 10), 10, &[theirs(9, 5, 10)]), None);
        assert_eq!(
            check(same, same, 10, &[theirs(7, 3, 10), theirs(7, 3, 11)]),
            Some(3)
        );
        assert_eq!(check(same, same, 10, &[theirs(7, 4, 10)]), Some(2));
        assert_eq!(check(same, same, 10, &[theirs(8, 3, 10)]), Some(2));
        // Behind an older compaction the sums differ rightly.
        assert_eq!(check(same, same, 10, &[theirs(8, 2, 10)]), None);
    }

    fn check(peers: &[Option<(u32, i64)>], verdict: Verdict) {
        let hashes: Vec<Answered> = (2..)
            .zip(peers)
            .map(|(id, peer)| Answered {
                id,
                answer: peer
                    .map(|(hash, compacted)| theirs(hash, compacted, 10))
                    .ok_or(PeerError::NoUrl),
            })
            .collect();
        assert_eq!(compare(1, own(7, 3, 10), &hashes), verdict, "{peers:?}");
    }

    #[test]
    fn the_majority_is_right_about_compactions() {
        let (good, bad, older) = (Some((7, 3)), Some((8, 3)), Some((8, 2)));
        check(&[good, good], Verdict::Equal);
        check(&[good, None], Verdict::Incomplete);
        check(&[good, older], Verdict::Incomplete);
        check(&[None, None], Verdict::Incomplete);
        check(&[good, bad], Verdict::Corrupt(vec![3]));
        check(&[bad, bad], Verdict::Corrupt(vec![1]));
        check(&[bad], Verdict::Corrupt(vec![0]));
        check(&[bad, None], Verdict::Corrupt(vec![0]));
        check(&[Some((9, 3)), bad], Verdict::Corrupt(vec![0]));
        check(
            &[good, good, bad, Some((9, 3))],
            Verdict::Corrupt(vec![4, 5]),
        );
    }
}
