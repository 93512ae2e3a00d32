//! The log against a naive model of it, on a disk that loses power at every point.
//!
//! The model is the list of all records that were ever appended. Whatever happens, the log must
//! come back as a prefix of that list which holds everything that a sync had covered, and must then
//! continue.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use prost::Message;
use retcd_proto::raftpb::{Entry, HardState};
use retcd_proto::walpb;
use retcd_storage::disk::{Fault, MemDisk};
use retcd_storage::wal::{self, Needed, Options, Recovered, Terms, Wal, WalError, Wanted};

use crate::{content, dir, entry, metadata, names, prepare, records, segments_of, snapshot, state};

#[derive(Clone)]
enum Record {
    Entry(Entry),
    State(HardState),
    Snapshot(walpb::Snapshot),
}

/// What records add up to: the newest committed snapshot, and the entries and state behind it.
#[derive(Clone, Default)]
struct Log {
    entries: BTreeMap<u64, Entry>,
    state: HardState,
    start: walpb::Snapshot,
}

impl Log {
    fn of(records: &[Record]) -> Log {
        let mut log = Log {
            start: wal::origin(),
            ..Log::default()
        };
        for record in records {
            if let Record::State(state) = record {
                log.state = *state;
            }
        }
        for record in records {
            match record {
                Record::Snapshot(found) if found.index() <= log.state.commit() => {
                    log.start = found.clone();
                }
                _ => {}
            }
        }
        for record in records {
            match record {
                Record::Entry(entry) => {
                    log.entries.split_off(&entry.index());
                    log.entries.insert(entry.index(), entry.clone());
                }
                Record::Snapshot(found) if *found == log.start => {
                    let covered = log.entries.get(&found.index());
                    if covered.is_some_and(|entry| entry.term() != found.term()) {
                        log.entries.split_off(&found.index());
                    }
                }
                Record::Snapshot(_) | Record::State(_) => {}
            }
        }
        log
    }

    /// The entries behind the start.
    fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries
            .range(self.start.index() + 1..)
            .map(|(_, entry)| entry)
    }

    fn last_index(&self) -> u64 {
        self.entries()
            .last()
            .map_or(self.start.index(), Entry::index)
    }

    fn matches(&self, start: &walpb::Snapshot, found: &Recovered) -> bool {
        self.start == *start
            && self.state == found.hard_state
            && self.entries().eq(found.entries.iter())
    }
}

fn last_of(records: &[Record]) -> walpb::Snapshot {
    let snapshot = records.iter().rev().find_map(|record| match record {
        Record::Snapshot(found) => Some(found.clone()),
        _ => None,
    });
    snapshot.unwrap_or(wal::origin())
}

struct Story {
    rng: Rng,
    seed: u64,
    disk: MemDisk,
    options: Options,
    records: Vec<Record>,
    /// How many of `records` cannot be lost any more.
    durable: usize,
    /// How many reached the operating system, and are there unless the power goes.
    written: usize,
    purged: bool,
}

impl Story {
    fn new(seed: u64) -> Story {
        let mut rng = Rng::with_seed(seed);
        let options = segments_of(rng.u64(600..12_000));
        Story {
            seed,
            disk: MemDisk::new(),
            options,
            records: Vec::new(),
            durable: 0,
            written: 0,
            purged: false,
            rng,
        }
    }

    /// Opens the log, or creates it, checks what is in it against the model and forgets what was
    /// lost.
    fn recover(&mut self) -> Result<Wal, WalError> {
        if !wal::exists(&self.disk, dir())? {
            assert_eq!(
                self.durable, 0,
                "seed {}: a log with records is gone",
                self.seed
            );
            self.records.clear();
            return Wal::create(
                Arc::new(self.disk.clone()),
                dir(),
                &metadata(),
                self.options,
            );
        }
        let start = wal::last_snapshot(&self.disk, dir())?.expect("0/0 is in every log");
        let listed = match wal::snapshots(&self.disk, dir()) {
            Err(error) if !self.purged => panic!("seed {}: {error}", self.seed),
            other => other?,
        };
        assert_eq!(listed.last(), Some(&start), "seed {}", self.seed);
        let read = wal::read(&self.disk, dir(), &start)?;
        let needed = Needed {
            behind: start.index() + self.rng.u64(..30),
            also: &|entry| entry.index() % 3 == 0,
        };
        let disk = Arc::new(self.disk.clone());
        let (wal, partly) = Wal::open_with(disk, dir(), &start, self.options, needed)?;
        self.check_needed(&read, &partly, needed);
        let found = read;
        assert_eq!(found.metadata, metadata());

        let kept = (self.written..=self.records.len()).rev().find(|kept| {
            let records = &self.records[..*kept];
            Log::of(records).matches(&start, &found) && self.last_recorded() == last_of(records)
        });
        let Some(kept) = kept else {
            panic!(
                "seed {}: {} records, {} written, but recovered {:?} at {}, {} entries",
                self.seed,
                self.records.len(),
                self.written,
                found.hard_state,
                start.index(),
                found.entries.len(),
            );
        };
        self.records.truncate(kept);
        // Opening makes what it returns durable.
        self.durable = kept;
        self.written = kept;
        self.check_located(&wal)?;
        Ok(wal)
    }

