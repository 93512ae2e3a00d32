//! A disk whose changes stay in memory, above one that is only read.
//!
//! What has to know what a program would do to files runs that program's own code on it, and nothing
//! of them changes: no file below is opened for writing, created, renamed or removed.
//!
//! ```text
//! paths   changed: removed, a directory, or a file ──▶ blocks that were written
//!            │ not changed                                │ not written
//!            ▼                                            ▼
//! base    directory tree                               bytes of the file
//! ```
//!
//! Memory is taken by what is written, in blocks; zeros behind the end of what the base has take
//! none. Directories of the base cannot be renamed.

use std::collections::BTreeMap;
use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use super::blocks::touched;
use super::{Disk, File, Lock, OpenMode, Volume};

const BLOCK_BYTES: u64 = 4096;

/// See the [module](self).
pub struct OverlayDisk {
    base: Arc<dyn Disk>,
    changes: Mutex<BTreeMap<PathBuf, Change>>,
}

/// What has become of a path.
#[derive(Clone)]
enum Change {
    /// Nothing is there, nor below.
    Removed,
    /// A new directory: what the base has below is not seen.
    Directory,
    File(Arc<OverlayFile>),
}

/// Where a path leads.
enum Found {
    Nothing,
    Directory,
    File(Arc<OverlayFile>),
    /// Whatever the base has there.
    Base,
}

impl OverlayDisk {
    /// A disk that looks like `base`.
    pub fn new(base: Arc<dyn Disk>) -> OverlayDisk {
        OverlayDisk {
            base,
            changes: Mutex::default(),
        }
    }

    /// Whether the directory is there in which `path` lies.
    fn has_directory(&self, changes: &BTreeMap<PathBuf, Change>, path: &Path) -> io::Result<bool> {
        let Some(above) = path.parent().filter(|above| *above != Path::new("")) else {
            return Ok(true);
        };
        match find(changes, above) {
            Found::Nothing => Ok(false),
            Found::Directory => Ok(true),
            Found::File(_) => Err(io::ErrorKind::NotADirectory.into()),
            Found::Base => self.base.exists(above),
        }
    }
}

fn find(changes: &BTreeMap<PathBuf, Change>, path: &Path) -> Found {
    let mut above = path.ancestors();
    match above.next().and_then(|path| changes.get(path)) {
        Some(Change::Removed) => return Found::Nothing,
        Some(Change::Directory) => return Found::Directory,
        Some(Change::File(file)) => return Found::File(Arc::clone(file)),
        None => {}
    }
    match above.find_map(|path| changes.get(path)) {
        Some(_) => Found::Nothing,
        None => Found::Base,
    }
}

fn is_below(path: &Path, directory: &Path) -> bool {
    path != directory && path.starts_with(directory)
}

