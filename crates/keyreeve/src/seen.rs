//! Verdicts about tokens that were shown lately, found by a keyed hash: never by the token.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyreeve_core::cache::Cache;
use keyreeve_core::time::Timestamp;
use siphasher::sip128::{Hasher128 as _, SipHasher24};

/// Parts with a lock each, so that threads seldom meet.
const SHARDS: usize = 64;

/// SipHash-2-4 with 128 bits (Aumasson and Bernstein, 2012) of a token, and of what the verdict depends on besides. Verified
/// tokens have one spelling each, so what is hashed is the canonical one; without the key nobody can tell what is remembered, or
/// find two tokens with one hash. A third of the time of HMAC-SHA-256, which every request would pay.
pub(crate) type Digest = [u8; 16];

type Shard<V> = Cache<Digest, V, BuildHasherDefault<First>>;

pub(crate) struct Seen<V> {
    key: [u8; 16],
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
        let (key, _) = secret.split_first_chunk().unwrap_or((&[0; 16], &[]));
        let shard = || Mutex::new(Cache::new(verdicts_max / SHARDS, BuildHasherDefault::default()));
        Self { key: *key, shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
    }

    /// What a verdict on all of `parts` together is found by, each of which has its length hashed before it.
    pub(crate) fn digest(&self, parts: &[&str]) -> Digest {
        let mut hash = SipHasher24::new_with_key(&self.key);
        for part in parts {
            hash.write(&(part.len() as u64).to_le_bytes());
            hash.write(part.as_bytes());
        }
        hash.finish128().as_bytes()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_cut_or_padded_in_another_place_are_other_texts() {
        let seen = Seen::<()>::new(&[7; 32], SHARDS);
        let all: [&[&str]; 8] =
            [&["ab", "c"], &["a", "bc"], &["abc"], &["abc", ""], &["", "abc"], &["abc\0"], &["ab", "c\0"], &[]];
        let digests: std::collections::HashSet<Digest> = all.iter().map(|parts| seen.digest(parts)).collect();
        assert_eq!(digests.len(), all.len());
        assert_eq!(seen.digest(&["ab", "c"]), seen.digest(&["ab", "c"]));
        let other = Seen::<()>::new(&[8; 32], SHARDS);
        assert_ne!(seen.digest(&["ab", "c"]), other.digest(&["ab", "c"]), "without the key nobody knows it");
    }
}