    /// Who asks for a part of the log gets that part.
    fn check_needed(&self, all: &Recovered, partly: &Recovered, needed: Needed<'_>) {
        let behind = |entry: &&Entry| entry.index() > needed.behind;
        let entries = all.entries.iter().filter(behind);
        assert!(entries.eq(&partly.entries), "seed {}", self.seed);
        let earlier = || all.entries.iter().filter(|entry| !behind(entry));
        let kept = earlier().filter(|entry| (needed.also)(entry));
        assert!(kept.eq(&partly.kept), "seed {}", self.seed);
        let mut terms = Terms::default();
        earlier().for_each(|entry| terms.push(entry.index(), entry.term()));
        assert_eq!(terms, partly.earlier, "seed {}", self.seed);
        assert_eq!(all.last(), partly.last(), "seed {}", self.seed);
        assert_eq!(all.hard_state, partly.hard_state, "seed {}", self.seed);
    }

    /// Entries that were written are found in their segments, wherever one begins to read.
    fn check_located(&mut self, wal: &Wal) -> Result<(), WalError> {
        let log = Log::of(&self.records);
        let entries: Vec<&Entry> = log.entries().collect();
        let (start, count) = (log.start.index() + 1, entries.len());
        for _ in 0..3 {
            let from = self.rng.usize(..count + 1);
            let to = self.rng.usize(from..count + 1);
            let wanted = Wanted {
                first: start + from as u64,
                end: start + to as u64,
                bytes_max: self.rng.usize(1..60_000),
            };
            let Some(located) = wal.locate(wanted) else {
                assert_eq!(from, to, "seed {}", self.seed);
                continue;
            };
            let found = located.read()?;
            let wanted_entries = &entries[from..to];
            assert!(!found.is_empty() && found.len() <= wanted_entries.len());
            assert!(
                found
                    .iter()
                    .eq(wanted_entries[..found.len()].iter().copied())
            );
            let bytes = |entries: &[Entry]| -> usize {
                entries.iter().map(|entry| entry.data().len()).sum()
            };
            assert!(bytes(&found[..found.len() - 1]) < wanted.bytes_max);
        }
        Ok(())
    }

    fn crash(&mut self) {
        self.disk.crash(self.rng.u64(..));
        self.written = self.durable;
    }