impl Disk for OverlayDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let creates = matches!(mode, OpenMode::CreateNew { .. } | OpenMode::Create { .. });
        let mut changes = self.changes.lock();
        let existing = match find(&changes, path) {
            Found::Nothing => None,
            Found::Directory => return Err(io::ErrorKind::IsADirectory.into()),
            Found::File(file) => Some(file),
            Found::Base => match self.base.open(path, OpenMode::Read) {
                // Nobody has written to it yet, so it need not be remembered to be read.
                Ok(file) if mode == OpenMode::Read => return Ok(file),
                Ok(file) => Some(OverlayFile::above(file)?),
                // The base says so in its own words.
                Err(error) if error.kind() == io::ErrorKind::NotFound && !creates => {
                    return Err(error);
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => None,
                Err(error) => return Err(error),
            },
        };
        let file = match existing {
            Some(_) if matches!(mode, OpenMode::CreateNew { .. }) => {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            Some(file) => file,
            None if creates && self.has_directory(&changes, path)? => Arc::default(),
            None => return Err(io::ErrorKind::NotFound.into()),
        };
        changes.insert(path.to_owned(), Change::File(Arc::clone(&file)));
        Ok(file)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut missing = Vec::new();
        for path in path.ancestors().filter(|path| *path != Path::new("")) {
            let is_there = match find(&self.changes.lock(), path) {
                Found::Nothing => false,
                Found::Directory => true,
                Found::File(_) => return Err(io::ErrorKind::NotADirectory.into()),
                Found::Base => match self.base.read_dir(path) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => false,
                    Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
                        return Err(error);
                    }
                    _ => true,
                },
            };
            if is_there {
                break;
            }
            missing.push(path.to_owned());
        }
        let directories = missing.into_iter().map(|path| (path, Change::Directory));
        self.changes.lock().extend(directories);
        Ok(())
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let changes = self.changes.lock();
        let of_base = match find(&changes, path) {
            Found::Nothing => return Err(io::ErrorKind::NotFound.into()),
            Found::File(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Found::Directory => Vec::new(),
            Found::Base => self.base.read_dir(path)?,
        };
        let unchanged = of_base
            .into_iter()
            .filter(|entry| !changes.contains_key(entry));
        let changed = changes.iter().filter_map(|(entry, change)| {
            let is_here = entry.parent() == Some(path) && !matches!(change, Change::Removed);
            is_here.then(|| entry.clone())
        });
        let mut entries: Vec<PathBuf> = unchanged.chain(changed).collect();
        entries.sort_unstable();
        Ok(entries)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut changes = self.changes.lock();
        let moved = match find(&changes, from) {
            Found::Nothing => return Err(io::ErrorKind::NotFound.into()),
            Found::Directory => Change::Directory,
            Found::File(file) => Change::File(file),
            Found::Base => {
                if self.base.read_dir(from).is_ok() {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                let file = self.base.open(from, OpenMode::Read)?;
                Change::File(OverlayFile::above(file)?)
            }
        };
        if !self.has_directory(&changes, to)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let below: Vec<PathBuf> = changes
            .keys()
            .filter(|path| is_below(path, from))
            .cloned()
            .collect();
        for path in below {
            let change = changes.remove(&path).expect("it was just found");
            let behind = path.strip_prefix(from).expect("it lies below");
            changes.insert(to.join(behind), change);
        }
        changes.insert(to.to_owned(), moved);
        changes.insert(from.to_owned(), Change::Removed);
        Ok(())
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        if !self.exists(path)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut changes = self.changes.lock();
        changes.insert(path.to_owned(), Change::Removed);
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.remove_file(path)?;
        let mut changes = self.changes.lock();
        changes.retain(|other, _| !is_below(other, path));
        Ok(())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match find(&self.changes.lock(), path) {
            Found::Nothing => Ok(false),
            Found::Directory | Found::File(_) => Ok(true),
            Found::Base => self.base.exists(path),
        }
    }

    fn volume(&self, path: &Path) -> io::Result<Volume> {
        self.base.volume(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}

/// A file of which the base has a part, or nothing.
#[derive(Default)]
struct OverlayFile {
    base: Option<Arc<dyn File>>,
    content: Mutex<Content>,
}

/// Invariants: `base_bytes <= len`; no block begins at or behind `len`; what a block has behind
/// `len` is zero.
#[derive(Default)]
struct Content {
    len: u64,
    /// So many bytes of the base are still seen, where no block hides them.
    base_bytes: u64,
    blocks: BTreeMap<u64, Box<[u8]>>,
}

impl OverlayFile {
    fn above(base: Arc<dyn File>) -> io::Result<Arc<OverlayFile>> {
        let len = base.len()?;
        let content = Content {
            len,
            base_bytes: len,
            blocks: BTreeMap::new(),
        };
        Ok(Arc::new(OverlayFile {
            base: Some(base),
            content: Mutex::new(content),
        }))
    }

    /// What is seen of the base from `offset` on; zeros behind.
    fn read_base(&self, buf: &mut [u8], offset: u64, base_bytes: u64) -> io::Result<()> {
        let seen = base_bytes.saturating_sub(offset).min(buf.len() as u64) as usize;
        let (seen, behind) = buf.split_at_mut(seen);
        behind.fill(0);
        match &self.base {
            Some(base) if !seen.is_empty() => base.read_exact_at(seen, offset),
            _ => Ok(()),
        }
    }

    fn write(&self, content: &mut Content, data: &[u8], offset: u64) -> io::Result<()> {
        for (number, in_block, in_data) in touched(BLOCK_BYTES as usize, offset, data.len()) {
            let data = &data[in_data];
            let start = number * BLOCK_BYTES;
            let has_bytes = start < content.base_bytes || content.blocks.contains_key(&number);
            if !has_bytes && data.iter().all(|byte| *byte == 0) {
                continue;
            }
            if !content.blocks.contains_key(&number) {
                let mut block = vec![0; BLOCK_BYTES as usize].into_boxed_slice();
                self.read_base(&mut block, start, content.base_bytes)?;
                content.blocks.insert(number, block);
            }
            let block = content.blocks.get_mut(&number);
            block.expect("it was just put there")[in_block].copy_from_slice(data);
        }
        content.len = content.len.max(offset + data.len() as u64);
        Ok(())
    }
}

impl File for OverlayFile {
    fn len(&self) -> io::Result<u64> {
        Ok(self.content.lock().len)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let content = self.content.lock();
        let readable = content.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..readable];
        self.read_base(buf, offset, content.base_bytes)?;
        let last = (offset + readable as u64).div_ceil(BLOCK_BYTES);
        let written = content.blocks.range(offset / BLOCK_BYTES..last);
        for (number, block) in written {
            let start = number * BLOCK_BYTES;
            let from = start.max(offset);
            let to = (start + BLOCK_BYTES).min(offset + readable as u64);
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&block[(from - start) as usize..(to - start) as usize]);
        }
        Ok(readable)
    }

    fn write_all_at(&self, bufs: &[IoSlice<'_>], mut offset: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        for buf in bufs {
            self.write(&mut content, buf, offset)?;
            offset += buf.len() as u64;
        }
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        if len < content.len {
            content.base_bytes = content.base_bytes.min(len);
            content.blocks.split_off(&len.div_ceil(BLOCK_BYTES));
            let kept = (len % BLOCK_BYTES) as usize;
            if kept > 0
                && let Some(block) = content.blocks.get_mut(&(len / BLOCK_BYTES))
            {
                block[kept..].fill(0);
            }
        }
        content.len = len;
        Ok(())
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        let mut content = self.content.lock();
        content.len = content.len.max(len);
        Ok(())
    }

    /// A shared `flock` where an exclusive one is asked for: it shows whether another process has
    /// the file, and keeps none from reading it. Locks that need a writable file are not asked for;
    /// whoever holds a log holds the database beside it, too.
    fn try_lock(&self, lock: Lock) -> io::Result<bool> {
        match (&self.base, lock) {
            (Some(base), Lock::FlockExclusive | Lock::FlockShared) => {
                base.try_lock(Lock::FlockShared)
            }
            (_, Lock::OfdExclusive) | (None, _) => Ok(true),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::OsDisk;
    use super::*;
    use crate::disk::MemDisk;

    const CREATE: OpenMode = OpenMode::Create { mode: 0o600 };

    /// Everything below a directory, with the files' bytes.
    fn tree(disk: &dyn Disk, dir: &Path) -> Vec<(PathBuf, Option<Vec<u8>>)> {
        let mut found = Vec::new();
        for path in disk.read_dir(dir).unwrap() {
            if let Ok(entries) = disk.read_dir(&path) {
                found.push((path.clone(), None));
                if !entries.is_empty() {
                    found.extend(tree(disk, &path));
                }
            } else {
                let file = disk.open(&path, OpenMode::Read).unwrap();
                let mut bytes = vec![0; file.len().unwrap() as usize];
                file.read_exact_at(&mut bytes, 0).unwrap();
                found.push((path, Some(bytes)));
            }
        }
        found
    }

    /// The same random changes to an overlay and to a disk in memory show the same, and the base
    /// stays as it is.
    #[test]
    fn shows_what_a_disk_would_and_leaves_the_base_alone() {
        for seed in 0..200 {
            let random = &mut fastrand::Rng::with_seed(seed);
            let base = Arc::new(MemDisk::new());
            let model = MemDisk::new();
            let root = Path::new("/data");
            for disk in [&*base, &model] {
                disk.create_dir_all(&root.join("old")).unwrap();
                for name in ["a", "old/b"] {
                    let file = disk.open(&root.join(name), CREATE).unwrap();
                    let bytes: Vec<u8> = (0..10_000u32).map(|n| (n % 251) as u8).collect();
                    file.write_all_at(&[IoSlice::new(&bytes)], 0).unwrap();
                }
            }
            let before = tree(&*base, root);
            let overlay = OverlayDisk::new(base.clone() as Arc<dyn Disk>);
            for _ in 0..40 {
                step(random, &overlay, &model, root);
                assert_eq!(tree(&overlay, root), tree(&model, root), "seed {seed}");
            }
            assert_eq!(tree(&*base, root), before, "seed {seed}");
        }
    }

    fn step(random: &mut fastrand::Rng, overlay: &dyn Disk, model: &dyn Disk, root: &Path) {
        let files = ["a", "c", "old/b", "old/d", "new/e", "newer/e"];
        let path = root.join(files[random.usize(..files.len())]);
        let other = root.join(files[random.usize(..files.len())]);
        let offset = random.u64(..20_000);
        let data = vec![random.u8(..3); random.usize(1..9000)];
        let what = random.usize(..8);
        let both = [overlay, model].map(|disk| -> Result<(), io::ErrorKind> {
            let has = |name| disk.exists(&root.join(name)).unwrap();
            let done = match what {
                0 => disk.create_dir_all(&root.join("new")),
                1 => disk.remove_file(&path),
                2 if path != other => disk.rename(&path, &other),
                3 => disk.remove_dir_all(&root.join("new")),
                4 => match has("new") && !has("newer") {
                    true => disk.rename(&root.join("new"), &root.join("newer")),
                    false => Ok(()),
                },
                _ if !disk.exists(path.parent().unwrap()).unwrap() => Ok(()),
                5 => disk
                    .open(&path, OpenMode::Write)
                    .and_then(|file| file.set_len(offset)),
                6 => disk
                    .open(&path, OpenMode::Write)
                    .and_then(|file| file.allocate(offset)),
                _ => disk
                    .open(&path, CREATE)
                    .and_then(|file| file.write_all_at(&[IoSlice::new(&data)], offset)),
            };
            done.map_err(|error| error.kind())
        });
        assert_eq!(both[0], both[1], "step {what} with {}", path.display());
    }

    #[test]
    fn a_lock_is_seen_and_does_not_keep_others_from_reading() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db");
        let owner = OsDisk.open(&path, CREATE).unwrap();
        let overlay = OverlayDisk::new(Arc::new(OsDisk));
        let file = overlay.open(&path, OpenMode::Write).unwrap();
        assert!(owner.try_lock(Lock::FlockExclusive).unwrap());
        assert!(!file.try_lock(Lock::FlockExclusive).unwrap());
        drop(owner);
        assert!(file.try_lock(Lock::FlockExclusive).unwrap());
        let reader = OsDisk.open(&path, OpenMode::Read).unwrap();
        assert!(reader.try_lock(Lock::FlockShared).unwrap());
        assert!(!reader.try_lock(Lock::FlockExclusive).unwrap());
    }
}
