//! The superseded revisions of a key, oldest first.
//!
//! Most keys have none: an empty history is one null pointer. A hot key may collect hundreds of
//! thousands between two compactions, and any put may find its history shared with a reader that
//! walks an older copy of the index. So revisions go to a short tail, and full tails are frozen
//! into shared chunks of a persistent vector: a put copies at most [`CHUNK`] of them.
//!
//! Only revisions live here; what a key held at one of them is read from the backend.

use std::sync::Arc;

use super::Revision;

/// Revisions in a frozen chunk.
const CHUNK: usize = 64;

const _: () = assert!(CHUNK > 0);

/// A superseded revision in twelve bytes; the top bit of the last word marks a tombstone.
#[derive(Clone, Copy)]
struct Past([u32; 3]);

const TOMBSTONE: u32 = 1 << 31;

impl Past {
    fn new(revision: Revision, tombstone: bool) -> Past {
        let sub = u32::try_from(revision.sub).unwrap_or(u32::MAX);
        assert!(
            sub < TOMBSTONE,
            "sub revision {} does not fit in 31 bits",
            revision.sub
        );
        let main = revision.main as u64;
        Past([
            (main >> 32) as u32,
            main as u32,
            sub | if tombstone { TOMBSTONE } else { 0 },
        ])
    }

    fn main(self) -> i64 {
        (u64::from(self.0[0]) << 32 | u64::from(self.0[1])) as i64
    }

    fn is_tombstone(self) -> bool {
        self.0[2] & TOMBSTONE != 0
    }

    fn unpack(self) -> (Revision, bool) {
        let sub = i64::from(self.0[2] & !TOMBSTONE);
        (
            Revision {
                main: self.main(),
                sub,
            },
            self.is_tombstone(),
        )
    }
}

/// The superseded revisions of one key in ascending order.
#[derive(Clone, Default)]
pub(super) struct History(Option<Arc<Revisions>>);

#[derive(Clone, Default)]
struct Revisions {
    frozen: Option<Box<imbl::Vector<Arc<[Past]>>>>,
    tail: Vec<Past>,
}

impl History {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_none()
    }

    /// Appends `revision`, which is newer than all others in here.
    pub(super) fn push(&mut self, revision: Revision, tombstone: bool) {
        let revisions = Arc::make_mut(self.0.get_or_insert_default());
        let tail = &mut revisions.tail;
        if let Some(last) = tail.last() {
            let (last, _) = last.unpack();
            assert!(last <= revision, "{revision:?} behind {last:?}");
        }
        if tail.len() == CHUNK {
            let chunk = Arc::from(&tail[..]);
            tail.clear();
            revisions.frozen.get_or_insert_default().push_back(chunk);
        }
        if tail.len() == tail.capacity() {
            // Doubling, but from one: most histories stay short.
            tail.reserve_exact(tail.len().max(1));
        }
        tail.push(Past::new(revision, tombstone));
    }

    /// Appends all of `newer`.
    pub(super) fn append(&mut self, newer: &History) {
        if self.is_empty() {
            *self = newer.clone();
            return;
        }
        let Some(newer) = newer.0.as_deref() else {
            return;
        };
        let frozen = newer.frozen.iter().flat_map(|chunks| chunks.iter());
        let pasts = frozen.flat_map(|chunk| chunk.iter()).chain(&newer.tail);
        for past in pasts {
            let (revision, tombstone) = past.unpack();
            self.push(revision, tombstone);
        }
    }

    /// The newest revision of at most `main`, and whether it is a tombstone.
    pub(super) fn newest_at(&self, main: i64) -> Option<(Revision, bool)> {
        let revisions = self.0.as_deref()?;
        let newest = |chunk: &[Past]| {
            let newer = chunk.partition_point(|past| past.main() <= main);
            newer.checked_sub(1).map(|i| chunk[i].unpack())
        };
        if let Some(found) = newest(&revisions.tail) {
            return Some(found);
        }
        let frozen = revisions.frozen.as_deref()?;
        let newer = partition_point(frozen, |chunk| chunk[0].main() <= main);
        newest(&frozen[newer.checked_sub(1)?])
    }

    /// Forgets what a compaction at `compacted` makes unreadable: all revisions before the newest
    /// of at most `compacted`, and that one too if it is a tombstone before `compacted`.
    pub(super) fn trim(&mut self, compacted: i64) {
        let Some(revisions) = self.0.as_deref() else {
            return;
        };
        let mut kept = Revisions::default();
        let mut pasts: &[Past] = &revisions.tail;
        if pasts.first().is_none_or(|first| first.main() > compacted)
            && let Some(frozen) = revisions.frozen.as_deref()
        {
            // The newest revision of at most `compacted` is in a frozen chunk, if anywhere: the
            // chunks behind it stay, its own rest becomes the first of them.
            let newer = partition_point(frozen, |chunk| chunk[0].main() <= compacted);
            let Some(cut) = newer.checked_sub(1) else {
                return;
            };
            let rest = readable(&frozen[cut], compacted);
            let mut behind = frozen.clone().split_off(newer);
            if !rest.is_empty() {
                behind.push_front(Arc::from(rest));
            }
            if !behind.is_empty() {
                kept.frozen = Some(Box::new(behind));
            }
        } else {
            pasts = readable(pasts, compacted);
        }
        kept.tail = pasts.to_vec();
        let empty = kept.tail.is_empty() && kept.frozen.is_none();
        self.0 = (!empty).then(|| Arc::new(kept));
    }
}

