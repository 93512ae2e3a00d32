//! What a user may touch: the permissions of all its roles as one list of disjoint ranges.
//!
//! ```text
//! permissions:   [a ───── e)   [c ──────── k)      [k]     [x ─────▶
//! merged:        [a ──────────────────────────── k\0)      [x ─────▶
//! ```
//!
//! Ranges that overlap or touch become one, so that a request is covered exactly if one range
//! covers it: a lookup is a binary search. A permission without a range end is for one key, one
//! with the range end `\0` for everything from its key on, as in requests.
//!
//! What is not a range at all (an end below its start) is in no such list. Old data may hold it as
//! a permission, and requests may ask for it; then an [`IntervalTree`] decides, as in etcd.

use std::sync::OnceLock;

use retcd_proto::authpb::{Permission, User, permission};

use super::ROOT;
use super::interval_tree::{Interval, IntervalTree, compare};

/// The range end that stands for no end.
pub(super) const OPEN_END: &[u8] = b"\0";

/// What a permission is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// To see keys.
    Read,
    /// To put and delete them.
    Write,
}

/// What some permissions are for. A bound without bytes is the greatest of all, as an end none.
#[derive(Clone, Debug, Default)]
pub(super) struct KeyRanges {
    /// In the order in which they are granted.
    granted: Vec<Interval>,
    /// Disjoint, not touching, ascending; of use if all that was granted is a range.
    merged: Vec<Interval>,
    all_are_ranges: bool,
    tree: OnceLock<IntervalTree>,
}

fn interval(key: &[u8], range_end: &[u8]) -> Interval {
    match range_end {
        [] => Interval::point(key),
        OPEN_END => Interval {
            from: key.to_vec(),
            to: Vec::new(),
        },
        end => Interval {
            from: key.to_vec(),
            to: end.to_vec(),
        },
    }
}

impl KeyRanges {
    fn of<'a>(permissions: impl Iterator<Item = &'a Permission>) -> KeyRanges {
        let granted: Vec<Interval> = permissions
            .map(|permission| interval(&permission.key, &permission.range_end))
            .collect();
        KeyRanges {
            all_are_ranges: granted.iter().all(|i| compare(&i.from, &i.to).is_lt()),
            merged: merged(granted.clone()),
            tree: OnceLock::new(),
            granted,
        }
    }

    /// Whether the whole request lies within: one key, or a range with `range_end`.
    pub(super) fn covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        let is_range =
            !key.is_empty() && (range_end.is_empty() || range_end == OPEN_END || key <= range_end);
        if is_range && self.all_are_ranges {
            self.one_covers(key, range_end)
        } else {
            self.tree_covers(key, range_end)
        }
    }

    fn one_covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        let after = self.merged.partition_point(|range| &range.from[..] <= key);
        let Some(range) = after.checked_sub(1).map(|at| &self.merged[at]) else {
            return false;
        };
        let to = &range.to[..];
        to.is_empty() || (range_end != OPEN_END && key < to && range_end <= to)
    }

    fn tree_covers(&self, key: &[u8], range_end: &[u8]) -> bool {
        let tree = self
            .tree
            .get_or_init(|| IntervalTree::of(self.granted.iter()));
        let wanted = interval(key, range_end);
        match range_end {
            [] => tree.intersects(&wanted),
            _ => tree.contains(&wanted),
        }
    }
}

fn merged(mut ranges: Vec<Interval>) -> Vec<Interval> {
    ranges.sort_by(|a, b| compare(&a.from, &b.from));
    let mut merged: Vec<Interval> = Vec::new();
    for range in ranges {
        match merged.last_mut() {
            Some(last) if compare(&last.to, &range.from).is_ge() => {
                if compare(&range.to, &last.to).is_gt() {
                    last.to = range.to;
                }
            }
            _ => merged.push(range),
        }
    }
    debug_assert!(
        merged.is_sorted_by(|a, b| compare(&a.to, &b.from).is_lt()),
        "merged ranges touch: {merged:?}"
    );
    merged
}

/// All that a user may do.
#[derive(Clone, Debug, Default)]
pub(super) struct Rights {
    read: KeyRanges,
    write: KeyRanges,
}

