//! Opening and creating a database, and who may do what at the same time.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard, RwLock};

use super::error::BoltError;
use super::pager::Pager;
use super::root::{ReadTx, Root};
use super::writer::{CommitStats, Durability, Run, Writer, read_meta};
use crate::disk::{Disk, File, Lock, OpenMode};

/// Permission bits of a new file.
const MODE: u32 = 0o600;

/// What a database is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Reading an existing file; others may read it at the same time.
    ReadOnly,
    /// Reading and writing an existing file, alone.
    Existing,
    /// As [`Access::Existing`], but a file that does not exist is created.
    Create,
}

/// How a database is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// What for.
    pub access: Access,
    /// Bytes of a page of a new file, a power of two. Existing files have their own.
    pub page_size: u32,
    /// Bytes of pages that are kept in memory.
    pub cache_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            access: Access::Create,
            page_size: 4096,
            cache_bytes_max: 16 << 20,
        }
    }
}

/// A bolt file: any number of read transactions beside one commit at a time.
///
/// The file is locked, by `flock` as bbolt does it, until the database and all of its read
/// transactions are dropped.
pub struct Db {
    disk: Arc<dyn Disk>,
    path: PathBuf,
    options: Options,
    created: bool,
    /// The newest committed root.
    newest: RwLock<Arc<Root>>,
    /// `None` if the file was opened to be read. Held while `newest` changes.
    writer: Option<Mutex<Writer>>,
    /// Held by the one defragmentation, which is a long time.
    defragmenting: Mutex<()>,
    /// The number of open read transactions.
    open: Arc<AtomicUsize>,
}

impl Db {
    /// Opens the database at `path`, whose directory must exist, and removes what an interrupted
    /// defragmentation has left beside it.
    ///
    /// # Errors
    /// [`BoltError::Locked`] while another process has the file; [`BoltError::Damaged`] if what
    /// every use of the file relies on is not sound: a meta page, the tree of buckets, and, unless
    /// opened to be read, the branches of all trees.
    pub fn open(disk: Arc<dyn Disk>, path: &Path, options: Options) -> Result<Db, BoltError> {
        Db::open_counting(disk, path, options, Arc::default())
    }

    /// Opens a database whose read transactions are counted in `open`.
    fn open_counting(
        disk: Arc<dyn Disk>,
        path: &Path,
        options: Options,
        open: Arc<AtomicUsize>,
    ) -> Result<Db, BoltError> {
        let (writer, root, created) = match options.access {
            Access::ReadOnly => {
                let file = lock(disk.open(path, OpenMode::Read)?, Lock::FlockShared)?;
                let meta = read_meta(&*file)?;
                let pager = Arc::new(Pager::new(file, meta.page_size, options.cache_bytes_max));
                (
                    None,
                    Arc::new(Root::load(pager, meta, Arc::clone(&open))?),
                    false,
                )
            }
            Access::Existing | Access::Create => {
                let (writer, created) = open_writer(&*disk, path, options, &open)?;
                let root = Arc::clone(writer.root());
                (Some(Mutex::new(writer)), root, created)
            }
        };
        let newest = RwLock::new(root);
        let (path, defragmenting) = (path.to_owned(), Mutex::new(()));
        Ok(Db {
            disk,
            path,
            options,
            created,
            newest,
            writer,
            defragmenting,
            open,
        })
    }

    /// Whether the file did not exist before.
    pub fn created(&self) -> bool {
        self.created
    }

    /// Pins the newest committed state.
    pub fn read(&self) -> ReadTx {
        ReadTx::new(&self.newest.read())
    }

    /// How many read transactions are open.
    pub fn open_read_transactions(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Bytes of the file's used part.
    pub fn size_bytes(&self) -> u64 {
        let root = self.newest.read();
        root.pager.offset(root.meta.high_water)
    }

    /// Bytes of the pages that the newest state leads to.
    pub fn size_in_use_bytes(&self) -> u64 {
        let root = self.newest.read();
        root.pager.offset(root.meta.high_water - root.unused_pages)
    }

    /// Commits changes of distinct buckets, durably and all or none.
    ///
    /// # Errors
    /// After [`BoltError::Full`] everything is as before. After [`BoltError::Io`] or
    /// [`BoltError::Damaged`] the database is poisoned: the commit may or may not have reached the
    /// disk, reads still see the state before, and no later commit is accepted.
    ///
    /// # Panics
    /// If the changes of a bucket are not strictly ascending.
    pub fn commit(&self, runs: &[Run<'_>]) -> Result<CommitStats, BoltError> {
        let mut writer = self.writer()?;
        let stats = writer.commit(runs, Durability::Synced)?;
        *self.newest.write() = Arc::clone(writer.root());
        Ok(stats)
    }

    fn writer(&self) -> Result<MutexGuard<'_, Writer>, BoltError> {
        match &self.writer {
            Some(writer) => Ok(writer.lock()),
            None => Err(BoltError::ReadOnly),
        }
    }

    pub(crate) fn is_poisoned(&self) -> Result<bool, BoltError> {
        Ok(self.writer()?.is_poisoned())
    }

    pub(crate) fn begin_defragment(&self) -> MutexGuard<'_, ()> {
        self.defragmenting.lock()
    }

    /// An empty database beside this one.
    pub(crate) fn create_defragmented(&self) -> Result<Writer, BoltError> {
        let path = beside(&self.path, "defrag");
        let options = Options {
            page_size: self.newest.read().meta.page_size,
            ..self.options
        };
        create_file(&*self.disk, &path, options, &self.open)
    }

