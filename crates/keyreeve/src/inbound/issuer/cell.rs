//! What one node holds of one issuer: keys ready to sign and to verify.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};
use keyreeve_core::id::IssuerName;
use keyreeve_core::issuer::{KeySet as Record, Phase, Seen};
use keyreeve_core::jwt::{Algorithm, Jwk};
use keyreeve_core::revoked::{Revoked, TokenDigest};
use keyreeve_core::seal::{KeyRing, SealedKey};
use keyreeve_core::time::{Moment, Mono, Span, Timestamp};
use tokio::sync::{Notify, watch};

use super::{Inner, Ready};
use crate::config::IssuerConfig;
use crate::crypto;
use crate::error::{Error, ErrorKind};
use crate::jwt::{self, KeySet, SigningKey};
use crate::port::Key;

/// Everything that signers and verifiers need, never changed once made, but for the time of its last confirmation.
pub(super) struct Held {
    pub(super) record: Arc<Record>,
    /// Monotonic milliseconds before the read that last found it so.
    read_at: AtomicU64,
    /// The opened private keys, by serial number.
    signing: Vec<(u64, Result<SigningKey, String>)>,
    /// Every public key that could be read, by serial number.
    verifying: Vec<(u64, jwt::Key)>,
    /// Those that verify now, and until when.
    known: ArcSwapOption<Known>,
}

/// The revoked tokens; none where there is no record of any.
#[derive(Default)]
struct RevokedHeld {
    record: Option<Revoked>,
    read_at: Mono,
}

struct Known {
    keys: Arc<KeySet>,
    until: Timestamp,
    serials: BTreeSet<u64>,
}

pub(super) struct Cell {
    pub(super) name: IssuerName,
    pub(super) config: IssuerConfig,
    pub(super) key: Key,
    pub(super) revoked_key: Key,
    held: ArcSwapOption<Held>,
    revoked: ArcSwap<RevokedHeld>,
    /// The highest number this node has signed with.
    floor: AtomicU64,
    /// Counts the times at which verdicts about tokens became void.
    epoch: AtomicU64,
    pub(super) wish: Notify,
    /// When the last look that has ended began, in monotonic milliseconds.
    pub(super) looked: watch::Sender<u64>,
    is_stopped: AtomicBool,
    /// Since when looks fail, and why.
    pub(super) fault: Mutex<Option<(Mono, String)>>,
    pub(super) seen: Mutex<Seen>,
}

impl Cell {
    pub(super) fn new(
        name: &IssuerName,
        config: &IssuerConfig,
        key: Key,
        revoked_key: Key,
        previous: Option<&Self>,
    ) -> Self {
        let load = |counter: fn(&Self) -> &AtomicU64| previous.map_or(0, |cell| counter(cell).load(Ordering::Acquire));
        Self {
            name: name.clone(),
            config: config.clone(),
            key,
            revoked_key,
            held: ArcSwapOption::new(previous.and_then(|cell| cell.held.load_full())),
            revoked: ArcSwap::new(previous.map(|cell| cell.revoked.load_full()).unwrap_or_default()),
            floor: AtomicU64::new(load(|cell| &cell.floor)),
            // A reload may have changed what a verdict rests on.
            epoch: AtomicU64::new(load(|cell| &cell.epoch).wrapping_add(1)),
            wish: Notify::new(),
            looked: watch::Sender::new(0),
            is_stopped: AtomicBool::new(false),
            fault: Mutex::new(None),
            seen: Mutex::new(previous.map(|cell| cell.lock_seen().clone()).unwrap_or_default()),
        }
    }

    pub(super) fn stop(&self) {
        self.is_stopped.store(true, Ordering::Release);
        self.wish.notify_one();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.is_stopped.load(Ordering::Acquire)
    }

    pub(super) fn lock_seen(&self) -> MutexGuard<'_, Seen> {
        // A panic while the lock was held left plain values behind, each of them valid.
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_held(&self) -> bool {
        self.held.load().is_some()
    }

