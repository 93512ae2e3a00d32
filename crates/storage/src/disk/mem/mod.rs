//! A deterministic disk in memory that fails on demand.
//!
//! For every file it holds what readers see, what would survive a loss of power, and the changes in
//! between. [`MemDisk::crash`] cuts the power: from a seed, each unsynced write is lost, kept or
//! torn at sectors of 512 bytes, independently of the others; each directory keeps a prefix of its
//! unsynced changes; all handles and locks are gone. [`MemDisk::inject`] makes single operations
//! fail, [`MemDisk::set_capacity`] bounds the bytes, and [`MemDisk::flip_bit`] damages what is
//! durable.
//!
//! Files are sparse, so that a preallocated log segment costs nothing. Permission bits are not
//! kept, and paths are taken from the root, without links.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use fastrand::Rng;
use parking_lot::Mutex;

use super::{Disk, File, Lock, OpenMode, Volume};
use inode::Loss;
use tree::{NodeId, Tree};

mod content;
mod inode;
mod tree;

#[cfg(test)]
mod tests;

/// An operation that is to fail, counted from 1 for the next of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The nth read fails.
    Read(u64),
    /// The nth write fails after half of its bytes.
    Write(u64),
    /// The nth [`File::sync_data`] or [`Disk::sync_dir`] fails. What a failed `sync_data` was to
    /// make durable is never made durable by a later one.
    Sync(u64),
    /// The nth change (anything but reads, locks and opening what exists) finds the power gone, and
    /// so does every operation after it until [`MemDisk::crash`]. The change itself may or may not
    /// have reached the disk.
    PowerLoss(u64),
}

/// How often the disk was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads.
    pub reads: u64,
    /// Writes.
    pub writes: u64,
    /// Bytes written.
    pub bytes_written: u64,
    /// Calls of [`File::sync_data`].
    pub syncs: u64,
    /// Calls of [`Disk::sync_dir`].
    pub dir_syncs: u64,
    /// Everything that [`Fault::PowerLoss`] counts.
    pub changes: u64,
}

/// A disk in memory; clones share it.
#[derive(Clone, Default)]
pub struct MemDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    tree: Tree,
    capacity: Option<u64>,
    counts: Counts,
    faults: Vec<Fault>,
    power_lost: bool,
    /// How often the power was cut; handles of an earlier life are refused.
    life: u64,
    next_handle: u64,
}

/// What has to happen to an operation that was counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Succeed,
    Fail,
    /// The operation still reaches the cache, from where the crash may bring it to the disk.
    LosePower,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Read,
    Write,
    Sync,
    Other,
}

impl MemDisk {
    /// An empty disk.
    pub fn new() -> MemDisk {
        MemDisk::default()
    }

    /// A disk of its own with the same content, counts and faults; handles and locks stay behind.
    pub fn fork(&self) -> MemDisk {
        let mut state = self.state.lock().clone();
        state.tree.close_all();
        state.life += 1;
        MemDisk {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Cuts the power and switches it on again. What becomes of unsynced changes follows from
    /// `seed`.
    pub fn crash(&self, seed: u64) {
        let mut rng = Rng::with_seed(seed);
        let mut state = self.state.lock();
        let loss = Loss::draw(&mut rng);
        state.tree.crash(loss, &mut rng);
        state.life += 1;
        state.power_lost = false;
        state.faults.clear();
    }

    /// Arranges for an operation to fail.
    pub fn inject(&self, fault: Fault) {
        self.state.lock().faults.push(fault);
    }

    /// Bounds the sum of all file lengths in bytes; what goes beyond it fails with
    /// [`io::ErrorKind::StorageFull`].
    pub fn set_capacity(&self, bytes: Option<u64>) {
        self.state.lock().capacity = bytes;
    }

    /// The sum of all file lengths in bytes, which [`MemDisk::set_capacity`] bounds.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().tree.used_bytes()
    }

    /// Turns over one bit of a file, as a disk does that decays: for readers and for good.
    ///
    /// # Errors
    /// There is no such file, or it is shorter.
    pub fn flip_bit(&self, path: &Path, offset: u64, bit: u8) -> io::Result<()> {
        let mut state = self.state.lock();
        let id = state.tree.open(path)?.ok_or(io::ErrorKind::NotFound)?;
        state.tree.file_mut(id).flip_bit(offset, bit)
    }

    /// How often the disk was used since it was created.
    pub fn counts(&self) -> Counts {
        self.state.lock().counts
    }
}

impl State {
    /// Counts an operation and decides what happens to it.
    fn step(&mut self, kind: Kind) -> io::Result<Outcome> {
        if self.power_lost {
            return Err(power_lost());
        }
        match kind {
            Kind::Read => self.counts.reads += 1,
            Kind::Write => self.counts.writes += 1,
            Kind::Sync | Kind::Other => {}
        }
        if kind != Kind::Read {
            self.counts.changes += 1;
        }
        let mut outcome = Outcome::Succeed;
        self.faults.retain_mut(|fault| {
            let (left, result) = match fault {
                Fault::Read(left) if kind == Kind::Read => (left, Outcome::Fail),
                Fault::Write(left) if kind == Kind::Write => (left, Outcome::Fail),
                Fault::Sync(left) if kind == Kind::Sync => (left, Outcome::Fail),
                Fault::PowerLoss(left) if kind != Kind::Read => (left, Outcome::LosePower),
                _ => return true,
            };
            *left = left.saturating_sub(1);
            if *left == 0 {
                outcome = result;
            }
            *left > 0
        });
        self.power_lost = outcome == Outcome::LosePower;
        Ok(outcome)
    }

