//! What one node holds of one credential: the snapshot that readers load, and the state that its passes share.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use arc_swap::{ArcSwapOption, Guard};
use bytes::Bytes;
use http::HeaderValue;
use keyreeve_core::id::CredentialName;
use keyreeve_core::lifecycle::{Phase, Renewer, Why};
use keyreeve_core::operator::Status;
use keyreeve_core::record::Record;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use keyreeve_core::view::{Calm, View};
use tokio::sync::watch;

use super::Credential;
use crate::config::{Keep, Plan};
use crate::error::{Error, ErrorKind};
use crate::source::{Material, Source};

/// One generation of a credential, opened.
#[derive(Debug)]
pub struct Issued {
    /// Its number.
    pub generation: u64,
    /// The secret.
    pub material: Material,
    /// When it was issued.
    pub issued_at: Timestamp,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When its renewal falls due.
    pub refresh_at: Timestamp,
    /// What the HTTP API answers with, made by the first who asks.
    pub(crate) rendered: OnceLock<Rendered>,
}

/// An answer made once per generation. Its body holds the secret.
#[derive(Clone)]
pub(crate) struct Rendered {
    /// The mode that the body names; a reload may change it under a generation.
    pub(crate) mode: &'static str,
    pub(crate) body: Bytes,
    pub(crate) etag: HeaderValue,
}

impl std::fmt::Debug for Rendered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// Everything a reader needs, never changed once made.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) view: View,
    pub(super) current: Option<Arc<Issued>>,
    pub(super) next: Option<Arc<Issued>>,
    /// Most reads need no more than this.
    calm: Calm,
    mode: &'static str,
}

impl Snapshot {
    pub(super) fn new(plan: &Plan, view: View, current: Option<Arc<Issued>>, next: Option<Arc<Issued>>) -> Self {
        let calm = if current.is_some() { view.calm(skew_ms(plan)) } else { Calm::default() };
        let mode = match plan {
            Plan::Fleet(rules) => rules.mode.as_str(),
            Plan::Slot(_) => "slot",
        };
        Self { view, current, next, calm, mode }
    }

    /// The opened generation with this number.
    pub(super) fn issued(&self, generation: u64) -> Option<&Arc<Issued>> {
        [&self.next, &self.current].into_iter().flatten().find(|issued| issued.generation == generation)
    }
}

/// A credential handed out: read it, do not keep it.
pub struct Served {
    snapshot: Guard<Option<Arc<Snapshot>>>,
    is_next: bool,
    /// `slot`, `replay`, `lease` or `exclusive`.
    pub mode: &'static str,
    /// Milliseconds of life left, less the declared skew; 0 where it is stale.
    pub left_ms: u64,
    /// Past its expiry: handed out because it cannot be renewed and its policy allows it.
    pub is_stale: bool,
}

impl Served {
    #[inline]
    fn pick(&self) -> Option<&Arc<Issued>> {
        let snapshot = self.snapshot.as_ref()?;
        if self.is_next { snapshot.next.as_ref() } else { snapshot.current.as_ref() }
    }

    /// How long this answer may be kept without asking again, in milliseconds: until its renewal falls due, or, where
    /// the next generation is there already, until the switch to it; never beyond its life.
    #[must_use]
    pub fn keep_ms(&self, now: Moment) -> u64 {
        let next = self.snapshot.as_ref().and_then(|snapshot| snapshot.view.next).filter(|_| !self.is_next);
        let until = next.map_or(self.refresh_at, |next| next.use_from);
        until.since(now.wall).min(self.left_ms)
    }
}

impl std::fmt::Debug for Served {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Served").field("generation", &self.generation).field("left_ms", &self.left_ms).finish()
    }
}

impl Deref for Served {
    type Target = Issued;

