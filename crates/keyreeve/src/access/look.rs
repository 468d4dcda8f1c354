//! A look at the record of a token that was not seen lately: one for all who ask at the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{Either, select};
use keyreeve_core::time::Moment;
use keyreeve_core::token::hash::{is_same, legacy_id};
use keyreeve_core::token::{Bound, Format, Mode, Presented, Record, State, TokenId};

use super::compare::Spelt;
use super::held::{FLIGHTS_MAX, Flight, Told, Verdict};
use super::mode::Run;
use super::{Ask, Denied, Family, Granted, Inner, Unavailable, credentials};
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
    /// What the place of hashes that others made said already, if it was asked.
    pub(super) there: Option<Result<Option<String>, Unavailable>>,
    /// For a legacy token that is not compared by bcrypt: whether it is the one that the secret of its makers gives.
    pub(super) is_computed: Option<bool>,
}

/// How a look begins.
pub(super) enum Begun {
    /// It goes on, for all who ask.
    Going(Flight),
    /// Nothing has to be looked at.
    Malformed,
    /// Too many go on already.
    Full,
}

/// The verdict on a token, apart from its scope.
pub(super) async fn shared(
    inner: &Arc<Inner>,
    family: &Arc<Family>,
    run: Option<&Run>,
    ask: &Ask<'_>,
    now: Moment,
) -> Told {
    let digest = inner.held.digest(&family.name, run, ask);
    let flight = match begin(inner, family, run, ask, digest) {
        Begun::Going(flight) => flight,
        Begun::Malformed => return Told::malformed(run.is_some_and(Run::is_shadow)),
        // No room to look is as a store that is away: what others ask for is no reason to refuse a token that is known.
        Begun::Full => {
            let Some(known) = inner.held.good(&digest, now.mono) else { return Told::new(Err(unknown())) };
            known.fresh_until.store(now.mono.plus(AWAY_MS).0, Ordering::Relaxed);
            return Told::new(Ok(known));
        }
    };
    match select(flight, inner.host.sleep_until(now.mono.plus(WAIT_MS))).await {
        Either::Left((Ok(told), _)) => told,
        Either::Left((Err(_), _)) | Either::Right(_) => Told::new(Err(unknown())),
    }
}

/// Begins a look, or joins the one that goes on.
pub(super) fn begin(
    inner: &Arc<Inner>,
    family: &Arc<Family>,
    run: Option<&Run>,
    ask: &Ask<'_>,
    digest: Digest,
) -> Begun {
    let own = Presented::parse(ask.token);
    let is_shadow = run.is_some_and(Run::is_shadow);
    let theirs = if is_shadow { Presented::parse_as_hive(ask.token) } else { None };
    if own.is_none() && theirs.is_none() {
        return Begun::Malformed;
    }
    let spelt = Spelt { own, theirs };
    let mut flights = inner.held.flights();
    if let Some(flight) = flights.get(&digest) {
        return Begun::Going(flight.clone());
    }
    if flights.len() >= FLIGHTS_MAX {
        return Begun::Full;
    }
    let (done, verdict) = oneshot::channel();
    let flight = verdict.shared();
    flights.insert(digest, flight.clone());
    drop(flights);
    let is_computed = run.is_some_and(|run| run.mode == Mode::Enforce);
    let (inner, family, target) = (Arc::clone(inner), Arc::clone(family), ask.target.to_owned());
    Arc::clone(&inner.host).spawn(Box::pin(async move {
        let began = inner.host.now().mono;
        let mut told = match &spelt.own {
            // What they cannot have made there is nothing to compare with.
            Some(own) if !is_shadow || own.format == Format::Native => {
                Told::new(inner.look(&family, own, &target, is_computed).await)
            }
            _ => inner.look_twice(&family, &spelt, &target).await,
        };
        if told.verdict.is_err() {
            let steps = inner.host.now().mono.since(began) / REFUSED_STEP_MS + 1;
            inner.host.sleep_until(began.plus(steps * REFUSED_STEP_MS)).await;
        }
        let now = inner.host.now().mono;
        if let (Err(Denied::Unavailable { .. }), Some(granted)) = (&told.verdict, inner.held.good(&digest, now)) {
            // What is revoked is still heard of, or `on_stale` decides: the record alone is no reason to refuse.
            granted.fresh_until.store(now.plus(AWAY_MS).0, Ordering::Relaxed);
            told.verdict = Ok(granted);
        } else {
            inner.held.keep(digest, &told, now);
        }
        inner.held.flights().remove(&digest);
        // Nobody may be waiting any more.
        let _ = done.send(told);
    }));
    Begun::Going(flight)
}

impl Inner {
    async fn look(&self, family: &Family, presented: &Presented, target: &str, is_computed: bool) -> Verdict {
        // Before anything is read: what is revoked meanwhile is found in the log.
        let epoch = self.revocations.epoch();
        let mut looked = self.looked(family, presented, target, epoch).await?;
        if is_computed {
            looked.is_computed = self.is_computed(family, presented, target);
        }
        let record = self.record(looked.id).await.map_err(|error| unavailable(looked.id, &error))?;
        self.own_verdict(&looked, record).await
    }

    /// What is to be looked at about a token.
    pub(super) async fn looked<'a>(
        &self,
        family: &'a Family,
        presented: &'a Presented,
        target: &'a str,
        epoch: u64,
    ) -> Result<Looked<'a>, Denied> {
        let id = presented.id.unwrap_or_else(|| legacy_id(self.crypto.as_ref(), &family.name, target));
        let bound = Bound { family: &family.name, target, id, format: presented.format };
        let key = self.hash_key().await.map_err(|error| unavailable(id, &error))?;
        let hash = bound.hash(self.crypto.as_ref(), key.expose(), presented.secret.expose());
        Ok(Looked { family, target, presented, id, hash, epoch, there: None, is_computed: None })
    }

    /// Our verdict, by the record of the token and, where others made it, by their hash.
    pub(super) async fn own_verdict(&self, looked: &Looked<'_>, record: Option<Record>) -> Verdict {
        let (family, presented, epoch) = (looked.family, looked.presented, looked.epoch);
        let known = record.as_ref().and_then(|record| record.hash).unwrap_or(NOBODY);
        let is_right = is_same(&known, &looked.hash);
        // Nothing that was made elsewhere has our format.
        let is_import = family.imported.is_some() && presented.format != Format::Native;
        if looked.is_computed == Some(false) {
            return Err(Denied::Unknown);
        }
        match record {
            Some(record) if is_right && (record.import.is_none() || !is_import) => self.grant(record, epoch),
            Some(record) if is_import && record.import.is_some() && looked.is_of(&record) => {
                self.look_elsewhere(looked, Some(record), is_right).await
            }
            None if is_import => self.look_elsewhere(looked, None, false).await,
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
    pub(super) fn is_of(&self, record: &Record) -> bool {
        record.family == self.family.name && record.target == self.target && record.format == self.presented.format
    }
}

/// Nobody can say.
const fn unknown() -> Denied {
    Denied::Unavailable { retry_ms: RETRY_MS }
}

pub(super) fn unavailable(id: TokenId, error: &Error) -> Denied {
    tracing::warn!(token = %id, "an access token cannot be checked: {error}");
    Denied::Unavailable { retry_ms: error.retry_after_ms.unwrap_or(RETRY_MS) }
}
