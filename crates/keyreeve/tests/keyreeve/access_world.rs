//! Access tokens inside a test: nodes on one memory register, hashes of others in a map, and counters on everything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use keyreeve::access::{self, Access, Ask, Bcrypt, Busy, Denied, FamilyConfig, Granted, Imported, Made, New, Tokens};
use keyreeve::config::{OnStale, RevocationConfig};
use keyreeve::core::crypto::{Crypto, OpenError};
use keyreeve::core::id::{NodeId, WriteId};
use keyreeve::core::seal::{KeyRing, SealKey};
use keyreeve::core::secret::Secret;
use keyreeve::core::token::{Format, Scope, TokenId};
use keyreeve::crypto::LocalCrypto;
use keyreeve::engine::memory::Memory;
use keyreeve::port::{Capabilities, Entry, Host, Key, Register, StoreError, Swap};
use keyreeve::revocation::{self, Revocations};

use crate::http_world::{HOUR, MINUTE, SECOND, TestHost, pass};

/// A register that counts, and that can be away or blind.
#[derive(Default)]
pub(crate) struct Counted {
    to: Memory,
    /// Reads of tokens' records.
    pub(crate) reads: AtomicU64,
    /// Swaps of tokens' records.
    pub(crate) swaps: AtomicU64,
    pub(crate) is_away: AtomicBool,
    /// Reads are not answered.
    pub(crate) is_silent: AtomicBool,
    /// Swaps of tokens' records that are still let through; the store is away for the others.
    pub(crate) swaps_left: Mutex<Option<u64>>,
    /// No record of a token is found.
    pub(crate) is_blind: AtomicBool,
}