    /// The last snapshot record in the log, committed or not.
    fn last_recorded(&self) -> walpb::Snapshot {
        let segments = names(&self.disk)
            .into_iter()
            .filter(|name| name.ends_with(".wal"));
        segments
            .flat_map(|name| records(&content(&self.disk, &name)))
            .filter(|(_, record)| record.r#type() == 5)
            .last()
            .map_or(wal::origin(), |(_, record)| {
                walpb::Snapshot::decode(record.data()).unwrap()
            })
    }

    /// After a restart, a snapshot of a leader that was recorded but not committed is overtaken:
    /// the leader sends it again, or the entries that it covers.
    fn overtake(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        let log = Log::of(&self.records);
        let commit = log.state.commit();
        let ahead = last_of(&self.records);
        let (index, term) = (ahead.index(), ahead.term());
        if index <= commit {
            return Ok(());
        }
        if self.rng.bool() {
            self.save_snapshot(wal, ahead)?;
        } else {
            let entries: Vec<Entry> = (commit + 1..=index)
                .map(|index| entry(term, index, self.payload()))
                .collect();
            self.records
                .extend(entries.iter().cloned().map(Record::Entry));
            wal.append(None, &entries)?;
        }
        let state = state(term, log.state.vote(), index);
        self.records.push(Record::State(state));
        wal.append(Some(&state), &[])
    }

    /// One step of a member's life.
    fn step(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        match self.rng.u8(..20) {
            0..10 => self.append(wal),
            10..16 => self.sync(wal),
            16 => prepare(wal),
            17 => self.local_snapshot(wal),
            18 => self.leader_snapshot(wal),
            _ => {
                let keep = self.rng.usize(1..4);
                self.purged |= !wal::purge(&self.disk, dir(), keep)?.is_empty();
                Ok(())
            }
        }
    }

    fn append(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        let log = Log::of(&self.records);
        let term = log.state.term().max(1) + u64::from(self.rng.u8(..8) == 0);
        let last = log.last_index();
        // Only what is not committed may be replaced.
        let first = match self.rng.u8(..6) {
            0 => self.rng.u64(log.state.commit()..=last) + 1,
            _ => last + 1,
        };
        let count = self.rng.u64(..4);
        let entries: Vec<Entry> = (first..first + count)
            .map(|index| entry(term, index, self.payload()))
            .collect();
        let last = if count == 0 { last } else { first + count - 1 };
        let commit = self.rng.u64(log.state.commit()..=last);
        // A vote is given once in a term.
        let vote = match log.state.vote() {
            voted if voted != 0 && term == log.state.term() => voted,
            _ => self.rng.u64(..3),
        };
        let state = self.rng.bool().then(|| state(term, vote, commit));

        self.records
            .extend(entries.iter().cloned().map(Record::Entry));
        self.records.extend(state.map(Record::State));
        wal.append(state.as_ref(), &entries)
    }

    fn payload(&mut self) -> Vec<u8> {
        let len = match self.rng.u8(..10) {
            0 => 0,
            1 => self.rng.usize(..20_000),
            2..4 => self.rng.usize(..2000),
            _ => self.rng.usize(..100),
        };
        let fill = self.rng.u8(..);
        match self.rng.bool() {
            true => vec![fill; len],
            false => (0..len).map(|_| self.rng.u8(..)).collect(),
        }
    }

    fn sync(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        let needed = wal.needs_sync();
        let stats = wal.sync()?;
        assert!(stats.synced || !needed);
        self.written = self.records.len();
        if stats.synced {
            self.durable = self.records.len();
        }
        self.check_located(wal)
    }

    fn save_snapshot(&mut self, wal: &mut Wal, snapshot: walpb::Snapshot) -> Result<(), WalError> {
        self.records.push(Record::Snapshot(snapshot.clone()));
        let stats = wal.save_snapshot(&snapshot)?;
        assert!(stats.synced);
        self.durable = self.records.len();
        self.written = self.durable;
        Ok(())
    }

    fn local_snapshot(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        let log = Log::of(&self.records);
        let (start, commit) = (log.start.index(), log.state.commit());
        if start < commit {
            let index = self.rng.u64(start + 1..=commit);
            let term = log.entries[&index].term();
            self.save_snapshot(wal, snapshot(index, term))?;
            wal.release_to(index);
        }
        Ok(())
    }

    /// A snapshot that a leader sent: ahead of the log, or in conflict with what is not committed
    /// in it.
    fn leader_snapshot(&mut self, wal: &mut Wal) -> Result<(), WalError> {
        let log = Log::of(&self.records);
        let index = log.state.commit() + self.rng.u64(1..50);
        let term = log.state.term() + 1;
        self.save_snapshot(wal, snapshot(index, term))?;
        let state = state(term, log.state.vote(), index);
        self.records.push(Record::State(state));
        wal.append(Some(&state), &[])?;
        self.sync(wal)
    }
}

/// Lives of up to 60 steps that each end with the power, with the process, or in order.
fn tell(seed: u64) {
    let mut story = Story::new(seed);
    for _ in 0..6 {
        let power_fails = story.rng.u8(..4) != 0;
        if power_fails {
            story.disk.inject(Fault::PowerLoss(story.rng.u64(1..120)));
        }
        let end = (|| {
            let mut wal = story.recover()?;
            story.overtake(&mut wal)?;
            for _ in 0..60 {
                story.step(&mut wal)?;
            }
            if story.rng.bool() {
                wal.close()?;
                story.written = story.records.len();
                story.durable = story.records.len();
            }
            Ok(())
        })();
        match end {
            Err(WalError::Io { .. }) | Ok(()) if power_fails => story.crash(),
            Err(error) => panic!("seed {seed}: {error}"),
            // Only the process ended: what was written is there.
            Ok(()) => {}
        }
    }
}

#[test]
fn a_log_comes_back_as_a_prefix_with_everything_that_was_synced() {
    for seed in 0..300 {
        tell(seed);
    }
}

#[test]
fn a_loss_of_power_at_any_point_of_one_story_loses_nothing_synced() {
    // One fixed story, with the power lost at its first, second, … change, until it gets through.
    for point in 1.. {
        let mut story = Story::new(7);
        story.options = segments_of(3000);
        story.disk.inject(Fault::PowerLoss(point));
        let end = (|| {
            let mut wal = story.recover()?;
            story.overtake(&mut wal)?;
            for _ in 0..80 {
                story.step(&mut wal)?;
            }
            Ok(())
        })();
        let done = match end {
            Ok(()) => true,
            Err(WalError::Io { .. }) => false,
            Err(error) => panic!("point {point}: {error}"),
        };
        story.crash();
        story.seed = point;
        let mut wal = story.recover().unwrap();
        story.overtake(&mut wal).unwrap();
        for _ in 0..10 {
            story.step(&mut wal).unwrap();
        }
        drop(wal);
        story.recover().unwrap();
        if done {
            assert!(point > 60, "the story has too few points: {point}");
            return;
        }
    }
}
