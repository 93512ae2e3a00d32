//! Finding the pages of a root without reading its values.

use super::bitmap::Bitmap;
use super::error::{BoltError, Damage, Reason};
use super::headers::Headers;
use super::node::DEPTH_MAX;
use super::page::Kind;
use super::root::{Root, Store};
use super::space::Extent;

/// All pages that a root leads to, with both meta pages. Of leaves only the headers are read.
pub(crate) fn used_pages(root: &Root) -> Result<Bitmap, BoltError> {
    let mut used = Bitmap::default();
    let mut leaves = Bitmap::default();
    (0..2).for_each(|page| _ = used.insert(page));
    root.directory
        .iter()
        .try_for_each(|extent| mark(&mut used, *extent))?;
    for bucket in &root.buckets {
        let Store::Tree(top) = bucket.store else {
            continue;
        };
        walk(root, top, |id, level| match level {
            Level::Branch(pages) => mark(&mut used, Extent { id, pages }).map(|()| true),
            Level::Leaf => match leaves.insert(id) {
                true => Ok(false),
                false => Err(Damage::new(id, Reason::ReferencedTwice)),
            },
        })?;
    }
    // In the order of the file, which a disk likes best.
    let mut headers = Headers::new(&root.pager, root.meta.high_water);
    let mut next = leaves.next(0);
    while let Some(id) = next {
        let header = headers.read(id, &leaves)?;
        if header.kind() != Ok(Kind::Leaf) {
            return Err(Damage::new(id, Reason::Uneven).into());
        }
        mark(
            &mut used,
            Extent {
                id,
                pages: header.pages(),
            },
        )?;
        next = leaves.next(id + 1);
    }
    Ok(used)
}

fn mark(used: &mut Bitmap, extent: Extent) -> Result<(), Damage> {
    match (extent.id..extent.id + extent.pages).find(|page| !used.insert(*page)) {
        Some(page) => Err(Damage::new(page, Reason::ReferencedTwice)),
        None => Ok(()),
    }
}

/// What a walk has come to.
pub(crate) enum Level {
    /// A branch of this many pages.
    Branch(u64),
    /// A page where leaves must be, within the file's used part. It has not been read.
    Leaf,
}

/// Visits the nodes of a tree in the order of their keys, branches before their children. `visit`
/// says whether to go on below a branch.
///
/// A damaged tree can lead to a page more than once; it is for `visit` to notice.
pub(crate) fn walk(
    root: &Root,
    top: u64,
    mut visit: impl FnMut(u64, Level) -> Result<bool, Damage>,
) -> Result<(), BoltError> {
    let height = height(root, top)?;
    walk_below(root, top, height, &mut visit)
}

/// The number of branches above the first leaf.
pub(crate) fn height(root: &Root, top: u64) -> Result<usize, BoltError> {
    let mut id = top;
    for height in 0..=DEPTH_MAX {
        let header = root.pager.read_header(id, root.meta.high_water)?;
        if header.kind() == Ok(Kind::Leaf) {
            return Ok(height);
        }
        let page = root.page(id)?;
        if page.count() == 0 {
            return Err(Damage::new(id, Reason::Empty).into());
        }
        id = page.child(0);
    }
    Err(Damage::new(top, Reason::TooDeep).into())
}

fn walk_below(
    root: &Root,
    id: u64,
    height: usize,
    visit: &mut impl FnMut(u64, Level) -> Result<bool, Damage>,
) -> Result<(), BoltError> {
    if height == 0 {
        if !(2..root.meta.high_water).contains(&id) {
            return Err(Damage::new(id, Reason::OutOfBounds).into());
        }
        visit(id, Level::Leaf)?;
        return Ok(());
    }
    let page = root.page(id)?;
    if page.kind() == Kind::Leaf {
        return Err(Damage::new(id, Reason::Uneven).into());
    }
    if visit(id, Level::Branch(page.pages()))? {
        for index in 0..page.count() {
            walk_below(root, page.child(index), height - 1, visit)?;
        }
    }
    Ok(())
}