impl Rights {
    pub(super) fn of<'a>(permissions: impl Iterator<Item = &'a Permission> + Clone) -> Rights {
        use permission::Type::{Read, Readwrite, Write};
        let of_types = |types: [permission::Type; 2]| {
            let wanted = |permission: &&Permission| {
                types
                    .iter()
                    .any(|wanted| permission.perm_type == *wanted as i32)
            };
            KeyRanges::of(permissions.clone().filter(wanted))
        };
        Rights {
            read: of_types([Read, Readwrite]),
            write: of_types([Write, Readwrite]),
        }
    }

    pub(super) fn ranges(&self, access: Access) -> &KeyRanges {
        match access {
            Access::Read => &self.read,
            Access::Write => &self.write,
        }
    }
}

/// A user, and what follows from its roles as long as nobody changes them.
#[derive(Clone, Debug)]
pub(super) struct Account {
    user: User,
    is_root: bool,
    /// Merged when it is first asked for, so that a change of a role costs nothing for those who
    /// have it and do not come.
    rights: OnceLock<Rights>,
}

impl PartialEq for Account {
    /// What is merged already makes no difference.
    fn eq(&self, other: &Account) -> bool {
        self.user == other.user
    }
}

impl Account {
    pub(super) fn new(user: User) -> Account {
        Account {
            is_root: user.roles.iter().any(|role| role == ROOT),
            rights: OnceLock::new(),
            user,
        }
    }

    pub(super) fn user(&self) -> &User {
        &self.user
    }

    /// Whether the user has the role that may do everything.
    pub(super) fn is_root(&self) -> bool {
        self.is_root
    }

    pub(super) fn has_role(&self, role: &str) -> bool {
        self.user.roles.iter().any(|granted| granted == role)
    }

    /// To be called when a role of the user has changed.
    pub(super) fn forget_rights(&mut self) {
        self.rights = OnceLock::new();
    }

