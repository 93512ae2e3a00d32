//! One file: what readers see, what the platter holds, and the changes in between.

use std::io;

use fastrand::Rng;

use super::content::Content;
use crate::disk::Lock;

/// The unit that a disk writes whole or not at all.
const SECTOR_BYTES: u64 = 512;

/// What a loss of power does to the changes that were not synced.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// None of them reached the disk.
    All,
    /// All of them did.
    Nothing,
    /// Each has its own fate.
    Some,
}

impl Loss {
    pub(super) fn draw(rng: &mut Rng) -> Loss {
        match rng.u8(..8) {
            0 => Loss::All,
            1 => Loss::Nothing,
            _ => Loss::Some,
        }
    }
}

#[derive(Clone)]
enum Change {
    Write { offset: u64, data: Box<[u8]> },
    SetLen { from: u64, to: u64 },
}

/// Invariant: `current` is `durable` with `unsynced` applied in order, unless a sync has failed.
#[derive(Clone, Default)]
pub(super) struct Inode {
    current: Content,
    durable: Content,
    unsynced: Vec<Change>,
    /// Who holds which lock: handles and locks.
    locks: Vec<(u64, Lock)>,
    /// How many open handles there are.
    pub(super) handles: usize,
}

impl Inode {
    pub(super) fn content(&self) -> &Content {
        &self.current
    }

    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        self.current.write(data, offset);
        self.unsynced.push(Change::Write {
            offset,
            data: data.into(),
        });
    }

    pub(super) fn set_len(&mut self, len: u64) {
        let from = self.current.len();
        self.current.set_len(len);
        self.unsynced.push(Change::SetLen { from, to: len });
    }

    pub(super) fn sync(&mut self) {
        for change in self.unsynced.drain(..) {
            match change {
                Change::Write { data, .. } if data.is_empty() => {}
                Change::Write { offset, data } => {
                    self.durable
                        .take(&self.current, offset..=offset + data.len() as u64 - 1);
                }
                Change::SetLen { from, to } if to < from => {
                    self.durable.take(&self.current, to..=u64::MAX);
                }
                Change::SetLen { .. } => self.durable.set_len(self.current.len()),
            }
        }
    }

    /// What a failed sync leaves: the cache drops the changes from its list of what is to be
    /// written, so that no later sync brings them to the disk, while readers still see them.
    pub(super) fn fail_sync(&mut self) {
        self.unsynced.clear();
    }

    /// Turns over a bit on the platter, and in what readers see.
    pub(super) fn flip_bit(&mut self, offset: u64, bit: u8) -> io::Result<()> {
        for content in [&mut self.current, &mut self.durable] {
            let mut byte = [0];
            if content.read(&mut byte, offset) == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            content.write(&[byte[0] ^ 1 << (bit % 8)], offset);
        }
        Ok(())
    }

    pub(super) fn try_lock(&mut self, handle: u64, lock: Lock) -> bool {
        let conflicts = |other: Lock| match lock {
            Lock::FlockExclusive => matches!(other, Lock::FlockExclusive | Lock::FlockShared),
            Lock::FlockShared => other == Lock::FlockExclusive,
            Lock::OfdExclusive => other == Lock::OfdExclusive,
        };
        if self
            .locks
            .iter()
            .any(|(holder, held)| *holder != handle && conflicts(*held))
        {
            return false;
        }
        if !self.locks.contains(&(handle, lock)) {
            self.locks.push((handle, lock));
        }
        true
    }

    pub(super) fn close(&mut self, handle: u64) {
        self.locks.retain(|(holder, _)| *holder != handle);
        self.handles -= 1;
    }

    pub(super) fn close_all(&mut self) {
        self.locks.clear();
        self.handles = 0;
    }

    /// Cuts the power: what is on the platter becomes the file's content.
    pub(super) fn crash(&mut self, loss: Loss, rng: &mut Rng) {
        let mut disk = std::mem::take(&mut self.durable);
        match loss {
            Loss::All => {}
            Loss::Nothing => self
                .unsynced
                .iter()
                .for_each(|change| change.apply(&mut disk)),
            Loss::Some => {
                // The cache as it was at the time of each change: a sector is written with
                // everything that earlier changes had put into it.
                let mut cache = disk.clone();
                for change in &self.unsynced {
                    change.apply(&mut cache);
                    change.crash(&cache, &mut disk, rng);
                }
            }
        }
        *self = Inode {
            current: disk.clone(),
            durable: disk,
            ..Inode::default()
        };
    }
}

impl Change {
    fn apply(&self, content: &mut Content) {
        match self {
            Change::Write { offset, data } => content.write(data, *offset),
            Change::SetLen { to, .. } => content.set_len(*to),
        }
    }

    /// Brings nothing, all or some sectors of this change from `cache` to `disk`.
    fn crash(&self, cache: &Content, disk: &mut Content, rng: &mut Rng) {
        let Change::Write { offset, data } = self else {
            if rng.bool() {
                self.apply(disk);
            }
            return;
        };
        let end = offset + data.len() as u64;
        // Out of four: one lost, two whole, one torn.
        let fate = rng.u8(..4);
        let mut sector = offset - offset % SECTOR_BYTES;
        while sector < end {
            if fate == 1 || fate == 2 || (fate == 3 && rng.bool()) {
                let mut bytes = [0; SECTOR_BYTES as usize];
                let len = cache.read(&mut bytes, sector);
                disk.write(&bytes[..len], sector);
            }
            sector += SECTOR_BYTES;
        }
        // A file may have grown without its new bytes having arrived.
        if end > disk.len() && rng.bool() {
            disk.set_len(end);
        }
    }
}