    #[inline]
    fn deref(&self) -> &Issued {
        // INVARIANT: `Cell::serve` makes a `Served` only where the picked side of the snapshot is there.
        static NONE: std::sync::LazyLock<Issued> = std::sync::LazyLock::new(|| Issued {
            generation: 0,
            material: Material::bearer(String::new()),
            issued_at: Timestamp(0),
            expires_at: Timestamp(0),
            refresh_at: Timestamp(0),
            rendered: OnceLock::new(),
        });
        self.pick().map_or(&NONE, Arc::as_ref)
    }
}

/// Nothing was asked of a credential for so long that it is no longer renewed.
const IDLE: u64 = u64::MAX;
/// Demand is noted at most this often, so that a hot credential's cache line is not written by every reader.
const USED_GRAIN_MS: u64 = 1000;
/// An error is given to later callers for this long without looking again.
const ERROR_HELD_MS: u64 = 500;
/// While callers wait for another node's mint, its record is read this often, in milliseconds, ..
const WAITED_POLL_MS: u64 = 10;
/// .. and less often by what this many reads take: a store that is slow, or full of such readers, is not asked more
/// often than it can answer.
const POLL_READS: u64 = 10;

pub(super) struct Cell {
    pub(super) name: CredentialName,
    pub(super) source: Arc<dyn Source>,
    pub(super) plan: Arc<Plan>,
    keep: Keep,
    pub(super) snapshot: ArcSwapOption<Snapshot>,
    /// The highest generation that was handed out before the last reload.
    counted: u64,
    /// Monotonic milliseconds of the last use; [`IDLE`] where renewal has stopped for want of demand.
    used_at: AtomicU64,
    /// Only a follower has them.
    pub(super) marks: Option<Box<Marks>>,
    state: Mutex<State>,
}

/// What a follower remembers of its looks.
#[derive(Default)]
pub(super) struct Marks {
    /// Monotonic milliseconds at which it last began to look for the next generation.
    pub(super) looked_at: AtomicU64,
    /// The newest generation that it was told is refused upstream; 0 for none.
    pub(super) refused: AtomicU64,
    /// Until when one of its callers is asking the origin, in monotonic milliseconds; 0 for nobody.
    pub(super) fetching_until: AtomicU64,
}

/// A cell before a reload.
#[derive(Clone, Copy)]
pub(super) struct Earlier<'a> {
    pub(super) cell: &'a Cell,
    pub(super) is_same_store: bool,
    pub(super) now: Moment,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) renewer: Renewer,
    pub(super) is_running: bool,
    /// Somebody asked for another pass while one was under way.
    pub(super) is_asked_again: bool,
    pub(super) wake_at: Option<Mono>,
    /// Made when the first caller waits.
    flight: Option<Box<Told>>,
    error: Option<Box<(Error, Mono)>>,
    pub(super) why: Option<Why>,
    pub(super) status: Option<Status>,
    /// What there was to hand out when a pass last ended, and the newest generation.
    pub(super) told: Option<(Option<u64>, u64)>,
}

/// Who is told what of a pass.
#[derive(Default)]
struct Told {
    /// Callers without a credential: that there is one, or an error.
    callers: watch::Sender<u64>,
    /// Those who follow the pass itself: that it has ended.
    followers: watch::Sender<u64>,
    /// How long the last read took that was made for callers, in milliseconds.
    read_ms: Option<u64>,
}