    /// What the user may do, found out with `merge` unless it is known.
    pub(super) fn rights(&self, merge: impl FnOnce() -> Rights) -> &Rights {
        self.rights.get_or_init(merge)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permission(key: &[u8], range_end: &[u8]) -> Permission {
        Permission {
            perm_type: permission::Type::Readwrite as i32,
            key: key.to_vec().into(),
            range_end: range_end.to_vec().into(),
        }
    }

    fn ranges(permissions: &[(&str, &str)]) -> KeyRanges {
        let permissions: Vec<_> = permissions
            .iter()
            .map(|(key, end)| permission(key.as_bytes(), end.as_bytes()))
            .collect();
        KeyRanges::of(permissions.iter())
    }

    #[track_caller]
    fn check(permissions: &[(&str, &str)], request: (&str, &str), expected: bool) {
        let covered = ranges(permissions).covers(request.0.as_bytes(), request.1.as_bytes());
        assert_eq!(covered, expected, "{permissions:?} {request:?}");
    }

    #[test]
    fn a_request_needs_all_of_its_range() {
        let ranges = [("a", "c"), ("c", "e"), ("k", ""), ("x", "\0")];
        check(&ranges, ("a", "e"), true);
        check(&ranges, ("a", "e\0"), false);
        check(&ranges, ("b", ""), true);
        check(&ranges, ("e", ""), false);
        check(&ranges, ("Z", "b"), false);
        check(&ranges, ("k", ""), true);
        check(&ranges, ("k", "k\0"), true);
        check(&ranges, ("k", "l"), false);
        check(&ranges, ("k\0", ""), false);
        check(&ranges, ("x", "\0"), true);
        check(&ranges, ("y", "z"), true);
        check(&ranges, ("w", "\0"), false);
        check(&ranges, ("a", "\0"), false);
        check(&[], ("a", ""), false);
    }

    #[test]
    fn keys_and_ranges_that_touch_are_one() {
        check(&[("k", ""), ("k\0", "m")], ("k", "m"), true);
        check(&[("k", ""), ("k\0\0", "m")], ("k", "m"), false);
        check(&[("b", "d"), ("a", "f"), ("c", "e")], ("a", "f"), true);
        let one = ranges(&[("a", "c"), ("b", "\0"), ("d", "e")]);
        assert_eq!(one.merged.len(), 1);
    }

    #[test]
    fn what_is_no_range_is_for_nothing() {
        for nothing in [("", ""), ("", "\0"), ("c", "c"), ("c", "a")] {
            assert!(!ranges(&[nothing]).all_are_ranges);
            check(&[nothing], ("b", ""), false);
            check(&[nothing, ("a", "d")], ("b", ""), true);
        }
    }

    /// Where keys say nothing the shape of the tree does.
    #[test]
    fn a_reversed_request_is_decided_as_by_etcd() {
        let permissions = [("a", "d"), ("e", "g"), ("h", "k")];
        check(&permissions, ("f", "b"), true);
        check(&permissions, ("i", "b"), false);
        check(&permissions, ("i", "f"), true);
        check(&permissions, ("c", "b"), true);
        check(&permissions, ("d", "a"), false);
        // One for nothing between two keys is as one for its key.
        check(&permissions, ("c", "c"), true);
        check(&permissions, ("d", "d"), false);
    }

    /// Against keys one by one, over an alphabet that has every odd case.
    #[test]
    fn ranges_are_as_their_keys() {
        let keys: Vec<Vec<u8>> = words();
        for seed in 0..300 {
            let mut rng = fastrand::Rng::with_seed(seed);
            let ends: Vec<Vec<u8>> = [Vec::new(), vec![0]].into_iter().chain(words()).collect();
            let pick = |rng: &mut fastrand::Rng, of: &[Vec<u8>]| of[rng.usize(..of.len())].clone();
            let permissions: Vec<_> = (0..rng.usize(..6))
                .map(|_| permission(&pick(&mut rng, &keys), &pick(&mut rng, &ends)))
                .collect();
            let is_range = |p: &&Permission| {
                let (key, end) = (&p.key[..], &p.range_end[..]);
                end.is_empty() || end == OPEN_END || key < end
            };
            let permissions: Vec<_> = permissions.iter().filter(is_range).cloned().collect();
            let ranges = KeyRanges::of(permissions.iter());
            let allowed =
                |key: &Vec<u8>| permissions.iter().any(|p| is_in(key, &p.key, &p.range_end));
            for key in &keys {
                assert_eq!(ranges.covers(key, b""), allowed(key));
                assert_eq!(ranges.tree_covers(key, b""), allowed(key));
                for end in &ends[2..] {
                    if key < end {
                        // Words are dense enough: what lies between two of them behaves as the
                        // lower.
                        let all = keys
                            .iter()
                            .filter(|word| *word >= key && *word < end)
                            .all(allowed);
                        let none_between = all && !touches_gap(&permissions, key, end);
                        assert_eq!(
                            ranges.covers(key, end),
                            none_between,
                            "{permissions:?} {key:?} {end:?}"
                        );
                        assert_eq!(ranges.tree_covers(key, end), none_between);
                    }
                }
            }
        }
    }

    /// One and two letters of a tiny alphabet.
    fn words() -> Vec<Vec<u8>> {
        let letters = [0u8, 1, 2];
        let mut words: Vec<Vec<u8>> = letters.iter().map(|&letter| vec![letter]).collect();
        for a in letters {
            words.extend(letters.iter().map(|&b| vec![a, b]));
        }
        words.retain(|word| word != &[0]);
        words.sort();
        words
    }

    fn is_in(key: &[u8], from: &[u8], end: &[u8]) -> bool {
        match end {
            [] => key == from,
            [0] => key >= from,
            end => key >= from && key < end,
        }
    }

    /// Whether a key just above a word of the range, which is no word itself, is not allowed.
    fn touches_gap(permissions: &[Permission], key: &[u8], end: &[u8]) -> bool {
        words()
            .iter()
            .filter(|word| &word[..] >= key && &word[..] < end)
            .map(|word| [&word[..], &[0, 0, 0]].concat())
            .filter(|above| &above[..] < end)
            .any(|above| {
                !permissions
                    .iter()
                    .any(|p| is_in(&above, &p.key, &p.range_end))
            })
    }
}