    /// Counts a change of names or lengths and makes it.
    fn change(&mut self, change: impl FnOnce(&mut Tree) -> io::Result<()>) -> io::Result<()> {
        let outcome = self.step(Kind::Other)?;
        change(&mut self.tree)?;
        outcome.check()
    }

    fn check_capacity(&self, added: u64) -> io::Result<()> {
        match self.capacity {
            Some(capacity) if self.tree.used_bytes() + added > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

impl Outcome {
    fn check(self) -> io::Result<()> {
        match self {
            Outcome::Succeed => Ok(()),
            Outcome::Fail => Err(injected()),
            Outcome::LosePower => Err(power_lost()),
        }
    }
}

fn power_lost() -> io::Error {
    io::Error::other("the power is gone")
}

fn injected() -> io::Error {
    io::Error::other("injected fault")
}

impl Disk for MemDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut state = self.state.lock();
        if state.power_lost {
            return Err(power_lost());
        }
        let found = state.tree.open(path)?;
        let id = match (found, mode) {
            (Some(_), OpenMode::CreateNew { .. }) => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            (Some(id), _) => id,
            (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
            (None, OpenMode::CreateNew { .. } | OpenMode::Create { .. }) => {
                let outcome = state.step(Kind::Other)?;
                let id = state.tree.create_file(path)?;
                outcome.check()?;
                id
            }
        };
        state.tree.file_mut(id).handles += 1;
        state.next_handle += 1;
        Ok(Arc::new(MemFile {
            disk: self.clone(),
            id,
            handle: state.next_handle,
            life: state.life,
            writable: mode != OpenMode::Read,
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state.lock().change(|tree| tree.create_dir_all(path))
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let state = self.state.lock();
        if state.power_lost {
            return Err(power_lost());
        }
        state.tree.read_dir(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.state.lock().change(|tree| tree.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state.lock().change(|tree| tree.remove_file(path))
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.state.lock().change(|tree| tree.remove_dir_all(path))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.state.lock();
        if state.power_lost {
            return Err(power_lost());
        }
        Ok(state.tree.lookup(path)?.is_some())
    }

    fn volume(&self, _path: &Path) -> io::Result<Volume> {
        let state = self.state.lock();
        let bytes = state.capacity.unwrap_or(u64::MAX);
        Ok(Volume {
            bytes,
            free_bytes: bytes.saturating_sub(state.tree.used_bytes()),
        })
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state.lock();
        let outcome = state.step(Kind::Sync)?;
        state.counts.dir_syncs += 1;
        outcome.check()?;
        state.tree.sync_dir(path)
    }
}

/// An open file of a [`MemDisk`].
struct MemFile {
    disk: MemDisk,
    id: NodeId,
    handle: u64,
    life: u64,
    writable: bool,
}

impl MemFile {
    fn state(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        let state = self.disk.state.lock();
        if state.power_lost || state.life != self.life {
            return Err(power_lost());
        }
        Ok(state)
    }

    fn state_to_write(&self) -> io::Result<parking_lot::MutexGuard<'_, State>> {
        match self.writable {
            true => self.state(),
            false => Err(io::ErrorKind::PermissionDenied.into()),
        }
    }

    fn resize(&self, len: u64, may_shrink: bool) -> io::Result<()> {
        let mut state = self.state_to_write()?;
        let current = state.tree.file(self.id).content().len();
        state.check_capacity(len.saturating_sub(current))?;
        let id = self.id;
        state.change(|tree| {
            if len > current || (len < current && may_shrink) {
                tree.file_mut(id).set_len(len);
            }
            Ok(())
        })
    }
}

impl File for MemFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state()?.tree.file(self.id).content().len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut state = self.state()?;
        state.step(Kind::Read)?.check()?;
        Ok(state.tree.file(self.id).content().read(buf, offset))
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let mut state = self.state_to_write()?;
        let outcome = state.step(Kind::Write)?;
        let mut data = bufs
            .iter()
            .map(|buf| &**buf)
            .collect::<Vec<&[u8]>>()
            .concat();
        let end = offset + data.len() as u64;
        let grows_by = end.saturating_sub(state.tree.file(self.id).content().len());
        state.check_capacity(grows_by)?;
        if outcome == Outcome::Fail {
            data.truncate(data.len() / 2);
        }
        state.counts.bytes_written += data.len() as u64;
        state.tree.file_mut(self.id).write(&data, offset);
        outcome.check()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state()?;
        let outcome = state.step(Kind::Sync)?;
        state.counts.syncs += 1;
        let file = state.tree.file_mut(self.id);
        match outcome {
            Outcome::Succeed => file.sync(),
            Outcome::Fail => file.fail_sync(),
            Outcome::LosePower => {}
        }
        outcome.check()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.resize(len, true)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        self.resize(len, false)
    }

    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        Ok(self
            .state()?
            .tree
            .file_mut(self.id)
            .try_lock(self.handle, lock))
    }
}

impl Drop for MemFile {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.life == self.life {
            state.tree.file_mut(self.id).close(self.handle);
            state.tree.forget_unreachable(self.id);
        }
    }
}
