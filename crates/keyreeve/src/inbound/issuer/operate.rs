//! What operators ask of an issuer: its keys, the next one, one less; and what clients revoke.

use keyreeve_core::issuer::{self, AskError, Note, Phase, Retirement};
use keyreeve_core::revoked;
use keyreeve_core::time::{Span, Timestamp};

use super::cell::Cell;
use super::{Inner, Issuers};
use crate::error::{Error, ErrorKind};
use crate::port::{Entry, StoreError, Swap, fresh_write_id};

/// How often a command that somebody else was faster than is decided anew.
const TRIES_MAX: usize = 8;

/// One key of an issuer, as it is shown.
#[derive(Clone, Debug)]
pub struct KeyState {
    /// What tokens name it by.
    pub kid: String,
    /// Its algorithm.
    pub algorithm: String,
    /// Where it is in its life.
    pub phase: Phase,
    /// When it was published.
    pub published_at: Timestamp,
    /// When it starts to sign, or started.
    pub use_from: Timestamp,
    /// When it leaves; none while nothing takes over from it.
    pub leaves_at: Option<Timestamp>,
    /// The public key, as JWK.
    pub public: String,
}

/// An issuer, as it is shown.
#[derive(Clone, Debug)]
pub struct IssuerState {
    /// Its keys, the oldest first.
    pub keys: Vec<KeyState>,
    /// What happened to them, the oldest first.
    pub notes: Vec<Note>,
    /// How many tokens are revoked.
    pub revoked: usize,
    /// Counts writes of the key set.
    pub rev: u64,
    /// For how long the keys have not been read, in milliseconds.
    pub age_ms: Option<u64>,
    /// For how long they may be used after a read, in milliseconds.
    pub good_for_ms: Option<u64>,
    /// Within this a change reaches every node that can read the register, in milliseconds.
    pub bound_ms: u64,
    /// Why the keys cannot be read.
    pub fault: Option<String>,
}

impl Issuers {
    /// What this node knows of an issuer.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`].
    pub fn state(&self, name: &str) -> Result<IssuerState, Error> {
        let cell = self.cell(name)?;
        let now = self.inner.host.now();
        let phases = cell.phases(now);
        let record = cell.record();
        let rules = &cell.config.rules;
        let keys = record.iter().flat_map(|record| {
            record.keys.iter().map(|key| KeyState {
                kid: key.kid.clone(),
                algorithm: key.algorithm.clone(),
                phase: phases.iter().find(|(serial, _)| *serial == key.serial).map_or(Phase::Gone, |(_, phase)| *phase),
                published_at: key.published_at,
                use_from: key.use_from,
                leaves_at: record.leaves_at(rules, key),
                public: key.public.clone(),
            })
        });
        let age = cell.age(now.mono);
        let fault = cell.fault.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Ok(IssuerState {
            keys: keys.collect(),
            notes: record.as_ref().map(|record| record.notes.clone()).unwrap_or_default(),
            revoked: cell.revoked_count(),
            rev: record.as_ref().map_or(0, |record| record.rev),
            age_ms: age.map(|(age_ms, _)| age_ms),
            good_for_ms: age.map(|(_, good_ms)| good_ms),
            bound_ms: self.inner.bound_ms(cell),
            fault: fault.as_ref().map(|(_, why)| why.clone()),
        })
    }

    /// Publishes the next key now; it signs after the overlap.
    ///
    /// # Errors
    /// [`ErrorKind::Conflict`] where the next key is there already, or there are too many; [`ErrorKind::StoreUnavailable`].
    pub async fn rotate(&self, name: &str, who: &str) -> Result<IssuerState, Error> {
        let (inner, cell) = (&self.inner, self.cell(name)?);
        for _ in 0..TRIES_MAX {
            let record = inner.read(cell, inner.host.now().mono).await?;
            let record = record.ok_or_else(|| no_keys(cell))?;
            let plan = issuer::rotate(inner.context(cell), &record, who).map_err(|error| asked(cell, inner, &error))?;
            let (expected, next) = inner.finish(cell, plan).await.map_err(|why| unmade(cell, &why))?;
            if inner.write(cell, expected, next).await? {
                return self.state(name);
            }
        }
        Err(busy(cell))
    }

