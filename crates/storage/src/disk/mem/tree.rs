//! The names: directories, and which of their changes have reached the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Component, Path, PathBuf};

use fastrand::Rng;

use super::inode::{Inode, Loss};

/// Identifies a file or directory; never reused.
pub(super) type NodeId = u64;

const ROOT: NodeId = 0;

/// Names that change together: a rename within a directory takes one away and sets the other.
type NameChange = Vec<(OsString, Option<NodeId>)>;

#[derive(Clone, Default)]
struct Dir {
    names: BTreeMap<OsString, NodeId>,
    durable: BTreeMap<OsString, NodeId>,
    unsynced: Vec<NameChange>,
}

impl Dir {
    fn change(&mut self, change: NameChange) {
        apply(&mut self.names, &change);
        self.unsynced.push(change);
    }
}

fn apply(names: &mut BTreeMap<OsString, NodeId>, change: &NameChange) {
    for (name, node) in change {
        match node {
            Some(node) => names.insert(name.clone(), *node),
            None => names.remove(name),
        };
    }
}

#[derive(Clone)]
pub(super) struct Tree {
    dirs: BTreeMap<NodeId, Dir>,
    files: BTreeMap<NodeId, Inode>,
    next: NodeId,
}

impl Default for Tree {
    fn default() -> Tree {
        Tree {
            dirs: BTreeMap::from([(ROOT, Dir::default())]),
            files: BTreeMap::new(),
            next: ROOT + 1,
        }
    }
}

impl Tree {
    pub(super) fn file(&self, id: NodeId) -> &Inode {
        self.files
            .get(&id)
            .expect("files are kept while a name or handle leads to them")
    }

    pub(super) fn file_mut(&mut self, id: NodeId) -> &mut Inode {
        self.files
            .get_mut(&id)
            .expect("files are kept while a name or handle leads to them")
    }

    /// The bytes in all files that have a name or a handle.
    pub(super) fn used_bytes(&self) -> u64 {
        self.files.values().map(|file| file.content().len()).sum()
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<Option<NodeId>> {
        let mut node = ROOT;
        for name in components(path)? {
            let dir = self.dirs.get(&node).ok_or(io::ErrorKind::NotADirectory)?;
            match dir.names.get(name) {
                Some(child) => node = *child,
                None => return Ok(None),
            }
        }
        Ok(Some(node))
    }

    pub(super) fn open(&self, path: &Path) -> io::Result<Option<NodeId>> {
        match self.lookup(path)? {
            Some(id) if self.dirs.contains_key(&id) => Err(io::ErrorKind::IsADirectory.into()),
            other => Ok(other),
        }
    }

    pub(super) fn create_file(&mut self, path: &Path) -> io::Result<NodeId> {
        let (parent, name) = self.parent(path)?;
        let id = self.take_id();
        self.files.insert(id, Inode::default());
        self.dir_mut(parent).change(vec![(name, Some(id))]);
        Ok(id)
    }

    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let mut node = ROOT;
        for name in components(path)? {
            let dir = self.dirs.get(&node).ok_or(io::ErrorKind::NotADirectory)?;
            node = match dir.names.get(name) {
                Some(child) => *child,
                None => {
                    let id = self.take_id();
                    self.dirs.insert(id, Dir::default());
                    self.dir_mut(node).change(vec![(name.to_owned(), Some(id))]);
                    id
                }
            };
        }
        if self.files.contains_key(&node) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        Ok(())
    }

    pub(super) fn read_dir(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let id = self.dir_id(path)?;
        Ok(self.dirs[&id]
            .names
            .keys()
            .map(|name| path.join(name))
            .collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let node = self.lookup(from)?.ok_or(io::ErrorKind::NotFound)?;
        let (from_dir, from_name) = self.parent(from)?;
        let (to_dir, to_name) = self.parent(to)?;
        let replaced = self.lookup(to)?;
        if replaced == Some(node) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            match (self.dirs.contains_key(&node), self.dirs.get(&replaced)) {
                (true, Some(dir)) if dir.names.is_empty() => {}
                (true, Some(_)) => return Err(io::ErrorKind::DirectoryNotEmpty.into()),
                (true, None) => return Err(io::ErrorKind::NotADirectory.into()),
                (false, Some(_)) => return Err(io::ErrorKind::IsADirectory.into()),
                (false, None) => {}
            }
        }
        let removal = (from_name, None);
        let addition = (to_name, Some(node));
        if from_dir == to_dir {
            self.dir_mut(from_dir).change(vec![removal, addition]);
        } else {
            self.dir_mut(to_dir).change(vec![addition]);
            self.dir_mut(from_dir).change(vec![removal]);
        }
        if let Some(replaced) = replaced {
            self.forget_unreachable(replaced);
        }
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let id = self.open(path)?.ok_or(io::ErrorKind::NotFound)?;
        self.remove_name(path)?;
        self.forget_unreachable(id);
        Ok(())
    }

