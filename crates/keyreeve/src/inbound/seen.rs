//! Tokens that were verified lately, found by a keyed hash.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use keyreeve_core::cache::Cache;
use keyreeve_core::time::Timestamp;
use sha2::Sha256;

use super::Accepted;

/// The most tokens that are remembered.
const TOKENS_MAX: usize = 65_536;
/// Parts with a lock each, so that threads seldom meet.
const SHARDS: usize = 64;

/// HMAC-SHA-256 of a token. Verified tokens have one spelling each, so what is hashed is the canonical one; without the
/// key nobody can tell what is remembered, or find two tokens with one hash.
type Digest = [u8; 32];

/// A verdict, and what it depends on.
#[derive(Clone)]
pub(super) struct Entry {
    pub(super) accepted: Arc<Accepted>,
    /// The index of who vouches for it.
    pub(super) trusted: usize,
    /// The epoch of the keys it was verified with.
    pub(super) epoch: u64,
    /// The epoch of what was known to be revoked then.
    pub(super) followed: u64,
}

pub(super) struct Seen {
    mac: Hmac<Sha256>,
    shards: Vec<Mutex<Cache<Digest, Entry, BuildHasherDefault<First>>>>,
}

/// A digest is as good as random already: its first eight bytes are its hash.
#[derive(Clone, Copy, Debug, Default)]
struct First(u64);

impl Hasher for First {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    /// The length of a digest, which says nothing.
    fn write_usize(&mut self, _: usize) {}
}

impl Seen {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        #[expect(clippy::expect_used, reason = "RFC 2104: HMAC takes keys of any length")]
        let mac = Hmac::new_from_slice(secret).expect("a key of any length");
        let shard = || Mutex::new(Cache::new(TOKENS_MAX / SHARDS, BuildHasherDefault::default()));
        Self { mac, shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
    }

    fn digest(&self, token: &str) -> Digest {
        let mut mac = self.mac.clone();
        mac.update(token.as_bytes());
        mac.finalize().into_bytes().into()
    }

    fn shard(&self, digest: &Digest) -> Option<MutexGuard<'_, Cache<Digest, Entry, BuildHasherDefault<First>>>> {
        let [.., last] = digest;
        let shard = self.shards.get(usize::from(*last) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn find(&self, token: &str, now: Timestamp) -> Option<Entry> {
        let digest = self.digest(token);
        self.shard(&digest)?.find(&digest, now).cloned()
    }

    pub(super) fn keep(&self, token: &str, entry: Entry, ends_at: Timestamp, now: Timestamp) {
        let digest = self.digest(token);
        if let Some(mut shard) = self.shard(&digest) {
            shard.insert(digest, entry, ends_at, now);
        }
    }
}
