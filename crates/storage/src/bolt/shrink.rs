//! Emptying the end of a file that is mostly free.
//!
//! Free pages at the end of a file are truncated, but what was written last usually lies there and
//! stays. So while more than half of a file is free, each commit also rewrites some nodes of the
//! file's far part, as if something in them had changed; as low pages are taken first, they move to
//! the front. The file ends up at about one and a half times what it holds, without a pause.

use std::sync::Arc;

use super::error::{BoltError, Damage, Reason};
use super::page::Kind;
use super::root::{Root, Store};
use super::space::Space;
use super::walk::height;

/// The most leaves that one commit moves.
const LEAVES_MAX: usize = 128;
/// The most branches that one commit looks at to find them.
const BRANCHES_MAX: usize = 32;

/// Keys whose leaves are to be rewritten, ascending, by bucket.
pub(crate) type Moves = Vec<(Arc<[u8]>, Vec<Box<[u8]>>)>;

/// Goes round all trees of a file, some branches with each commit.
#[derive(Default)]
pub(crate) struct Shrink {
    resume: Option<Resume>,
}

/// Where the next search goes on.
struct Resume {
    bucket: Arc<[u8]>,
    key: Box<[u8]>,
}

impl Shrink {
    /// Chooses what the next commit moves; nothing if the file is dense enough.
    pub(crate) fn choose(&mut self, root: &Root, space: &Space) -> Result<Moves, BoltError> {
        let Some(floor) = space.sparse_from() else {
            return Ok(Moves::new());
        };
        let mut search = Search {
            root,
            space,
            floor,
            branches_left: BRANCHES_MAX,
            keys: Vec::new(),
            stopped_at: None,
        };
        let mut moves = Moves::new();
        let mut leaves = 0;
        let resume = self.resume.take();
        for bucket in &root.buckets {
            let from: &[u8] = match &resume {
                Some(resume) if bucket.name < resume.bucket => continue,
                Some(resume) if bucket.name == resume.bucket => &resume.key,
                _ => &[],
            };
            let Store::Tree(top) = bucket.store else {
                continue;
            };
            search.tree(top, from, LEAVES_MAX - leaves)?;
            leaves += search.keys.len();
            assert!(leaves <= LEAVES_MAX, "{leaves} leaves are to be moved");
            if !search.keys.is_empty() {
                moves.push((Arc::clone(&bucket.name), std::mem::take(&mut search.keys)));
            }
            if let Some(key) = search.stopped_at.take() {
                self.resume = Some(Resume {
                    bucket: Arc::clone(&bucket.name),
                    key,
                });
                break;
            }
        }
        Ok(moves)
    }
}

struct Search<'s> {
    root: &'s Root,
    space: &'s Space,
    /// Nodes from this page on are to be moved.
    floor: u64,
    branches_left: usize,
    keys: Vec<Box<[u8]>>,
    stopped_at: Option<Box<[u8]>>,
}

impl Search<'_> {
    fn tree(&mut self, top: u64, from: &[u8], leaves_max: usize) -> Result<(), BoltError> {
        match height(self.root, top)? {
            0 if self.should_move(top, false)? => {
                self.keys.push(Box::default());
                Ok(())
            }
            0 => Ok(()),
            height => self.below(top, height, from, false, leaves_max),
        }
    }

    /// Searches below a branch. `high` says that branches above it are to be moved and that this is
    /// the first child of all of them: rewriting its first leaf rewrites them, too.
    fn below(
        &mut self,
        id: u64,
        height: usize,
        from: &[u8],
        high: bool,
        leaves_max: usize,
    ) -> Result<(), BoltError> {
        let page = self.root.page(id)?;
        if page.kind() == Kind::Leaf {
            return Err(Damage::new(id, Reason::Uneven).into());
        }
        self.branches_left = self.branches_left.saturating_sub(1);
        let first = page.route(from);
        for index in first..page.count() {
            if self.stopped_at.is_some() {
                return Ok(());
            }
            // At least one branch is looked at, so that the search gets on.
            if self.keys.len() >= leaves_max || (self.branches_left == 0 && index > first) {
                self.stopped_at = Some(page.key(index).into());
                return Ok(());
            }
            let high = index == 0 && (high || id >= self.floor);
            let child = page.child(index);
            if height > 1 {
                let from = if index == first { from } else { &[] };
                self.below(child, height - 1, from, high, leaves_max)?;
            } else if self.should_move(child, high)? {
                self.keys.push(page.key(index).into());
            }
        }
        Ok(())
    }

    /// Whether a leaf is to be rewritten and will find a place further to the front.
    fn should_move(&self, leaf: u64, high: bool) -> Result<bool, BoltError> {
        if leaf < self.floor && !high {
            return Ok(false);
        }
        let header = self
            .root
            .pager
            .read_header(leaf, self.root.meta.high_water)?;
        Ok(self.space.fits_below(header.pages(), self.floor))
    }
}
