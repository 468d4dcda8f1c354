//! A look at the record of a token that was not seen lately: one for all who ask at the time.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::{Either, select};
use keyreeve_core::time::Moment;
use keyreeve_core::token::hash::{is_same, legacy_id};
use keyreeve_core::token::{Bound, Presented, Record, State, TokenId};

use super::held::{FLIGHTS_MAX, Verdict};
use super::{Ask, Denied, Family, Granted, Inner};
use crate::error::Error;
use crate::port::Key;

/// How long somebody waits for a verdict, in milliseconds.
const WAIT_MS: u64 = 5000;
/// For how long a record need not be looked at again, in milliseconds.
const FRESH_MS: u64 = 1000;
/// When asking again may help, in milliseconds.
const RETRY_MS: u64 = 1000;
/// What a secret is compared with where there is no record: no text has this hash, so far.
const NOBODY: [u8; 32] = [0; 32];

/// The verdict on a token, apart from its scope.
pub(super) async fn shared(inner: &Arc<Inner>, family: &Arc<Family>, ask: &Ask<'_>, now: Moment) -> Verdict {
    let presented = Presented::parse(ask.token).ok_or(Denied::Malformed)?;
    let digest = inner.held.digest(&family.name, ask);
    let flight = {
        let mut flights = inner.held.flights();
        match flights.get(&digest) {
            Some(flight) => flight.clone(),
            None if flights.len() >= FLIGHTS_MAX => return Err(Denied::Unavailable { retry_ms: RETRY_MS }),
            None => {
                let (done, verdict) = oneshot::channel();
                let flight = verdict.shared();
                flights.insert(digest, flight.clone());
                let (inner, family, target) = (Arc::clone(inner), Arc::clone(family), ask.target.to_owned());
                Arc::clone(&inner.host).spawn(Box::pin(async move {
                    let verdict = inner.look(&family, &presented, &target).await;
                    inner.held.keep(digest, &verdict, inner.host.now().mono);
                    inner.held.flights().remove(&digest);
                    // Nobody may be waiting any more.
                    let _ = done.send(verdict);
                }));
                flight
            }
        }
    };
    match select(flight, inner.host.sleep_until(now.mono.plus(WAIT_MS))).await {
        Either::Left((Ok(verdict), _)) => verdict,
        Either::Left((Err(_), _)) | Either::Right(_) => Err(Denied::Unavailable { retry_ms: RETRY_MS }),
    }
}

impl Inner {
    async fn look(&self, family: &Family, presented: &Presented, target: &str) -> Verdict {
        // Before anything is read: what is revoked meanwhile makes the verdict an old one.
        let epoch = self.held.epoch();
        let id = presented.id.unwrap_or_else(|| legacy_id(self.crypto.as_ref(), &family.name, target));
        let record = self.record(id).await.map_err(|error| unavailable(id, &error))?;
        let bound = Bound { family: &family.name, target, id, format: presented.format };
        let key = self.hash_key().await.map_err(|error| unavailable(id, &error))?;
        let hash = bound.hash(self.crypto.as_ref(), key.expose(), presented.secret.expose());
        let known = record.as_ref().and_then(|record| record.hash).unwrap_or(NOBODY);
        let is_right = is_same(&known, &hash);
        match record {
            Some(record) if is_right => self.grant(record, epoch),
            _ => Err(Denied::Unknown),
        }
    }

    /// The record of a token.
    pub(super) async fn record(&self, id: TokenId) -> Result<Option<Record>, Error> {
        let entry = self.read(&Key::of_token(&id.digits())).await?;
        let decode = |entry: crate::port::Entry| {
            let record = Record::decode(&entry.bytes).map_err(|error| super::key::refused(&format!("{id}: {error}")))?;
            // The hash is bound to the id as well; this is for what is not hashed.
            if record.id == id && record.op == entry.op {
                Ok(record)
            } else {
                Err(super::key::refused(&format!("{id}: the record belongs elsewhere")))
            }
        };
        entry.map(decode).transpose()
    }

    /// What is known of a token whose secret was right.
    fn grant(&self, record: Record, epoch: u64) -> Verdict {
        let now = self.host.now();
        match record.state(now.latest()) {
            State::Active | State::Rolling => {}
            State::Revoked => return Err(Denied::Revoked),
            State::Expired => return Err(Denied::Expired),
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
            allowed,
            epoch: AtomicU64::new(epoch),
            fresh_until: AtomicU64::new(now.mono.plus(FRESH_MS).0),
            noted_at: AtomicU64::new(0),
        }))
    }
}

fn unavailable(id: TokenId, error: &Error) -> Denied {
    tracing::warn!(token = %id, "an access token cannot be checked: {error}");
    Denied::Unavailable { retry_ms: error.retry_after_ms.unwrap_or(RETRY_MS) }
}
