//! Values in numbered slots: constant-time access, and keys that notice that their value is gone.
//!
//! A slot is used again after its value was removed, with a new generation, so that a key that
//! somebody still holds (a catch-up that was under way while its watcher was cancelled) finds
//! nothing rather than a stranger.

/// Names a value in a [`Slab`]; never the name of another value, even after removal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Key {
    slot: u32,
    generation: u32,
}

struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

pub(super) struct Slab<T> {
    slots: Vec<Slot<T>>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab {
            slots: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Slab<T> {
    pub(super) fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    pub(super) fn insert(&mut self, value: T) -> Key {
        if let Some(slot) = self.free.pop() {
            let free = &mut self.slots[slot as usize];
            assert!(free.value.is_none(), "slot {slot} is not free");
            free.value = Some(value);
            return Key {
                slot,
                generation: free.generation,
            };
        }
        let slot = u32::try_from(self.slots.len()).expect("fewer than 2^32 values fit in memory");
        self.slots.push(Slot {
            generation: 0,
            value: Some(value),
        });
        Key {
            slot,
            generation: 0,
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        if slot.generation != key.generation {
            return None;
        }
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        self.free.push(key.slot);
        Some(value)
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        let slot = self.slots.get(key.slot as usize)?;
        slot.value
            .as_ref()
            .filter(|_| slot.generation == key.generation)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        let slot = self.slots.get_mut(key.slot as usize)?;
        let current = slot.generation == key.generation;
        slot.value.as_mut().filter(|_| current)
    }

    /// All values, in the order of their slots.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.slots.iter_mut().enumerate().filter_map(|(i, slot)| {
            let key = Key {
                slot: i as u32,
                generation: slot.generation,
            };
            slot.value.as_mut().map(|value| (key, value))
        })
    }
}

/// For keys that the owner of the slab keeps itself, and drops together with the value.
impl<T> std::ops::Index<Key> for Slab<T> {
    type Output = T;

    fn index(&self, key: Key) -> &T {
        self.get(key).expect("the owner holds only living keys")
    }
}

impl<T> std::ops::IndexMut<Key> for Slab<T> {
    fn index_mut(&mut self, key: Key) -> &mut T {
        self.get_mut(key).expect("the owner holds only living keys")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_key_finds_nothing() {
        let mut slab = Slab::default();
        let a = slab.insert("a");
        let b = slab.insert("b");
        assert_eq!(slab.remove(a), Some("a"));
        assert_eq!(slab.remove(a), None);
        let c = slab.insert("c");
        assert_eq!(slab.len(), 2);
        assert_eq!(slab.get(a), None);
        assert_eq!(slab.get_mut(a), None);
        assert_eq!((slab[b], slab[c]), ("b", "c"));
        assert_eq!(slab.slots.len(), 2, "the free slot was used again");
        let all: Vec<_> = slab.iter_mut().map(|(key, value)| (key, *value)).collect();
        assert_eq!(all, [(c, "c"), (b, "b")]);
    }
}