impl Cell {
    pub(super) fn new(credential: &Credential, is_following: bool, earlier: Option<Earlier<'_>>) -> Self {
        // Slots are counted by their length: those of another one say nothing here.
        let earlier = earlier.filter(|earlier| counts_alike(&earlier.cell.plan, &credential.plan));
        let is_fleets = matches!(credential.plan.as_ref(), Plan::Fleet(_));
        let counted = earlier.filter(|_| is_fleets).map_or(0, |earlier| earlier.cell.counted());
        let same = earlier.filter(|earlier| earlier.cell.source.identity() == credential.source.identity());
        let snapshot = same.and_then(|Earlier { cell, is_same_store, now }| {
            if is_same_store || !is_fleets { cell.snapshot.load_full() } else { cell.uncounted(&credential.plan, now) }
        });
        Self {
            name: credential.name.clone(),
            source: Arc::clone(&credential.source),
            plan: Arc::clone(&credential.plan),
            keep: credential.keep,
            snapshot: ArcSwapOption::new(snapshot),
            counted,
            used_at: AtomicU64::new(IDLE),
            marks: is_following.then(Box::default),
            state: Mutex::default(),
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock was held left plain values behind, each of them valid.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes a use. True where renewal had stopped for want of demand, and a pass is needed to start it again.
    #[inline]
    pub(super) fn mark_used(&self, now: Mono) -> bool {
        let used_at = self.used_at.load(Ordering::Relaxed);
        if used_at == IDLE {
            self.used_at.store(now.0, Ordering::Relaxed);
            return true;
        }
        if now.0.saturating_sub(used_at) >= USED_GRAIN_MS {
            self.used_at.store(now.0, Ordering::Relaxed);
        }
        false
    }

    /// What to hand out at `now`.
    #[inline]
    pub(super) fn serve(&self, now: Moment, min_ttl_ms: u64) -> Option<Served> {
        let guard = self.snapshot.load();
        let snapshot = guard.as_ref()?;
        let calm = &snapshot.calm;
        if now.mono < calm.mono && now.latest() < calm.wall {
            let left_ms = calm.wall.since(now.latest()).min(calm.mono.since(now.mono)).saturating_add(calm.left_ms);
            if left_ms >= min_ttl_ms {
                return Some(Served { mode: snapshot.mode, snapshot: guard, is_next: false, left_ms, is_stale: false });
            }
        }
        self.serve_closely(guard, now, min_ttl_ms)
    }

    /// [`serve`](Self::serve) near an expiry or a switch.
    #[cold]
    fn serve_closely(&self, guard: Guard<Option<Arc<Snapshot>>>, now: Moment, min_ttl_ms: u64) -> Option<Served> {
        let snapshot = guard.as_ref()?;
        let stale_ms = match self.plan.as_ref() {
            Plan::Fleet(rules) => rules.stale_ms,
            Plan::Slot(_) => 0,
        };
        let serve = snapshot.view.serve_within(skew_ms(&self.plan), stale_ms, now, min_ttl_ms)?;
        let is_there = if serve.is_next { snapshot.next.is_some() } else { snapshot.current.is_some() };
        if serve.is_next {
            self.switch_to(serve.held.generation);
        }
        let mode = snapshot.mode;
        is_there.then(|| Served {
            is_next: serve.is_next,
            mode,
            left_ms: serve.left_ms,
            is_stale: serve.is_stale,
            snapshot: guard,
        })
    }

    /// Makes the next generation the current one, once it has been handed out.
    ///
    /// INVARIANT: a clock that is set back afterwards does not bring the one before it back.
    fn switch_to(&self, generation: u64) {
        let _state = self.lock();
        let held = self.snapshot.load_full();
        if let Some(snapshot) = held
            && snapshot.view.next.is_some_and(|next| next.generation == generation)
        {
            let view = View { current: snapshot.view.next, next: None };
            let switched = Snapshot::new(&self.plan, view, snapshot.next.clone(), None);
            self.snapshot.store(Some(Arc::new(switched)));
        }
    }

    /// What is handed out at `now`, under the number 0.
    fn uncounted(&self, plan: &Plan, now: Moment) -> Option<Arc<Snapshot>> {
        let served = self.serve(now, 0).filter(|served| !served.is_stale)?;
        let snapshot = served.snapshot.as_ref()?;
        let held = if served.is_next { snapshot.view.next } else { snapshot.view.current };
        let view = View { current: Some(held?.uncounted()), next: None };
        let issued = Issued {
            generation: 0,
            material: served.material.clone(),
            issued_at: served.issued_at,
            expires_at: served.expires_at,
            refresh_at: served.refresh_at,
            rendered: OnceLock::new(),
        };
        Some(Arc::new(Snapshot::new(plan, view, Some(Arc::new(issued)), None)))
    }

    /// The highest generation that this node has handed out.
    pub(super) fn counted(&self) -> u64 {
        self.counted.max(self.newest_generation())
    }

    /// How far clocks may be apart, in milliseconds.
    pub(super) fn skew_ms(&self) -> u64 {
        skew_ms(&self.plan)
    }

    pub(super) const fn is_kept(&self) -> bool {
        matches!(self.keep, Keep::Always)
    }

    /// The newest generation held; 0 for none.
    pub(super) fn newest_generation(&self) -> u64 {
        self.snapshot.load().as_ref().map_or(0, |snapshot| snapshot.view.newest_generation())
    }

    /// As [`View::late_in`].
    pub(super) fn late_in(&self, now: Moment) -> Option<u64> {
        self.snapshot.load().as_ref().and_then(|snapshot| snapshot.view.late_in(now))
    }

    pub(super) fn holds_any(&self) -> bool {
        self.snapshot.load().is_some()
    }

    /// Whether its wake-up is due, and somebody still wants it. A renewal that was begun is always finished.
    pub(super) fn is_time(&self, now: Mono) -> bool {
        let mut state = self.lock();
        if state.is_running || state.wake_at.is_none_or(|at| at > now) {
            return false;
        }
        state.wake_at = None;
        let is_begun = !matches!(state.renewer.phase(), Phase::Idle);
        if is_begun || state.has_waiters() || self.is_wanted(now) {
            return true;
        }
        self.used_at.store(IDLE, Ordering::Relaxed);
        false
    }

    pub(super) fn is_wanted(&self, now: Mono) -> bool {
        let Keep::OnDemand { lifetimes } = self.keep else { return true };
        let used_at = self.used_at.load(Ordering::Relaxed);
        let life_ms = match self.plan.as_ref() {
            Plan::Fleet(rules) => rules.life_ms,
            Plan::Slot(slots) => slots.life_ms,
        };
        used_at != IDLE && now.0.saturating_sub(used_at) <= life_ms.saturating_mul(u64::from(lifetimes))
    }

    /// Follows what passes have for callers.
    pub(super) fn join(&self) -> Flight<'_> {
        let news = self.lock().flight.get_or_insert_default().callers.subscribe();
        Flight { cell: self, news: Some(news) }
    }

    /// What the pass that has just ended has for a caller whom its credential does not serve; `None` is "wait on".
    pub(super) fn outcome(&self) -> Option<Error> {
        let state = self.lock();
        match (state.error.as_deref(), state.why) {
            (Some((error, _)), _) => Some(error.clone()),
            (None, Some(Why::Fresh)) => Some(self.too_short()),
            (None, _) => None,
        }
    }

    /// Follows the end of the pass that is under way; `None` where there is none.
    pub(super) fn follow_pass(&self) -> Option<watch::Receiver<u64>> {
        let mut state = self.lock();
        let is_running = state.is_running;
        is_running.then(|| state.flight.get_or_insert_default().followers.subscribe())
    }

    /// As [`follow_pass`](Self::follow_pass); of a driver that was stopped, also while an outcome waits to be committed.
    pub(super) fn follow_to_the_end(&self, is_stopped: bool) -> Option<watch::Receiver<u64>> {
        let mut state = self.lock();
        let is_on = state.is_running || (is_stopped && state.uncommitted().is_some());
        is_on.then(|| state.flight.get_or_insert_default().followers.subscribe())
    }

    /// The error of the last pass, while it is fresh.
    pub(super) fn held_error(&self, now: Mono) -> Option<Error> {
        let state = self.lock();
        let (error, until) = state.error.as_deref()?;
        (now < *until).then(|| error.clone())
    }

    /// The error of the last pass, however old.
    pub(super) fn last_error(&self) -> Option<Error> {
        self.lock().error.as_deref().map(|(error, _)| error.clone())
    }

    pub(super) fn out_of_time(&self, now: Moment) -> Error {
        let newest = self.snapshot.load().as_ref().map(|snapshot| snapshot.view);
        if newest.is_some_and(|view| view.serve_within(0, 0, now, 0).is_some()) {
            return self.too_short();
        }
        let text = match self.lock().why {
            Some(Why::Held) => format!("`{}` is being minted by another node, which has not finished yet", self.name),
            _ => format!("`{}` is being minted; its upstream has not answered yet", self.name),
        };
        Error::new(ErrorKind::UpstreamTimeout, text).after(1000)
    }

    fn too_short(&self) -> Error {
        Error::new(
            ErrorKind::LifeTooShort,
            format!(
                "`{}` is valid, but not for as long as `min_ttl` asks\nhint: ask for less, or lengthen `lead`",
                self.name
            ),
        )
    }
}

/// A caller that waits. When the last one leaves, what they waited on is given back.
pub(super) struct Flight<'a> {
    cell: &'a Cell,
    news: Option<watch::Receiver<u64>>,
}

