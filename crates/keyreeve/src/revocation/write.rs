//! Revocations: one swap of the log each.

use std::sync::Arc;

use futures::future::{Either, select};
use keyreeve_core::revocation::{self, Credentials, Kind, Mark, Order, Until, What};
use keyreeve_core::time::{Span, Timestamp};

use super::{Inner, Revocations};
use crate::error::{Error, ErrorKind};
use crate::port::fresh_write_id;

/// How often a revocation that somebody else was faster than is written anew.
const TRIES_MAX: usize = 32;

/// For how long a revocation has to stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// Nobody accepts such a token later than this.
    Until(Timestamp),
    /// As long as `keep` says that tokens live.
    Kept,
    /// The token's own record says already that it is revoked: this only tells the nodes.
    Told,
    /// The tokens' own records will say it once [`Revocations::settle`] has been called; until then it is among
    /// [`Revocations::open`].
    Settled,
    /// For good.
    Forever,
}

/// What somebody revokes.
#[derive(Clone, Copy, Debug)]
pub struct Revocation<'a> {
    /// What.
    pub what: What<'a>,
    /// Tokens issued later than this are not meant. None: those that are issued later than now, but for what clocks differ by.
    pub issued_by: Option<Timestamp>,
    /// For how long.
    pub lifetime: Lifetime,
    /// What it names, at most 600 bytes, for whoever goes on with it where the node that took it ends.
    pub label: Option<&'a str>,
}

/// That it is written down, durably, and that this node refuses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// What its receipts are found by.
    pub id: Mark,
    /// Its kind.
    pub kind: Kind,
    /// Every node refuses it from this epoch on.
    pub epoch: u64,
    /// When it was written, by the writer's clock.
    pub at: Timestamp,
    /// Tokens issued later than this are not meant.
    pub issued_by: Timestamp,
}

/// A revocation that something has to follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Open {
    /// Its kind.
    pub kind: Kind,
    /// What it is known by.
    pub id: Mark,
    /// Tokens made later than this are not meant.
    pub issued_by: Timestamp,
    /// What it names.
    pub label: Option<String>,
}

impl Revocations {
    /// Writes down that this is revoked. When it returns, it is durable and refused here; every other node refuses it within
    /// `max_staleness`. The same again is no change, and brings the same receipt.
    ///
    /// Dropping the future cancels waiting: the revocation may or may not have been made, and may be made again.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`], [`ErrorKind::Conflict`] where there is no room or others write all the time.
    pub async fn revoke(&self, revocation: Revocation<'_>, by: &str) -> Result<Receipt, Error> {
        let inner = &self.inner;
        let now = inner.host.now();
        // A clock that is ahead dates its tokens ahead.
        let issued_by = revocation.issued_by.unwrap_or_else(|| now.latest().plus(inner.config.skew_ms));
        let until = match revocation.lifetime {
            Lifetime::Until(until) => Until::Known(until.plus(inner.config.skew_ms)),
            Lifetime::Kept => Until::Assumed(now.latest().max(issued_by).plus(inner.config.keep_ms)),
            Lifetime::Told => Until::Told,
            Lifetime::Settled => Until::Settled,
            Lifetime::Forever => Until::Never,
        };
        let order = Order { what: revocation.what, issued_by, until, label: revocation.label };
        let entry = inner.change(|base, fresh, now| {
            let (next, entry) = revocation::revoke(inner.crypto.as_ref(), base, fresh, now, &order)
                .map_err(|full| Error::new(ErrorKind::Conflict, full.to_string()))?;
            Ok((next, entry))
        });
        let entry = entry.await?;
        tracing::info!(
            target: "audit", who = by, what = entry.kind.as_str(), id = %entry.mark, epoch = entry.epoch,
            issued_by_ms = entry.issued_by.0, "revoked"
        );
        metrics::counter!("keyreeve_revocations_total", "kind" => entry.kind.as_str()).increment(1);
        Ok(of_entry(&entry))
    }

    /// The receipt of what was revoked already, as far as this node knows.
    #[must_use]
    pub fn receipt(&self, what: &What<'_>) -> Option<Receipt> {
        let held = self.inner.state.held();
        let entry = held.log.as_ref()?.entry(what.kind(), what.mark(self.inner.crypto.as_ref()))?;
        Some(of_entry(entry))
    }

    /// What has been revoked and still has to be followed by something, on whichever node it was asked for.
    #[must_use]
    pub fn open(&self) -> Vec<Open> {
        let held = self.inner.state.held();
        let entries = held.log.iter().flat_map(|log| log.entries()).filter(|entry| entry.is_open());
        let open = entries.map(|entry| Open {
            kind: entry.kind,
            id: entry.mark,
            issued_by: entry.issued_by,
            label: entry.label.clone(),
        });
        open.collect()
    }

