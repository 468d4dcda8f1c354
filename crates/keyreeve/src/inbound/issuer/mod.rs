//! The driver of issuers: one set of signing keys for a whole fleet, used from memory.
//!
//! ```text
//! signer, verifier -> snapshot (no lock) -> key
//!                        ^
//!                        | adopts         one look at a time per issuer, every `poll`, or when a token names an unknown key
//! timer, wish ------> look: read -> step -> generate -> swap
//! ```
//! What is decided is in [`keyreeve_core::issuer`]. There is no intent and no lease: a key that was generated and not
//! published is nothing, so a node that dies between the two leaves the set as it was.
//!
//! Nobody who signs or verifies waits for the store, but for who brings a key id that is not known: that look is shared, and
//! begins at most every [`LOOK_GAP_MS`].

mod cell;
mod look;
mod operate;

use std::collections::BTreeMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use futures::future::select;
use keyreeve_core::crypto::Crypto;
use keyreeve_core::id::{IssuerName, NodeId};
use keyreeve_core::jwt::{Algorithm, PublicKey};
use keyreeve_core::seal::KeyRing;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Moment;

use crate::config::IssuerConfig;
use crate::error::{Error, ErrorKind};
use crate::hex;
use crate::jwt::{Keys, SigningKey};
use crate::port::{Host, Key, Register};

pub use operate::{IssuerState, KeyState};

use cell::Cell;

/// Strangers who name unknown keys cause at most one look in this time, in milliseconds; `poll` where that is less.
pub const LOOK_GAP_MS: u64 = 100;

/// Who reads the key set waits this long for a look at the most, in milliseconds.
const KEY_SET_WAIT_MS: u64 = 300;

/// A key pair that has just been made.
pub struct KeyPair {
    /// What verifies.
    pub public: PublicKey,
    /// What signs: PEM or JWK.
    pub private: Secret<Vec<u8>>,
}

/// Makes key pairs, from the system's secure random generator.
#[async_trait]
pub trait KeyMaker: Send + Sync {
    /// A key pair for `algorithm`.
    ///
    /// # Errors
    /// A sentence without key material.
    async fn make(&self, algorithm: Algorithm) -> Result<KeyPair, String>;
}

/// What a driver is made of.
pub struct Parts {
    /// This node's name.
    pub node: NodeId,
    /// Time, chance, tasks.
    pub host: Arc<dyn Host>,
    /// The register.
    pub register: Arc<dyn Register>,
    /// The primitives.
    pub crypto: Arc<dyn Crypto>,
    /// The seal keys.
    pub keys: KeyRing,
    /// Makes keys.
    pub maker: Arc<dyn KeyMaker>,
    /// A store that has not answered after this long, in milliseconds, is taken not to have answered.
    pub store_ms: u64,
}

/// The issuers of one node. Cheap to clone.
#[derive(Clone)]
pub struct Issuers {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeId,
    host: Arc<dyn Host>,
    register: Arc<dyn Register>,
    crypto: Arc<dyn Crypto>,
    keys: ArcSwap<KeyRing>,
    maker: Arc<dyn KeyMaker>,
    store_ms: u64,
    cells: BTreeMap<IssuerName, Arc<Cell>>,
}

/// A key that may sign now, and until when its tokens may live.
pub struct Ready {
    /// The key.
    pub key: SigningKey,
    /// The longest life of a token, in milliseconds.
    pub life_ms_max: u64,
    /// Now.
    pub now: Moment,
}