impl Flight<'_> {
    /// Returns when a pass has ended with something for callers since this was last called.
    pub(super) async fn news(&mut self) {
        if let Some(news) = &mut self.news {
            // The sender lives in the cell, which this borrows.
            let _ = news.changed().await;
        }
    }
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        drop(self.news.take());
        let mut state = self.cell.lock();
        let is_followed = state.flight.as_ref().is_some_and(|told| told.followers.receiver_count() > 0);
        if !is_followed && !state.has_waiters() {
            state.flight = None;
        }
    }
}

/// Whether a number means the same generation under both plans.
const fn counts_alike(before: &Plan, now: &Plan) -> bool {
    match (before, now) {
        (Plan::Fleet(_), Plan::Fleet(_)) => true,
        (Plan::Slot(before), Plan::Slot(now)) => before.period_ms == now.period_ms,
        _ => false,
    }
}

const fn skew_ms(plan: &Plan) -> u64 {
    match plan {
        Plan::Fleet(rules) => rules.skew_ms,
        Plan::Slot(slots) => slots.skew_ms,
    }
}

impl State {
    /// What came of a mint, while the register has not said that it has it.
    pub(super) fn uncommitted(&self) -> Option<&Record> {
        match self.renewer.phase() {
            Phase::Settling { record, .. } => Some(record.as_ref()),
            Phase::Idle | Phase::Acquiring { .. } | Phase::Minting { .. } => None,
        }
    }

