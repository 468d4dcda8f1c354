//! What was read, in memory: so many bytes, those that nobody asked for lately make room.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use http::HeaderValue;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use tokio::sync::OnceCell;

use super::shape::Shape;

/// What an entry takes besides its body, in bytes.
const ENTRY_BYTES: usize = 1024;

/// What is known of an object besides its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct About {
    /// Its entity tag as HTTP writes it, where its store has one.
    pub etag: Option<HeaderValue>,
    /// The same as the store says it.
    pub store_etag: Option<String>,
    /// Its size, in bytes.
    pub size: u64,
    /// When it was written.
    pub modified: Timestamp,
    /// Its media type, where somebody said so when it was written.
    pub content_type: Option<HeaderValue>,
    /// What `x-hive-schema-version-id` says.
    pub version_id: Option<HeaderValue>,
}

impl About {
    /// What a part of just this version is asked for by; `None` where its store has no tag, or a weak one, for which no condition
    /// holds (RFC 9110 13.1.1).
    #[must_use]
    pub fn version(&self) -> Option<String> {
        self.store_etag.clone().filter(|tag| !tag.starts_with("W/"))
    }
}

/// An object that was read whole, or one that is too large for that.
#[derive(Debug)]
pub struct Kept {
    /// The name of the object.
    pub name: Box<str>,
    /// Its bytes; `None` where there are too many.
    pub body: Option<Bytes>,
    /// The SHA-256 of the bytes.
    pub digest: [u8; 32],
    /// What else is known of it.
    pub about: About,
    /// What Hive makes of it, once somebody wanted to know.
    pub shape: OnceCell<Shape>,
    /// When an origin was last asked and answered, on the monotonic clock; 0 for not in this process.
    checked: AtomicU64,
    /// When an origin last vouched for it, on the wall clock.
    vouched: AtomicU64,
    /// Until when no origin is asked again, none having answered.
    held_until: AtomicU64,
}

impl Kept {
    /// An object that an origin has just given.
    #[must_use]
    pub fn new(name: &str, body: Option<Bytes>, digest: [u8; 32], about: About, now: Moment) -> Self {
        let kept = Self::found(name, body, digest, about, now.wall);
        kept.vouch(now);
        kept
    }

    /// An object that an origin gave at `vouched`, before this process began.
    #[must_use]
    pub fn found(name: &str, body: Option<Bytes>, digest: [u8; 32], about: About, vouched: Timestamp) -> Self {
        Self {
            name: name.into(),
            body,
            digest,
            about,
            shape: OnceCell::new(),
            checked: AtomicU64::new(0),
            vouched: AtomicU64::new(vouched.0),
            held_until: AtomicU64::new(0),
        }
    }

    /// An origin says that it is still the one.
    pub fn vouch(&self, now: Moment) {
        self.checked.store(now.mono.0.max(1), Ordering::Relaxed);
        self.vouched.store(now.wall.0, Ordering::Relaxed);
        self.held_until.store(0, Ordering::Relaxed);
    }

    /// No origin answers, and none is asked until then.
    pub fn hold(&self, until: Mono) {
        self.held_until.store(until.0, Ordering::Relaxed);
    }

    /// Whether an origin vouched for it less than `ms` ago, in this process.
    #[must_use]
    pub fn is_fresh(&self, ms: u64, now: Mono) -> bool {
        let checked = self.checked.load(Ordering::Relaxed);
        checked != 0 && now.since(Mono(checked)) < ms
    }

    /// Whether an origin vouched for it in this process.
    #[must_use]
    pub fn is_checked(&self) -> bool {
        self.checked.load(Ordering::Relaxed) != 0
    }

    /// Whether no origin need be asked now, since none answered a moment ago.
    #[must_use]
    pub fn is_held(&self, now: Mono) -> bool {
        self.held_until.load(Ordering::Relaxed) > now.0
    }

    /// How long ago an origin vouched for it, in milliseconds.
    #[must_use]
    pub fn age_ms(&self, now: Timestamp) -> u64 {
        now.0.saturating_sub(self.vouched.load(Ordering::Relaxed))
    }

    fn bytes(&self) -> usize {
        self.body.as_ref().map_or(0, Bytes::len).saturating_add(self.name.len() * 2).saturating_add(ENTRY_BYTES)
    }
}

/// Objects in memory, by name. How much room there is, says whoever writes: a reload may change it.
#[derive(Default)]
pub struct Memory {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    slots: HashMap<Box<str>, Slot, foldhash::fast::RandomState>,
    /// In the order in which they came; names that are no longer there are skipped.
    line: VecDeque<Box<str>>,
    bytes: usize,
}

struct Slot {
    kept: Arc<Kept>,
    was_used: AtomicBool,
}

impl Memory {
    /// What is kept under a name.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<Arc<Kept>> {
        let inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = inner.slots.get(name)?;
        slot.was_used.store(true, Ordering::Relaxed);
        Some(Arc::clone(&slot.kept))
    }

    /// Keeps an object in place of what was there, unless it alone is larger than all the room, which is `bytes_max`.
    pub fn insert(&self, kept: Arc<Kept>, bytes_max: usize) {
        let mut inner = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = kept.bytes();
        let name = kept.name.clone();
        inner.remove(&name);
        if bytes > bytes_max {
            return;
        }
        inner.slots.insert(name.clone(), Slot { kept, was_used: AtomicBool::new(false) });
        inner.line.push_back(name);
        inner.bytes = inner.bytes.saturating_add(bytes);
        inner.make_room(bytes_max);
    }

    /// Forgets an object.
    pub fn remove(&self, name: &str) {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).remove(name);
    }
}

impl Inner {
    fn remove(&mut self, name: &str) {
        if let Some(slot) = self.slots.remove(name) {
            self.bytes = self.bytes.saturating_sub(slot.kept.bytes());
            // Rare: an object that changed, or is gone.
            self.line.retain(|other| **other != *name);
        }
    }

    /// Each that was used since the last round gets a second chance (Corbató, 1968).
    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            let Some(name) = self.line.pop_front() else { return };
            let Some(slot) = self.slots.get(&name) else { continue };
            if slot.was_used.swap(false, Ordering::Relaxed) {
                self.line.push_back(name);
            } else if let Some(slot) = self.slots.remove(&name) {
                self.bytes = self.bytes.saturating_sub(slot.kept.bytes());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(name: &str, size: usize) -> Arc<Kept> {
        let about = About {
            etag: None,
            store_etag: None,
            size: 0,
            modified: Timestamp(0),
            content_type: None,
            version_id: None,
        };
        Arc::new(Kept::found(name, Some(Bytes::from(vec![0; size])), [0; 32], about, Timestamp(0)))
    }

    #[test]
    fn what_nobody_asks_for_makes_room_first() {
        let memory = Memory::default();
        memory.insert(kept("a", 3000), 10_000);
        memory.insert(kept("b", 3000), 10_000);
        assert!(memory.find("a").is_some());
        memory.insert(kept("c", 3000), 10_000);
        assert!(memory.find("b").is_none(), "b made room");
        assert!(memory.find("a").is_some() && memory.find("c").is_some());
        memory.insert(kept("c", 20_000), 10_000);
        assert!(memory.find("c").is_none(), "larger than all the room, and the old one is not the object any more");
        memory.insert(kept("a", 10), 10_000);
        memory.remove("a");
        let inner = memory.inner.lock().unwrap();
        assert_eq!((inner.bytes, inner.slots.len(), inner.line.len()), (0, 0, 0));
    }
}