    pub(super) fn remove_dir_all(&mut self, path: &Path) -> io::Result<()> {
        self.dir_id(path)?;
        self.remove_name(path)
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let id = self.dir_id(path)?;
        let dir = self.dir_mut(id);
        dir.durable = dir.names.clone();
        let changes = std::mem::take(&mut dir.unsynced);
        for (_, node) in changes.into_iter().flatten() {
            if let Some(node) = node {
                self.forget_unreachable(node);
            }
        }
        Ok(())
    }

    /// Forgets all handles and locks.
    pub(super) fn close_all(&mut self) {
        self.files.values_mut().for_each(Inode::close_all);
    }

    /// Drops a file that no name, durable or not, and no handle leads to.
    pub(super) fn forget_unreachable(&mut self, id: NodeId) {
        let named = |names: &BTreeMap<OsString, NodeId>| names.values().any(|node| *node == id);
        let open = self.files.get(&id).is_none_or(|file| file.handles > 0);
        if !open
            && !self
                .dirs
                .values()
                .any(|dir| named(&dir.names) || named(&dir.durable))
        {
            self.files.remove(&id);
        }
    }

    /// Cuts the power. Directories keep a prefix of their changes, as a journal does.
    pub(super) fn crash(&mut self, loss: Loss, rng: &mut Rng) {
        for dir in self.dirs.values_mut() {
            let kept = match loss {
                Loss::All => 0,
                Loss::Nothing => dir.unsynced.len(),
                Loss::Some => rng.usize(..=dir.unsynced.len()),
            };
            for change in &dir.unsynced[..kept] {
                apply(&mut dir.durable, change);
            }
            dir.unsynced.clear();
            dir.names = dir.durable.clone();
        }
        for file in self.files.values_mut() {
            file.crash(loss, rng);
        }
        self.forget_all_unreachable();
    }

    fn forget_all_unreachable(&mut self) {
        let mut reachable = BTreeSet::new();
        let mut todo = vec![ROOT];
        while let Some(id) = todo.pop() {
            if reachable.insert(id)
                && let Some(dir) = self.dirs.get(&id)
            {
                todo.extend(dir.names.values());
            }
        }
        self.dirs.retain(|id, _| reachable.contains(id));
        self.files.retain(|id, _| reachable.contains(id));
    }

    fn remove_name(&mut self, path: &Path) -> io::Result<()> {
        let (parent, name) = self.parent(path)?;
        self.dir_mut(parent).change(vec![(name, None)]);
        Ok(())
    }

    fn parent(&self, path: &Path) -> io::Result<(NodeId, OsString)> {
        let names = components(path)?;
        let (name, parents) = names.split_last().ok_or(io::ErrorKind::InvalidInput)?;
        Ok((
            self.dir_id(&parents.iter().collect::<PathBuf>())?,
            (*name).to_owned(),
        ))
    }

    fn dir_id(&self, path: &Path) -> io::Result<NodeId> {
        let id = self.lookup(path)?.ok_or(io::ErrorKind::NotFound)?;
        match self.dirs.contains_key(&id) {
            true => Ok(id),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    fn dir_mut(&mut self, id: NodeId) -> &mut Dir {
        self.dirs
            .get_mut(&id)
            .expect("the id was looked up among the directories")
    }

    fn take_id(&mut self) -> NodeId {
        self.next += 1;
        self.next - 1
    }
}

/// The names along `path`, which is taken from the root whether or not it starts with `/`.
fn components(path: &Path) -> io::Result<Vec<&OsStr>> {
    path.components()
        .filter_map(|component| match component {
            Component::Normal(name) => Some(Ok(name)),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
            Component::ParentDir => Some(Err(io::ErrorKind::InvalidInput.into())),
        })
        .collect()
}
