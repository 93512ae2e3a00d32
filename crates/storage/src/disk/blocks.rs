//! Bytes at an offset as the blocks of a file that they touch.

use std::ops::Range;

/// The blocks of `block_bytes` each that `len` bytes from `offset` on touch: the block's number, the
/// range in it, and the range in the bytes.
pub(super) fn touched(
    block_bytes: usize,
    offset: u64,
    len: usize,
) -> impl Iterator<Item = (u64, Range<usize>, Range<usize>)> {
    let block_len = block_bytes as u64;
    let mut done = 0;
    std::iter::from_fn(move || {
        let at = offset + done as u64;
        let start = (at % block_len) as usize;
        let bytes = (block_bytes - start).min(len - done);
        let in_block = start..start + bytes;
        let in_bytes = done..done + bytes;
        done += bytes;
        (bytes > 0).then_some((at / block_len, in_block, in_bytes))
    })
}
