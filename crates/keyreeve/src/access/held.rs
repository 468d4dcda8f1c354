//! What a node remembers: verdicts, flights, uses. All of it bounded, and nothing in it decides anything for ever.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::Shared;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use keyreeve_core::token::{Compared, TokenId};

use super::mode::Run;
use super::{Ask, Busy, Denied, Granted, NEGATIVE_MS};
use crate::seen::{Digest, Seen};

/// The most good tokens that are remembered.
const GOOD_MAX: usize = 65_536;
/// The most refusals. Apart from the others, so that strangers push out strangers.
const REFUSED_MAX: usize = 16_384;
/// The most looks at records at once.
pub(super) const FLIGHTS_MAX: usize = 1024;
/// For how long a verdict may stand in for a store that is away, in milliseconds.
pub(super) const STALE_MS: u64 = 24 * 3_600_000;
/// A use is noted again after this, in milliseconds.
const NOTE_EVERY_MS: u64 = 60_000;
/// The most tokens whose use has been noted and not written.
const USES_MAX: usize = 4096;

/// A verdict.
pub(super) type Verdict = Result<Arc<Granted>, Denied>;
pub(super) type Flight = Shared<oneshot::Receiver<Told>>;
/// A comparison that goes on.
type Comparing = Shared<oneshot::Receiver<Result<bool, Busy>>>;

/// What comes of a look.
#[derive(Clone)]
pub(super) struct Told {
    pub(super) verdict: Verdict,
    /// What came of comparing it with somebody else's, and the token that it is about.
    pub(super) compared: Option<(Compared, TokenId)>,
}

pub(super) struct Held {
    good: Seen<Told>,
    refused: Seen<Told>,
    /// What bcrypt said about a secret and a hash, for ever the same.
    by_bcrypt: Seen<bool>,
    comparing: Mutex<HashMap<Digest, Comparing>>,
    flights: Mutex<HashMap<Digest, Flight>>,
    uses: Mutex<HashMap<TokenId, Timestamp>>,
    /// The targets that are being dropped here, as `family/target`.
    dropping: Mutex<BTreeSet<String>>,
}

impl Held {
    pub(super) fn new(secret: &[u8; 32]) -> Self {
        Self {
            good: Seen::new(secret, GOOD_MAX),
            refused: Seen::new(secret, REFUSED_MAX),
            by_bcrypt: Seen::new(secret, REFUSED_MAX),
            comparing: Mutex::default(),
            flights: Mutex::default(),
            uses: Mutex::default(),
            dropping: Mutex::default(),
        }
    }

    /// Both have the same key, so what one finds by the other does as well. Where somebody else judges the tokens as well, a
    /// verdict is one of its run.
    pub(super) fn digest(&self, family: &str, run: Option<&Run>, ask: &Ask<'_>) -> Digest {
        match run {
            Some(run) => self.good.digest(&[family, ask.target, ask.token, &run.tag]),
            None => self.good.digest(&[family, ask.target, ask.token]),
        }
    }

    pub(super) fn find(&self, digest: &Digest, now: Mono) -> Option<Told> {
        // The cache is told the monotonic clock: no step of the other one keeps a verdict for longer.
        let now = Timestamp(now.0);
        self.good.find(digest, now).or_else(|| self.refused.find(digest, now))
    }

    /// The good token that is remembered, however long ago it was looked at.
    pub(super) fn good(&self, digest: &Digest, now: Mono) -> Option<Arc<Granted>> {
        self.good.find(digest, Timestamp(now.0))?.verdict.ok()
    }

    pub(super) fn keep(&self, digest: Digest, told: &Told, now: Mono) {
        let now = Timestamp(now.0);
        match &told.verdict {
            Ok(_) => self.good.keep(digest, told.clone(), now.plus(STALE_MS), now),
            // A store that is away is no verdict.
            Err(Denied::Unavailable { .. } | Denied::Stale) => {}
            Err(_) => {
                // In the place of what it overrules, if that is there.
                let was_good = self.good.find(&digest, now).is_some();
                let seen = if was_good { &self.good } else { &self.refused };
                seen.keep(digest, told.clone(), now.plus(NEGATIVE_MS), now);
            }
        }
    }

    /// Whether `hash` is one of `secret`: asked of `compute` once, whoever asks and however often.
    pub(super) async fn compare(
        &self,
        secret: &str,
        hash: &str,
        now: Mono,
        compute: impl Future<Output = Result<bool, Busy>>,
    ) -> Result<bool, Busy> {
        let digest = self.by_bcrypt.digest(&["bcrypt", hash, secret]);
        let now = Timestamp(now.0);
        if let Some(known) = self.by_bcrypt.find(&digest, now) {
            return Ok(known);
        }
        let (done, answer) = oneshot::channel();
        let going = {
            let mut comparing = self.comparing.lock().unwrap_or_else(PoisonError::into_inner);
            let going = comparing.get(&digest).cloned();
            if going.is_none() {
                comparing.insert(digest, answer.shared());
            }
            going
        };
        if let Some(going) = going {
            return going.await.unwrap_or(Err(Busy));
        }
        // Nobody cancels a look, so this ends.
        let answer = compute.await;
        if let Ok(known) = answer {
            self.by_bcrypt.keep(digest, known, now.plus(STALE_MS), now);
        }
        self.comparing.lock().unwrap_or_else(PoisonError::into_inner).remove(&digest);
        let _ = done.send(answer);
        answer
    }

    pub(super) fn flights(&self) -> MutexGuard<'_, HashMap<Digest, Flight>> {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes that a token was used: now and then, and only so many.
    pub(super) fn note_use(&self, granted: &Granted, now: Moment) {
        let noted_at = granted.noted_at.load(Ordering::Relaxed);
        if noted_at != 0 && now.mono.since(Mono(noted_at)) < NOTE_EVERY_MS {
            return;
        }
        granted.noted_at.store(now.mono.0.max(1), Ordering::Relaxed);
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.len() < USES_MAX || uses.contains_key(&granted.id) {
            uses.insert(granted.id, now.wall);
        }
    }

    pub(super) fn dropping(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.dropping.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_uses(&self) -> HashMap<TokenId, Timestamp> {
        std::mem::take(&mut *self.uses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// How many verdicts are held: of good tokens, and refusals.
    pub(super) fn lens(&self) -> (usize, usize) {
        (self.good.len(), self.refused.len())
    }
}
