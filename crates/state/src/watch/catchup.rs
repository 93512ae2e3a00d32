//! How watchers that are behind read history: in steps that do not hold the hub.
//!
//! A step takes the watchers of one stream that are furthest behind and reads, once for all of
//! them, from the oldest revision that one of them wants: from recent memory if it is there, else
//! from the store. It ends at a revision's end when it has read enough, or found enough to fill the
//! stream's queue; its watchers then want what follows. When writes went on meanwhile, the last few
//! revisions are made up for at once, so that a watcher gets synced however fast they come.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::events::{EventSet, RevisionEvents, Runs, Wanted};
use super::hub::{Hub, fragment, is_full};
use super::index::Index;
use super::range::KeyRange;
use super::response::{Body, Response};
use super::stream::{State, StreamId, WatcherKey};
use crate::mvcc::{Event, Prev, Record, StorageError, StoreRevision, View};

/// Checks of a watcher against an event that [`Hub::complete_catchup`] may do while everybody else
/// waits for the hub: about a tenth of a millisecond.
const GAP_CHECKS_MAX: usize = 4096;

/// One step of catching up for some watchers of a stream.
#[derive(Debug)]
pub struct CatchupJob {
    stream: StreamId,
    from: i64,
    to: i64,
    watchers: Vec<Laggard>,
    /// All of `from..=to`, if that is in memory.
    recent: Option<Vec<Arc<RevisionEvents>>>,
    /// Ends the step once so many bytes of events are found, counted per watcher.
    found_bytes_max: usize,
    /// Ends the step once so many bytes of records are read.
    read_bytes_max: usize,
}

/// A watcher as a job knows it.
#[derive(Debug)]
struct Laggard {
    key: WatcherKey,
    next: i64,
    range: KeyRange,
    wanted: Wanted,
}

/// What a [`CatchupJob`] found.
#[derive(Debug)]
pub struct Caught {
    stream: StreamId,
    outcome: Outcome,
}

#[derive(Debug)]
enum Outcome {
    Compacted(i64),
    Read {
        /// Everything up to this revision was read.
        through: i64,
        watchers: Vec<(Laggard, Option<Arc<EventSet>>)>,
    },
}

impl Hub {
    /// The next step for a stream that has watchers behind, room in its queue, and no step under
    /// way.
    pub(super) fn start_catchup(&mut self, id: StreamId) -> Option<CatchupJob> {
        let limits = &self.limits;
        let stream = &mut self.streams[id.0];
        let (bytes, count) = (stream.queue.bytes(), stream.queue.len());
        let room = bytes <= limits.queue_bytes / 2 && count <= limits.queue_responses / 2;
        if stream.catching_up || !room {
            return None;
        }
        let &(from, _) = stream.behind.first()?;
        assert!(
            from <= self.revision,
            "a watcher wants {from} of {}",
            self.revision
        );
        stream.catching_up = true;
        let to = self
            .revision
            .min(from.saturating_add(limits.catchup_revisions as i64 - 1));
        let watchers: Vec<Laggard> = stream
            .behind
            .iter()
            .take_while(|&&(next, _)| next <= to)
            .take(limits.catchup_watchers)
            .map(|&(next, key)| {
                let watcher = &self.watchers[key];
                Laggard {
                    key,
                    next,
                    range: self.groups[watcher.group].range.clone(),
                    wanted: watcher.wanted,
                }
            })
            .collect();
        // The record before an event at the compacted revision is compacted, too; recent memory
        // still has it.
        let recent = match from > self.compacted {
            true => self.recent.range(from, to),
            false => None,
        };
        let recent: Option<Vec<_>> = recent.map(|changes| changes.cloned().collect());
        Some(CatchupJob {
            stream: id,
            from,
            to,
            recent: recent.filter(|recent| {
                let prev_kv = want_prev_kv(&watchers);
                recent.iter().all(|changes| changes.is_in_memory(prev_kv))
            }),
            watchers,
            // A bound of zero would end a step before its first revision.
            found_bytes_max: limits.queue_bytes.saturating_sub(bytes).max(1),
            read_bytes_max: limits.catchup_bytes.max(1),
        })
    }

    /// Takes in what a step found: queues it, and syncs the watchers that now have everything.
    pub fn complete_catchup(&mut self, caught: Caught) {
        let id = caught.stream;
        let Some(stream) = self.streams.get_mut(id.0) else {
            return;
        };
        assert!(stream.catching_up, "a step that was not begun is complete");
        stream.catching_up = false;
        match caught.outcome {
            Outcome::Compacted(revision) => self.compact(revision),
            Outcome::Read { through, watchers } => self.take_caught(id, through, watchers),
        }
        if !self.streams[id.0].behind.is_empty() {
            self.wake(id);
        }
    }