impl Counted {
    fn check(&self) -> Result<(), StoreError> {
        let is_away = self.is_away.load(Ordering::SeqCst);
        if is_away { Err(StoreError::Refused("unplugged".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Register for Counted {
    fn capabilities(&self) -> Capabilities {
        self.to.capabilities()
    }

    async fn read(&self, key: &Key) -> Result<Option<Entry>, StoreError> {
        if self.is_silent.load(Ordering::SeqCst) {
            std::future::pending::<()>().await;
        }
        self.check()?;
        let is_token = key.as_str().starts_with("tk/");
        self.reads.fetch_add(u64::from(is_token), Ordering::SeqCst);
        if is_token && self.is_blind.load(Ordering::SeqCst) {
            return Ok(None);
        }
        self.to.read(key).await
    }

    async fn swap(&self, key: &Key, expected: Option<WriteId>, next: Entry) -> Result<Swap, StoreError> {
        self.check()?;
        if key.as_str().starts_with("tk/") {
            self.swaps.fetch_add(1, Ordering::SeqCst);
            if let Some(left) = self.swaps_left.lock().unwrap().as_mut() {
                *left = left.checked_sub(1).ok_or_else(|| StoreError::Refused("unplugged".into()))?;
            }
        }
        self.to.swap(key, expected, next).await
    }

    async fn list(&self, prefix: &str, after: Option<&Key>, limit: usize) -> Result<Vec<Key>, StoreError> {
        self.check()?;
        self.to.list(prefix, after, limit).await
    }
}

/// Counts keyed hashes, and the bytes that are hashed.
#[derive(Default)]
pub(crate) struct CountedCrypto {
    pub(crate) macs: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl Crypto for CountedCrypto {
    fn sha256(&self, parts: &[&[u8]]) -> [u8; 32] {
        LocalCrypto.sha256(parts)
    }

    fn hmac_sha256(&self, key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
        self.macs.fetch_add(1, Ordering::SeqCst);
        self.bytes.fetch_add(parts.iter().map(|part| part.len() as u64).sum(), Ordering::SeqCst);
        LocalCrypto.hmac_sha256(key, parts)
    }

    fn seal(&self, key: &[u8; 32], nonce: &[u8; 24], context: &[u8], plain: &[u8]) -> Vec<u8> {
        LocalCrypto.seal(key, nonce, context, plain)
    }

    fn open(&self, key: &[u8; 32], nonce: &[u8; 24], context: &[u8], sealed: &[u8]) -> Result<Vec<u8>, OpenError> {
        LocalCrypto.open(key, nonce, context, sealed)
    }
}

/// Hashes of others: `bcrypt:SECRET` by target and id. Its bcrypt takes 60 ms and counts.
#[derive(Default)]
pub(crate) struct Elsewhere {
    pub(crate) hashes: Mutex<BTreeMap<(String, Option<TokenId>), String>>,
    pub(crate) is_away: AtomicBool,
    pub(crate) asked: AtomicU64,
    pub(crate) compared: AtomicU64,
}

impl Elsewhere {
    pub(crate) fn insert(&self, target: &str, id: Option<TokenId>, secret: &str) {
        self.hashes.lock().unwrap().insert((target.into(), id), format!("bcrypt:{secret}"));
    }

    pub(crate) fn len(&self) -> usize {
        self.hashes.lock().unwrap().len()
    }

    fn check(&self) -> Result<(), access::Unavailable> {
        let is_away = self.is_away.load(Ordering::SeqCst);
        if is_away { Err(access::Unavailable("the bucket does not answer".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Imported for Elsewhere {
    async fn hash(&self, target: &str, id: Option<TokenId>) -> Result<Option<String>, access::Unavailable> {
        self.check()?;
        if !keyreeve::core::token::is_target(target) {
            return Err(access::Unavailable("no target is called that".into()));
        }
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.hashes.lock().unwrap().get(&(target.to_owned(), id)).cloned())
    }

    async fn put(&self, target: &str, id: Option<TokenId>, hash: &str) -> Result<(), access::Unavailable> {
        self.check()?;
        self.hashes.lock().unwrap().insert((target.into(), id), hash.to_owned());
        Ok(())
    }

    async fn remove(&self, target: &str, id: Option<TokenId>) -> Result<(), access::Unavailable> {
        self.check()?;
        self.hashes.lock().unwrap().remove(&(target.to_owned(), id));
        Ok(())
    }

    async fn drop_target(&self, target: &str) -> Result<(), access::Unavailable> {
        self.check()?;
        self.hashes.lock().unwrap().retain(|(own, _), _| own != target);
        Ok(())
    }
}

struct Slow(Arc<Elsewhere>);

#[async_trait]
impl Bcrypt for Slow {
    async fn is_of(&self, secret: Secret<Vec<u8>>, hash: String) -> Result<bool, Busy> {
        self.0.compared.fetch_add(1, Ordering::SeqCst);
        pass(60).await;
        Ok(hash.strip_prefix("bcrypt:").map(str::as_bytes) == Some(secret.expose()))
    }

    async fn hash(&self, secret: Secret<Vec<u8>>, _: [u8; 16]) -> Result<String, Busy> {
        Ok(format!("bcrypt:{}", String::from_utf8(secret.expose().clone()).unwrap()))
    }
}

/// What nodes share.
pub(crate) struct World {
    pub(crate) host: Arc<TestHost>,
    pub(crate) register: Arc<Counted>,
    pub(crate) elsewhere: Arc<Elsewhere>,
    pub(crate) on_stale: OnStale,
    pub(crate) family: FamilyConfig,
    /// What legacy tokens are made with.
    pub(crate) legacy_key: Option<&'static [u8]>,
}

/// One node.
pub(crate) struct Node {
    host: Arc<TestHost>,
    pub(crate) tokens: Tokens,
    pub(crate) access: Access,
    pub(crate) crypto: Arc<CountedCrypto>,
    revocations: Revocations,
}

impl World {
    pub(crate) fn new() -> Self {
        Self {
            host: Arc::new(TestHost::new()),
            register: Arc::default(),
            elsewhere: Arc::default(),
            on_stale: OnStale::Deny,
            family: FamilyConfig {
                format: Format::Native,
                life_ms: None,
                grace_ms: HOUR,
                hashes: None,
                legacy_key: None,
            },
            legacy_key: None,
        }
    }

    pub(crate) async fn node(&self, name: &str) -> Node {
        self.sealed(name, &[[7; 32]], None).await
    }

    /// A node with these seal keys, which has read what is revoked.
    pub(crate) async fn sealed(&self, name: &str, keys: &[[u8; 32]], previous: Option<&Node>) -> Node {
        let node = NodeId::parse(name).unwrap();
        let host: Arc<dyn Host> = Arc::clone(&self.host) as _;
        let register: Arc<dyn Register> = Arc::clone(&self.register) as _;
        let parts = revocation::Parts {
            node: node.clone(),
            host: Arc::clone(&host),
            register: Arc::clone(&register),
            crypto: Arc::new(LocalCrypto),
            store_ms: 2 * SECOND,
        };
        let config =
            RevocationConfig { max_staleness_ms: SECOND, on_stale: self.on_stale, keep_ms: 24 * HOUR, skew_ms: MINUTE };
        let revocations = Revocations::start(parts, config, None);
        let crypto = Arc::new(CountedCrypto::default());
        let mut keys = keys.iter().map(|key| SealKey::new(&LocalCrypto, *key));
        let imported: Arc<dyn Imported> = Arc::clone(&self.elsewhere) as _;
        let parts = access::Parts {
            node,
            host,
            register,
            crypto: Arc::clone(&crypto) as _,
            keys: KeyRing::new(keys.next().unwrap(), keys.collect()),
            revocations: revocations.clone(),
            bcrypt: Arc::new(Slow(Arc::clone(&self.elsewhere))),
            imported: BTreeMap::from([("cdn".to_owned(), imported)]),
            legacy_keys: self.legacy_key.iter().map(|key| ("cdn".to_owned(), Secret::new(key.to_vec()))).collect(),
            store_ms: 2 * SECOND,
        };
        let families = BTreeMap::from([("cdn".to_owned(), self.family.clone())]);
        let tokens = Tokens::start(parts, &families, previous.map(|previous| &previous.tokens));
        let access = tokens.family("cdn").unwrap();
        pass(50).await;
        Node { host: Arc::clone(&self.host), tokens, access, crypto, revocations }
    }

    pub(crate) fn reads(&self) -> u64 {
        self.register.reads.load(Ordering::SeqCst)
    }

    pub(crate) fn compared(&self) -> u64 {
        self.elsewhere.compared.load(Ordering::SeqCst)
    }

    pub(crate) fn unplug(&self, is_away: bool) {
        self.register.is_away.store(is_away, Ordering::SeqCst);
    }
}

impl Node {
    pub(crate) async fn make(&self, target: &str) -> Made {
        self.try_make(target).await.unwrap()
    }

    pub(crate) async fn try_make(&self, target: &str) -> Result<Made, keyreeve::error::Error> {
        let new =
            New { target: target.into(), alias: "ci".into(), scope: Scope::default(), life_ms: None, format: None };
        self.access.create(new, "ops").await
    }

    pub(crate) async fn check(&self, target: &str, token: &str) -> Result<Arc<Granted>, Denied> {
        let ask = Ask { token, target, path: "/version/1/sdl", kind: "sdl", peer: None };
        self.access.check(&ask, self.host.now()).await
    }

    /// `good`, or the code of the refusal.
    pub(crate) async fn says(&self, target: &str, token: &str) -> &'static str {
        self.check(target, token).await.map_or_else(|denied| denied.code(), |_| "good")
    }

    /// Ends as a process does that was told to.
    pub(crate) async fn leave(&self) {
        self.tokens.leave(self.host.now().mono.plus(SECOND)).await;
    }

    /// Ends as a process does that is killed: nothing is finished.
    pub(crate) fn kill(&self) {
        self.tokens.stop();
        self.revocations.stop();
    }
}
