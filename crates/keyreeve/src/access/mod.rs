//! Opaque access tokens: made here, shown once, checked at almost no cost, taken back at once.
//!
//! ```text
//! token, target -> one spelling? -> seen lately? -> record -> keyed hash -> Granted -> scope -> through
//!                   no read else     no wait          one flight a token
//! ```
//! [`Granted`] is made by a check only. A verdict is found by a keyed hash of family, target and token, never by the token;
//! that a token is good is remembered until it has to be looked at again, that it is not for [`NEGATIVE_MS`]. Whoever shows a
//! token that is unknown, wrong or taken back causes the same work, and hears the same.
//!
//! What is stored is in [`keyreeve_core::token`]. Nothing here reads a request or writes an answer: see `http::tokens`.

mod change;
mod held;
mod key;
mod look;
mod made;
mod used;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use keyreeve_core::crypto::Crypto;
use keyreeve_core::id::NodeId;
use keyreeve_core::seal::KeyRing;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use keyreeve_core::token::{Allowed, Format, OutOfScope, TEXT_BYTES_MAX, TokenId, is_target};

pub use crate::config::FamilyConfig;
use crate::port::{Host, Register};
pub use made::{Made, New};

use held::{Held, Kept};

/// How long it is remembered that a token is not good, in milliseconds: one that is made after somebody tried it is good
/// after this.
pub const NEGATIVE_MS: u64 = 1500;
/// The longest path that is asked about, in bytes.
const PATH_BYTES_MAX: usize = keyreeve_core::policy::PATH_BYTES_MAX;

/// What somebody asks for, with a token.
#[derive(Clone, Copy)]
pub struct Ask<'a> {
    /// The token, as it was sent.
    pub token: &'a str,
    /// What it is to open.
    pub target: &'a str,
    /// The path below the target, from its `/` on.
    pub path: &'a str,
    /// The type of the artifact.
    pub kind: &'a str,
    /// From where, where that is known.
    pub peer: Option<IpAddr>,
}

/// Why a token opens nothing. Displayed for the operator; strangers are told [`public`](Self::public).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not the spelling of any token. Nothing was read.
    #[error("not the spelling of a token")]
    Malformed,
    /// No such token, or another secret, or for another target.
    #[error("no such token for this target, or another secret")]
    Unknown,
    /// It was taken back.
    #[error("the token was revoked")]
    Revoked,
    /// Its time, or that of its successor's grace, is over.
    #[error("the token has expired")]
    Expired,
    /// It is good, and for something else.
    #[error("{0}")]
    OutOfScope(String),
    /// This node has not heard for too long which tokens are revoked.
    #[error("this node does not know which tokens are revoked by now")]
    Stale,
    /// Nobody can say now: never a refusal.
    #[error("the token cannot be checked now")]
    Unavailable {
        /// When asking again may help, in milliseconds.
        retry_ms: u64,
    },
}

impl Denied {
    /// What strangers are told: no more than whether another token, another request or patience may help.
    #[must_use]
    pub const fn public(&self) -> &'static str {
        match self {
            Self::Malformed | Self::Unknown | Self::Revoked | Self::Expired => {
                "the token is not valid, or not for this target"
            }
            Self::OutOfScope(_) => "the token does not allow this request",
            Self::Stale | Self::Unavailable { .. } => "the token cannot be checked now",
        }
    }

    /// The name used in the API, logs and metrics.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Unknown => "unknown",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
            Self::OutOfScope(_) => "out-of-scope",
            Self::Stale => "stale",
            Self::Unavailable { .. } => "unavailable",
        }
    }
}

/// A token that was found good. Only [`Access::check`] makes one.
#[derive(Debug)]
pub struct Granted {
    /// Which token.
    pub id: TokenId,
    /// What it opens.
    pub target: String,
    /// What people call it.
    pub alias: String,
    /// How it is spelt.
    pub format: Format,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it is over.
    pub ends_at: Option<Timestamp>,
    allowed: Allowed,
    /// The epoch of revocations that it was checked in.
    epoch: AtomicU64,
    /// Until when its record need not be looked at again, in monotonic milliseconds.
    fresh_until: AtomicU64,
    /// When its use was noted last, in monotonic milliseconds.
    noted_at: AtomicU64,
}

/// Compares a secret with a bcrypt hash. That takes tens of milliseconds of a core, so it belongs off the threads that answer
/// requests.
#[async_trait]
pub trait Bcrypt: Send + Sync {
    /// Whether `hash` is one of `secret`.
    ///
    /// # Errors
    /// [`Busy`] where too many are being compared.
    async fn is_of(&self, secret: Secret<Vec<u8>>, hash: String) -> Result<bool, Busy>;
}

/// Too much is being done at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many hashes are being compared")]
pub struct Busy;

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
    /// Compares imported hashes.
    pub bcrypt: Arc<dyn Bcrypt>,
    /// A store that has not answered after this long, in milliseconds, is taken not to have answered.
    pub store_ms: u64,
}

/// The access tokens of one node, all families of them. Cheap to clone.
#[derive(Clone)]
pub struct Tokens {
    inner: Arc<Inner>,
}

