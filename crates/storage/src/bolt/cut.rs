//! Where to cut a run of elements into nodes.

use std::ops::Range;

use super::page::HEADER_BYTES;

/// Percent of a page that appended elements fill before the next page is begun, as etcd sets it for
/// bucket `key`.
const FILL_PERCENT: usize = 90;

/// A node with fewer bytes than this is joined with a neighbour.
pub(crate) fn underfull_below(page_size: usize) -> usize {
    page_size / 4
}

/// Cuts elements of the given sizes (element, key and value) into nodes of at least `min` elements.
///
/// Appended elements fill one page after the other, so that nodes written by an ascending run of keys
/// are dense; others are spread evenly, so that each node can take more. A node is larger than a page only if
/// that cannot be avoided or costs no page more.
pub(crate) fn cut(
    sizes: &[usize],
    page_size: usize,
    append: bool,
    min: usize,
) -> Vec<Range<usize>> {
    let total = HEADER_BYTES + sizes.iter().sum::<usize>();
    if total <= page_size || sizes.len() < 2 * min {
        return vec![0..sizes.len()];
    }
    let full = page_size * FILL_PERCENT / 100;
    let target = match append {
        true => full,
        false => total.div_ceil(total.div_ceil(full)),
    };
    let mut nodes = fill(sizes, page_size, target, min);
    settle_last(&mut nodes, sizes, page_size, append, min);
    nodes
}

/// Closes a node when it has reached `target` bytes or the next element would not fit.
fn fill(sizes: &[usize], page_size: usize, target: usize, min: usize) -> Vec<Range<usize>> {
    let mut nodes = Vec::new();
    let (mut start, mut bytes) = (0, HEADER_BYTES);
    for (index, size) in sizes.iter().enumerate() {
        let fits = bytes + size <= page_size || bytes < underfull_below(page_size);
        if index - start >= min && (bytes >= target || !fits) {
            nodes.push(start..index);
            (start, bytes) = (index, HEADER_BYTES);
        }
        bytes += size;
    }
    nodes.push(start..sizes.len());
    nodes
}

/// Joins or evens out the last two nodes if the last one is too small.
fn settle_last(
    nodes: &mut Vec<Range<usize>>,
    sizes: &[usize],
    page_size: usize,
    append: bool,
    min: usize,
) {
    let bytes = |range: Range<usize>| HEADER_BYTES + sizes[range].iter().sum::<usize>();
    let [.., before, last] = nodes.as_slice() else {
        return;
    };
    let (start, middle, end) = (before.start, last.start, last.end);
    if append && end - middle < min {
        // Of an appended run only the missing elements move, so that the node before stays dense.
        let moved = (end - min).max(start);
        nodes.truncate(nodes.len() - 2);
        match moved - start >= min {
            true => nodes.extend([start..moved, moved..end]),
            false => nodes.push(start..end),
        }
        return;
    }
    if append || (end - middle >= min && bytes(middle..end) >= underfull_below(page_size)) {
        return;
    }
    nodes.truncate(nodes.len() - 2);
    let half = bytes(start..end) / 2;
    let place = (start + min..=end - min).find(|place| bytes(start..*place) >= half);
    let even = place.filter(|place| bytes(*place..end) >= underfull_below(page_size));
    match even {
        Some(place) if bytes(start..end) > page_size => nodes.extend([start..place, place..end]),
        _ => nodes.push(start..end),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascending_runs_fill_pages_and_others_are_spread() {
        let sizes = [100; 100];
        let append: Vec<_> = cut(&sizes, 4096, true, 1)
            .into_iter()
            .map(|node| node.len())
            .collect();
        assert_eq!(append, [37, 37, 26]);
        let spread: Vec<_> = cut(&sizes, 4096, false, 1)
            .into_iter()
            .map(|node| node.len())
            .collect();
        assert_eq!(spread, [34, 34, 32]);
    }

    #[test]
    fn a_small_element_shares_the_pages_of_a_large_one() {
        assert_eq!(cut(&[50, 9000, 50], 4096, false, 1), [0..3]);
        assert_eq!(cut(&[9000, 9000], 4096, false, 1), [0..1, 1..2]);
    }

    #[test]
    fn nodes_cover_all_elements_and_none_is_too_small() {
        let mut rng = fastrand::Rng::with_seed(2);
        for _ in 0..20_000 {
            let largest = [40, 500, 3000, 20_000][rng.usize(0..4)];
            let sizes: Vec<usize> = (0..rng.usize(1..80))
                .map(|_| rng.usize(18..=largest))
                .collect();
            let (append, min) = (rng.bool(), rng.usize(1..=2));
            let nodes = cut(&sizes, 4096, append, min);
            assert_eq!(nodes.first().map(|node| node.start), Some(0));
            assert_eq!(nodes.last().map(|node| node.end), Some(sizes.len()));
            assert!(
                nodes.windows(2).all(|pair| pair[0].end == pair[1].start),
                "{nodes:?}"
            );
            let smallest = nodes.iter().map(|node| node.len()).min();
            assert!(
                smallest >= Some(min.min(sizes.len())),
                "{nodes:?} of {sizes:?}"
            );
            let pages: usize = nodes
                .iter()
                .map(|node| (16 + sizes[node.clone()].iter().sum::<usize>()).div_ceil(4096))
                .sum();
            let alone: usize = sizes.iter().map(|size| (16 + size).div_ceil(4096)).sum();
            assert!(
                pages <= alone,
                "{nodes:?} of {sizes:?} take {pages} pages, one by one {alone}"
            );
        }
    }
}
