//! Nodes that follow one log of revocations, on a register that can fail, forget and go back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use keyreeve::config::{OnStale, RevocationConfig};
use keyreeve::core::id::{NodeId, WriteId};
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::memory::Memory;
use keyreeve::port::{Capabilities, Entry, Host, Key, Register, StoreError, Swap};
use keyreeve::revocation::{Credentials, Lifetime, Parts, Receipt, Revocation, Revocations, What};

use crate::http_world::{SECOND, TestHost};

pub(crate) const DENY: RevocationConfig = RevocationConfig {
    max_staleness_ms: SECOND,
    on_stale: OnStale::Deny,
    keep_ms: 30 * 24 * 3_600_000,
    skew_ms: 2 * SECOND,
};

/// A store that can be cut off, and put back to what it was.
pub(crate) struct Store {
    memory: std::sync::Mutex<Arc<Memory>>,
    pub(crate) is_away: AtomicBool,
    pub(crate) loses_answers: AtomicBool,
    pub(crate) reads: AtomicU64,
}

impl Store {
    pub(crate) fn new() -> Arc<Self> {
        let memory = std::sync::Mutex::new(Arc::new(Memory::new()));
        let (is_away, loses_answers) = (AtomicBool::new(false), AtomicBool::new(false));
        Arc::new(Self { memory, is_away, loses_answers, reads: AtomicU64::new(0) })
    }

    fn memory(&self) -> Arc<Memory> {
        Arc::clone(&self.memory.lock().unwrap())
    }

    /// Everything in it.
    pub(crate) async fn backup(&self) -> Vec<(Key, Entry)> {
        let memory = self.memory();
        let mut all = Vec::new();
        for key in memory.list("", None, 1000).await.unwrap() {
            let entry = memory.read(&key).await.unwrap().unwrap();
            all.push((key, entry));
        }
        all
    }

    /// Forgets everything but this.
    pub(crate) async fn restore(&self, all: &[(Key, Entry)]) {
        let memory = Arc::new(Memory::new());
        for (key, entry) in all {
            memory.swap(key, None, entry.clone()).await.unwrap();
        }
        *self.memory.lock().unwrap() = memory;
    }

    fn check(&self) -> Result<(), StoreError> {
        match self.is_away.load(Ordering::SeqCst) {
            true => Err(StoreError::Refused("unplugged".into())),
            false => Ok(()),
        }
    }
}

#[async_trait]
impl Register for Store {
    fn capabilities(&self) -> Capabilities {
        self.memory().capabilities()
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        self.check()?;
        self.memory().read(key).await
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        self.check()?;
        let swap = self.memory().swap(key, expected, next).await;
        match self.loses_answers.load(Ordering::SeqCst) {
            true => Err(StoreError::Unknown("lost".into())),
            false => swap,
        }
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.check()?;
        self.memory().list(prefix, after, limit).await
    }
}

/// Nodes with one clock.
pub(crate) struct Fleet {
    pub(crate) host: Arc<dyn Host>,
    pub(crate) store: Arc<Store>,
    nodes: BTreeMap<String, Revocations>,
    config: RevocationConfig,
}

impl Fleet {
    pub(crate) fn new(names: &[&str], config: RevocationConfig) -> Self {
        let host: Arc<dyn Host> = Arc::new(TestHost::new());
        let mut fleet = Self { host, store: Store::new(), nodes: BTreeMap::new(), config };
        for name in names {
            fleet.start(name);
        }
        fleet
    }

    pub(crate) fn parts(&self, name: &str) -> Parts {
        Parts {
            node: NodeId::parse(name).unwrap(),
            host: Arc::clone(&self.host),
            register: Arc::clone(&self.store) as _,
            crypto: Arc::new(LocalCrypto),
            store_ms: 2 * SECOND,
        }
    }

    /// Starts a node, as a process that knows nothing.
    pub(crate) fn start(&mut self, name: &str) {
        let node = Revocations::start(self.parts(name), self.config, None);
        self.nodes.insert(name.to_owned(), node);
    }

    /// Ends a node as `kill -9` does.
    pub(crate) fn kill(&mut self, name: &str) {
        self.nodes.remove(name).unwrap().stop();
    }

    pub(crate) fn node(&self, name: &str) -> &Revocations {
        &self.nodes[name]
    }

    pub(crate) fn nodes(&self) -> impl Iterator<Item = (&String, &Revocations)> {
        self.nodes.iter()
    }

    /// Lets time pass.
    pub(crate) async fn pass(&self, ms: u64) {
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }

    pub(crate) async fn revoke(&self, name: &str, id: &str) -> Receipt {
        self.node(name).revoke(token_revoked(id), "ann").await.unwrap()
    }

    pub(crate) fn refuses(&self, name: &str, id: &str) -> bool {
        self.node(name).is_revoked(&token(id)).is_some()
    }

    pub(crate) fn is_fresh(&self, name: &str) -> bool {
        self.node(name).fresh(self.host.now()).is_ok()
    }
}

pub(crate) fn token_revoked(id: &str) -> Revocation<'_> {
    Revocation { what: What::Token { tenant: "cdn", id }, issued_by: None, lifetime: Lifetime::Told, label: None }
}

pub(crate) fn token(id: &str) -> Credentials<'_> {
    let created_at = keyreeve::core::time::Timestamp(crate::http_world::EPOCH_MS);
    Credentials::Token { tenant: "cdn", id, target: "t1", created_at }
}
