//! What the allocator keeps for later, and giving it back to the system.
//!
//! jemalloc gives pages back a while after they were used last (`.cargo/config.toml`), but finds time
//! for it only in between allocations: a member that has become idle would keep what its last busy
//! second took for as long as it idles.

use tikv_jemalloc_ctl::{Access, AsName, epoch};

/// Pages that an arena may keep for good.
const PAGES_KEPT: usize = 256;

/// Looks for arenas whose unused pages nobody takes or gives back.
#[derive(Default)]
pub(crate) struct IdleArenas {
    /// The unused pages of each at the last look.
    pages: Vec<usize>,
}

impl IdleArenas {
    /// Gives back what arenas keep that have as many unused pages as at the last look, a second ago
    /// or so: where threads allocate, the number changes.
    pub(crate) fn look(&mut self) {
        // Numbers are as of this.
        if epoch::advance().is_err() {
            return;
        }
        self.pages.resize(arenas() as usize, 0);
        for (arena, before) in (0..).zip(&mut self.pages) {
            let pages = unused_pages(arena);
            if pages > PAGES_KEPT && pages == *before {
                give_back_of(arena);
            }
            *before = pages;
        }
    }
}

/// Gives back everything that is kept for later.
pub(crate) fn give_back() {
    (0..arenas()).for_each(give_back_of);
}

fn arenas() -> u32 {
    "arenas.narenas\0".name().read().unwrap_or(0)
}

/// Not all arenas are in use; one that is not has none.
fn unused_pages(arena: u32) -> usize {
    let name = format!("stats.arenas.{arena}.pdirty\0");
    name.as_str().name().read().unwrap_or(0)
}

fn give_back_of(arena: u32) {
    let name = format!("arena.{arena}.dirty_decay_ms\0");
    let name = name.as_str().name();
    // No time to wait means that nothing is kept.
    let before: Result<isize, _> = name.read();
    if let Ok(before) = before
        && name.write(0isize).is_ok()
    {
        let _ = name.write(before);
    }
}