/// What stays readable of one ascending run of revisions.
fn readable(pasts: &[Past], compacted: i64) -> &[Past] {
    let newer = pasts.partition_point(|past| past.main() <= compacted);
    match newer.checked_sub(1) {
        Some(i) if pasts[i].is_tombstone() && pasts[i].main() < compacted => &pasts[newer..],
        Some(i) => &pasts[i..],
        None => pasts,
    }
}

/// The index of the first chunk for which `before` does not hold; it holds for a prefix.
fn partition_point(chunks: &imbl::Vector<Arc<[Past]>>, before: impl Fn(&[Past]) -> bool) -> usize {
    let (mut low, mut high) = (0, chunks.len());
    while low < high {
        let middle = low + (high - low) / 2;
        if before(&chunks[middle]) {
            low = middle + 1
        } else {
            high = middle
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_stays_before_what_a_compaction_keeps() {
        let last = 3 * CHUNK as i64;
        for compacted in 1..=last {
            let mut history = History::default();
            for main in 1..=last {
                history.push(Revision::start_of(main), false);
            }
            history.trim(compacted);
            assert_eq!(history.newest_at(compacted - 1), None, "{compacted}");
            let kept = Some((Revision::start_of(compacted), false));
            assert_eq!(history.newest_at(compacted), kept);
        }
    }

    /// Against a plain vector, with copies taken on the way that must not change.
    #[test]
    fn agrees_with_a_vector() {
        let mut rng = fastrand::Rng::with_seed(1);
        for round in 0..60 {
            let mut history = History::default();
            let mut model: Vec<(Revision, bool)> = Vec::new();
            let mut main = 1;
            let mut copies = Vec::new();
            for _ in 0..rng.usize(1..(20 * (round + 1))) {
                main += rng.i64(1..4);
                let revision = Revision {
                    main,
                    sub: rng.i64(0..5),
                };
                let tombstone = rng.u8(..4) == 0;
                history.push(revision, tombstone);
                model.push((revision, tombstone));
                if rng.u8(..20) == 0 {
                    copies.push((history.clone(), model.clone()));
                }
                if rng.u8(..90) == 0 {
                    let compacted = rng.i64(0..main + 3);
                    history.trim(compacted);
                    trim_model(&mut model, compacted);
                }
            }
            copies.push((history, model));
            for (history, model) in copies {
                assert_eq!(history.is_empty(), model.is_empty());
                for main in 0..main + 2 {
                    let expected = model
                        .iter()
                        .rev()
                        .find(|(revision, _)| revision.main <= main);
                    assert_eq!(history.newest_at(main), expected.copied(), "at {main}");
                }
            }
        }
    }

    fn trim_model(model: &mut Vec<(Revision, bool)>, compacted: i64) {
        if let Some(i) = model
            .iter()
            .rposition(|(revision, _)| revision.main <= compacted)
        {
            let (revision, tombstone) = model[i];
            model.drain(
                ..if tombstone && revision.main < compacted {
                    i + 1
                } else {
                    i
                },
            );
        }
    }
}
