//! Caches between a follower and its origin: shared by many nodes, and trusted with nothing.
//!
//! What a cache keeps is the published part of a record, sealed as a whole and bound to the credential's name and to what it
//! is for, under a key that is a keyed hash. So a cache that loses entries, keeps old ones, swaps or damages them can only cost a question
//! to the origin. An entry says itself how long it is good: until the renewal of its newest generation falls due.

use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{Either, select};
use keyreeve_core::crypto::Crypto;
use keyreeve_core::id::CredentialName;
use keyreeve_core::record::Record;
use keyreeve_core::seal::{KeyRing, SealedCopy};
use keyreeve_core::time::{Mono, Timestamp};

use super::follow::{Origin, Wish};
use crate::error::Error;
use crate::hex;
use crate::port::{Host, Key, Shared};
use crate::source::Identity;

/// A cache that has not answered after this long, in milliseconds, is passed over.
const ANSWER_MS: u64 = 500;
/// What is good for less than this, in milliseconds, is not worth a write.
const TTL_MS_MIN: u64 = 2000;
/// Entries under another purpose, of an older keyreeve, are sealed otherwise: they are never found and run out.
const KEY_PURPOSE: &str = "keyreeve cache key v2";

/// An [`Origin`] behind caches, the nearest first.
pub struct Tiers {
    /// The caches.
    pub caches: Vec<Arc<dyn Shared>>,
    /// What is asked where none of them helps.
    pub origin: Arc<dyn Origin>,
    /// Time, chance and tasks.
    pub host: Arc<dyn Host>,
    /// The primitives.
    pub crypto: Arc<dyn Crypto>,
    /// Seals what is cached.
    pub keys: ArcSwap<KeyRing>,
}

#[async_trait]
impl Origin for Tiers {
    async fn record(&self, name: &CredentialName, wish: Wish, deadline: Mono) -> Result<Record, Error> {
        let copy = SealedCopy { name, identity: self.origin.identity(name).map(|Identity(identity)| identity) };
        let Some(key) = self.key(copy) else { return self.origin.record(name, wish, deadline).await };
        for (nearer, cache) in self.caches.iter().enumerate() {
            if let Some(record) = self.cached(cache.as_ref(), &key, copy, wish).await {
                metrics::counter!("keyreeve_cache_reads_total", "cache" => cache.kind(), "outcome" => "hit")
                    .increment(1);
                self.keep(&key, copy, &record, nearer);
                return Ok(record);
            }
            metrics::counter!("keyreeve_cache_reads_total", "cache" => cache.kind(), "outcome" => "miss").increment(1);
        }
        let record = self.origin.record(name, wish, deadline).await?;
        self.keep(&key, copy, &record, self.caches.len());
        Ok(record)
    }
}

impl Tiers {
    /// Where a credential's entry is kept: a keyed hash of its name, and of what it is for where its source says, so that
    /// whoever lists keys learns nothing.
    fn key(&self, copy: SealedCopy<'_>) -> Option<Key> {
        let mut named = copy.name.as_str().as_bytes().to_vec();
        if let Some(identity) = copy.identity {
            named.push(0);
            named.extend_from_slice(&identity);
        }
        let digest = self.keys.load().keyed(self.crypto.as_ref(), KEY_PURPOSE, &named);
        Key::new(hex::encode(&digest))
    }

    async fn cached(&self, cache: &dyn Shared, key: &Key, copy: SealedCopy<'_>, wish: Wish) -> Option<Record> {
        let name = copy.name;
        let until = self.host.now().mono.plus(ANSWER_MS);
        let bytes = match select(cache.get(key), self.host.sleep_until(until)).await {
            Either::Left((Ok(bytes), _)) => bytes?,
            Either::Left((Err(error), _)) => {
                tracing::debug!(credential = %name, cache = cache.kind(), "{error}");
                return None;
            }
            Either::Right(_) => return None,
        };
        match self.open(copy, &bytes) {
            Ok(record) => Some(record).filter(|record| self.answers(record, wish)),
            Err(error) => {
                tracing::warn!(credential = %name, cache = cache.kind(), "an entry was passed over: {error}");
                None
            }
        }
    }

    fn answers(&self, record: &Record, wish: Wish) -> bool {
        let now = self.host.now().latest();
        record.newest().is_some_and(|newest| {
            newest.generation > wish.newer_than
                && now < newest.refresh_at
                && newest.expires_at.since(now) > wish.min_ttl_ms
        })
    }

    /// Puts `record` into the first `count` caches, in the background.
    fn keep(&self, key: &Key, copy: SealedCopy<'_>, record: &Record, count: usize) {
        let now = self.host.now().latest();
        let ttl_ms = record.newest().map_or(0, |newest| newest.refresh_at.since(now));
        if count == 0 || ttl_ms < TTL_MS_MIN {
            return;
        }
        let sealed = match self.seal(copy, record) {
            Ok(sealed) => Bytes::from(sealed),
            // Larger than may be sealed as a whole: then every node asks the origin.
            Err(error) => return tracing::debug!(credential = %copy.name, "not cached: {error}"),
        };
        for cache in self.caches.iter().take(count) {
            let (cache, key, sealed) = (Arc::clone(cache), key.clone(), sealed.clone());
            self.host.spawn(Box::pin(async move {
                if let Err(error) = cache.put(&key, sealed, ttl_ms).await {
                    tracing::debug!(cache = cache.kind(), "not cached: {error}");
                }
            }));
        }
    }

    fn seal(&self, copy: SealedCopy<'_>, record: &Record) -> Result<Vec<u8>, String> {
        let mut nonce = [0; 24];
        self.host.fill(&mut nonce);
        let plain = published(record).encode();
        let keys = self.keys.load();
        keys.seal(self.crypto.as_ref(), &nonce, copy, &plain).map_err(|error| error.to_string())
    }

    fn open(&self, copy: SealedCopy<'_>, sealed: &[u8]) -> Result<Record, String> {
        let keys = self.keys.load();
        let plain = keys.open(self.crypto.as_ref(), copy, sealed).map_err(|error| error.to_string())?;
        Record::decode(plain.expose()).map_err(|error| error.to_string())
    }
}

/// What a reader needs of a record, and no more.
fn published(record: &Record) -> Record {
    Record {
        op: record.op,
        rev: record.rev,
        written_at: Timestamp(0),
        generation: record.generation,
        epoch: record.epoch,
        current: record.current.clone(),
        next: record.next.clone(),
        intent: None,
        last: None,
        failure: None,
        renew: None,
        holder: None,
        history: Vec::new(),
        spent: None,
    }
}
