//! Random histories.

use fastrand::Rng;

use super::client::{Client, Told, told};
use super::entries::Log;
use super::*;

/// What somebody saw before, and must see again.
struct Memory {
    view: View,
    present: RangeReply,
    past: RangeReply,
    hash: u32,
    backend: retcd_storage::backend::Reader,
}

struct World {
    rng: Rng,
    log: Log,
    ahead: Member,
    behind: Member,
    client: Client,
    /// All that ever happened, by the member that applies everything.
    history: Vec<Told>,
    memories: Vec<Memory>,
    restores: usize,
}

impl World {
    fn new(seed: u64) -> World {
        let behind = Member::new();
        World {
            rng: Rng::with_seed(seed),
            log: Log::new(seed),
            ahead: Member::new(),
            client: Client::new(&behind.reader),
            behind,
            history: Vec::new(),
            memories: Vec::new(),
            restores: 0,
        }
    }

    fn step(&mut self) {
        match self.rng.u8(..100) {
            0..40 => self.go_ahead(),
            40..60 => self.follow(),
            60..65 => self.restore(),
            65..70 => self.remember(),
            70..80 => _ = self.ahead.backend.commit().unwrap(),
            80..90 => _ = self.behind.backend.commit().unwrap(),
            90..94 => _ = self.ahead.machine.compaction_step(5).unwrap(),
            94..97 => _ = self.behind.machine.compaction_step(5).unwrap(),
            97 => _ = self.ahead.backend.defragment().unwrap(),
            98 => _ = self.behind.backend.defragment().unwrap(),
            _ => self.crash(),
        }
    }

    fn go_ahead(&mut self) {
        (0..self.rng.usize(1..12)).for_each(|_| self.log.grow());
        let entries = self.log.behind(self.ahead.index(), usize::MAX);
        let applied = self.ahead.apply(entries);
        let events = applied.events.iter().flat_map(|(_, events)| events.iter());
        self.history.extend(events.map(told));
    }

    /// The one behind applies some entries of its own.
    fn follow(&mut self) {
        let count = self.rng.usize(1..8);
        self.follow_up_to(count);
    }

    fn follow_up_to(&mut self, count: usize) {
        let count = count.min((self.ahead.index() - self.behind.index()) as usize);
        let entries = self.log.behind(self.behind.index(), count);
        let applied = self.behind.apply(entries);
        self.client.publish(&applied);
        if self.rng.bool() {
            self.client.drain(&self.behind.reader);
        }
        if self.behind.index() == self.ahead.index() {
            assert_eq!(self.behind.state(), self.ahead.state());
        }
    }

    fn restore(&mut self) {
        self.remember();
        if self.ahead.index() == self.behind.index() {
            if self.ahead.index() > 0 {
                let refused = self.behind.restore_from(&self.ahead);
                assert!(matches!(refused, Err(RestoreError::NotNewer { .. })));
            }
            return;
        }
        let expected = self.ahead.state();
        let mut copy =
            DatabaseCopy::take(&self.ahead.backend, &self.ahead.machine.v2_reader()).unwrap();
        // While the copy is on its way the other goes on.
        self.go_ahead();
        self.ahead.backend.commit().unwrap();
        assert_eq!(copy.head.applied, expected.applied);
        assert_eq!(&copy.head.conf_state, expected.membership.conf_state());
        assert_eq!(
            copy.head.membership.to_document(),
            expected.membership.to_document()
        );
        let path = self.behind.receive(&mut copy);
        drop(copy);
        let restored = self.behind.machine.restore(&path).unwrap();
        self.client.restore(&restored);
        assert_eq!(self.behind.state(), expected);
        assert_eq!(restored.applied, expected.applied);
        assert_eq!(restored.revision, self.behind.reader.revision());
        assert_eq!(restored.compacted, self.behind.reader.compacted_revision());
        assert_eq!(&restored.conf_state, expected.membership.conf_state());
        assert_eq!(restored.compacting, self.behind.machine.is_compacting());
        assert!(!self.behind.disk.exists(&path).unwrap());
        self.restores += 1;
        self.check_memories();
    }

    fn remember(&mut self) {
        let view = self.behind.reader.view();
        let backend = self.behind.backend.reader();
        let oldest = view.compacted_revision().max(1);
        let past = self.rng.i64(oldest..=view.revision().get());
        self.memories.push(Memory {
            present: all(&view, 0),
            past: all(&view, past),
            hash: backend.hash(false).unwrap(),
            view,
            backend,
        });
    }

    fn check_memories(&mut self) {
        for memory in self.memories.drain(..) {
            assert_eq!(all(&memory.view, 0), memory.present);
            assert_eq!(memory.backend.hash(false).unwrap(), memory.hash);
            // `past` was read at one of the view's revisions: look for it among all of them.
            let oldest = memory.view.compacted_revision().max(1);
            let mut revisions = oldest..=memory.view.revision().get();
            assert!(revisions.any(|revision| all(&memory.view, revision) == memory.past));
        }
    }

    /// The one behind starts anew from what its disk has.
    fn crash(&mut self) {
        self.memories.clear();
        self.client.drain(&self.behind.reader);
        let member = std::mem::replace(&mut self.behind, Member::new());
        self.behind = member.crash(self.rng.u64(..));
        self.client.reconnect(&self.behind.reader);
    }

    /// Both at the end of the log, with everything removed that is to be.
    fn settle(&mut self) {
        self.go_ahead();
        self.follow_up_to(usize::MAX);
        for member in [&mut self.ahead, &mut self.behind] {
            member.finish_compactions();
            member.backend.commit().unwrap();
        }
        assert_eq!(self.behind.state(), self.ahead.state());
        let hash = |member: &Member| member.backend.hash(true).unwrap();
        assert_eq!(hash(&self.behind), hash(&self.ahead));
        assert_eq!(
            self.behind.backend.reader().committed().check().unwrap(),
            []
        );
        self.check_client();
    }

    fn check_client(&mut self) {
        self.client.drain(&self.behind.reader);
        let missed = |revision: i64| {
            let mut ranges = self.client.missed.iter();
            ranges.any(|&(from, below)| (from..below).contains(&revision))
        };
        let expected: Vec<&Told> = self
            .history
            .iter()
            .filter(|event| !missed(event.0))
            .collect();
        let found: Vec<&Told> = self.client.events.iter().collect();
        assert!(
            found == expected,
            "told of {} events instead of {}, missed {:?}",
            found.len(),
            expected.len(),
            self.client.missed
        );
    }
}

#[test]
fn a_member_that_takes_anothers_database_is_as_if_it_had_applied_every_entry() {
    let mut restores = 0;
    for seed in 0..40 {
        let mut world = World::new(seed);
        for _ in 0..150 {
            world.step();
        }
        world.settle();
        restores += world.restores;
    }
    assert!(restores > 150, "{restores} restores");
}
