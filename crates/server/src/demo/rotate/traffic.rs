//! Those who sign and those who verify: nodes by introspection, and readers of the key set, as other services are.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use keyreeve::core::jwt::{Expected, JwkSet, Unverified};
use keyreeve::core::time::Timestamp;
use keyreeve::crypto;
use keyreeve::jwt::{Verifier, key_set};

use super::super::plan::Dice;
use super::super::processes::node_name;
use super::fleet::{End, NODES, Silence, URL};

/// The most tokens in circulation.
const TOKENS_MAX: usize = 400;
/// How long a worker rests between two tokens.
const REST: Duration = Duration::from_millis(10);
/// How long a worker leaves a node alone that does not answer.
const PAUSE: Duration = Duration::from_millis(100);
/// How long a reader keeps a key set: `max_age` of the configuration.
const KEEP: Duration = Duration::from_secs(1);
/// The most failures that are told.
const FAILURES_TOLD_MAX: usize = 5;

/// What all together did.
#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub(super) signed: u64,
    /// Valid tokens that a node accepted.
    pub(super) verified: u64,
    /// Valid tokens that a reader of the key set accepted.
    pub(super) verified_outside: u64,
    /// Valid tokens that were refused.
    pub(super) failed: u64,
    pub(super) failures: Vec<String>,
    /// The keys that signed.
    pub(super) kids: BTreeSet<String>,
    /// Tokens of a retired key that were refused.
    pub(super) refused_retired: u64,
    /// Those that were accepted after the bound.
    pub(super) accepted_late: u64,
    /// How long after a retirement the last question was asked that was answered with yes, in milliseconds.
    pub(super) last_accepted_ms: u64,
    pub(super) unreachable: u64,
    pub(super) unavailable: u64,
}

#[derive(Clone)]
struct Token {
    text: String,
    kid: String,
    expires_s: u64,
}

impl Token {
    fn is_valid(&self) -> bool {
        now().seconds() < self.expires_s
    }
}

/// A retirement: since when, once it was answered, and from when on nobody may accept.
#[derive(Clone, Copy)]
struct Retired {
    answered_at: Option<Instant>,
    bound: Duration,
}

pub(super) struct Traffic {
    pub(super) ends: Vec<End>,
    tokens: Mutex<VecDeque<Token>>,
    retired: Mutex<BTreeMap<String, Retired>>,
    counts: Mutex<Counts>,
    is_over: AtomicBool,
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

impl Traffic {
    pub(super) fn new(ends: Vec<End>) -> Self {
        Self {
            ends,
            tokens: Mutex::default(),
            retired: Mutex::default(),
            counts: Mutex::default(),
            is_over: AtomicBool::new(false),
        }
    }