impl Issuers {
    /// Starts a driver and its first looks. Issuers that `previous` has already are taken over, so that a reload signs on
    /// without a gap.
    #[must_use]
    pub fn start(parts: Parts, issuers: &BTreeMap<IssuerName, IssuerConfig>, previous: Option<&Self>) -> Self {
        let cells = issuers.iter().map(|(name, config)| {
            let digest = parts.crypto.sha256(&[b"keyreeve issuer v1\0", name.as_str().as_bytes()]);
            let digest = hex::encode(digest.as_chunks::<16>().0.first().unwrap_or(&[0; 16]));
            let known = previous.and_then(|previous| previous.inner.cells.get(name));
            let cell =
                Cell::new(name, config, Key::of_issuer(&digest), Key::of_revoked(&digest), known.map(Arc::as_ref));
            (name.clone(), Arc::new(cell))
        });
        let cells = cells.collect();
        let inner = Arc::new(Inner {
            node: parts.node,
            host: parts.host,
            register: parts.register,
            crypto: parts.crypto,
            keys: ArcSwap::from_pointee(parts.keys),
            maker: parts.maker,
            store_ms: parts.store_ms,
            cells,
        });
        for cell in inner.cells.values() {
            let (weak, cell) = (Arc::downgrade(&inner), Arc::clone(cell));
            inner.host.spawn(Box::pin(look::follow(weak, cell)));
        }
        Self { inner }
    }

    /// Ends the looks; what is held is served on until it is too old.
    pub fn stop(&self) {
        self.inner.cells.values().for_each(|cell| cell.stop());
    }

    /// Their names, in order.
    pub fn names(&self) -> impl Iterator<Item = &IssuerName> {
        self.inner.cells.keys()
    }

    /// The only issuer, where there is one and no other.
    #[must_use]
    pub fn only(&self) -> Option<&IssuerName> {
        let mut names = self.inner.cells.keys();
        names.next().filter(|_| names.next().is_none())
    }

    /// Its configuration.
    #[must_use]
    pub fn config(&self, name: &str) -> Option<&IssuerConfig> {
        self.inner.cells.get(name).map(|cell| &cell.config)
    }

    /// The key that signs now. Waits for the first look of this node where it has none yet, and for nothing else.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`] where what is known is too old to be signed with; [`ErrorKind::SealKeyMissing`] where the
    /// key cannot be opened here; [`ErrorKind::NotFound`].
    pub async fn ready(&self, name: &str) -> Result<Ready, Error> {
        let cell = self.cell(name)?;
        if !cell.is_held() {
            look::again(&self.inner, cell).await;
        }
        cell.ready(self.inner.host.now())
    }

    /// The keys that verify its tokens, from memory. `None` where there is no such issuer.
    #[must_use]
    pub fn keys(&self, name: &str) -> Option<Arc<dyn Keys>> {
        let cell = Arc::clone(self.inner.cells.get(name)?);
        Some(Arc::new(look::Followed { inner: Arc::clone(&self.inner), cell }))
    }

    /// The key set as it is published, and for how long it may be kept, in milliseconds.
    ///
    /// Who asks may have met a key that is younger than the last look, so this looks again, together with everybody who asks
    /// at the time; where the register does not answer at once, it answers from memory.
    ///
    /// # Errors
    /// As [`ready`](Self::ready).
    pub async fn jwks(&self, name: &str) -> Result<(String, u64), Error> {
        let cell = self.cell(name)?;
        if !cell.is_held() {
            look::again(&self.inner, cell).await;
        } else if !cell.is_at_fault() {
            let until = self.inner.host.now().mono.plus(KEY_SET_WAIT_MS);
            let looked = Box::pin(look::again(&self.inner, cell));
            let _ = select(looked, self.inner.host.sleep_until(until)).await;
        }
        cell.jwks(self.inner.host.now())
    }

    /// Whether the token with this `jti` was revoked, as far as this node has read.
    #[must_use]
    pub fn is_revoked(&self, name: &str, jti: &str) -> bool {
        self.inner.cells.get(name).is_some_and(|cell| cell.is_revoked(self.inner.token_digest(jti)))
    }

    fn cell(&self, name: &str) -> Result<&Arc<Cell>, Error> {
        self.inner.cells.get(name).ok_or_else(|| Error::new(ErrorKind::NotFound, "there is no such issuer"))
    }
}
