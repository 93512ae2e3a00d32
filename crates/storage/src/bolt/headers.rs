//! Reading many headers of nodes.
//!
//! Which pages a file uses is known when the header of each leaf was read, which says how many pages
//! it has. A file of some gigabytes has a million of them.

use super::bitmap::Bitmap;
use super::error::BoltError;
use super::page::{HEADER_BYTES, Header};
use super::pager::Pager;

/// Reads headers in the order of their pages. Where most pages are asked for, a system call for many
/// pages costs less than one for each header.
pub(crate) struct Headers<'p> {
    pager: &'p Pager,
    high_water: u64,
    /// Pages from `from` on.
    bytes: Vec<u8>,
    from: u64,
}

impl<'p> Headers<'p> {
    /// Pages that are read at once.
    const PAGES: u64 = 32;
    /// Of these at least so many must be asked for.
    const WANTED_MIN: u64 = Headers::PAGES / 2;

    /// Of nodes of a root whose high-water mark is `high_water`.
    pub(crate) fn new(pager: &'p Pager, high_water: u64) -> Headers<'p> {
        Headers {
            pager,
            high_water,
            bytes: Vec::new(),
            from: 0,
        }
    }

    /// The header of the node at page `id`, which is one of `wanted`.
    pub(crate) fn read(&mut self, id: u64, wanted: &Bitmap) -> Result<Header, BoltError> {
        let Headers {
            pager, high_water, ..
        } = *self;
        if self.at(id).is_none() {
            let end = (id + Headers::PAGES).min(high_water);
            if (id..end).filter(|page| wanted.contains(*page)).count()
                < Headers::WANTED_MIN as usize
            {
                return pager.read_header(id, high_water);
            }
            self.bytes.resize(pager.offset(end - id) as usize, 0);
            self.from = id;
            pager
                .file()
                .read_exact_at(&mut self.bytes, pager.offset(id))?;
        }
        let bytes = self.at(id).expect("it was read just now");
        Ok(pager.header(bytes, id, high_water)?)
    }

    fn at(&self, id: u64) -> Option<&[u8]> {
        let start = self.pager.offset(id.checked_sub(self.from)?) as usize;
        self.bytes.get(start..)?.get(..HEADER_BYTES)
    }
}