    pub(super) fn finish(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    pub(super) fn counts(&self) -> Counts {
        lock(&self.counts).clone()
    }

    fn count(&self, change: impl FnOnce(&mut Counts)) {
        change(&mut lock(&self.counts));
    }

    /// From now on tokens of this key may be refused.
    pub(super) fn begin_retirement(&self, kid: &str, bound: Duration) {
        lock(&self.retired).insert(kid.to_owned(), Retired { answered_at: None, bound });
    }

    /// The retirement was answered: after the bound they must be.
    pub(super) fn end_retirement(&self, kid: &str) {
        if let Some(retired) = lock(&self.retired).get_mut(kid) {
            retired.answered_at = Some(Instant::now());
        }
    }

    fn retired(&self, kid: &str) -> Option<Retired> {
        lock(&self.retired).get(kid).copied()
    }

    /// Signs at one node.
    pub(super) async fn sign(self: Arc<Self>, node: usize) {
        let Some(end) = self.ends.get(node) else { return };
        while !self.is_over() {
            match end.token().await {
                Ok(text) => self.circulate(text),
                Err(silence) => self.silent(node, silence).await,
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn circulate(&self, text: String) {
        let Ok(parsed) = Unverified::parse(&text) else { return };
        let kid = parsed.header().ok().and_then(|header| header.key_id).unwrap_or_default();
        let claims = parsed.unverified_claims().ok();
        let expires_s = claims.as_ref().and_then(|claims| claims.root().member("exp")?.whole()).unwrap_or_default();
        self.count(|counts| {
            counts.signed += 1;
            counts.kids.insert(kid.clone());
        });
        let mut tokens = lock(&self.tokens);
        while tokens.len() >= TOKENS_MAX || tokens.front().is_some_and(|token| !token.is_valid()) {
            tokens.pop_front();
        }
        tokens.push_back(Token { text, kid, expires_s });
    }

    /// One that is still valid: any of them, however old.
    fn pick(&self, dice: &mut Dice) -> Option<Token> {
        let tokens = lock(&self.tokens);
        let at = usize::try_from(dice.below(tokens.len() as u64)).unwrap_or(0);
        tokens.get(at).filter(|token| token.is_valid()).cloned()
    }

    /// Has tokens of all nodes verified by one.
    pub(super) async fn verify(self: Arc<Self>, node: usize, seed: u64) {
        let Some(end) = self.ends.get(node) else { return };
        let mut dice = Dice::new(seed ^ (node as u64).wrapping_mul(0x9e37_79b9));
        while !self.is_over() {
            if let Some(token) = self.pick(&mut dice) {
                let asked_at = Instant::now();
                let was_retired = self.retired(&token.kid);
                match end.accepts(&token.text).await {
                    Ok(is_accepted) => {
                        self.judge(&node_name(node), &token, is_accepted, asked_at, was_retired);
                        if is_accepted {
                            self.count(|counts| counts.verified += 1);
                        }
                    }
                    Err(silence) => self.silent(node, silence).await,
                }
            }
            tokio::time::sleep(REST).await;
        }
    }

    fn judge(&self, who: &str, token: &Token, is_accepted: bool, asked_at: Instant, was_retired: Option<Retired>) {
        match (self.retired(&token.kid), is_accepted) {
            (None, false) if token.is_valid() => self.count(|counts| {
                counts.failed += 1;
                if counts.failures.len() < FAILURES_TOLD_MAX {
                    counts.failures.push(format!("{who} refused a token of `{}`", token.kid));
                }
            }),
            (Some(_), false) if token.is_valid() => self.count(|counts| counts.refused_retired += 1),
            (_, true) => {
                let Some(Retired { answered_at: Some(answered_at), bound }) = was_retired else { return };
                let after = asked_at.saturating_duration_since(answered_at);
                let after_ms = u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
                self.count(|counts| {
                    counts.last_accepted_ms = counts.last_accepted_ms.max(after_ms);
                    counts.accepted_late += u64::from(after > bound);
                });
            }
            _ => {}
        }
    }

    /// Verifies as another service does: with the key set of one node, kept as long as it may be, read anew for an unknown key.
    pub(super) async fn verify_outside(self: Arc<Self>, node: usize, seed: u64) {
        let mut dice = Dice::new(seed.wrapping_add(77) ^ (node as u64).wrapping_mul(0x9e37_79b9));
        let mut held: Option<(Verifier, Instant)> = None;
        while !self.is_over() {
            if let Some(token) = self.pick(&mut dice) {
                if held.as_ref().is_none_or(|(_, read_at)| read_at.elapsed() >= KEEP) {
                    held = self.read_keys(node, &mut dice).await.or(held);
                }
                let mut is_accepted = held.as_ref().is_some_and(|(verifier, _)| takes(verifier, &token));
                if !is_accepted {
                    held = self.read_keys(node, &mut dice).await.or(held);
                    is_accepted = held.as_ref().is_some_and(|(verifier, _)| takes(verifier, &token));
                }
                if is_accepted {
                    self.count(|counts| counts.verified_outside += 1);
                } else if held.is_some() {
                    self.judge(&format!("a reader of {}", node_name(node)), &token, false, Instant::now(), None);
                }
            }
            tokio::time::sleep(REST).await;
        }
    }

    /// The key set of a node, or of another one where that does not answer, as behind a load balancer.
    async fn read_keys(&self, home: usize, dice: &mut Dice) -> Option<(Verifier, Instant)> {
        for _ in 0..NODES {
            let node = (home + usize::try_from(dice.below(NODES as u64)).unwrap_or(0)) % NODES;
            let Ok(text) = self.ends.get(node)?.keys().await else { continue };
            let (keys, _) = key_set(&JwkSet::parse_public(text.as_bytes()).ok()?, crypto::check);
            let expected = Expected::new([URL], ["demo"]).ok()?.with_leeway_s(0).ok()?;
            return Some((Verifier::with_keys(expected, keys), Instant::now()));
        }
        None
    }

    async fn silent(&self, node: usize, silence: Silence) {
        self.count(|counts| match silence {
            Silence::Unreachable => counts.unreachable += 1,
            Silence::Unavailable => counts.unavailable += 1,
            Silence::Strange(what) => {
                counts.failed += 1;
                if counts.failures.len() < FAILURES_TOLD_MAX {
                    counts.failures.push(format!("{} answered {what}", node_name(node)));
                }
            }
        });
        tokio::time::sleep(PAUSE).await;
    }
}

fn takes(verifier: &Verifier, token: &Token) -> bool {
    verifier.verify_at_once(&token.text, now()).is_ok()
}
