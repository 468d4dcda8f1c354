//! A node that mints nothing: it serves what it holds, and fetches records from where they are made.
//!
//! Nothing here waits on another caller's promise: on Workers the runtime ends a request that does. Of the callers without a
//! credential one asks, for all of them; the others look now and then, by timers of their own, whether it has come. Whoever
//! is asked (an [`Origin`]) makes the questions of all nodes one mint.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use futures::channel::oneshot;
use futures::future::{Either, select};
use keyreeve_core::id::CredentialName;
use keyreeve_core::record::Record;
use keyreeve_core::schedule::spread;
use keyreeve_core::time::{Moment, Mono, Span};

use super::cell::{Cell, Marks, Served};
use super::{Inner, Outbound, slot};
use crate::config::Plan;
use crate::error::{Error, ErrorKind};
use crate::source::Identity;

/// One look for the next generation per node takes at most this long, in milliseconds: after it, another may begin.
const LOOK_MS: u64 = 5000;
/// A follower asks this much after a renewal falls due, in milliseconds: clocks are never quite the same, and an origin that
/// does not find it due yet has nothing to say for another [`LOOK_MS`].
const GRACE_MS: u64 = 250;
/// While what is held is refused upstream, a node looks for the next this often, in milliseconds.
const REFUSED_MS: u64 = 1000;
/// How often a caller looks whether another one's question has been answered, in milliseconds: twice as long each time.
const PAUSE_MS_MIN: u64 = 10;
const PAUSE_MS_MAX: u64 = 160;

/// What a follower wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wish {
    /// At least this much life left, in milliseconds, the declared skew not counted.
    pub min_ttl_ms: u64,
    /// A generation after this one; 0 for any.
    pub newer_than: u64,
}

/// Where a follower's records come from.
#[async_trait]
pub trait Origin: Send + Sync {
    /// A record whose newest generation is what `wish` says, if there can be one before `deadline`; else the record that
    /// is there. The origin mints, or waits for a mint, where there is none.
    ///
    /// # Errors
    /// As [`Outbound::token`](super::Outbound::token).
    async fn record(&self, name: &CredentialName, wish: Wish, deadline: Mono) -> Result<Record, Error>;

    /// What the credential is for, where that is part of what it is stored under.
    fn identity(&self, name: &CredentialName) -> Option<Identity> {
        let _ = name;
        None
    }
}

/// A node that renews is an origin for those that do not.
#[async_trait]
impl Origin for Outbound {
    async fn record(&self, name: &CredentialName, wish: Wish, deadline: Mono) -> Result<Record, Error> {
        self.token(name.as_str(), wish.min_ttl_ms, deadline).await?;
        let none =
            || Error::new(ErrorKind::ConfigInvalid, format!("`{name}` is in slot mode: every node signs it by itself"));
        let record = Self::record(self, name.as_str()).await?.ok_or_else(none)?;
        let is_newer = record.newest().is_some_and(|newest| newest.generation > wish.newer_than);
        let pass = self.inner.cells.get(name.as_str()).and_then(|cell| cell.follow_pass());
        let Some(mut pass) = pass.filter(|_| !is_newer) else { return Ok(record) };
        // What is asked for may be on its way.
        let _ = select(Box::pin(pass.changed()), self.inner.host.sleep_until(deadline)).await;
        Self::record(self, name.as_str()).await?.ok_or_else(none)
    }

    fn identity(&self, name: &CredentialName) -> Option<Identity> {
        self.inner.cells.get(name.as_str())?.source.identity()
    }
}

/// Gets what `cell` lacks, for one caller: asks the origin, or waits for the caller of this node who is asking already.
pub(super) async fn fetch(
    inner: &Arc<Inner>,
    origin: &Arc<dyn Origin>,
    cell: &Arc<Cell>,
    min_ttl_ms: u64,
    deadline: Mono,
) -> Result<Served, Error> {
    if let Plan::Slot(slots) = cell.plan.as_ref() {
        // A signature and no more: it takes no time to share.
        slot::fill(inner, cell, slots).await;
        let now = inner.host.now();
        return cell.serve(now, min_ttl_ms).ok_or_else(|| cell.last_error().unwrap_or_else(|| cell.out_of_time(now)));
    }
    let mut pause_ms = PAUSE_MS_MIN;
    loop {
        let now = inner.host.now();
        if let Some(served) = cell.serve(now, min_ttl_ms) {
            return Ok(served);
        }
        if let Some(error) = cell.held_error(now.mono) {
            return Err(error);
        }
        if now.mono >= deadline {
            return Err(cell.out_of_time(now));
        }
        if cell.marks.as_ref().is_some_and(|marks| marks.begin_fetch(now.mono, deadline)) {
            ask(inner, origin, cell, min_ttl_ms, deadline).await?;
            let now = inner.host.now();
            return cell.serve(now, min_ttl_ms).ok_or_else(|| cell.out_of_time(now));
        }
        // By a timer of one's own, never by a waker of somebody else's.
        inner.host.sleep_until(now.mono.plus(pause_ms).min(deadline)).await;
        pause_ms = pause_ms.saturating_mul(2).min(PAUSE_MS_MAX);
    }
}