    /// Puts the database from [`Db::create_defragmented`] in place of this one. `finish` brings the
    /// last changes, which no commit can add to any more.
    pub(crate) fn swap(
        &self,
        mut target: Writer,
        finish: impl FnOnce(&ReadTx, &mut Writer) -> Result<(), BoltError>,
    ) -> Result<ReadTx, BoltError> {
        let mut writer = self.writer()?;
        if writer.is_poisoned() {
            return Err(BoltError::Poisoned);
        }
        finish(&self.read(), &mut target)?;
        self.install(&mut writer, target, &beside(&self.path, "defrag"))?;
        Ok(self.read())
    }

    /// Opens another file of the same disk for [`Db::replace`]; its read transactions count as this
    /// database's.
    pub(crate) fn open_replacement(&self, path: &Path) -> Result<Db, BoltError> {
        if self.writer.is_none() {
            return Err(BoltError::ReadOnly);
        }
        let options = Options {
            access: Access::Existing,
            ..self.options
        };
        let (disk, open) = (Arc::clone(&self.disk), Arc::clone(&self.open));
        Db::open_counting(disk, path, options, open)
    }

    /// Puts the database from [`Db::open_replacement`] in place of this one, whose read
    /// transactions stay as they are. A commit or defragmentation under way is waited for.
    ///
    /// # Errors
    /// If it fails before the other file has taken this one's name, this database is as before.
    /// Later, it is poisoned.
    pub(crate) fn replace(&self, with: Db) -> Result<(), BoltError> {
        let _none_meanwhile = self.begin_defragment();
        let mut writer = self.writer()?;
        let new = with.writer.map(Mutex::into_inner);
        let new = new.expect("a replacement is opened to be written");
        if writer.is_poisoned() || new.is_poisoned() {
            return Err(BoltError::Poisoned);
        }
        self.install(&mut writer, new, &with.path)
    }

    /// Gives the file of `new` this database's name, then goes on with it.
    fn install(&self, old: &mut Writer, mut new: Writer, path: &Path) -> Result<(), BoltError> {
        new.sync()?;
        self.disk.rename(path, &self.path)?;
        if let Err(error) = sync_parent(&*self.disk, &self.path) {
            // Which of both files has the name after a crash is open.
            old.poison();
            return Err(error);
        }
        *self.newest.write() = Arc::clone(new.root());
        *old = new;
        Ok(())
    }

    /// Removes temporary files, as far as possible.
    pub(crate) fn remove_leftovers(&self) {
        // A file that stays does no harm, and the next open tries again.
        let _ = remove_leftovers(&*self.disk, &self.path);
    }
}

fn lock(file: Arc<dyn File>, lock: Lock) -> Result<Arc<dyn File>, BoltError> {
    match file.try_lock(lock)? {
        true => Ok(file),
        false => Err(BoltError::Locked),
    }
}

/// The name of a temporary file beside the database; Go etcd, too, removes files named like this.
fn beside(path: &Path, purpose: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".tmp.");
    name.push(purpose);
    path.with_file_name(name)
}

/// Opens a file to be written, or creates it; says which.
fn open_writer(
    disk: &dyn Disk,
    path: &Path,
    options: Options,
    open: &Arc<AtomicUsize>,
) -> Result<(Writer, bool), BoltError> {
    if options.access == Access::Create && !disk.exists(path)? {
        return Ok((create(disk, path, options, open)?, true));
    }
    let file = lock(disk.open(path, OpenMode::Write)?, Lock::FlockExclusive)?;
    if options.access == Access::Create && file.is_empty()? {
        // Another program crashed while it created the file. The lock is held until the new one is
        // there.
        let writer = create(disk, path, options, open)?;
        drop(file);
        return Ok((writer, true));
    }
    remove_leftovers(disk, path)?;
    let meta = read_meta(&*file)?;
    let pager = Arc::new(Pager::new(file, meta.page_size, options.cache_bytes_max));
    Ok((Writer::open(pager, meta, Arc::clone(open))?, false))
}

/// Creates a database under a temporary name and renames it, so that there is never half of one.
fn create(
    disk: &dyn Disk,
    path: &Path,
    options: Options,
    open: &Arc<AtomicUsize>,
) -> Result<Writer, BoltError> {
    let temporary = beside(path, "create");
    let writer = create_file(disk, &temporary, options, open)?;
    disk.rename(&temporary, path)?;
    sync_parent(disk, path)?;
    Ok(writer)
}

/// Writes an empty, locked database to a file of this name, whatever it held before.
fn create_file(
    disk: &dyn Disk,
    path: &Path,
    options: Options,
    open: &Arc<AtomicUsize>,
) -> Result<Writer, BoltError> {
    let file = lock(
        disk.open(path, OpenMode::Create { mode: MODE })?,
        Lock::FlockExclusive,
    )?;
    file.set_len(0)?;
    let pager = Arc::new(Pager::new(file, options.page_size, options.cache_bytes_max));
    Writer::create(pager, Arc::clone(open))
}

fn remove_leftovers(disk: &dyn Disk, path: &Path) -> Result<(), BoltError> {
    let mut prefix: OsString = path.file_name().unwrap_or_default().to_owned();
    prefix.push(".tmp.");
    for entry in disk.read_dir(parent(path))? {
        let name = entry.file_name().unwrap_or_default();
        if name
            .as_encoded_bytes()
            .starts_with(prefix.as_encoded_bytes())
        {
            disk.remove_file(&entry)?;
        }
    }
    Ok(())
}

fn sync_parent(disk: &dyn Disk, path: &Path) -> Result<(), BoltError> {
    Ok(disk.sync_dir(parent(path))?)
}

/// The directory that holds the file; a bare name is in the current one.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}
