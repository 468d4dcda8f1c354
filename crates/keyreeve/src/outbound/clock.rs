//! The node's coarse clock and its one timer for all credentials.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use futures::future::select;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use tokio::sync::Notify;

use super::cell::Cell;
use super::{Inner, pass};
use crate::port::Host;

/// A clock that costs two loads to read and is at most one tick old.
///
/// A process that was frozen reads an old time until its ticker runs again, so whatever answers over a wire reads the
/// host's clock instead.
pub(super) struct Coarse {
    tick_ms: u64,
    latest: AtomicU64,
    mono: AtomicU64,
}

impl Coarse {
    pub(super) fn new(host: &dyn Host, tick_ms: u64) -> Self {
        let now = host.now();
        Self { tick_ms, latest: AtomicU64::new(now.latest().0), mono: AtomicU64::new(now.mono.0) }
    }

    #[inline]
    pub(super) fn now(&self, host: &dyn Host) -> Moment {
        if self.tick_ms == 0 {
            return host.now();
        }
        // Readers ask whether something is over: the later wall clock is the one that matters.
        Moment::new(Timestamp(self.latest.load(Ordering::Relaxed)), Mono(self.mono.load(Ordering::Relaxed)))
    }

    fn set(&self, now: Moment) {
        self.latest.store(now.latest().0, Ordering::Relaxed);
        self.mono.store(now.mono.0, Ordering::Relaxed);
    }
}

/// Wakes credentials at their time.
pub(super) struct Timer {
    waiting: Mutex<BinaryHeap<Reverse<Wake>>>,
    changed: Notify,
    /// Since when it wakes nothing any more, in monotonic milliseconds; [`RUNNING`] as long as it does.
    stopped_at: AtomicU64,
}

const RUNNING: u64 = u64::MAX;

impl Default for Timer {
    fn default() -> Self {
        Self { waiting: Mutex::default(), changed: Notify::default(), stopped_at: AtomicU64::new(RUNNING) }
    }
}

struct Wake {
    at: Mono,
    cell: Weak<Cell>,
}

impl PartialEq for Wake {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}
impl Eq for Wake {}
impl PartialOrd for Wake {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Wake {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}

impl Timer {
    /// Wakes `cell` at `at`. An earlier or later wish of the same cell is dropped when it comes up: the cell knows its time.
    pub(super) fn wake(&self, cell: &Arc<Cell>, at: Mono) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let is_first = waiting.peek().is_none_or(|Reverse(first)| at < first.at);
        waiting.push(Reverse(Wake { at, cell: Arc::downgrade(cell) }));
        drop(waiting);
        if is_first {
            self.changed.notify_one();
        }
    }

    /// Wakes nothing any more. Only the first time counts.
    pub(super) fn stop(&self, now: Mono) {
        self.stopped_at.fetch_min(now.0, Ordering::Relaxed);
        self.changed.notify_one();
    }

    pub(super) fn is_stopped(&self) -> bool {
        self.stopped_at().is_some()
    }

    pub(super) fn stopped_at(&self) -> Option<Mono> {
        let stopped_at = self.stopped_at.load(Ordering::Relaxed);
        (stopped_at != RUNNING).then_some(Mono(stopped_at))
    }

    pub(super) fn next(&self) -> Option<Mono> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.peek().map(|Reverse(first)| first.at)
    }

    fn take_due(&self, now: Mono) -> (Vec<Arc<Cell>>, Option<Mono>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        while let Some(Reverse(first)) = waiting.peek() {
            if first.at > now {
                return (due, Some(first.at));
            }
            let first = waiting.pop();
            due.extend(first.and_then(|Reverse(wake)| wake.cell.upgrade()));
        }
        (due, None)
    }
}

/// Runs the timer for as long as the driver lives.
pub(super) fn run_timer(inner: &Arc<Inner>) {
    let timed = Arc::downgrade(inner);
    inner.host.spawn(Box::pin(wake_in_time(timed)));
}

/// Runs the coarse clock, if there is one, for as long as the driver lives.
pub(super) fn run(inner: &Arc<Inner>) {
    if inner.clock.tick_ms > 0 {
        let ticked = Arc::downgrade(inner);
        inner.host.spawn(Box::pin(run_clock(ticked)));
    }
}

async fn run_clock(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        let now = inner.host.now();
        inner.clock.set(now);
        let host = Arc::clone(&inner.host);
        let next = now.mono.plus(inner.clock.tick_ms);
        drop(inner);
        host.sleep_until(next).await;
    }
}

impl Inner {
    /// Begins the looks that are due; returns when the next one is.
    pub(super) fn look_at_due(self: &Arc<Self>, now: Mono) -> Option<Mono> {
        let (due, next) = self.timer.take_due(now);
        for cell in due {
            if cell.is_time(now) {
                pass::ensure(self, &cell);
            }
        }
        next
    }
}

/// The longest sleep of the timer: how soon it finds out that its driver is gone.
const LOOK_MS: u64 = 60_000;

async fn wake_in_time(inner: Weak<Inner>) {
    while let Some(inner) = inner.upgrade() {
        if inner.timer.is_stopped() {
            return;
        }
        let now = inner.host.now();
        let next = inner.look_at_due(now.mono);
        let until = next.unwrap_or(now.mono.plus(LOOK_MS)).min(now.mono.plus(LOOK_MS));
        let host = Arc::clone(&inner.host);
        let sleep = host.sleep_until(until);
        let changed = inner.timer.changed.notified();
        let _ = select(Box::pin(changed), sleep).await;
    }
}