    /// Whether the last look failed.
    pub(super) fn is_at_fault(&self) -> bool {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub(super) fn record(&self) -> Option<Arc<Record>> {
        self.held.load().as_ref().map(|held| Arc::clone(&held.record))
    }

    /// Another number whenever a kept verdict may be wrong, and while what is held is too old to rest a verdict on.
    pub(super) fn epoch(&self, now: Mono) -> u64 {
        let is_good = self.age(now).is_some_and(|(age_ms, good_ms)| age_ms < good_ms);
        self.epoch.load(Ordering::Acquire) << 1 | u64::from(!is_good)
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    fn void_verdicts(&self) {
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Takes over a record that was read by a question asked at `read_at`.
    pub(super) fn adopt(&self, inner: &Inner, record: Record, read_at: Mono) {
        // One at a time: a look and a command may end together.
        let mut seen = self.lock_seen();
        seen.note(&record, read_at);
        let held = self.held.load();
        if let Some(held) = held.as_ref() {
            // What could not be opened may be now: a reload brings seal keys.
            let is_whole = held.signing.iter().all(|(_, opened)| opened.is_ok());
            if held.record.op == record.op && is_whole {
                held.read_at.fetch_max(read_at.0, Ordering::AcqRel);
                return;
            }
            // A late answer must not bring back what a later read has replaced.
            if read_at.0 < held.read_at.load(Ordering::Acquire) {
                return;
            }
        }
        let before = held.as_ref().map(|held| kids(&held.record)).unwrap_or_default();
        let after = kids(&record);
        let opened = Held::open(&self.name, inner, Arc::new(record), read_at, held.as_deref());
        drop(held);
        self.held.store(Some(Arc::new(opened)));
        if !before.is_subset(&after) {
            self.void_verdicts();
        }
        for kid in after.difference(&before) {
            tracing::info!(issuer = %self.name, kid, "key known");
        }
        for kid in before.difference(&after) {
            tracing::info!(issuer = %self.name, kid, "key gone");
        }
    }

    /// Takes over the revoked tokens, as a question asked at `read_at` found them.
    pub(super) fn adopt_revoked(&self, record: Option<Revoked>, read_at: Mono) {
        let _one_at_a_time = self.lock_seen();
        let held = self.revoked.load();
        let op = |record: &Option<Revoked>| record.as_ref().map(|record| record.op);
        if read_at < held.read_at || op(&held.record) == op(&record) {
            return;
        }
        self.revoked.store(Arc::new(RevokedHeld { record, read_at }));
        self.void_verdicts();
    }

    pub(super) fn is_revoked(&self, digest: TokenDigest) -> bool {
        self.revoked.load().record.as_ref().is_some_and(|record| record.has(digest))
    }

    pub(super) fn revoked_count(&self) -> usize {
        self.revoked.load().record.as_ref().map_or(0, Revoked::count)
    }

    /// How old what is held is, and how old it may become, in milliseconds.
    pub(super) fn age(&self, now: Mono) -> Option<(u64, u64)> {
        let held = self.held.load();
        let held = held.as_ref()?;
        Some((held.age_ms(now), held.record.good_for_ms(&self.config.rules)))
    }

    /// What is held, unless it is too old to be relied on.
    fn fresh(&self, now: Moment) -> Result<Arc<Held>, Error> {
        let held = self.held.load_full();
        let good = held.filter(|held| held.age_ms(now.mono) < held.record.good_for_ms(&self.config.rules));
        good.ok_or_else(|| {
            let fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
            let why = fault.as_ref().map_or("they have not been read yet", |(_, why)| why.as_str());
            let good_ms = self.config.rules.stale_ms;
            let text = format!("the keys of issuer `{}` were not read within {}: {why}", self.name, Span(good_ms));
            Error::new(ErrorKind::StoreUnavailable, text).after(self.config.poll_ms)
        })
    }

    /// The key that signs now.
    pub(super) fn ready(&self, now: Moment) -> Result<Ready, Error> {
        let held = self.fresh(now)?;
        let lost = || Error::new(ErrorKind::SealKeyMissing, format!("issuer `{}` has no key to sign with", self.name));
        let active = held.record.active(now.wall, self.floor()).ok_or_else(lost)?;
        let opened = held.signing.iter().find(|(serial, _)| *serial == active.serial).map(|(_, opened)| opened);
        match opened {
            Some(Ok(key)) => {
                self.floor.fetch_max(active.serial, Ordering::AcqRel);
                // INVARIANT: no token outlives the life that the fleet has written down for its key.
                let life_ms_max = self.config.rules.ttl_ms.min(active.life_ms);
                Ok(Ready { key: key.clone(), life_ms_max, now })
            }
            Some(Err(why)) => Err(Error::new(ErrorKind::SealKeyMissing, why.clone())),
            None => Err(lost()),
        }
    }

    /// The keys that verify now; none where what is held is too old.
    pub(super) fn known(&self, now: Moment) -> Option<Arc<KeySet>> {
        let held = self.fresh(now).ok()?;
        if let Some(known) = held.known.load().as_ref()
            && now.wall < known.until
        {
            return Some(Arc::clone(&known.keys));
        }
        let rules = &self.config.rules;
        let listed: BTreeSet<u64> =
            held.record.listed(rules, now.wall, self.floor()).map(|(key, _)| key.serial).collect();
        let ends = held.record.keys.iter().filter(|key| listed.contains(&key.serial));
        let until = ends.filter_map(|key| held.record.leaves_at(rules, key)).min().unwrap_or(Timestamp(u64::MAX));
        let keys = held.verifying.iter().filter(|(serial, _)| listed.contains(serial)).map(|(_, key)| key.clone());
        let known = Arc::new(Known { keys: Arc::new(KeySet::new(keys.collect())), until, serials: listed });
        let before = held.known.swap(Some(Arc::clone(&known)));
        if before.is_some_and(|before| !before.serials.is_subset(&known.serials)) {
            self.void_verdicts();
        }
        Some(Arc::clone(&known.keys))
    }

    /// The key set as it is published, and for how long it may be kept: less, the older what is held is.
    pub(super) fn jwks(&self, now: Moment) -> Result<(String, u64), Error> {
        let held = self.fresh(now)?;
        let rules = &self.config.rules;
        let listed: Vec<&str> =
            held.record.listed(rules, now.wall, self.floor()).map(|(key, _)| key.public.as_str()).collect();
        // A key that was published since this was read signs no sooner than an overlap after it.
        let left_ms = held.record.overlap_ms.saturating_sub(held.age_ms(now.mono));
        Ok((format!("{{\"keys\":[{}]}}", listed.join(",")), self.config.max_age_ms.min(left_ms)))
    }

    /// The phase of each key.
    pub(super) fn phases(&self, now: Moment) -> Vec<(u64, Phase)> {
        let Some(record) = self.record() else { return Vec::new() };
        let phase = |key| record.phase(&self.config.rules, key, now.wall, self.floor());
        record.keys.iter().map(|key| (key.serial, phase(key))).collect()
    }
}

fn kids(record: &Record) -> BTreeSet<String> {
    record.keys.iter().map(|key| key.kid.clone()).collect()
}

impl Held {
    fn age_ms(&self, now: Mono) -> u64 {
        now.since(Mono(self.read_at.load(Ordering::Acquire)))
    }

    /// Opens what `previous` has not opened already.
    fn open(name: &IssuerName, inner: &Inner, record: Arc<Record>, read_at: Mono, previous: Option<&Self>) -> Self {
        let mut signing = Vec::new();
        let mut verifying = Vec::with_capacity(record.keys.len());
        for key in &record.keys {
            let is_same = previous.is_some_and(|held| held.record.keys.iter().any(|old| old.kid == key.kid));
            let earlier = previous.filter(|_| is_same);
            if let Some(sealed) = &key.sealed {
                let before = earlier.and_then(|held| held.signing.iter().find(|(serial, _)| *serial == key.serial));
                let opened = match before {
                    Some((_, Ok(opened))) => Ok(opened.clone()),
                    _ => open(name, inner, &key.kid, &key.algorithm, sealed),
                };
                if let Err(why) = &opened
                    && before.is_none_or(|(_, before)| before.as_ref().err() != Some(why))
                {
                    tracing::error!(issuer = %name, kid = key.kid, "{why}");
                }
                signing.push((key.serial, opened));
            }
            let ready = earlier.and_then(|held| held.verifying.iter().find(|(serial, _)| *serial == key.serial));
            let ready = match ready {
                Some((_, ready)) => Ok(ready.clone()),
                None => verifying_key(&key.kid, &key.public),
            };
            match ready {
                Ok(ready) => verifying.push((key.serial, ready)),
                Err(why) => tracing::error!(issuer = %name, kid = key.kid, "the public key cannot be used: {why}"),
            }
        }
        Self { record, read_at: AtomicU64::new(read_at.0), signing, verifying, known: ArcSwapOption::empty() }
    }
}

fn open(name: &IssuerName, inner: &Inner, kid: &str, algorithm: &str, sealed: &[u8]) -> Result<SigningKey, String> {
    let keys: arc_swap::Guard<Arc<KeyRing>> = ArcSwap::load(&inner.keys);
    let context = SealedKey { issuer: name, kid };
    let private = keys.open(inner.crypto.as_ref(), context, sealed).map_err(|error| error.to_string())?;
    let known = Algorithm::named(algorithm);
    let algorithm = known.ok_or_else(|| format!("`{algorithm}` is no algorithm that this keyreeve knows"))?;
    let signer = crypto::any_signer(algorithm, &private).map_err(|error| error.to_string())?;
    Ok(SigningKey::new(signer, Some(kid)))
}

fn verifying_key(kid: &str, public: &str) -> Result<jwt::Key, String> {
    let jwk = Jwk::parse(public.as_bytes(), None).map_err(|error| error.to_string())?;
    if jwk.id.as_deref() != Some(kid) || jwk.is_private {
        return Err("it is not the public half of that key".to_owned());
    }
    jwt::key_of(&jwk, crypto::check).map_err(|error| error.to_string())
}