    /// Takes a key out at once. Its tokens are refused everywhere within `bound_ms` of the answer.
    ///
    /// # Errors
    /// [`ErrorKind::NotFound`] where there is no such key; [`ErrorKind::StoreUnavailable`].
    pub async fn retire(&self, name: &str, kid: &str, who: &str) -> Result<IssuerState, Error> {
        let (inner, cell) = (&self.inner, self.cell(name)?);
        for _ in 0..TRIES_MAX {
            let record = inner.read(cell, inner.host.now().mono).await?;
            let record = record.ok_or_else(|| no_keys(cell))?;
            let retirement =
                issuer::retire(inner.context(cell), &record, kid, who).map_err(|error| asked(cell, inner, &error))?;
            let (expected, next) = match retirement {
                Retirement::Write(next) => (Some(record.op), *next),
                Retirement::Make(plan) => inner.finish(cell, *plan).await.map_err(|why| unmade(cell, &why))?,
            };
            if inner.write(cell, expected, next).await? {
                return self.state(name);
            }
        }
        Err(busy(cell))
    }

    /// Refuses the token with this `jti` from now on: here at once, elsewhere within `bound_ms`, until `over_at`.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`]; [`ErrorKind::Conflict`] where too many tokens are revoked.
    pub async fn revoke(&self, name: &str, jti: &str, over_at: Timestamp) -> Result<(), Error> {
        let (inner, cell) = (&self.inner, self.cell(name)?);
        let digest = inner.token_digest(jti);
        for _ in 0..TRIES_MAX {
            let asked_at = inner.host.now().mono;
            let base = inner.read_revoked(cell, asked_at).await?;
            let (now, fresh) = (inner.host.now(), fresh_write_id(inner.host.as_ref()));
            let next = revoked::revoke(base.as_ref(), fresh, now, digest, over_at)
                .map_err(|full| Error::new(ErrorKind::Conflict, format!("issuer `{}`: {full}", cell.name)))?;
            let Some(next) = next else { return Ok(()) };
            let entry = Entry { op: next.op, bytes: next.encode().into() };
            let asked_at = inner.host.now().mono;
            let swap = inner.register.swap(&cell.revoked_key, base.map(|base| base.op), entry);
            match inner.within(swap).await {
                Ok(Swap::Done) => {
                    cell.adopt_revoked(Some(next), asked_at);
                    return Ok(());
                }
                // Read again: if the write was made, the token is there.
                Ok(Swap::Lost) | Err(StoreError::Unknown(_)) => {}
                Err(error) => {
                    return Err(Error::new(ErrorKind::StoreUnavailable, format!("issuer `{}`: {error}", cell.name)));
                }
            }
        }
        Err(busy(cell))
    }
}

impl Inner {
    /// Both records are read one after the other, each within the time of the store.
    fn bound_ms(&self, cell: &Cell) -> u64 {
        cell.config.poll_ms.saturating_add(self.store_ms.saturating_mul(2))
    }
}

fn asked(cell: &Cell, inner: &Inner, error: &AskError) -> Error {
    let name = &cell.name;
    match error {
        AskError::Unknown => Error::new(
            ErrorKind::NotFound,
            format!("issuer `{name}` has no such key, or no longer\nhint: `keyreeve keys ls` shows those it has"),
        ),
        AskError::Pending { use_from, .. } => {
            let wait_ms = use_from.since(inner.host.now().wall);
            let text = format!(
                "issuer `{name}`: {error} in {}\nhint: where the active key must not sign any more, retire it",
                Span(wait_ms / 1000 * 1000)
            );
            Error::new(ErrorKind::Conflict, text).after(wait_ms)
        }
        _ => Error::new(ErrorKind::Conflict, format!("issuer `{name}`: {error}")),
    }
}

fn no_keys(cell: &Cell) -> Error {
    let text = format!("issuer `{}` has no keys yet; the first is being made", cell.name);
    Error::new(ErrorKind::StoreUnavailable, text).after(cell.config.poll_ms)
}

fn unmade(cell: &Cell, why: &str) -> Error {
    Error::new(ErrorKind::ConfigInvalid, format!("issuer `{}`: no key could be made: {why}", cell.name))
}

fn busy(cell: &Cell) -> Error {
    let text = format!("the record of issuer `{}` changed each time it was to be changed: try again", cell.name);
    Error::new(ErrorKind::Conflict, text).after(1000)
}
