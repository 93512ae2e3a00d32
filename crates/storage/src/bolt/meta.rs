//! The two meta pages, which say where everything else is.
//!
//! ```text
//! page header   flags 4
//! 16  u32 magic 0xED0CDAED      32  u64 root page            56  u64 high-water mark
//! 20  u32 version 2             40  u64 root sequence        64  u64 transaction
//! 24  u32 page size             48  u64 freelist page        72  u64 FNV-1a of bytes 16..72
//! 28  u32 flags 0
//! ```
//! Transaction N writes page N % 2; of the valid ones the higher transaction counts. So the page of
//! the transaction before stays whole until the new one is durable.

use super::error::{Damage, Reason};
use super::page::{HEADER_BYTES, Header, META, u32_at, u64_at};

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;
/// What stands in place of a freelist's page when none is stored.
pub(crate) const NO_FREELIST: u64 = u64::MAX;
/// Bytes of a meta page that mean something.
pub(crate) const META_BYTES: usize = HEADER_BYTES + 64;
/// The smallest page size that is searched for a second meta page, and the largest.
const PAGE_SIZES: std::ops::RangeInclusive<u32> = 1 << 10..=1 << 24;

/// What a meta page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    /// Bytes of a page.
    pub(crate) page_size: u32,
    /// The root of the tree of buckets.
    pub(crate) root: u64,
    /// The page of a stored freelist, or [`NO_FREELIST`].
    pub(crate) freelist: u64,
    /// The first page that was never used: the file's used part ends there.
    pub(crate) high_water: u64,
    /// The transaction that wrote it.
    pub(crate) txid: u64,
}

impl Meta {
    /// Reads a meta page from its first [`META_BYTES`] bytes; `None` if it is not valid.
    pub(crate) fn read(bytes: &[u8]) -> Option<Meta> {
        let body = bytes.get(HEADER_BYTES..META_BYTES)?;
        let valid = u32_at(body, 0) == MAGIC
            && u32_at(body, 4) == VERSION
            && u64_at(body, 56) == fnv1a(&body[..56]);
        valid.then(|| Meta {
            page_size: u32_at(body, 8),
            root: u64_at(body, 16),
            freelist: u64_at(body, 32),
            high_water: u64_at(body, 40),
            txid: u64_at(body, 48),
        })
    }

    /// Writes the meta page with number `slot` (0 or 1) to the start of `bytes`.
    pub(crate) fn write(&self, bytes: &mut [u8], slot: u64) {
        assert!(slot < 2, "meta page {slot}");
        assert!(
            (2..self.high_water).contains(&self.root),
            "root {} of a file of {} pages",
            self.root,
            self.high_water
        );
        Header {
            id: slot,
            flags: META,
            count: 0,
            overflow: 0,
        }
        .write(bytes);
        let body = &mut bytes[HEADER_BYTES..META_BYTES];
        body.fill(0);
        body[0..4].copy_from_slice(&MAGIC.to_le_bytes());
        body[4..8].copy_from_slice(&VERSION.to_le_bytes());
        body[8..12].copy_from_slice(&self.page_size.to_le_bytes());
        body[16..24].copy_from_slice(&self.root.to_le_bytes());
        body[32..40].copy_from_slice(&self.freelist.to_le_bytes());
        body[40..48].copy_from_slice(&self.high_water.to_le_bytes());
        body[48..56].copy_from_slice(&self.txid.to_le_bytes());
        let sum = fnv1a(&body[..56]);
        body[56..64].copy_from_slice(&sum.to_le_bytes());
        let read = Meta::read(bytes);
        assert_eq!(read, Some(*self), "a meta page says what was written");
    }

    /// Chooses the meta page that counts. `read` gives the bytes at an offset, fewer at the file's
    /// end.
    pub(crate) fn choose<E: From<Damage>>(
        mut read: impl FnMut(u64) -> Result<Vec<u8>, E>,
    ) -> Result<Meta, E> {
        let first = Meta::read(&read(0)?).filter(|meta| PAGE_SIZES.contains(&meta.page_size));
        let second = match first {
            Some(first) => Meta::read(&read(u64::from(first.page_size))?)
                .filter(|m| m.page_size == first.page_size),
            None => Meta::search(&mut read)?,
        };
        let newer = [first, second]
            .into_iter()
            .flatten()
            .max_by_key(|meta| meta.txid);
        let meta = newer.ok_or_else(|| Damage::new(0, Reason::NoMeta))?;
        if !meta.page_size.is_power_of_two() {
            return Err(Damage::new(0, Reason::PageSize(meta.page_size)).into());
        }
        Ok(meta)
    }

    /// Looks for the second meta page where the first one, which knows the page size, is lost.
    fn search<E>(read: &mut impl FnMut(u64) -> Result<Vec<u8>, E>) -> Result<Option<Meta>, E> {
        let mut page_size = *PAGE_SIZES.start();
        while PAGE_SIZES.contains(&page_size) {
            let meta = Meta::read(&read(u64::from(page_size))?);
            if let Some(meta) = meta.filter(|meta| meta.page_size == page_size) {
                return Ok(Some(meta));
            }
            page_size *= 2;
        }
        Ok(None)
    }
}

/// The 64-bit FNV-1a hash.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(txid: u64, page_size: u32) -> Meta {
        Meta {
            page_size,
            root: 3,
            freelist: NO_FREELIST,
            high_water: 4,
            txid,
        }
    }

    /// The outcome of choosing between two meta pages in a file of pages of 4096 bytes.
    fn choose(first: Option<Meta>, second: Option<Meta>) -> Result<Meta, Damage> {
        let size = second.map_or(4096, |meta| meta.page_size as usize);
        let mut file = vec![0u8; size * 2];
        for (slot, meta) in [first, second].into_iter().enumerate() {
            if let Some(meta) = meta {
                meta.write(&mut file[slot * size..], slot as u64);
            }
        }
        Meta::choose(|at| {
            Ok(file
                .get(at as usize..)
                .unwrap_or(&[])
                .iter()
                .take(META_BYTES)
                .copied()
                .collect())
        })
    }

    #[test]
    fn the_newer_valid_page_counts() {
        assert_eq!(
            choose(Some(meta(4, 4096)), Some(meta(5, 4096))),
            Ok(meta(5, 4096))
        );
        assert_eq!(
            choose(Some(meta(6, 4096)), Some(meta(5, 4096))),
            Ok(meta(6, 4096))
        );
        assert_eq!(choose(Some(meta(6, 4096)), None), Ok(meta(6, 4096)));
    }

    #[test]
    fn a_lost_first_page_leaves_the_second_at_any_page_size() {
        for shift in 10..=24 {
            assert_eq!(
                choose(None, Some(meta(5, 1 << shift))),
                Ok(meta(5, 1 << shift))
            );
        }
        assert_eq!(choose(None, None), Err(Damage::new(0, Reason::NoMeta)));
    }

    #[test]
    fn every_flipped_bit_makes_a_meta_page_invalid() {
        let mut bytes = vec![0u8; META_BYTES];
        meta(7, 4096).write(&mut bytes, 1);
        for bit in HEADER_BYTES * 8..META_BYTES * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(Meta::read(&bytes), None, "bit {bit}");
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
        assert_eq!(Meta::read(&bytes), Some(meta(7, 4096)));
    }
}