    /// Says that what had to follow an open revocation has been done. Repeating it does no harm.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`], [`ErrorKind::Conflict`].
    pub async fn settle(&self, open: &Open) -> Result<(), Error> {
        let change = self.inner.change(|base, fresh, now| {
            let place = (open.kind, open.id);
            let next = base.and_then(|base| revocation::settle(base, fresh, now, place, open.issued_by));
            Ok((next, ()))
        });
        change.await
    }

    /// Says that an operator knows that the store has forgotten revocations, and has revoked again what is concerned. True where
    /// there was something to answer.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`], [`ErrorKind::Conflict`].
    pub async fn answer_loss(&self, by: &str) -> Result<bool, Error> {
        let change = self.inner.change(|base, fresh, now| {
            let next = base.and_then(|base| base.answered(fresh, now));
            let is_answered = next.is_some();
            Ok((next, is_answered))
        });
        let is_answered = change.await?;
        if is_answered {
            tracing::info!(target: "audit", who = by, what = "loss-of-revocations", "answered");
        }
        Ok(is_answered)
    }

    /// Reads the log now, so that what somebody else has revoked before this call is known here after it.
    ///
    /// # Errors
    /// [`ErrorKind::StoreUnavailable`], [`ErrorKind::RecordRefused`].
    pub async fn catch_up(&self) -> Result<(), Error> {
        for _ in 0..TRIES_MAX {
            let found = self.inner.read(self.inner.store_ms).await?;
            // Where the follower has read meanwhile, neither has taken over what the other found.
            if self.inner.state.held().log.as_ref().map(|log| log.op) == found {
                return Ok(());
            }
        }
        let text = "the log of revocations changed each time it was read";
        Err(Error::new(ErrorKind::StoreUnavailable, text).after(1000))
    }

    /// As [`is_revoked`](Self::is_revoked), for a verdict that was kept since `epoch`: `Ok` with the epoch to keep it by from
    /// now on, `Err` with the epoch that it was revoked in, or with none where only the token's own record can tell.
    ///
    /// # Errors
    /// The verdict is not to be used any more.
    pub fn again(&self, epoch: u64, token: &Credentials<'_>) -> Result<u64, Option<u64>> {
        let now = self.epoch();
        if epoch == now {
            return Ok(now);
        }
        if matches!(token, Credentials::Token { .. }) && epoch < self.floor() {
            return Err(None);
        }
        self.is_revoked(token).map_or(Ok(now), |epoch| Err(Some(epoch)))
    }
}

const fn of_entry(entry: &revocation::Entry) -> Receipt {
    Receipt { id: entry.mark, kind: entry.kind, epoch: entry.epoch, at: entry.at, issued_by: entry.issued_by }
}

impl Inner {
    /// Changes the log: reads it, decides, writes; again where somebody was faster, or where no answer came.
    async fn change<T>(
        &self,
        decide: impl Fn(
            Option<&revocation::Log>,
            keyreeve_core::id::WriteId,
            keyreeve_core::time::Moment,
        ) -> Result<(Option<revocation::Log>, T), Error>,
    ) -> Result<T, Error> {
        let began = self.host.now().mono;
        // Callers of this node take turns, so that only nodes compete.
        let (turn, patience) = (self.turn.lock(), self.host.sleep_until(began.plus(self.store_ms.saturating_mul(2))));
        let _turn = match select(turn, patience).await {
            Either::Left((turn, _)) => turn,
            Either::Right(_) => {
                let text = "others are changing the log of revocations";
                return Err(Error::new(ErrorKind::StoreUnavailable, text).after(1000));
            }
        };
        for _ in 0..TRIES_MAX {
            let expected = self.read(self.store_ms).await?;
            let base: Option<Arc<revocation::Log>> = self.state.held().log.clone();
            // The follower may have read something later meanwhile.
            if base.as_ref().map(|base| base.op) != expected {
                continue;
            }
            let fresh = fresh_write_id(self.host.as_ref());
            let (next, told) = decide(base.as_deref(), fresh, self.host.now())?;
            let Some(next) = next else { return Ok(told) };
            match self.write(expected, next).await {
                Ok(true) => return Ok(told),
                Ok(false) => {}
                // Read again: if the write was made, it is there.
                Err(error) if error.kind == ErrorKind::StoreUnavailable => {
                    if self.host.now().mono.since(began) > self.store_ms.saturating_mul(2) {
                        return Err(error);
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let busy = format!(
            "the log of revocations changed each time it was to be changed, for {}",
            Span(self.host.now().mono.since(began))
        );
        Err(Error::new(ErrorKind::Conflict, format!("{busy}: try again")).after(1000))
    }
}