/// The tokens of one family. Cheap to clone.
#[derive(Clone)]
pub struct Access {
    inner: Arc<Inner>,
    family: Arc<Family>,
}

struct Family {
    name: String,
    config: FamilyConfig,
}

struct Inner {
    node: NodeId,
    host: Arc<dyn Host>,
    register: Arc<dyn Register>,
    crypto: Arc<dyn Crypto>,
    keys: KeyRing,
    bcrypt: Arc<dyn Bcrypt>,
    store_ms: u64,
    families: BTreeMap<String, Arc<Family>>,
    held: Arc<Held>,
    hash_key: OnceLock<Secret<[u8; 32]>>,
    is_stopped: AtomicBool,
}

impl Tokens {
    /// Starts a driver. Where `previous` works on the same register its verdicts stay, so that a reload costs no reads.
    #[must_use]
    pub fn start(parts: Parts, families: &BTreeMap<String, FamilyConfig>, previous: Option<&Self>) -> Self {
        let previous = previous.filter(|previous| Arc::ptr_eq(&previous.inner.register, &parts.register));
        let held = previous.map(|previous| Arc::clone(&previous.inner.held));
        let held = held.unwrap_or_else(|| {
            let mut secret = [0; 32];
            parts.host.fill(&mut secret);
            Arc::new(Held::new(&secret))
        });
        let family =
            |(name, config): (&String, &FamilyConfig)| (name.clone(), Arc::new(Family { name: name.clone(), config: config.clone() }));
        let inner = Arc::new(Inner {
            node: parts.node,
            host: parts.host,
            register: parts.register,
            crypto: parts.crypto,
            keys: parts.keys,
            bcrypt: parts.bcrypt,
            store_ms: parts.store_ms,
            families: families.iter().map(family).collect(),
            held,
            hash_key: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
        });
        inner.host.spawn(Box::pin(used::follow(Arc::downgrade(&inner))));
        Self { inner }
    }

    /// Ends what goes on in the background.
    pub fn stop(&self) {
        self.inner.is_stopped.store(true, Ordering::Relaxed);
    }

    /// The tokens of this family.
    #[must_use]
    pub fn family(&self, name: &str) -> Option<Access> {
        let family = Arc::clone(self.inner.families.get(name)?);
        Some(Access { inner: Arc::clone(&self.inner), family })
    }

    /// The only family, where there is one and no other.
    #[must_use]
    pub fn only(&self) -> Option<Access> {
        let mut names = self.inner.families.keys();
        names.next().filter(|_| names.next().is_none()).and_then(|name| self.family(name))
    }

    /// The names of the families, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.inner.families.keys().map(String::as_str)
    }
}

impl Access {
    /// The name of the family.
    #[must_use]
    pub fn family(&self) -> &str {
        &self.family.name
    }

    /// The verdict on a token that was checked lately, without waiting. `None` where it has to be looked at:
    /// [`check`](Self::check) does.
    #[must_use]
    pub fn seen(&self, ask: &Ask<'_>, now: Moment) -> Option<Result<Arc<Granted>, Denied>> {
        if is_oversized(ask) {
            return Some(Err(Denied::Malformed));
        }
        let held = &self.inner.held;
        let verdict = match held.find(&held.digest(&self.family.name, ask), now.mono)? {
            Kept::Denied(denied) => Err(denied),
            Kept::Granted(granted) if self.inner.is_current(&granted, now.mono) => self.inner.judge(granted, ask, now),
            Kept::Granted(_) => return None,
        };
        Some(verdict)
    }

    /// The verdict on a token. All who ask about one token at once wait for one look at its record; dropping the future
    /// cancels waiting, never the look.
    ///
    /// # Errors
    /// [`Denied`]: [`Denied::Unavailable`] where the store does not answer, which says nothing about the token.
    pub async fn check(&self, ask: &Ask<'_>, now: Moment) -> Result<Arc<Granted>, Denied> {
        if let Some(verdict) = self.seen(ask, now) {
            return verdict;
        }
        let granted = look::shared(&self.inner, &self.family, ask, now).await?;
        self.inner.judge(granted, ask, now)
    }
}

impl Inner {
    /// Whether a verdict may be gone by without a look at the record.
    fn is_current(&self, granted: &Granted, now: Mono) -> bool {
        granted.fresh_until.load(Ordering::Relaxed) > now.0
            && granted.epoch.load(Ordering::Relaxed) == self.held.epoch()
    }

    /// Whether a good token is good for this, now.
    fn judge(&self, granted: Arc<Granted>, ask: &Ask<'_>, now: Moment) -> Result<Arc<Granted>, Denied> {
        if granted.ends_at.is_some_and(|end| end <= now.latest()) {
            return Err(Denied::Expired);
        }
        let allowed = granted.allowed.check(ask.path, ask.kind, ask.peer);
        allowed.map_err(|out: OutOfScope| Denied::OutOfScope(out.to_string()))?;
        self.held.note_use(&granted, now);
        Ok(granted)
    }
}

/// What nobody needs to hash in order to know that it is refused.
fn is_oversized(ask: &Ask<'_>) -> bool {
    ask.token.len() > TEXT_BYTES_MAX || !is_target(ask.target) || ask.path.len() > PATH_BYTES_MAX
}
