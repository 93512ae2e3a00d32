//! A file's bytes, kept sparse: pages that were never written take no memory and read as zeros.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::disk::blocks::touched;

const PAGE_BYTES: usize = 4096;

type Page = [u8; PAGE_BYTES];

/// Invariant: no page starts at or past `len`, and the bytes of the last page past `len` are zero.
#[derive(Clone, Default)]
pub(super) struct Content {
    pages: BTreeMap<u64, Arc<Page>>,
    len: u64,
}

impl Content {
    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// Copies bytes from `offset` on into `buf` and says how many there were.
    pub(super) fn read(&self, buf: &mut [u8], offset: u64) -> usize {
        let readable = self.len.saturating_sub(offset).min(buf.len() as u64) as usize;
        let buf = &mut buf[..readable];
        for (number, in_page, in_buf) in touched(PAGE_BYTES, offset, readable) {
            match self.pages.get(&number) {
                Some(page) => buf[in_buf].copy_from_slice(&page[in_page]),
                None => buf[in_buf].fill(0),
            }
        }
        readable
    }

    /// Writes `data` at `offset`, growing the file where needed.
    pub(super) fn write(&mut self, data: &[u8], offset: u64) {
        for (number, in_page, in_data) in touched(PAGE_BYTES, offset, data.len()) {
            let page = self
                .pages
                .entry(number)
                .or_insert_with(|| Arc::new([0; PAGE_BYTES]));
            Arc::make_mut(page)[in_page].copy_from_slice(&data[in_data]);
        }
        self.len = self.len.max(offset + data.len() as u64);
    }

    /// Cuts, or extends with zeros.
    pub(super) fn set_len(&mut self, len: u64) {
        if len < self.len {
            let kept = len.div_ceil(PAGE_BYTES as u64);
            self.pages.split_off(&kept);
            let tail = (len % PAGE_BYTES as u64) as usize;
            if tail != 0
                && let Some(page) = self.pages.get_mut(&(len / PAGE_BYTES as u64))
            {
                Arc::make_mut(page)[tail..].fill(0);
            }
        }
        self.len = len;
    }

    /// Makes the pages that hold `bytes`, and the length, the same as in `other`, sharing the
    /// memory.
    pub(super) fn take(&mut self, other: &Content, bytes: RangeInclusive<u64>) {
        let pages = bytes.start() / PAGE_BYTES as u64..=bytes.end() / PAGE_BYTES as u64;
        let stale: Vec<u64> = self
            .pages
            .range(pages.clone())
            .map(|(number, _)| *number)
            .collect();
        for number in stale {
            self.pages.remove(&number);
        }
        self.pages.extend(
            other
                .pages
                .range(pages)
                .map(|(number, page)| (*number, Arc::clone(page))),
        );
        self.len = other.len;
    }
}
