//! Opaque access tokens: made here, shown once, checked at almost no cost, taken back at once.
//!
//! ```text
//! token, target -> seen lately? -> revoked since? -> scope -> through
//!                       | no, or long ago: one flight a token
//!                       v
//!                  one spelling? -> record -> keyed hash -> Granted
//!                   no read else      | none of ours
//!                                     v
//!                                  imported hash -> bcrypt, once -> record
//! ```
//! [`Granted`] is made by a check only. A verdict is found by a keyed hash of family, target and token, never by the token;
//! that a token is good holds until it is revoked or its record says otherwise, that it is not for [`NEGATIVE_MS`]. Whoever
//! shows a token that is unknown, wrong or taken back causes the same work, and hears the same.
//!
//! - `look`: a token that was not seen lately; `imported`: a token whose hash is not ours
//! - `adopt`: tokens that others made, taken over
//! - `mode`: whose verdict counts meanwhile; `compare`: theirs beside ours
//! - `change`, `list`, `target`: what people do to tokens
//! - `held`: what a node remembers, all of it bounded
//! - `follow`: what goes on in the background
//!
//! What is stored is in [`keyreeve_core::token`]. Nothing here reads a request or writes an answer: see `http::tokens`.

mod adopt;
mod change;
mod compare;
mod denied;
mod follow;
mod held;
mod imported;
mod key;
mod list;
mod look;
mod made;
mod mode;
mod target;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use futures::future::select;
use keyreeve_core::crypto::Crypto;
use keyreeve_core::id::NodeId;
use keyreeve_core::seal::KeyRing;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use keyreeve_core::token::{Allowed, Format, TEXT_BYTES_MAX, TokenId, is_target};

pub use crate::config::FamilyConfig;
use crate::port::{Host, Register};
use crate::revocation::{Credentials, Revocations};
pub use adopt::Foreign;
pub use denied::Denied;
pub use imported::{Bcrypt, Busy, Imported, Unavailable};
pub use list::{Page, TOKENS_MAX};
pub use made::{Made, New};
pub use mode::FOLLOW_MS;
pub use target::DroppedTarget;

use denied::Counts;
use held::{Held, Told};
use mode::{Followed, Run};

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
    /// When it is over, as far as that is known.
    pub ends_at: Option<Timestamp>,
    /// Its family and its id, as the log of revocations knows them.
    family: String,
    name: String,
    allowed: Allowed,
    /// The epoch of revocations that it was last looked at in.
    epoch: AtomicU64,
    /// From when on its record is looked at again while nobody waits, in monotonic milliseconds.
    refresh_at: AtomicU64,
    /// Until when it is good without that, in monotonic milliseconds.
    fresh_until: AtomicU64,
    /// When its use was noted last, in monotonic milliseconds.
    noted_at: AtomicU64,
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
    /// What is revoked.
    pub revocations: Revocations,
    /// Computes bcrypt.
    pub bcrypt: Arc<dyn Bcrypt>,
    /// Where families have hashes that were made elsewhere, by the names of the families.
    pub imported: BTreeMap<String, Arc<dyn Imported>>,
    /// What the legacy tokens of families are made with, by the names of the families.
    pub legacy_keys: BTreeMap<String, Secret<Vec<u8>>>,
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
    imported: Option<Arc<dyn Imported>>,
    legacy_key: Option<Secret<Vec<u8>>>,
    /// Where somebody else judges its tokens as well.
    followed: Option<Arc<Followed>>,
    counts: Counts,
}

