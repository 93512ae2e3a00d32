//! The index against a map.

use std::collections::BTreeMap;

use super::node::{FANOUT, Node};
use super::*;
use crate::mvcc::Fields;

fn put(key: &[u8], mod_revision: i64) -> Record {
    Record::encode(Fields {
        key,
        create_revision: 1,
        mod_revision,
        version: 1,
        value: b"v",
        lease: 0,
    })
}

/// key → (revision, live), as the index should have it.
type Model = BTreeMap<Vec<u8>, (i64, bool)>;

fn check(index: &KeyIndex, model: &Model, rng: &mut fastrand::Rng) {
    let bounds = [random_key(rng), random_key(rng)];
    for end in [None, Some(&bounds[1][..])] {
        let found: Vec<_> = index
            .walk(&bounds[0], end, Only::All)
            .map(|e| (e.key().to_vec(), (e.revision().main, e.is_live())))
            .collect();
        let inside = |key: &[u8]| key >= &bounds[0][..] && end.is_none_or(|end| key < end);
        let expected: Vec<_> = model
            .iter()
            .filter(|(key, _)| inside(key))
            .map(|(key, held)| (key.clone(), *held))
            .collect();
        assert_eq!(found, expected);
        let live = expected.iter().filter(|(_, (_, live))| *live).count();
        assert_eq!(index.count_live(&bounds[0], end), live);
    }
    assert_eq!(
        index.live(),
        model.values().filter(|(_, live)| *live).count()
    );
    let found = index
        .get(&bounds[0])
        .map(|e| (e.revision().main, e.is_live()));
    assert_eq!(found, model.get(&bounds[0]).copied());
}

/// Dense and sparse keys, with and without prefixes in common, and some that differ by zero
/// bytes.
fn random_key(rng: &mut fastrand::Rng) -> Vec<u8> {
    let wide = if rng.bool() { 40 } else { 3000 };
    let mut key = match rng.u8(..4) {
        0 => format!("{:03}", rng.u32(..wide)),
        1 => format!("/registry/pods/{}", rng.u32(..wide)),
        2 => format!("/registry/pods/default/web-{:05}", rng.u32(..wide)),
        _ => "ab".repeat(rng.usize(..6)),
    };
    key.push_str(&"\0".repeat(rng.usize(..3).saturating_sub(1)));
    key.into_bytes()
}

/// Puts, deletes and trims against a map; copies taken on the way must stay as they were.
#[test]
fn agrees_with_a_map() {
    let mut rng = fastrand::Rng::with_seed(3);
    for round in 0..12 {
        let mut model = Model::new();
        let mut index = KeyIndex::default();
        let mut copies = Vec::new();
        for revision in 2..1500 {
            let key = random_key(&mut rng);
            match rng.u8(..if round % 2 == 0 { 4 } else { 12 }) {
                0 => {
                    index.change(&key, 0, |_| Record::tombstone(&key, revision));
                    model.insert(key, (revision, false));
                }
                1 => {
                    let compacted = rng.i64(revision / 2..=revision);
                    for key in model.keys() {
                        index.trim(key, compacted);
                    }
                    model.retain(|_, (revision, live)| *live || *revision >= compacted);
                }
                _ => {
                    index.change(&key, 0, |_| put(&key, revision));
                    model.insert(key, (revision, true));
                }
            }
            if revision % 100 == 0 {
                copies.push((index.clone(), model.clone()));
            }
            if revision % 7 == 0 {
                check(&index, &model, &mut rng);
            }
        }
        for (index, model) in copies {
            check(&index, &model, &mut rng);
        }
    }
}

#[test]
fn ascending_keys_fill_the_leaves_and_bulk_loading_agrees() {
    let mut rng = fastrand::Rng::with_seed(4);
    for count in [0_usize, 1, 23, 24, 25, 1000, 40_000] {
        let mut model = Model::new();
        let mut grown = KeyIndex::default();
        let mut entries = Vec::new();
        for i in 0..count {
            let key = format!("{i:05}").into_bytes();
            grown.change(&key, 0, |_| put(&key, 2));
            entries.push(Entry::new(put(&key, 2), 0));
            model.insert(key, (2, true));
        }
        let leaves = count.div_ceil(FANOUT).max(1);
        assert_eq!(leaves_below(&grown.root), leaves, "all are full");
        let loaded = KeyIndex::from_leaves(vec![Leaves::new(entries)]);
        for _ in 0..20 {
            check(&grown, &model, &mut rng);
            check(&loaded, &model, &mut rng);
        }
    }
}

