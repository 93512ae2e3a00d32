//! Writing the file anew, densely, while it is in use.
//!
//! The pinned newest root is copied to a second file, bucket by bucket in the order of the keys.
//! What was committed meanwhile follows as differences between roots, in rounds that get shorter;
//! the last one holds up the next commit for a moment. Then the new file takes the name of the old
//! one. Readers of the old file keep it open. Until the rename is durable the old file is complete,
//! and after it the new one is: a crash leaves one good file, and at most a temporary one that the
//! next open removes.

use super::bitmap::Bitmap;
use super::db::Db;
use super::diff::{Diff, nodes};
use super::error::BoltError;
use super::node::Change;
use super::range::Entry;
use super::root::ReadTx;
use super::writer::{Durability, Run, Writer};

/// Changes are brought into the new file in steps of about this many bytes. Each step of the copy is
/// synced, so that who else syncs on this disk waits for one step at most, and not for all that the
/// system has let gather.
const STEP_BYTES: usize = 4 << 20;
/// A round with fewer changes than this is short enough to be the last before the swap.
const LAST_ROUND_CHANGES: usize = 5_000;
/// If writers are faster than the copy, the swap comes after this many rounds all the same.
const ROUNDS_MAX: usize = 10;

/// What a defragmentation did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DefragStats {
    /// The file's used part before, in bytes.
    pub bytes_before: u64,
    /// The same afterwards.
    pub bytes_after: u64,
}

impl Db {
    /// Writes the file anew without its free pages. Reads and commits go on, but for a pause of
    /// commits at the end.
    ///
    /// # Errors
    /// If it fails before the new file has taken the old one's name, everything is as before, and
    /// the database can be used on. Later, the database is poisoned.
    pub fn defragment(&self) -> Result<DefragStats, BoltError> {
        self.defragment_with_progress(&mut |_| ())
    }

    /// The same; `progress` is told behind each step how many bytes the new file has, and may take its
    /// time.
    ///
    /// # Errors
    /// As [`Db::defragment`].
    pub fn defragment_with_progress(
        &self,
        progress: &mut dyn FnMut(u64),
    ) -> Result<DefragStats, BoltError> {
        let _only_one = self.begin_defragment();
        if self.is_poisoned()? {
            return Err(BoltError::Poisoned);
        }
        let target = self.create_defragmented()?;
        let result = self.fill_and_swap(target, progress);
        if result.is_err() {
            self.remove_leftovers();
        }
        result
    }

    fn fill_and_swap(
        &self,
        mut target: Writer,
        progress: &mut dyn FnMut(u64),
    ) -> Result<DefragStats, BoltError> {
        let mut base = self.read();
        let bytes_before = base.size_bytes();
        copy_all(&base, &mut target, progress)?;
        for _ in 0..ROUNDS_MAX {
            let next = self.read();
            let changes = copy_changes(&base, &next, &mut target)?;
            base = next;
            if changes < LAST_ROUND_CHANGES {
                break;
            }
        }
        // So that little is left to be synced under the lock.
        target.sync()?;
        let base_nodes = nodes(&base)?;
        let after = self.swap(target, |newest, target| {
            copy_changes_knowing(&base, &base_nodes, newest, target)?;
            let (copied, all) = (target.root().buckets.len(), newest.buckets().count());
            assert_eq!(copied, all, "buckets in the new file and in the old one");
            Ok(())
        })?;
        Ok(DefragStats {
            bytes_before,
            bytes_after: after.size_bytes(),
        })
    }
}

fn copy_all(
    from: &ReadTx,
    to: &mut Writer,
    progress: &mut dyn FnMut(u64),
) -> Result<(), BoltError> {
    for bucket in from.buckets() {
        let entries = from
            .range(bucket, &[], None)
            .map(|entry| entry.map(|entry| (entry, true)));
        apply(bucket, entries, to, &mut |to| {
            to.sync()?;
            let root = to.root();
            progress(root.pager.offset(root.meta.high_water));
            Ok(())
        })?;
    }
    Ok(())
}

fn copy_changes(old: &ReadTx, new: &ReadTx, to: &mut Writer) -> Result<usize, BoltError> {
    match old.txid() == new.txid() {
        true => Ok(0),
        false => copy_changes_knowing(old, &nodes(old)?, new, to),
    }
}

fn copy_changes_knowing(
    old: &ReadTx,
    old_nodes: &Bitmap,
    new: &ReadTx,
    to: &mut Writer,
) -> Result<usize, BoltError> {
    let mut changes = 0;
    for bucket in new.buckets() {
        let diff = Diff::new(old, old_nodes, new, bucket)?;
        changes += apply(bucket, diff, to, &mut |_| Ok(()))?;
    }
    Ok(changes)
}

/// Brings changes of one bucket into the new file, which nobody relies on yet; `after_step` follows
/// each step.
fn apply(
    bucket: &[u8],
    mut changes: impl Iterator<Item = Result<(Entry, bool), BoltError>>,
    to: &mut Writer,
    after_step: &mut dyn FnMut(&mut Writer) -> Result<(), BoltError>,
) -> Result<usize, BoltError> {
    let mut count = 0;
    loop {
        let mut step = Vec::new();
        let mut bytes = 0;
        while bytes < STEP_BYTES
            && let Some(change) = changes.next().transpose()?
        {
            bytes += change.0.key().len() + change.0.value().len() + size_of::<Change<'_>>();
            step.push(change);
        }
        let run = Run {
            bucket,
            changes: step
                .iter()
                .map(|(entry, set)| Change {
                    key: entry.key(),
                    value: set.then(|| entry.value()),
                })
                .collect(),
        };
        // The first step creates the bucket, even if it is empty.
        if count == 0 || !step.is_empty() {
            to.commit(&[run], Durability::Unsynced)?;
            after_step(to)?;
        }
        count += step.len();
        if bytes < STEP_BYTES {
            return Ok(count);
        }
    }
}
