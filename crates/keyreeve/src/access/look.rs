//! A look at the record of a token that was not seen lately: one for all who ask at the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{Either, select};
use keyreeve_core::time::Moment;
use keyreeve_core::token::hash::{is_same, legacy_id};
use keyreeve_core::token::{Bound, Format, Presented, Record, State, TokenId};

use super::held::{FLIGHTS_MAX, Flight, Verdict};
use super::{Ask, Denied, Family, Granted, Inner, credentials};
use crate::error::Error;
use crate::port::Key;
use crate::seen::Digest;

/// How long somebody waits for a verdict, in milliseconds.
const WAIT_MS: u64 = 5000;
/// A record is looked at again after this, in milliseconds, while nobody waits for it. What was revoked is heard of sooner.
const REFRESH_MS: u64 = 30_000;
/// Without that a verdict is as good as none after this, in milliseconds. No grace is shorter, so a token that was rolled ends
/// in time on every node.
pub(super) const FRESH_MS: u64 = 60_000;
/// While the store is away what is known holds on, and the store is asked again after this, in milliseconds.
const AWAY_MS: u64 = 5000;
/// When asking again may help, in milliseconds.
pub(super) const RETRY_MS: u64 = 1000;
/// A refusal is heard at the end of a step of so many milliseconds after its look began: how long the look took is not for strangers.
const REFUSED_STEP_MS: u64 = 2;
/// What a secret is compared with where there is no record: no text has this hash, so far.
const NOBODY: [u8; 32] = [0; 32];

/// What is looked at.
pub(super) struct Looked<'a> {
    pub(super) family: &'a Family,
    pub(super) target: &'a str,
    pub(super) presented: &'a Presented,
    pub(super) id: TokenId,
    /// The keyed hash of its secret.
    pub(super) hash: [u8; 32],
    /// That of revocations, from before the record was read.
    pub(super) epoch: u64,
}

/// The verdict on a token, apart from its scope.
pub(super) async fn shared(inner: &Arc<Inner>, family: &Arc<Family>, ask: &Ask<'_>, now: Moment) -> Verdict {
    let digest = inner.held.digest(&family.name, ask);
    let Some(flight) = begin(inner, family, ask, digest) else {
        if Presented::parse(ask.token).is_none() {
            return Err(Denied::Malformed);
        }
        // No room to look is as a store that is away: what others ask for is no reason to refuse a token that is known.
        let known = inner.held.good(&digest, now.mono).ok_or(Denied::Unavailable { retry_ms: RETRY_MS })?;
        known.fresh_until.store(now.mono.plus(AWAY_MS).0, Ordering::Relaxed);
        return Ok(known);
    };
    match select(flight, inner.host.sleep_until(now.mono.plus(WAIT_MS))).await {
        Either::Left((Ok(verdict), _)) => verdict,
        Either::Left((Err(_), _)) | Either::Right(_) => Err(Denied::Unavailable { retry_ms: RETRY_MS }),
    }
}

/// Begins a look, or joins the one that goes on. `None` where too many go on already, and for what is no token.
pub(super) fn begin(inner: &Arc<Inner>, family: &Arc<Family>, ask: &Ask<'_>, digest: Digest) -> Option<Flight> {
    let presented = Presented::parse(ask.token)?;
    let mut flights = inner.held.flights();
    if let Some(flight) = flights.get(&digest) {
        return Some(flight.clone());
    }
    if flights.len() >= FLIGHTS_MAX {
        return None;
    }
    let (done, verdict) = oneshot::channel();
    let flight = verdict.shared();
    flights.insert(digest, flight.clone());
    drop(flights);
    let (inner, family, target) = (Arc::clone(inner), Arc::clone(family), ask.target.to_owned());
    Arc::clone(&inner.host).spawn(Box::pin(async move {
        let began = inner.host.now().mono;
        let mut verdict = inner.look(&family, &presented, &target).await;
        if verdict.is_err() {
            let steps = inner.host.now().mono.since(began) / REFUSED_STEP_MS + 1;
            inner.host.sleep_until(began.plus(steps * REFUSED_STEP_MS)).await;
        }
        let now = inner.host.now().mono;
        if let (Err(Denied::Unavailable { .. }), Some(granted)) = (&verdict, inner.held.good(&digest, now)) {
            // What is revoked is still heard of, or `on_stale` decides: the record alone is no reason to refuse.
            granted.fresh_until.store(now.plus(AWAY_MS).0, Ordering::Relaxed);
            verdict = Ok(granted);
        } else {
            inner.held.keep(digest, &verdict, now);
        }
        inner.held.flights().remove(&digest);
        // Nobody may be waiting any more.
        let _ = done.send(verdict);
    }));
    Some(flight)
}