    fn take_caught(
        &mut self,
        id: StreamId,
        through: i64,
        watchers: Vec<(Laggard, Option<Arc<EventSet>>)>,
    ) {
        assert!(
            through <= self.revision,
            "read up to {through} of {}",
            self.revision
        );
        let gap = self.gap(through, GAP_CHECKS_MAX / watchers.len().max(1));
        for (laggard, events) in watchers {
            // It may have been cancelled, by its client or by a compaction, while the step was
            // made.
            let behind = self.watchers.get(laggard.key).map(|w| (w.state, w.next));
            match behind {
                Some((State::Behind, next)) => {
                    assert!(
                        next == laggard.next,
                        "moved from {} to {next}",
                        laggard.next
                    );
                }
                _ => continue,
            }
            if let Some(events) = events {
                self.push_events(laggard.key, events);
            }
            let mut next = laggard.next.max(through + 1);
            if let Some(gap) = &gap {
                next = self.close_gap(&laggard, next, gap);
            }
            self.advance(id, &laggard, next);
        }
    }

    /// What was published after `through`, if it is in memory and has at most `events_max` events.
    fn gap(&self, through: i64, events_max: usize) -> Option<Vec<Arc<RevisionEvents>>> {
        let revisions = usize::try_from(self.revision - through).ok()?;
        if revisions == 0 {
            return Some(Vec::new());
        }
        if revisions > events_max {
            return None;
        }
        let gap = self.recent.range(through + 1, self.revision)?;
        let gap: Vec<_> = gap.cloned().collect();
        let events: usize = gap.iter().map(|changes| changes.events().len()).sum();
        (events <= events_max).then_some(gap)
    }

    /// Queues what `laggard` wants of `gap` from `next` on; the revision up to which that is done,
    /// which is short of the gap's end if the queue is full.
    fn close_gap(&mut self, laggard: &Laggard, next: i64, gap: &[Arc<RevisionEvents>]) -> i64 {
        for changes in gap.iter().filter(|changes| changes.revision() >= next) {
            let mut runs = Runs::default();
            for (number, event) in changes.events().iter().enumerate() {
                if laggard.range.contains(event.record.key()) {
                    runs.push(number as u32);
                }
            }
            let mut events = EventSet::default();
            if runs.is_empty() {
                continue;
            }
            if !changes.is_in_memory(laggard.wanted.prev_kv) {
                return changes.revision();
            }
            if events.add(changes, &runs, laggard.wanted) == 0 {
                continue;
            }
            let watcher = &self.watchers[laggard.key];
            if is_full(&self.streams[watcher.stream.0], &self.limits) {
                return changes.revision();
            }
            self.push_events(laggard.key, Arc::new(events));
        }
        next.max(self.revision + 1)
    }

    /// Records that everything that `laggard` wants below `next` is queued.
    fn advance(&mut self, id: StreamId, laggard: &Laggard, next: i64) {
        assert!(
            (laggard.next..=self.revision + 1).contains(&next),
            "from {} to {next} of {}",
            laggard.next,
            self.revision
        );
        let behind = &mut self.streams[id.0].behind;
        let removed = behind.remove(&(laggard.next, laggard.key));
        assert!(removed, "a watcher was not behind at {}", laggard.next);
        let watcher = &mut self.watchers[laggard.key];
        watcher.next = next;
        if next > self.revision {
            watcher.state = State::Synced;
            self.slow_watchers -= 1;
        } else {
            behind.insert((next, laggard.key));
        }
    }

    /// Queues events for a watcher that catches up: their header has the store's revision.
    fn push_events(&mut self, key: WatcherKey, events: Arc<EventSet>) {
        let watcher = &mut self.watchers[key];
        watcher.had_events = true;
        self.events_pending += events.count();
        let (id, watch_id, fragment) = (watcher.stream, watcher.id, fragment(watcher));
        self.streams[id.0].queue.push(Response {
            watch_id,
            revision: StoreRevision::new(self.revision),
            body: Body::Events { events, fragment },
        });
        self.wake(id);
    }
}

/// Whether somebody wants previous records, which have to be looked up one by one.
fn want_prev_kv(watchers: &[Laggard]) -> bool {
    watchers.iter().any(|laggard| laggard.wanted.prev_kv)
}

impl CatchupJob {
    /// Does the step, in a view not older than the job. If the store fails nothing is lost, but the
    /// stream gets no further: close it.
    pub fn run(self, view: &View) -> Result<Caught, StorageError> {
        let stream = self.stream;
        let outcome = self.read(view)?;
        Ok(Caught { stream, outcome })
    }

    fn read(mut self, view: &View) -> Result<Outcome, StorageError> {
        // As in etcd, even if it is still in memory here.
        let compacted = view.compacted_revision();
        if compacted > self.from {
            return Ok(Outcome::Compacted(compacted));
        }
        let recent = self.recent.take();
        let mut step = Step::new(&self);
        match recent {
            Some(recent) => step.read_recent(&recent),
            None => step.read_history(view)?,
        }
        let (through, found) = (step.through, step.found());
        let watchers = self.watchers.into_iter().zip(found).collect();
        Ok(Outcome::Read { through, watchers })
    }
}

/// The watchers of a job that watch one range.
#[derive(Default)]
struct Audience {
    /// What they want and from where; those who want the same share what is found.
    cohorts: BTreeMap<(Wanted, i64), Cohort>,
    matched: Runs,
}

