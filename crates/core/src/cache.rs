//! A bounded map whose entries expire. Time is an argument, and so is the hash function.
//!
//! What it holds is worth no more than the time it saves: any entry may be gone at the next look.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash};

use crate::time::Timestamp;

/// At most so many entries, each with an end of its own.
///
/// Where there is no room, an entry that is over makes some, or else one that nobody asked for since the last round (the
/// second-chance rule of Corbató, 1968). All operations take constant time, an insertion on average.
#[derive(Clone, Debug)]
pub struct Cache<K, V, S> {
    index: HashMap<K, usize, S>,
    slots: Vec<Slot<K, V>>,
    entries_max: usize,
    hand: usize,
}

#[derive(Clone, Debug)]
struct Slot<K, V> {
    key: K,
    value: V,
    ends_at: Timestamp,
    was_used: bool,
}

impl<K: Clone + Eq + Hash, V, S: BuildHasher> Cache<K, V, S> {
    /// An empty cache of at most `entries_max` entries; with none it keeps nothing.
    pub fn new(entries_max: usize, hasher: S) -> Self {
        Self { index: HashMap::with_hasher(hasher), slots: Vec::new(), entries_max, hand: 0 }
    }

    /// What is kept under `key`, unless it is over at `now`. An entry is over at its end, not after it.
    pub fn find(&mut self, key: &K, now: Timestamp) -> Option<&V> {
        let slot = self.slots.get_mut(*self.index.get(key)?)?;
        if slot.ends_at <= now {
            return None;
        }
        slot.was_used = true;
        Some(&slot.value)
    }

    /// Keeps `value` until `ends_at`, in place of what was there. What is over at `now` already is not kept.
    pub fn insert(&mut self, key: K, value: V, ends_at: Timestamp, now: Timestamp) {
        if ends_at <= now || self.entries_max == 0 {
            return;
        }
        let slot = Slot { key: key.clone(), value, ends_at, was_used: false };
        let at = match self.index.get(&key) {
            Some(at) => *at,
            None if self.slots.len() < self.entries_max => self.slots.len(),
            None => self.make_room(now),
        };
        self.index.insert(key, at);
        match self.slots.get_mut(at) {
            Some(old) => *old = slot,
            None => self.slots.push(slot),
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        self.index.clear();
        self.slots.clear();
        self.hand = 0;
    }

    /// How many entries are held, those included that are over.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether nothing is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Takes an entry out of the index and returns its slot. Goes round twice at the most: the first round leaves nobody
    /// a second chance.
    fn make_room(&mut self, now: Timestamp) -> usize {
        loop {
            let at = self.hand;
            self.hand = if at + 1 < self.slots.len() { at + 1 } else { 0 };
            let Some(slot) = self.slots.get_mut(at) else { return at };
            if slot.ends_at <= now || !slot.was_used {
                self.index.remove(&slot.key);
                return at;
            }
            slot.was_used = false;
        }
    }
}