impl Inner {
    async fn look(&self, family: &Family, presented: &Presented, target: &str) -> Verdict {
        // Before anything is read: what is revoked meanwhile is found in the log.
        let epoch = self.revocations.epoch();
        let id = presented.id.unwrap_or_else(|| legacy_id(self.crypto.as_ref(), &family.name, target));
        let record = self.record(id).await.map_err(|error| unavailable(id, &error))?;
        let bound = Bound { family: &family.name, target, id, format: presented.format };
        let key = self.hash_key().await.map_err(|error| unavailable(id, &error))?;
        let hash = bound.hash(self.crypto.as_ref(), key.expose(), presented.secret.expose());
        let known = record.as_ref().and_then(|record| record.hash).unwrap_or(NOBODY);
        let is_right = is_same(&known, &hash);
        let looked = Looked { family, target, presented, id, hash, epoch };
        // Nothing that was made elsewhere has our format.
        let is_import = family.imported.is_some() && presented.format != Format::Native;
        match record {
            Some(record) if is_right && (record.import.is_none() || !is_import) => self.grant(record, epoch),
            Some(record) if is_import && record.import.is_some() && looked.is_of(&record) => {
                self.look_elsewhere(&looked, Some(record), is_right).await
            }
            None if is_import => self.look_elsewhere(&looked, None, false).await,
            _ => Err(Denied::Unknown),
        }
    }

    /// The record of a token.
    pub(super) async fn record(&self, id: TokenId) -> Result<Option<Record>, Error> {
        let entry = self.read(&Key::of_token(&id.digits())).await?;
        let decode = |entry: crate::port::Entry| {
            let record =
                Record::decode(&entry.bytes).map_err(|error| super::key::refused(&format!("`{id}`: {error}")))?;
            // What is not part of the hash.
            if record.id == id && record.op == entry.op {
                Ok(record)
            } else {
                Err(super::key::refused(&format!("`{id}`: the record belongs elsewhere")))
            }
        };
        entry.map(decode).transpose()
    }

    /// What is known of a token whose secret was right.
    pub(super) fn grant(&self, record: Record, epoch: u64) -> Verdict {
        let now = self.host.now();
        match record.state(now.latest()) {
            State::Active | State::Rolling => {}
            State::Revoked => return Err(Denied::Revoked),
            State::Expired => return Err(Denied::Expired),
        }
        let name = record.id.to_string();
        let revoked = credentials(&record.family, &record.target, &name, record.created_at);
        if self.revocations.is_revoked(&revoked).is_some() {
            return Err(Denied::Revoked);
        }
        let allowed = record.scope.compile().map_err(|error| {
            tracing::error!(token = %record.id, "the scope of a token cannot be read: {error}");
            Denied::Unavailable { retry_ms: RETRY_MS }
        })?;
        Ok(Arc::new(Granted {
            id: record.id,
            ends_at: record.ends_at(),
            target: record.target,
            alias: record.alias,
            format: record.format,
            created_at: record.created_at,
            family: record.family,
            name,
            allowed,
            epoch: AtomicU64::new(epoch),
            refresh_at: AtomicU64::new(now.mono.plus(REFRESH_MS).0),
            fresh_until: AtomicU64::new(now.mono.plus(FRESH_MS).0),
            noted_at: AtomicU64::new(0),
        }))
    }
}

impl Looked<'_> {
    /// Whether a record is about this token, whatever its secret.
    fn is_of(&self, record: &Record) -> bool {
        record.family == self.family.name && record.target == self.target && record.format == self.presented.format
    }
}

fn unavailable(id: TokenId, error: &Error) -> Denied {
    tracing::warn!(token = %id, "an access token cannot be checked: {error}");
    Denied::Unavailable { retry_ms: error.retry_after_ms.unwrap_or(RETRY_MS) }
}
