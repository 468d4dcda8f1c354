//! Engines that are wrong on purpose, the way real ones have been.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use keyreeve::port::{Capabilities, Entry, Key, Register, StoreError, Swap};
use keyreeve_core::id::WriteId;

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// Checks, lets others run, then writes (an object store that evaluates conditions beside the write).
    CheckThenWrite,
    /// Ignores the expectation (an object store that does not know `If-Match`).
    BlindPut,
    /// Acknowledges a write now and then without keeping it (a failover to a replica that lags).
    LostUpdate,
    /// Each instance compares with the entry it saw last (a cache in front of the compare).
    StaleCompare,
    /// Each instance answers reads from what it saw first for a while (a cache that lags).
    StaleRead,
    /// Sends a swap again after it has been made, and reports the second answer (a client that retries).
    RetriesSwaps,
}

/// Each, and the case of the suite that finds it first.
pub(crate) const ALL: [(Wrong, &str); 6] = [
    (Wrong::CheckThenWrite, "of_racing_swaps_exactly_one_wins"),
    (Wrong::BlindPut, "cannot_be_created_twice"),
    (Wrong::LostUpdate, "empty_and_large"),
    (Wrong::StaleCompare, "random_histories_are_linearizable"),
    (Wrong::StaleRead, "what_one_instance_wrote"),
    (Wrong::RetriesSwaps, "reads_back"),
];

#[derive(Default)]
pub(crate) struct Store {
    entries: Mutex<BTreeMap<String, Entry>>,
    writes: AtomicU64,
}

pub(crate) struct Broken {
    wrong: Wrong,
    store: std::sync::Arc<Store>,
    cache: Mutex<BTreeMap<String, Option<Entry>>>,
    reads: AtomicU64,
}

impl Broken {
    pub(crate) fn new(wrong: Wrong, store: std::sync::Arc<Store>) -> Self {
        Self { wrong, store, cache: Mutex::default(), reads: AtomicU64::new(0) }
    }

    fn find(&self, key: &Key) -> Option<Entry> {
        self.store.entries.lock().unwrap().get(key.as_str()).cloned()
    }

    fn put(&self, key: &Key, next: Entry) {
        let writes = self.store.writes.fetch_add(1, Ordering::SeqCst);
        if self.wrong == Wrong::LostUpdate && writes % 11 == 10 {
            return;
        }
        self.store.entries.lock().unwrap().insert(key.as_str().to_owned(), next.clone());
        self.cache.lock().unwrap().insert(key.as_str().to_owned(), Some(next));
    }
}

#[async_trait]
impl Register for Broken {
    fn capabilities(&self) -> Capabilities {
        Capabilities { is_swap_atomic: true, is_durable: true, forgets_on_failover: false, is_shared: true }
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        let reads = self.reads.fetch_add(1, Ordering::SeqCst);
        let cached = self.cache.lock().unwrap().get(key.as_str()).cloned();
        if self.wrong == Wrong::StaleRead
            && reads % 3 != 2
            && let Some(cached) = cached
        {
            return Ok(cached);
        }
        let found = self.find(key);
        self.cache.lock().unwrap().insert(key.as_str().to_owned(), found.clone());
        Ok(found)
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        if next.bytes.len() > keyreeve::engine::VALUE_BYTES_MAX {
            return Err(StoreError::Refused("too large".into()));
        }
        let cached = self.cache.lock().unwrap().get(key.as_str()).cloned();
        let held = match (self.wrong, cached) {
            (Wrong::StaleCompare, Some(cached)) => cached,
            _ => self.find(key),
        };
        if self.wrong == Wrong::CheckThenWrite {
            tokio::task::yield_now().await;
        }
        if self.wrong != Wrong::BlindPut && held.map(|entry| entry.op) != expected {
            self.cache.lock().unwrap().remove(key.as_str());
            return Ok(Swap::Lost);
        }
        self.put(key, next);
        Ok(if self.wrong == Wrong::RetriesSwaps { Swap::Lost } else { Swap::Done })
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let entries = self.store.entries.lock().unwrap();
        let keys = entries.keys().filter(|key| key.starts_with(prefix)).filter_map(|key| Key::new(key.as_str()));
        Ok(keys.filter(|key| after.is_none_or(|after| key > after)).take(limit).collect())
    }
}
