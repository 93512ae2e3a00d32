//! What a renewal may be answered, and what has to be found out before.
//!
//! Two answers are promises. "It has its full time again" may only come from the leader: who led a
//! moment ago would promise what its successor does not know of. "There is no such lease" makes a
//! client drop its locks, so it may only come from who has applied everything that was committed
//! when the question came: the lease may have been granted through another member that is a few
//! entries ahead. Neither can be decided from what this member believes; both are asked of a
//! quorum.
//!
//! ```text
//! not the primary ──▶ AskLeader ──▶ renewed
//!                        └─ denied ──▶ CatchUp ──▶ still unknown ──▶ Unknown
//! primary, unknown ──▶ CatchUp ──▶ still unknown ──▶ Unknown
//! primary, known, not confirmed of late ──▶ ConfirmLeader
//! primary, known, confirmed ──▶ Renewed
//! ```
//! A quorum is not asked for each renewal. A new leader gives every lease [`LessorOptions::extend`]
//! on top, and it can only have been elected after the last confirmation of the old one was asked
//! for. So for that long the old one's renewals are kept; half of it is used, as clocks differ.
//!
//! [`LessorOptions::extend`]: super::LessorOptions::extend

use super::{Lessor, RenewError};
use crate::Time;

/// What comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Answer with this time to live in seconds.
    Renewed(i64),
    /// Propose that the lease's checkpoint is cleared; once that is applied answer with this time
    /// to live in seconds.
    ClearCheckpoint(i64),
    /// Answer that there is no such lease.
    Unknown,
    /// Ask a quorum whether this member leads; then go on.
    ConfirmLeader,
    /// Wait until all that is committed by now is applied; then tell [`Renewal::caught_up`].
    CatchUp,
    /// Ask the leader, which may be another one by now. If it knows no such lease, tell
    /// [`Renewal::denied`].
    AskLeader,
    /// The lease has run out, and its revocation is on its way through the log: look again a bit
    /// later.
    Wait,
}

/// A renewal under way.
#[derive(Clone, Copy, Debug)]
pub struct Renewal {
    id: i64,
    caught_up: bool,
    denied: bool,
}

impl Renewal {
    /// The renewal of lease `id`, asked for now.
    pub fn new(id: i64) -> Renewal {
        Renewal {
            id,
            caught_up: false,
            denied: false,
        }
    }

    /// The lease.
    pub fn id(&self) -> i64 {
        self.id
    }

    /// Everything that was committed when the last [`Step`] was taken is applied.
    pub fn caught_up(&mut self) {
        self.caught_up = true;
    }

    /// A member that is held to lead knows no such lease.
    pub fn denied(&mut self) {
        (self.denied, self.caught_up) = (true, false);
    }

    /// Renews the lease or says what is missing. `led_at` is when this member last asked a quorum,
    /// and was told that it leads.
    pub fn step(&self, lessor: &mut Lessor, now: Time, led_at: Option<Time>) -> Step {
        if !lessor.contains(self.id) && self.caught_up {
            return Step::Unknown;
        }
        if !lessor.is_primary() {
            return match self.denied && !self.caught_up {
                true => Step::CatchUp,
                false => Step::AskLeader,
            };
        }
        if !lessor.contains(self.id) {
            return Step::CatchUp;
        }
        let trusted = lessor.options.extend / 2;
        if led_at.is_none_or(|led_at| now >= led_at + trusted) {
            return Step::ConfirmLeader;
        }
        match lessor.renew(self.id, now) {
            Ok(renewed) if renewed.clear_checkpoint => Step::ClearCheckpoint(renewed.ttl),
            Ok(renewed) => Step::Renewed(renewed.ttl),
            Err(RenewError::Expired) => Step::Wait,
            Err(error @ (RenewError::NotFound | RenewError::NotPrimary)) => {
                unreachable!("lease {} of a primary: {error}", self.id)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    //! What is guarded: no lease is called unknown, and none renewed, by a member that cannot know.
    use std::time::Duration;

    use retcd_storage::backend::{Backend, WriteBatch};

    use super::super::LessorOptions;
    use super::*;

    const LEASE: i64 = 7;
    const NOW: Time = Time::from_secs(100);

    fn lessor(term: Option<u64>, lease: bool) -> Lessor {
        let options = LessorOptions::default();
        let mut lessor = Lessor::open(&Backend::default().reader(), options).unwrap();
        if lease {
            let granted = lessor.grant(LEASE, 10, NOW, &mut WriteBatch::default());
            granted.unwrap();
        }
        if let Some(term) = term {
            lessor.elect(term);
            lessor.begin_term(term, NOW);
        }
        lessor
    }

    #[test]
    fn a_leader_calls_a_lease_unknown_only_when_it_has_caught_up() {
        let mut lessor = lessor(Some(5), false);
        let mut renewal = Renewal::new(LEASE);
        assert_eq!(renewal.step(&mut lessor, NOW, Some(NOW)), Step::CatchUp);
        renewal.caught_up();
        assert_eq!(renewal.step(&mut lessor, NOW, Some(NOW)), Step::Unknown);
    }

    #[test]
    fn a_lease_that_comes_while_the_leader_catches_up_is_renewed() {
        let mut renewal = Renewal::new(LEASE);
        renewal.caught_up();
        let step = renewal.step(&mut lessor(Some(5), true), NOW, Some(NOW));
        assert_eq!(step, Step::Renewed(10));
    }

    #[test]
    fn a_quorum_is_asked_again_when_its_word_is_old() {
        let mut lessor = lessor(Some(5), true);
        let renewal = Renewal::new(LEASE);
        let mut step = |now, led_at| renewal.step(&mut lessor, now, led_at);
        assert_eq!(step(NOW, None), Step::ConfirmLeader);
        let trusted = Duration::from_millis(500);
        assert_eq!(step(NOW + trusted, Some(NOW)), Step::ConfirmLeader);
        let fresh = NOW + (trusted - Duration::from_nanos(1));
        assert_eq!(step(fresh, Some(NOW)), Step::Renewed(10));
        let over = NOW + Duration::from_secs(20);
        assert_eq!(step(over, Some(over)), Step::Wait);
    }

    #[test]
    fn a_follower_does_not_take_the_leaders_word_that_there_is_no_such_lease() {
        let mut lessor = lessor(None, true);
        let mut renewal = Renewal::new(LEASE);
        let step = |renewal: &Renewal, lessor: &mut Lessor| renewal.step(lessor, NOW, None);
        assert_eq!(step(&renewal, &mut lessor), Step::AskLeader);
        renewal.denied();
        assert_eq!(step(&renewal, &mut lessor), Step::CatchUp);
        renewal.caught_up();
        assert_eq!(step(&renewal, &mut lessor), Step::AskLeader, "it is there");
        renewal.denied();
        lessor.revoke(LEASE, &mut WriteBatch::default());
        assert_eq!(step(&renewal, &mut lessor), Step::CatchUp);
        renewal.caught_up();
        assert_eq!(step(&renewal, &mut lessor), Step::Unknown);
    }

    #[test]
    fn an_elected_member_keeps_deadlines_from_the_first_entry_of_its_own_term_on() {
        let mut lessor = lessor(None, true);
        lessor.elect(6);
        // It still applies what its predecessors left.
        lessor.begin_term(5, NOW);
        assert!(!lessor.is_primary());
        lessor.begin_term(6, NOW);
        assert!(lessor.is_primary());
        lessor.elect(6);
        assert!(lessor.is_primary(), "that is no news");
        lessor.demote();
        lessor.begin_term(6, NOW);
        assert!(!lessor.is_primary());
    }
}
