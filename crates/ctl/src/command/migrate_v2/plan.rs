//! What is to be in API v3: from trees of API v2 to keys, values and times to live. No request is
//! made here.
//!
//! ```text
//! directory   its path is in its keys; an empty one is left out, or becomes an empty key
//! key         the same path, transformed by the rule, and the same value
//! expiration  the nearest one of the key and all directories above it
//! ```

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use crate::go::quote::quote;
use crate::v2::Node;

/// How keys of API v2 are named in API v3.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyRule {
    /// A path; removed from its own directory's keys. Without a slash at its end.
    pub(super) strip_prefix: String,
    /// Whether keys start with a slash, as paths do.
    pub(super) keeps_leading_slash: bool,
    /// Put before what the rest has left.
    pub(super) add_prefix: String,
}

impl KeyRule {
    fn apply(&self, path: &str) -> String {
        let below = path.strip_prefix(self.strip_prefix.as_str());
        let below = below.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let rest = below.unwrap_or(path);
        let rest = match self.keeps_leading_slash {
            true => rest,
            false => rest.strip_prefix('/').unwrap_or(rest),
        };
        format!("{}{rest}", self.add_prefix)
    }
}

/// A time to live.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Ttl {
    /// It is over.
    Expired,
    /// Seconds at the time of the reading, rounded up by the member that answered.
    Seconds(i64),
    /// There is none.
    Unlimited,
}

impl Ttl {
    /// That of a node alone. A node that has expired stays until the leader removes it; it has no
    /// time to live then, or one below zero.
    pub(super) fn of(node: &Node) -> Ttl {
        match (node.ttl, &node.expiration) {
            (1.., _) => Ttl::Seconds(node.ttl),
            (_, Some(_)) => Ttl::Expired,
            (_, None) => Ttl::Unlimited,
        }
    }
}

/// A key of API v3 that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Planned {
    /// Its path in API v2.
    pub(super) source: String,
    /// Its value.
    pub(super) value: String,
    /// Never [`Ttl::Expired`].
    pub(super) ttl: Ttl,
}

/// Why there is no plan.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum PlanError {
    /// Two keys become one.
    #[error(
        "{} and {} of API v2 would both be {} in API v3\nChoose other prefixes to strip and to add.",
        quote(first.as_bytes()), quote(second.as_bytes()), quote(key.as_bytes())
    )]
    SameKey {
        /// The key of API v3.
        key: String,
        /// A path of API v2.
        first: String,
        /// Another one.
        second: String,
    },
    /// API v3 has no key without a name.
    #[error(
        "nothing would be left of {} as a key of API v3\nAdd a prefix, or strip a shorter one.",
        quote(path.as_bytes())
    )]
    NoKey {
        /// Its path in API v2.
        path: String,
    },
}

/// What is to be in API v3.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// By key of API v3.
    pub(super) keys: BTreeMap<String, Planned>,
    /// Empty directories that become nothing.
    pub(super) directories_left_out: usize,
    /// Keys and empty directories that had expired when they were read.
    pub(super) expired: usize,
}

impl Plan {
    /// Adds a tree, below directories with a time to live of `above`. What has been added already is
    /// not added again.
    ///
    /// # Errors
    /// As [`PlanError`].
    pub(super) fn add(
        &mut self,
        tree: Node,
        above: Ttl,
        rule: &KeyRule,
        keeps_directories: bool,
    ) -> Result<(), PlanError> {
        let mut left = vec![(tree, above)];
        while let Some((node, above)) = left.pop() {
            let ttl = above.min(Ttl::of(&node));
            let is_root = node.key.is_empty();
            match node.nodes {
                Some(nodes) if !nodes.is_empty() => {
                    left.extend(nodes.into_iter().map(|node| (node, ttl)));
                }
                _ if is_root => {}
                _ if ttl == Ttl::Expired => self.expired += 1,
                _ if node.dir && !keeps_directories => self.directories_left_out += 1,
                _ => self.add_key(
                    rule.apply(&node.key),
                    Planned {
                        source: node.key,
                        value: node.value,
                        ttl,
                    },
                )?,
            }
        }
        Ok(())
    }

    fn add_key(&mut self, key: String, planned: Planned) -> Result<(), PlanError> {
        if key.is_empty() {
            return Err(PlanError::NoKey {
                path: planned.source,
            });
        }
        match self.keys.entry(key) {
            Entry::Vacant(place) => {
                place.insert(planned);
                Ok(())
            }
            Entry::Occupied(other) if other.get().source == planned.source => Ok(()),
            Entry::Occupied(other) => Err(PlanError::SameKey {
                key: other.key().clone(),
                first: other.get().source.clone(),
                second: planned.source,
            }),
        }
    }
}

/// Cuts `items` into pieces of at most `items_max` items and, unless it is a single item,
/// `bytes_max` bytes.
pub(super) fn batches<T>(
    items: &[T],
    bytes: impl Fn(&T) -> usize,
    items_max: usize,
    bytes_max: usize,
) -> Vec<&[T]> {
    let mut batches = Vec::new();
    let (mut start, mut size) = (0, 0);
    for (position, item) in items.iter().enumerate() {
        let item = bytes(item);
        let is_full = position - start == items_max || size + item > bytes_max;
        if is_full && position > start {
            batches.push(&items[start..position]);
            (start, size) = (position, 0);
        }
        size += item;
    }
    if start < items.len() {
        batches.push(&items[start..]);
    }
    batches
}

