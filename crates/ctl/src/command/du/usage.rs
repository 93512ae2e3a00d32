//! Sums of keys, in memory that is bounded by the number of groups and not of keys.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashSet};

use retcd_proto::mvccpb::KeyValue;
use serde::Serialize;

use super::layout::{Group, Layout};
use crate::command::pages::bytes_of;

/// Groups that are told apart; keys of further ones are added up as one.
const GROUPS_MAX: usize = 100_000;

/// What a set of keys takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Usage {
    /// The number of keys.
    pub(super) keys: u64,
    /// Of keys and values.
    pub(super) bytes: u64,
    /// How often the keys were written since they were created.
    pub(super) versions: u64,
    /// Keys that are attached to a lease.
    pub(super) keys_with_lease: u64,
}

impl Usage {
    fn add(&mut self, kv: &KeyValue) {
        self.keys += 1;
        self.bytes += bytes_of(kv) as u64;
        self.versions += u64::try_from(kv.version).unwrap_or(0);
        self.keys_with_lease += u64::from(kv.lease != 0);
    }

    /// Adds the sums of other keys.
    pub(super) fn join(&mut self, other: &Usage) {
        self.keys += other.keys;
        self.bytes += other.bytes;
        self.versions += other.versions;
        self.keys_with_lease += other.keys_with_lease;
    }
}

/// A member's database, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Database {
    pub(super) size: u64,
    pub(super) in_use: u64,
    /// 0 if the member does not tell it.
    pub(super) quota: u64,
}

/// One of the largest keys. Ordered by size.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct LargeKey {
    pub(super) bytes: u64,
    pub(super) key: Vec<u8>,
    pub(super) version: i64,
    pub(super) lease: i64,
}

/// By resource and namespace.
pub(super) type Resources = BTreeMap<(Vec<u8>, Vec<u8>), Usage>;

/// The sums.
pub(super) struct Usages {
    layout: Layout,
    largest_max: usize,
    pub(super) all: Usage,
    /// By prefix; the keys of Kubernetes are not among them.
    pub(super) prefixes: BTreeMap<Vec<u8>, Usage>,
    pub(super) resources: Resources,
    /// Keys of groups beyond the maximum.
    pub(super) others: Usage,
    pub(super) leases: HashSet<i64>,
    largest: BinaryHeap<Reverse<LargeKey>>,
}

impl Usages {
    /// No keys yet. The `largest_max` largest ones will be kept.
    pub(super) fn new(layout: Layout, largest_max: usize) -> Usages {
        Usages {
            layout,
            largest_max,
            all: Usage::default(),
            prefixes: BTreeMap::new(),
            resources: BTreeMap::new(),
            others: Usage::default(),
            leases: HashSet::new(),
            largest: BinaryHeap::new(),
        }
    }

    /// Adds a key.
    pub(super) fn add(&mut self, kv: &KeyValue) {
        self.all.add(kv);
        if kv.lease != 0 {
            self.leases.insert(kv.lease);
        }
        self.keep_if_large(kv);
        let is_full = self.prefixes.len() + self.resources.len() >= GROUPS_MAX;
        let usage = match self.layout.group(&kv.key) {
            Group::Prefix(prefix) => group(&mut self.prefixes, prefix.to_vec(), is_full),
            Group::Resource { name, namespace } => {
                let key = (name.to_vec(), namespace.to_vec());
                group(&mut self.resources, key, is_full)
            }
        };
        usage.unwrap_or(&mut self.others).add(kv);
    }

    fn keep_if_large(&mut self, kv: &KeyValue) {
        let bytes = bytes_of(kv) as u64;
        let smallest = self.largest.peek().map_or(0, |Reverse(key)| key.bytes);
        if self.largest.len() >= self.largest_max && bytes <= smallest {
            return;
        }
        self.largest.push(Reverse(LargeKey {
            bytes,
            key: kv.key.to_vec(),
            version: kv.version,
            lease: kv.lease,
        }));
        if self.largest.len() > self.largest_max {
            self.largest.pop();
        }
    }

    /// The largest keys, the largest one first.
    pub(super) fn take_largest(&mut self) -> Vec<LargeKey> {
        let sorted = std::mem::take(&mut self.largest).into_sorted_vec();
        sorted.into_iter().map(|Reverse(key)| key).collect()
    }
}

/// The sums of a group; `None` for a new one if there are too many.
fn group<K: Ord>(groups: &mut BTreeMap<K, Usage>, key: K, is_full: bool) -> Option<&mut Usage> {
    if is_full {
        return groups.get_mut(&key);
    }
    Some(groups.entry(key).or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kv(key: &str, value_len: usize, version: i64, lease: i64) -> KeyValue {
        KeyValue {
            key: key.as_bytes().to_vec().into(),
            value: vec![0; value_len].into(),
            version,
            lease,
            ..KeyValue::default()
        }
    }

    fn usages(largest_max: usize) -> Usages {
        Usages::new(Layout::new(b"", b"/".to_vec(), 1, "/registry"), largest_max)
    }

    #[test]
    fn adds_up_by_group() {
        let mut usages = usages(2);
        usages.add(&kv("/a/b", 10, 1, 7));
        usages.add(&kv("/a/c", 30, 5, 7));
        usages.add(&kv("/registry/pods/x/y", 20, 2, 8));
        usages.add(&kv("z", 1, 1, 0));
        let all = Usage {
            keys: 4,
            bytes: 14 + 34 + 38 + 2,
            versions: 9,
            keys_with_lease: 3,
        };
        assert_eq!((usages.all, usages.leases.len()), (all, 2));
        let prefixes: Vec<_> = usages
            .prefixes
            .iter()
            .map(|(name, usage)| (&name[..], usage.keys))
            .collect();
        assert_eq!(prefixes, [(&b""[..], 1), (b"/a/", 2)]);
        let pods = (b"pods".to_vec(), b"x".to_vec());
        assert_eq!(
            usages.resources.get(&pods).map(|usage| usage.bytes),
            Some(38)
        );
        let largest = usages.take_largest();
        let names: Vec<_> = largest.iter().map(|key| &key.key[..]).collect();
        assert_eq!(names, [&b"/registry/pods/x/y"[..], b"/a/c"]);
    }

    #[test]
    fn memory_is_bounded() {
        let mut usages = usages(0);
        for index in 0..GROUPS_MAX + 5 {
            usages.add(&kv(&format!("/{index}/k"), 1, 1, 0));
        }
        usages.add(&kv("/0/l", 1, 1, 0));
        assert_eq!(usages.prefixes.len(), GROUPS_MAX);
        assert_eq!(
            (usages.others.keys, usages.prefixes[&b"/0/"[..]].keys),
            (5, 2)
        );
        assert!(usages.take_largest().is_empty());
    }
}