/// Asks the origin, in a task that goes on for the others should its caller leave.
async fn ask(
    inner: &Arc<Inner>,
    origin: &Arc<dyn Origin>,
    cell: &Arc<Cell>,
    min_ttl_ms: u64,
    deadline: Mono,
) -> Result<(), Error> {
    // What is over is no reason to ask for something newer: the origin may serve it on, if its policy is to.
    let now = inner.host.now();
    let newer_than = if cell.serve(now, 0).is_some() { cell.newest_generation() } else { 0 };
    let (tell, told) = oneshot::channel();
    let (at, to, of) = (Arc::clone(inner), Arc::clone(origin), Arc::clone(cell));
    inner.host.spawn(Box::pin(async move {
        let result = learn(&at, to.as_ref(), &of, Wish { min_ttl_ms, newer_than }, deadline).await;
        of.end_fetch(at.host.now().mono, result.as_ref().err().cloned());
        // The caller may be gone.
        let _ = tell.send(result);
    }));
    match select(told, inner.host.sleep_until(deadline)).await {
        Either::Left((Ok(result), _)) => result,
        Either::Left((Err(_), _)) | Either::Right(_) => Err(cell.out_of_time(inner.host.now())),
    }
}

/// Looks for the next generation while the present one is served on, once its renewal is due. Each node a little later than
/// that, so that they do not ask at once.
pub(super) fn look_ahead(inner: &Arc<Inner>, origin: &Arc<dyn Origin>, cell: &Arc<Cell>, now: Moment) {
    let Some(marks) = &cell.marks else { return };
    let newest = cell.newest_generation();
    let is_refused = newest > 0 && newest <= marks.refused.load(Ordering::Relaxed);
    let every_ms = if is_refused { REFUSED_MS } else { LOOK_MS };
    if (is_refused || is_due(inner, cell, now)) && marks.begin_look(now.mono, every_ms) {
        look(inner, origin, cell, newest);
    }
}

/// Looks for what comes after `generation`, which is refused upstream: at once, and with every use until it has come. The
/// upstream may not allow it yet.
pub(super) fn look_beyond(inner: &Arc<Inner>, origin: &Arc<dyn Origin>, cell: &Arc<Cell>, generation: u64) {
    if let Some(marks) = &cell.marks {
        marks.refused.fetch_max(generation, Ordering::Relaxed);
    }
    if cell.newest_generation() <= generation {
        look(inner, origin, cell, generation);
    }
}

fn look(inner: &Arc<Inner>, origin: &Arc<dyn Origin>, cell: &Arc<Cell>, newer_than: u64) {
    let (at, origin, cell) = (Arc::clone(inner), Arc::clone(origin), Arc::clone(cell));
    inner.host.spawn(Box::pin(async move {
        let deadline = at.host.now().mono.plus(LOOK_MS);
        if let Plan::Slot(slots) = cell.plan.as_ref() {
            slot::fill(&at, &cell, slots).await;
        } else if let Err(error) =
            learn(&at, origin.as_ref(), &cell, Wish { min_ttl_ms: 0, newer_than }, deadline).await
        {
            tracing::debug!(credential = %cell.name, "{error}");
        }
    }));
}

fn is_due(inner: &Inner, cell: &Cell, now: Moment) -> bool {
    let snapshot = cell.snapshot.load();
    let Some(newest) = snapshot.as_ref().and_then(|snapshot| snapshot.view.next.or(snapshot.view.current)) else {
        return false;
    };
    let quarter_ms = newest.expires_at.since(newest.refresh_at) / 4;
    let head_ms = match cell.plan.as_ref() {
        // The slot after this one is signed before it begins.
        Plan::Slot(slots) => return now.wall >= newest.refresh_at.minus(slots.ready_ms()),
        // In exclusive mode this is short: there the old one may be refused as soon as somebody uses the new one.
        Plan::Fleet(rules) => rules.wake_spread_ms.min(quarter_ms),
    };
    let grace_ms = GRACE_MS.min(quarter_ms);
    let spread_ms = spread(inner.me.boot ^ newest.generation, head_ms.saturating_sub(grace_ms));
    now.wall >= newest.refresh_at.plus(grace_ms).plus(spread_ms)
}

async fn learn(inner: &Arc<Inner>, origin: &dyn Origin, cell: &Cell, wish: Wish, deadline: Mono) -> Result<(), Error> {
    let asked_at = inner.host.now().mono;
    let record = match select(origin.record(&cell.name, wish, deadline), inner.host.sleep_until(deadline)).await {
        Either::Left((record, _)) => record?,
        Either::Right(_) => {
            let waited = Span(deadline.since(asked_at));
            let text = format!("`{}`: the node that mints it did not answer within {waited}", cell.name);
            return Err(Error::new(ErrorKind::UpstreamTimeout, text).after(1000));
        }
    };
    let Some(keys) = &inner.keys else {
        return Err(Error::new(ErrorKind::ConfigInvalid, format!("`{}` needs `seal.keys`", cell.name)));
    };
    inner.adopt(cell, keys, &record)
}

impl Marks {
    /// True for one caller at a time: who asks the origin, until `deadline` at the latest.
    fn begin_fetch(&self, now: Mono, deadline: Mono) -> bool {
        let until = self.fetching_until.load(Ordering::Relaxed);
        until <= now.0
            && self.fetching_until.compare_exchange(until, deadline.0, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// True for one look per `for_ms`.
    fn begin_look(&self, now: Mono, for_ms: u64) -> bool {
        let last = self.looked_at.load(Ordering::Relaxed);
        let is_over = last == 0 || now.0.saturating_sub(last) >= for_ms;
        is_over && self.looked_at.compare_exchange(last, now.0.max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

impl Cell {
    fn end_fetch(&self, now: Mono, error: Option<Error>) {
        self.lock().finish(now, error, true);
        if let Some(marks) = &self.marks {
            marks.fetching_until.store(0, Ordering::Relaxed);
        }
    }
}