#[derive(Default)]
struct Cohort {
    /// Numbers of the watchers in the job.
    members: Vec<usize>,
    events: EventSet,
}

/// A job's work under way.
struct Step<'a> {
    job: &'a CatchupJob,
    index: Index<usize>,
    audiences: Vec<Audience>,
    /// See [`want_prev_kv`].
    prev_kv: bool,
    through: i64,
    found_bytes: usize,
    read_bytes: usize,
}

impl<'a> Step<'a> {
    fn new(job: &'a CatchupJob) -> Step<'a> {
        let mut index = Index::default();
        let mut audiences: Vec<Audience> = Vec::new();
        for (number, laggard) in job.watchers.iter().enumerate() {
            let audience = index.get(&laggard.range).unwrap_or_else(|| {
                index.insert(laggard.range.clone(), audiences.len());
                audiences.push(Audience::default());
                audiences.len() - 1
            });
            let cohorts = &mut audiences[audience].cohorts;
            let cohort = cohorts.entry((laggard.wanted, laggard.next)).or_default();
            cohort.members.push(number);
        }
        Step {
            job,
            index,
            audiences,
            prev_kv: want_prev_kv(&job.watchers),
            through: job.from - 1,
            found_bytes: 0,
            read_bytes: 0,
        }
    }

    fn read_recent(&mut self, recent: &[Arc<RevisionEvents>]) {
        for changes in recent {
            self.read_bytes += changes.record_bytes();
            self.collect(changes);
            if self.is_enough() {
                return;
            }
        }
        self.through = self.job.to;
    }

    fn read_history(&mut self, view: &View) -> Result<(), StorageError> {
        let (from, to) = (self.job.from, self.job.to);
        assert!(
            view.revision() >= to,
            "a view of {} cannot tell of {to}",
            view.revision()
        );
        let mut revision = from - 1;
        let mut events = Vec::new();
        for row in view.rows(from, to) {
            let (new, kind, record) = row?;
            assert!(
                revision <= new && (from..=to).contains(&new),
                "history of {from} to {to} went from {revision} to {new}"
            );
            if new != revision {
                self.take_revision(view, revision, &mut events)?;
                if self.is_enough() {
                    return Ok(());
                }
                revision = new;
            }
            self.read_bytes += record.as_bytes().len();
            if self.is_wanted(record.key()) {
                let prev = Prev::Absent;
                events.push(Event { kind, record, prev });
            }
        }
        self.take_revision(view, revision, &mut events)?;
        self.through = to;
        Ok(())
    }

    /// Collects the wanted events of one revision, which was read to its end.
    fn take_revision(
        &mut self,
        view: &View,
        revision: i64,
        events: &mut Vec<Event>,
    ) -> Result<(), StorageError> {
        self.through = revision;
        if events.is_empty() {
            return Ok(());
        }
        if self.prev_kv {
            for event in events.iter_mut() {
                event.prev = prev(view, event, revision)?.into();
            }
        }
        let events = std::mem::take(events).into();
        self.collect(&RevisionEvents::new(revision, events));
        Ok(())
    }

    fn is_wanted(&self, key: &[u8]) -> bool {
        let mut wanted = false;
        self.index.matching(key, |_| wanted = true);
        wanted
    }

    /// Adds the events of one revision to what those who want them have found.
    fn collect(&mut self, changes: &RevisionEvents) {
        self.through = changes.revision();
        let mut touched = Vec::new();
        for (number, event) in changes.events().iter().enumerate() {
            self.index.matching(event.record.key(), |audience| {
                let matched = &mut self.audiences[audience].matched;
                if matched.is_empty() {
                    touched.push(audience);
                }
                matched.push(number as u32);
            });
        }
        for number in touched {
            let Audience { cohorts, matched } = &mut self.audiences[number];
            for (&(wanted, next), cohort) in cohorts.iter_mut() {
                if next <= changes.revision() {
                    let added = cohort.events.add(changes, matched, wanted);
                    self.found_bytes += added * cohort.members.len();
                }
            }
            matched.clear();
        }
    }

    fn is_enough(&self) -> bool {
        self.found_bytes >= self.job.found_bytes_max || self.read_bytes >= self.job.read_bytes_max
    }

    /// What each watcher of the job is to be told, if anything.
    fn found(self) -> Vec<Option<Arc<EventSet>>> {
        let mut found = vec![None; self.job.watchers.len()];
        for (_, cohort) in self.audiences.into_iter().flat_map(|a| a.cohorts) {
            if cohort.events.count() == 0 {
                continue;
            }
            let events = Arc::new(cohort.events);
            for number in cohort.members {
                found[number] = Some(Arc::clone(&events));
            }
        }
        found
    }
}

/// The record before an event of `revision`; a compaction may have removed it.
fn prev(view: &View, event: &Event, revision: i64) -> Result<Option<Record>, StorageError> {
    if event.record.create_revision() == revision {
        return Ok(None);
    }
    match view.record_at(event.record.key(), revision - 1) {
        Err(StorageError::Missing(_)) => Ok(None),
        prev => prev,
    }
}
