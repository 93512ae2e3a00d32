//! The operations on single nodes, each by its rules in etcd 3.3: `store/store.go`. The order of
//! the checks decides which error a client sees.

use std::sync::Arc;

use super::Store;
use crate::v2::event::Failure;
use crate::v2::path::DEPTH_MAX;
use crate::v2::tree::{Content, Entry, TOPS};
use crate::v2::{Action, Code, Condition, Counter, Event, Lifetime, Path, Timestamp};

impl Store {
    pub(super) fn set(
        &mut self,
        now: Timestamp,
        path: Path,
        dir: bool,
        value: &str,
        lifetime: Lifetime,
    ) -> Result<Arc<Event>, Failure> {
        let previous = match self.tree.find(&path) {
            Ok(entry) => Some(Arc::clone(entry)),
            Err(failure) if failure.code == Code::KeyNotFound && !lifetime.refresh => None,
            Err(failure) => return Err(failure),
        };
        check_not_top(&path)?;
        if previous.as_ref().is_some_and(|entry| entry.is_directory()) {
            return Err(Failure::new(Code::NotFile, path));
        }
        let value = match &previous {
            Some(previous) if lifetime.refresh => Arc::from(previous.value()),
            _ => Arc::from(value),
        };
        let previous = previous.map(|entry| entry.node(&path, now));
        // What is there has all its directories.
        if previous.is_none() {
            self.create_parents(&path)?;
        }
        let mut event = self.put_new(now, Action::Set, path, dir, value, lifetime);
        event.prev_node = previous;
        event.refresh = lifetime.refresh;
        Ok(self.commit(event, None))
    }

    pub(super) fn create(
        &mut self,
        now: Timestamp,
        path: Path,
        unique: bool,
        dir: bool,
        value: &str,
        lifetime: Lifetime,
    ) -> Result<Arc<Event>, Failure> {
        let path = match unique {
            true => path.child(&format!("{:020}", self.index + 1)),
            false => path,
        };
        check_not_top(&path)?;
        match self.tree.find(&path) {
            Ok(_) => return Err(Failure::new(Code::NodeExists, path)),
            Err(failure) if failure.code == Code::KeyNotFound => {}
            Err(failure) => {
                self.shared.counts.add(Counter::SetsFail);
                return Err(failure);
            }
        }
        self.create_parents(&path)?;
        let event = self.put_new(now, Action::Create, path, dir, value.into(), lifetime);
        Ok(self.commit(event, None))
    }

    /// Makes the directories on the way to a new node.
    fn create_parents(&mut self, path: &Path) -> Result<(), Failure> {
        match path.depth() > DEPTH_MAX {
            true => Err(Failure::new(Code::InvalidField, "path is too deep")),
            false => self.tree.create_parents(path, self.index + 1),
        }
    }

    /// Puts a new node into the tree, in place of any file.
    fn put_new(
        &mut self,
        now: Timestamp,
        action: Action,
        path: Path,
        dir: bool,
        value: Arc<str>,
        lifetime: Lifetime,
    ) -> Event {
        let index = self.index + 1;
        let entry = Entry {
            created: index,
            modified: index,
            expiration: lifetime.of_new_node(),
            content: match dir {
                true => Content::Directory,
                false => Content::File(value),
            },
        };
        let node = entry.node(&path, now);
        self.put(path, entry);
        self.event(action, node)
    }

    pub(super) fn update(
        &mut self,
        now: Timestamp,
        path: Path,
        value: &str,
        lifetime: Lifetime,
    ) -> Result<Arc<Event>, Failure> {
        check_not_top(&path)?;
        let entry = Arc::clone(self.tree.find(&path)?);
        if entry.is_directory() && !value.is_empty() {
            return Err(Failure::new(Code::NotFile, path));
        }
        Ok(self.rewrite(now, Action::Update, path, &entry, value, lifetime))
    }

    pub(super) fn compare_and_swap(
        &mut self,
        now: Timestamp,
        path: Path,
        condition: Condition<'_>,
        value: &str,
        lifetime: Lifetime,
    ) -> Result<Arc<Event>, Failure> {
        check_not_top(&path)?;
        let entry = self.compare(&path, condition)?;
        Ok(self.rewrite(now, Action::CompareAndSwap, path, &entry, value, lifetime))
    }

    /// Changes a node's value and lifetime. A directory keeps the index of its last change, though
    /// the event shows the new one.
    fn rewrite(
        &mut self,
        now: Timestamp,
        action: Action,
        path: Path,
        entry: &Entry,
        value: &str,
        lifetime: Lifetime,
    ) -> Arc<Event> {
        let index = self.index + 1;
        let previous = entry.node(&path, now);
        let (modified, content) = match &entry.content {
            Content::Directory => (entry.modified, Content::Directory),
            file if lifetime.refresh => (index, file.clone()),
            Content::File(_) => (index, Content::File(value.into())),
        };
        let entry = Entry {
            created: entry.created,
            modified,
            expiration: lifetime.expiration,
            content,
        };
        let mut node = entry.node(&path, now);
        node.modified_index = index;
        self.put(path, entry);
        let mut event = self.event(action, node);
        event.prev_node = Some(previous);
        event.refresh = lifetime.refresh;
        self.commit(event, None)
    }

    pub(super) fn delete(
        &mut self,
        now: Timestamp,
        path: Path,
        dir: bool,
        recursive: bool,
    ) -> Result<Arc<Event>, Failure> {
        check_not_top(&path)?;
        let entry = self.tree.find(&path)?;
        if entry.is_directory() {
            if !dir && !recursive {
                return Err(Failure::new(Code::NotFile, path));
            }
            if !recursive && !self.tree.is_empty_directory(&path) {
                return Err(Failure::new(Code::DirectoryNotEmpty, path));
            }
        }
        Ok(self.remove(now, Action::Delete, &path))
    }

    pub(super) fn compare_and_delete(
        &mut self,
        now: Timestamp,
        path: Path,
        condition: Condition<'_>,
    ) -> Result<Arc<Event>, Failure> {
        self.compare(&path, condition)?;
        Ok(self.remove(now, Action::CompareAndDelete, &path))
    }

    /// The file, if it is what the condition says.
    fn compare(&self, path: &Path, condition: Condition<'_>) -> Result<Arc<Entry>, Failure> {
        let entry = self.tree.find(path)?;
        let Content::File(value) = &entry.content else {
            return Err(Failure::new(Code::NotFile, path));
        };
        let mut causes = Vec::new();
        if !condition.value.is_empty() && condition.value != &**value {
            causes.push(format!("[{} != {value}]", condition.value));
        }
        if condition.index != 0 && condition.index != entry.modified {
            causes.push(format!("[{} != {}]", condition.index, entry.modified));
        }
        match causes.is_empty() {
            true => Ok(Arc::clone(entry)),
            false => Err(Failure::new(Code::CompareFailed, causes.join(" "))),
        }
    }
}

fn check_not_top(path: &Path) -> Result<(), Failure> {
    match TOPS.contains(&path.as_str()) {
        true => Err(Failure::new(Code::RootReadOnly, "/")),
        false => Ok(()),
    }
}