struct Inner {
    node: NodeId,
    host: Arc<dyn Host>,
    register: Arc<dyn Register>,
    crypto: Arc<dyn Crypto>,
    keys: KeyRing,
    revocations: Revocations,
    bcrypt: Arc<dyn Bcrypt>,
    store_ms: u64,
    families: BTreeMap<String, Arc<Family>>,
    held: Arc<Held>,
    hash_key: OnceLock<Secret<[u8; 32]>>,
    is_stopped: AtomicBool,
    writing_uses: futures::lock::Mutex<()>,
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
        let family = |(name, config): (&String, &FamilyConfig)| {
            let imported = parts.imported.get(name).map(Arc::clone);
            // What was counted and is not written yet goes on being so.
            let was = previous.and_then(|previous| previous.inner.families.get(name)?.followed.as_ref());
            let followed = || was.map_or_else(|| Arc::new(Followed::new(name)), Arc::clone);
            let family = Family {
                name: name.clone(),
                config: config.clone(),
                followed: imported.is_some().then(followed),
                imported,
                legacy_key: parts.legacy_keys.get(name).cloned(),
                counts: Counts::new(name),
            };
            (name.clone(), Arc::new(family))
        };
        let families = families.iter().map(family).collect();
        let inner = Arc::new(Inner {
            node: parts.node,
            host: parts.host,
            register: parts.register,
            crypto: parts.crypto,
            keys: parts.keys,
            revocations: parts.revocations,
            bcrypt: parts.bcrypt,
            store_ms: parts.store_ms,
            families,
            held,
            hash_key: OnceLock::new(),
            is_stopped: AtomicBool::new(false),
            writing_uses: futures::lock::Mutex::new(()),
        });
        inner.host.spawn(Box::pin(follow::run(Arc::downgrade(&inner))));
        if inner.families.values().any(|family| family.followed.is_some()) {
            inner.host.spawn(Box::pin(mode::run(Arc::downgrade(&inner))));
        }
        Self { inner }
    }

    /// Ends what goes on in the background.
    pub fn stop(&self) {
        self.inner.is_stopped.store(true, Ordering::Relaxed);
    }

    /// Ends what goes on in the background, and writes down which tokens were used meanwhile and what came of comparing them,
    /// until `deadline`. For a clean end of the process, after its last answer.
    pub async fn leave(&self, deadline: Mono) {
        self.stop();
        let written = Box::pin(async {
            self.inner.follow_modes().await;
            self.inner.write_uses().await;
        });
        let _ = select(written, self.inner.host.sleep_until(deadline)).await;
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

    /// How many verdicts this node holds: of good tokens, and refusals. Both are bounded.
    #[must_use]
    pub fn held(&self) -> (usize, usize) {
        self.inner.held.lens()
    }
}

impl Access {
    /// The name of the family.
    #[must_use]
    pub fn family(&self) -> &str {
        &self.family.name
    }

    /// The verdict on a token that was checked lately, without waiting. `None` where its record has to be looked at:
    /// [`check`](Self::check) does.
    #[must_use]
    pub fn seen(&self, ask: &Ask<'_>, now: Moment) -> Option<Result<Arc<Granted>, Denied>> {
        // What counts for a family is known a moment after the start.
        let run = match &self.family.followed {
            Some(followed) => Some(followed.run()?),
            None => None,
        };
        let told = self.remembered(run.as_deref(), ask, now)?;
        self.count(run.as_deref(), &told, ask);
        Some(told.verdict)
    }

    /// The verdict once more on a request that [`seen`](Self::seen) has counted already: nothing is counted.
    ///
    /// # Errors
    /// As [`check`](Self::check).
    pub async fn check_again(&self, ask: &Ask<'_>, now: Moment) -> Result<Arc<Granted>, Denied> {
        self.told(ask, now).await?.1.verdict
    }

    /// The verdict on a token. All who ask about one token at once wait for one look at its record; dropping the future
    /// cancels waiting, never the look.
    ///
    /// # Errors
    /// [`Denied`]: [`Denied::Unavailable`] where the store does not answer, which says nothing about the token.
    pub async fn check(&self, ask: &Ask<'_>, now: Moment) -> Result<Arc<Granted>, Denied> {
        match self.told(ask, now).await {
            Ok((run, told)) => {
                self.count(run.as_deref(), &told, ask);
                told.verdict
            }
            Err(denied) => {
                let told = Told::new(Err(denied));
                self.count(None, &told, ask);
                told.verdict
            }
        }
    }