/// A path of API v2 as its nodes have it: with a slash at the start and none at the end; empty for
/// the root.
pub(super) fn normalized(path: &str) -> String {
    let components = path.split('/').filter(|component| !component.is_empty());
    components
        .map(|component| format!("/{component}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AS_IT_IS: KeyRule = KeyRule {
        strip_prefix: String::new(),
        keeps_leading_slash: true,
        add_prefix: String::new(),
    };

    fn key(path: &str, value: &str) -> Node {
        Node {
            key: path.to_owned(),
            value: value.to_owned(),
            ..Node::default()
        }
    }

    fn directory<const N: usize>(path: &str, nodes: [Node; N]) -> Node {
        Node {
            key: path.to_owned(),
            dir: true,
            nodes: (N > 0).then(|| nodes.into()),
            ..Node::default()
        }
    }

    fn expiring(node: Node, ttl: i64) -> Node {
        Node {
            ttl,
            expiration: Some("2030-01-01T00:00:00Z".to_owned()),
            ..node
        }
    }

    /// A line per key, then the counts.
    fn plan(tree: Node, rule: &KeyRule, keeps_directories: bool) -> String {
        let mut plan = Plan::default();
        let added = plan.add(tree, Ttl::Unlimited, rule, keeps_directories);
        added.expect("a plan");
        let line = |(key, planned): (&String, &Planned)| {
            format!("{key}={} {:?}\n", planned.value, planned.ttl)
        };
        let keys: String = plan.keys.iter().map(line).collect();
        format!("{keys}{} {}", plan.directories_left_out, plan.expired)
    }

    #[test]
    fn keys_keep_their_paths_and_values() {
        let tree = directory(
            "",
            [
                directory("/b", [key("/b/c", "1"), directory("/b/e", [])]),
                key("/a", ""),
            ],
        );
        let keys = "/a= Unlimited\n/b/c=1 Unlimited\n";
        assert_eq!(plan(tree.clone(), &AS_IT_IS, false), format!("{keys}1 0"));
        let keys = "/a= Unlimited\n/b/c=1 Unlimited\n/b/e= Unlimited\n";
        assert_eq!(plan(tree, &AS_IT_IS, true), format!("{keys}0 0"));
        assert_eq!(plan(directory("", []), &AS_IT_IS, true), "0 0");
    }

    #[test]
    fn keys_end_with_the_first_directory_above_that_ends() {
        let sooner = expiring(key("/d/sooner", "1"), 5);
        let later = expiring(key("/d/e/later", "2"), 90);
        let over = expiring(key("/d/over", "3"), 0);
        let below = directory("/d/e", [later, key("/d/e/without", "4")]);
        let tree = expiring(directory("/d", [sooner, below, over]), 60);
        let keys = "/d/e/later=2 Seconds(60)\n/d/e/without=4 Seconds(60)\n/d/sooner=1 Seconds(5)\n";
        assert_eq!(plan(tree, &AS_IT_IS, false), format!("{keys}0 1"));
        let over = expiring(
            directory("/x", [key("/x/k", "1"), directory("/x/d", [])]),
            -1,
        );
        assert_eq!(plan(over, &AS_IT_IS, true), "0 2");
    }

    #[test]
    fn prefixes_are_stripped_and_added() {
        let check = |strip: &str, keeps_leading_slash, add: &str, path: &str, key: &str| {
            let rule = KeyRule {
                strip_prefix: normalized(strip),
                keeps_leading_slash,
                add_prefix: add.to_owned(),
            };
            assert_eq!(rule.apply(path), key);
        };
        check("", true, "", "/a/b", "/a/b");
        check("", false, "", "/a/b", "a/b");
        check("/a", true, "", "/a/b", "/b");
        check("a/", true, "", "/a/b", "/b");
        check("/a", true, "", "/ab/c", "/ab/c");
        check("/a", true, "", "/a", "");
        check("/a", true, "/new", "/a/b", "/new/b");
        check("/a", false, "new:", "/a/b", "new:b");
        check("/", true, "/v2", "/a", "/v2/a");
    }

    #[test]
    fn keys_of_one_name_or_none_are_refused() {
        let rule = KeyRule {
            strip_prefix: "/a".to_owned(),
            ..AS_IT_IS
        };
        let add = |tree| Plan::default().add(tree, Ttl::Unlimited, &rule, false);
        let same = directory("", [key("/a/x", "1"), key("/x", "2")]);
        let error = add(same).unwrap_err();
        assert!(
            matches!(&error, PlanError::SameKey { key, .. } if key == "/x"),
            "{error:?}"
        );
        let path = "/a".to_owned();
        assert_eq!(add(key("/a", "1")), Err(PlanError::NoKey { path }));
    }

    #[test]
    fn what_is_read_twice_is_one_key() {
        let mut plan = Plan::default();
        for _ in 0..2 {
            let tree = directory("/a", [key("/a/x", "1")]);
            plan.add(tree, Ttl::Unlimited, &AS_IT_IS, false)
                .expect("a plan");
        }
        assert_eq!(plan.keys.len(), 1);
    }

    #[test]
    fn batches_are_bounded_by_items_and_bytes() {
        let check = |sizes: &[usize], expected: &[&[usize]]| {
            assert_eq!(batches(sizes, |size| *size, 3, 10), expected);
        };
        check(&[], &[]);
        check(&[1, 1, 1, 1], &[&[1, 1, 1], &[1]]);
        check(&[5, 5, 1], &[&[5, 5], &[1]]);
        check(&[11, 1, 12], &[&[11], &[1], &[12]]);
    }

    #[test]
    fn paths_are_as_those_of_nodes() {
        let check = |path: &str, expected: &str| assert_eq!(normalized(path), expected);
        check("/", "");
        check("", "");
        check("a/b/", "/a/b");
        check("//a//_b", "/a/_b");
    }
}