fn leaves_below(node: &Node) -> usize {
    match node {
        Node::Leaf(_) => 1,
        Node::Branch(children) => {
            let leaves = children.items.iter().map(|child| leaves_below(&child.node));
            leaves.sum()
        }
    }
}

/// The model's value is one byte; what of them is in memory must be as the index counts.
fn check_values(index: &KeyIndex, bytes_max: usize) {
    let live = || index.live_range(b"", None);
    let bytes: usize = live().map(Entry::value_bytes).sum();
    let let_go = live().filter(|entry| matches!(entry.live(), Held::LetGo(..)));
    assert_eq!(index.values_let_go(), let_go.count());
    assert_eq!(index.value_bytes(), bytes);
    assert_eq!(index.live(), live().count());
    assert!(bytes <= bytes_max, "{bytes} bytes of {bytes_max}");
}

/// Whatever is let go and comes back, all that is not a value stays as it is, in copies too.
#[test]
fn values_go_and_come_back() {
    let mut rng = fastrand::Rng::with_seed(5);
    for bytes_max in [0, 20, 200] {
        let mut index = KeyIndex::default();
        let (mut model, mut hand) = (Model::new(), Hand::default());
        let mut copies = Vec::new();
        for revision in 2..1500 {
            let key = random_key(&mut rng);
            match rng.u8(..8) {
                0 => {
                    index.change(&key, 0, |_| Record::tombstone(&key, revision));
                    model.insert(key, (revision, false));
                }
                1 => {
                    index.trim(&key, revision);
                    if model
                        .get(&key)
                        .is_some_and(|(at, live)| !live && *at < revision)
                    {
                        model.remove(&key);
                    }
                }
                2 => {
                    if let Some((at, true)) = model.get(&key) {
                        index.keep(&put(&key, *at));
                        let held = index.get(&key).map(Entry::live);
                        assert!(matches!(held, Some(Held::Newest(_))));
                    }
                    index.keep(&put(&key, revision + 1));
                }
                _ => {
                    index.change(&key, 0, |_| put(&key, revision));
                    model.insert(key, (revision, true));
                }
            }
            while index.let_go(bytes_max, &mut hand, rng.usize(1..20)) {}
            check_values(&index, bytes_max);
            if revision % 100 == 0 {
                copies.push((index.clone(), model.clone()));
            }
        }
        for (copy, model) in &copies {
            check(copy, model, &mut rng);
            check_values(copy, bytes_max);
        }
        assert!(index.values_let_go() > 100, "{}", index.values_let_go());
    }
}

#[test]
fn what_was_asked_for_stays_longer() {
    let mut index = KeyIndex::default();
    let key = |number: u32| format!("{number:03}").into_bytes();
    for number in 0..200 {
        index.change(&key(number), 0, |_| put(&key(number), 2));
    }
    let asked = |number: &u32| number % 4 == 1;
    for number in (0..200).filter(asked) {
        index.get(&key(number)).unwrap().mark_used();
    }
    let mut hand = Hand::default();
    while index.let_go(50, &mut hand, 10) {}
    let kept = |number: &u32| index.get(&key(*number)).unwrap().value_bytes() > 0;
    assert!((0..200).filter(kept).eq((0..200).filter(asked)));
    // Once: who is not asked for again goes the next time.
    while index.let_go(25, &mut hand, 10) {}
    assert_eq!(index.value_bytes(), 25);
}

/// Else a write to a store much larger than its budget would look at all of it.
#[test]
fn the_way_to_a_value_is_short_among_those_that_are_gone() {
    let keys = (0..40_000).map(|number| format!("{number:05}").into_bytes());
    let entries = keys.map(|key| {
        let mut entry = Entry::new(put(&key, 2), 0);
        entry.let_go();
        entry
    });
    let mut index = KeyIndex::from_leaves(vec![Leaves::new(entries.collect())]);
    let put = |index: &mut KeyIndex, key: &[u8]| drop(index.change(key, 0, |_| put(key, 3)));
    put(&mut index, b"20000");
    let looks = index.walk(b"", None, Only::WithValue).count();
    assert!(looks <= 2 * FANOUT, "{looks} entries are looked at");
    let mut hand = Hand::default();
    for key in [&b"30000"[..], b"10000", b"39999"] {
        put(&mut index, key);
        let steps = (1..).find(|_| !index.let_go(0, &mut hand, 64));
        assert!(steps <= Some(4), "{steps:?} steps");
    }
}
