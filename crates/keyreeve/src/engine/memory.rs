//! A register in this process's memory: for tests, `keyreeve dev`, and nodes that are alone.
//!
//! Forgets everything when the process ends, so an upstream with a minimum interval may see the next process mint too
//! early, unless the credential waits before its first mint.

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use keyreeve_core::id::WriteId;

use super::VALUE_BYTES_MAX;
use crate::port::{Capabilities, Entry, Key, LIST_MAX, Register, StoreError, Swap};

/// A map behind a mutex, which is never held across an await. Every call answers at once.
#[derive(Debug, Default)]
pub struct Memory {
    entries: Mutex<BTreeMap<String, Entry>>,
}

impl Memory {
    /// An empty register.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn entries(&self) -> MutexGuard<'_, BTreeMap<String, Entry>> {
        // Nothing in here panics while the map is half changed.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Register for Memory {
    fn capabilities(&self) -> Capabilities {
        Capabilities { is_swap_atomic: true, is_durable: false, forgets_on_failover: false, is_shared: false }
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        Ok(self.entries().get(key.as_str()).cloned())
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        check_value(&next)?;
        let mut entries = self.entries();
        if entries.get(key.as_str()).map(|entry| entry.op) != expected {
            return Ok(Swap::Lost);
        }
        entries.insert(key.as_str().to_owned(), next);
        Ok(Swap::Done)
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        let entries = self.entries();
        let start = match after.map(Key::as_str) {
            Some(after) if after >= prefix => Bound::Excluded(after),
            _ => Bound::Included(prefix),
        };
        let keys = entries.range::<str, _>((start, Bound::Unbounded)).map(|(key, _)| key);
        let wanted = keys.take_while(|key| key.starts_with(prefix)).take(limit.min(LIST_MAX));
        Ok(wanted.filter_map(Key::new).collect())
    }
}

/// Refuses a value above [`VALUE_BYTES_MAX`], for every engine.
///
/// # Errors
/// [`StoreError::Refused`], with both sizes.
pub fn check_value(entry: &Entry) -> Result<(), StoreError> {
    let found = entry.bytes.len();
    if found > VALUE_BYTES_MAX {
        return Err(StoreError::Refused(format!(
            "a value of {found} bytes is larger than the limit of {VALUE_BYTES_MAX}"
        )));
    }
    Ok(())
}