    /// What is remembered, or comes of a look.
    async fn told(&self, ask: &Ask<'_>, now: Moment) -> Result<(Option<Arc<Run>>, Told), Denied> {
        let run = self.inner.run_of(&self.family).await?;
        if let Some(told) = self.remembered(run.as_deref(), ask, now) {
            return Ok((run, told));
        }
        let mut told = look::shared(&self.inner, &self.family, run.as_deref(), ask, now).await;
        // Time has passed, and the epoch may have.
        told.verdict = told.verdict.and_then(|granted| {
            let judged = self.inner.judge(granted, ask, self.inner.host.now());
            judged.unwrap_or(Err(Denied::Unavailable { retry_ms: 0 }))
        });
        Ok((run, told))
    }

    fn count(&self, run: Option<&Run>, told: &Told, ask: &Ask<'_>) {
        self.family.counts.count(&told.verdict);
        if let (Some(run), Some(followed)) = (run, &self.family.followed) {
            followed.count(run, told, ask);
        }
    }

    fn remembered(&self, run: Option<&Run>, ask: &Ask<'_>, now: Moment) -> Option<Told> {
        let is_shadow = run.is_some_and(Run::is_shadow);
        if is_oversized(ask) {
            return Some(Told::malformed(is_shadow));
        }
        let held = &self.inner.held;
        let digest = held.digest(&self.family.name, run, ask);
        let Told { verdict, compared } = held.find(&digest, now.mono)?;
        match verdict {
            Err(denied) => Some(Told { verdict: Err(denied), compared }),
            Ok(granted) if granted.fresh_until.load(Ordering::Relaxed) <= now.mono.0 => None,
            Ok(granted) => {
                let refresh_at = granted.refresh_at.load(Ordering::Relaxed);
                if refresh_at <= now.mono.0 {
                    granted.refresh_at.store(now.mono.0.saturating_add(look::RETRY_MS), Ordering::Relaxed);
                    look::begin(&self.inner, &self.family, run, ask, digest);
                }
                let verdict = self.inner.judge(granted, ask, now)?;
                // Their verdict is older than the revocation: both are found again.
                let is_over = matches!(verdict, Err(Denied::Revoked | Denied::Expired));
                (!(is_shadow && is_over)).then_some(Told { verdict, compared })
            }
        }
    }
}

impl Inner {
    /// Whether a good token is good for this, now. `None` where only its record can tell.
    fn judge(&self, granted: Arc<Granted>, ask: &Ask<'_>, now: Moment) -> Option<Result<Arc<Granted>, Denied>> {
        if self.revocations.fresh(now).is_err() {
            return Some(Err(Denied::Stale));
        }
        let epoch = granted.epoch.load(Ordering::Relaxed);
        match self.revocations.again(epoch, &granted.credentials()) {
            Ok(same) if same == epoch => {}
            Ok(later) => granted.epoch.store(later, Ordering::Relaxed),
            Err(Some(_)) => return Some(Err(Denied::Revoked)),
            Err(None) => return None,
        }
        if granted.ends_at.is_some_and(|end| end <= now.latest()) {
            return Some(Err(Denied::Expired));
        }
        if let Err(out) = granted.allowed.check(ask.path, ask.kind, ask.peer) {
            return Some(Err(Denied::OutOfScope(out.to_string())));
        }
        self.held.note_use(&granted, now);
        Some(Ok(granted))
    }
}

impl Granted {
    fn credentials(&self) -> Credentials<'_> {
        credentials(&self.family, &self.target, &self.name, self.created_at)
    }
}

/// What nobody needs to hash in order to know that it is refused.
fn is_oversized(ask: &Ask<'_>) -> bool {
    ask.token.len() > TEXT_BYTES_MAX || !is_target(ask.target) || ask.path.len() > PATH_BYTES_MAX
}

/// A token, as the log of revocations knows it.
fn credentials<'a>(family: &'a str, target: &'a str, id: &'a str, created_at: Timestamp) -> Credentials<'a> {
    Credentials::Token { tenant: family, id, target, created_at }
}
