//! Verdicts about tokens that were shown lately, found by a keyed hash: never by the token.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use hmac::{Hmac, KeyInit, Mac};
use keyreeve_core::cache::Cache;
use keyreeve_core::time::Timestamp;
use sha2::Sha256;

/// Parts with a lock each, so that threads seldom meet.
const SHARDS: usize = 64;

/// HMAC-SHA-256 of a token, and of what the verdict depends on besides. Verified tokens have one spelling each, so what is
/// hashed is the canonical one; without the key nobody can tell what is remembered, or find two tokens with one hash.
pub(crate) type Digest = [u8; 32];

type Shard<V> = Cache<Digest, V, BuildHasherDefault<First>>;

pub(crate) struct Seen<V> {
    mac: Hmac<Sha256>,
    shards: Vec<Mutex<Shard<V>>>,
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

impl<V: Clone> Seen<V> {
    /// Remembers nothing yet, and at most `verdicts_max`. `secret` is the key of the hash.
    pub(crate) fn new(secret: &[u8; 32], verdicts_max: usize) -> Self {
        #[expect(clippy::expect_used, reason = "RFC 2104: HMAC takes keys of any length")]
        let mac = Hmac::new_from_slice(secret).expect("a key of any length");
        let shard = || Mutex::new(Cache::new(verdicts_max / SHARDS, BuildHasherDefault::default()));
        Self { mac, shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
    }

    /// What a verdict on all of `parts` together is found by, each of which has its length hashed before it.
    pub(crate) fn digest(&self, parts: &[&str]) -> Digest {
        let mut mac = self.mac.clone();
        for part in parts {
            mac.update(&(part.len() as u64).to_ne_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    fn shard(&self, digest: &Digest) -> Option<MutexGuard<'_, Shard<V>>> {
        let [.., last] = digest;
        let shard = self.shards.get(usize::from(*last) % SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn find(&self, digest: &Digest, now: Timestamp) -> Option<V> {
        self.shard(digest)?.find(digest, now).cloned()
    }

    pub(crate) fn keep(&self, digest: Digest, verdict: V, ends_at: Timestamp, now: Timestamp) {
        if let Some(mut shard) = self.shard(&digest) {
            shard.insert(digest, verdict, ends_at, now);
        }
    }

    /// How many are held, those included that are over.
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.lock().unwrap_or_else(PoisonError::into_inner).len()).sum()
    }
}
