//! Where to split a run of elements into nodes.

use super::page::HEADER_BYTES;

/// Percent of a page that appended elements fill before the next page is begun, as etcd sets it for
/// bucket `key`.
const FILL_PERCENT: usize = 90;

/// Percent of its pages that a node fills at least before an element that does not fit any more
/// begins the next one. Elements of half a page or more would else leave much of each page empty.
const DENSE_PERCENT: usize = 80;

/// Pages of a node that is made larger only to be dense.
const DENSE_PAGES_MAX: usize = 8;

// A node is closed because it is dense at the latest when it would be closed because it is full.
const _: () = assert!(DENSE_PERCENT <= FILL_PERCENT && FILL_PERCENT <= 100);

/// A node with fewer bytes than this is joined with a neighbour.
pub(crate) fn underfull_below(page_size: usize) -> usize {
    page_size / 4
}

/// Splits elements of the given sizes (element, key and value) into nodes of at least `min`
/// elements and returns the number of elements of each.
///
/// Appended elements fill one page after the other, so that nodes written by an ascending run of
/// keys are dense; others are spread evenly, so that each node can take more. Where elements are so
/// large that single pages would be left half empty, several share a node of several pages.
pub(crate) fn split(sizes: &[usize], page_size: usize, append: bool, min: usize) -> Vec<usize> {
    let total = HEADER_BYTES + sizes.iter().sum::<usize>();
    if total <= page_size || sizes.len() < 2 * min {
        return vec![sizes.len()];
    }
    let full = page_size * FILL_PERCENT / 100;
    let target = match append {
        true => full,
        false => total.div_ceil(total.div_ceil(full)),
    };
    let mut nodes = fill(sizes, page_size, target, min);
    if let Some(last) = nodes.pop()
        && let Some(before) = nodes.pop()
    {
        let tail = &sizes[sizes.len() - before - last..];
        match append {
            true => nodes.extend(settle_appended(before, last, min)),
            false => nodes.extend(settle_spread(tail, before, page_size, min)),
        }
    } else {
        nodes.push(sizes.len());
    }
    let (placed, all) = (nodes.iter().sum::<usize>(), sizes.len());
    assert_eq!(placed, all, "every element has one node");
    let least = nodes.iter().min().copied().unwrap_or(0);
    assert!(least >= min, "a node of {least} elements, not {min}");
    nodes
}

/// Closes a node when it has reached `target` bytes for each of its pages, or when the next element
/// would not fit and it is dense.
fn fill(sizes: &[usize], page_size: usize, target: usize, min: usize) -> Vec<usize> {
    let mut nodes = Vec::new();
    let (mut count, mut bytes) = (0, HEADER_BYTES);
    for size in sizes {
        let pages = bytes.div_ceil(page_size);
        let fits = bytes + size <= pages * page_size;
        let dense = bytes * 100 >= pages * page_size * DENSE_PERCENT || pages >= DENSE_PAGES_MAX;
        if count >= min && (bytes >= pages * target || !fits && dense) {
            nodes.push(count);
            (count, bytes) = (0, HEADER_BYTES);
        }
        count += 1;
        bytes += size;
    }
    nodes.push(count);
    nodes
}

/// The last two nodes of an appended run. Only what the last one lacks is moved to it, so that the
/// one before stays dense.
fn settle_appended(before: usize, last: usize, min: usize) -> Vec<usize> {
    let moved = min.saturating_sub(last);
    match before - moved >= min {
        true => vec![before - moved, last + moved],
        false => vec![before + last],
    }
}

/// The last two nodes of elements that are spread, of which the first was to have `before`
/// elements. If the last one is too small, both are made equal, or one.
fn settle_spread(sizes: &[usize], before: usize, page_size: usize, min: usize) -> Vec<usize> {
    let bytes = |sizes: &[usize]| HEADER_BYTES + sizes.iter().sum::<usize>();
    let is_good = |count: usize| {
        let rest = &sizes[count..];
        rest.len() >= min && bytes(rest) >= underfull_below(page_size)
    };
    if is_good(before) {
        return vec![before, sizes.len() - before];
    }
    let half = bytes(sizes) / 2;
    let even = (min..=sizes.len() - min).find(|count| bytes(&sizes[..*count]) >= half);
    match even.filter(|count| bytes(sizes) > page_size && is_good(*count)) {
        Some(count) => vec![count, sizes.len() - count],
        None => vec![sizes.len()],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascending_runs_fill_pages_and_others_are_spread() {
        assert_eq!(split(&[100; 100], 4096, true, 1), [37, 37, 26]);
        assert_eq!(split(&[100; 100], 4096, false, 1), [34, 34, 32]);
    }

    #[test]
    fn a_small_element_shares_the_pages_of_a_large_one() {
        assert_eq!(split(&[50, 9000, 50], 4096, false, 1), [3]);
        assert_eq!(split(&[9000, 9000], 4096, false, 1), [2]);
    }

    #[test]
    fn large_elements_leave_little_empty() {
        for size in [1500, 2100, 2800, 3500, 4200, 5000, 6300, 7000, 9000] {
            for append in [true, false] {
                let sizes = [size; 1000];
                let nodes = split(&sizes, 4096, append, 1);
                let pages: usize = nodes
                    .iter()
                    .map(|count| (16 + count * size).div_ceil(4096))
                    .sum();
                let filled = 100 * 1000 * size / (pages * 4096);
                assert!(filled >= 78, "{size} bytes: {filled} % of {pages} pages");
                let largest = nodes.iter().max().map(|count| count * size);
                assert!(largest <= Some(9 * 4096), "{size} bytes: {nodes:?}");
            }
        }
    }

    #[test]
    fn nodes_cover_all_elements_and_none_is_too_small() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..20_000 {
            let largest = [40, 500, 3000, 20_000][rng.usize(0..4)];
            let elements = rng.usize(1..80);
            let sizes: Vec<usize> = (0..elements).map(|_| rng.usize(18..=largest)).collect();
            let (append, min) = (rng.bool(), rng.usize(1..=2));
            let nodes = split(&sizes, 4096, append, min);
            assert_eq!(nodes.iter().sum::<usize>(), elements);
            let smallest = nodes.iter().min();
            assert!(
                smallest >= Some(&min.min(elements)),
                "{nodes:?} of {sizes:?}"
            );

            let pages_of = |sizes: &[usize]| (16 + sizes.iter().sum::<usize>()).div_ceil(4096);
            let mut rest = sizes.as_slice();
            let mut pages = 0;
            for count in &nodes {
                let (node, after) = rest.split_at(*count);
                pages += pages_of(node);
                rest = after;
            }
            let alone: usize = sizes.chunks(1).map(pages_of).sum();
            assert!(
                pages <= alone,
                "{nodes:?} of {sizes:?}: {pages} pages, one by one {alone}"
            );
        }
    }
}