    pub(super) fn has_waiters(&self) -> bool {
        self.flight.as_ref().is_some_and(|told| told.callers.receiver_count() > 0)
    }

    /// How soon to read again for callers who wait, in milliseconds, after a read that took `read_ms`; `None` where
    /// nobody waits. The shorter one of the last two counts: one that was held up says nothing about the store.
    pub(super) fn poll_ms(&mut self, read_ms: u64) -> Option<u64> {
        let told = self.flight.as_mut().filter(|told| told.callers.receiver_count() > 0)?;
        let before_ms = told.read_ms.replace(read_ms).unwrap_or(0);
        Some(read_ms.min(before_ms).saturating_mul(POLL_READS).saturating_add(WAITED_POLL_MS))
    }

    /// Ends a pass. Callers who wait hear of it unless it left them as they were, `is_news` false: a thousand of them
    /// would wake for nothing each time that somebody looks whether another node has finished.
    pub(super) fn finish(&mut self, now: Mono, error: Option<Error>, is_news: bool) {
        self.is_running = false;
        self.error = error.map(|error| Box::new((error, now.plus(ERROR_HELD_MS))));
        if let Some(told) = &self.flight {
            told.followers.send_modify(|passes| *passes = passes.wrapping_add(1));
            if is_news {
                told.callers.send_modify(|passes| *passes = passes.wrapping_add(1));
            }
        }
    }
}
