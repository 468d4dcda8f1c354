//! Verdicts about tokens that were shown lately, found by a keyed hash: never by the token.

use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use keyreeve_core::cache::Cache;
use keyreeve_core::time::Timestamp;
use poly1305::Poly1305;
use poly1305::universal_hash::{KeyInit, UniversalHash};

/// Parts with a lock each, so that threads seldom meet.
const SHARDS: usize = 64;

/// Poly1305 of a token, and of what the verdict depends on besides. Verified tokens have one spelling each, so what is hashed
/// is the canonical one. Two texts of 8 KiB have one hash for less than one key in 2^94 (Bernstein, 2005: 8 L / 2^106), whoever
/// chose them. That is all it has to do, and several times faster than a MAC.
///
/// INVARIANT: it is never shown, not even as a prefix: who sees hashes of one key can work the key out.
pub(crate) type Digest = [u8; 16];

type Shard<V> = Cache<Digest, V, BuildHasherDefault<First>>;

pub(crate) struct Seen<V> {
    hash: Poly1305,
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
        let shard = || Mutex::new(Cache::new(verdicts_max / SHARDS, BuildHasherDefault::default()));
        Self { hash: Poly1305::new(secret.into()), shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
    }

    /// What a verdict on all of `parts` together is found by, each of which has its length hashed before it.
    pub(crate) fn digest(&self, parts: &[&str]) -> Digest {
        let mut hash = self.hash.clone();
        for part in parts {
            hash.update_padded(&(part.len() as u64).to_le_bytes());
            hash.update_padded(part.as_bytes());
        }
        hash.finalize().into()
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
