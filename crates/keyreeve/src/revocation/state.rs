//! What one node goes by.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::{ArcSwap, Guard};
use keyreeve_core::id::WriteId;
use keyreeve_core::revocation::{Applied, Followed, Log, follow};
use keyreeve_core::time::Moment;
use tokio::sync::{Notify, watch};

/// Before the first good read.
const NEVER: u64 = u64::MAX;

/// What a node goes by, never changed once made.
#[derive(Clone, Default)]
pub(super) struct Held {
    pub(super) log: Option<Arc<Log>>,
    /// Counts the times that `log` became another one. An answer to a question that was asked before the last time may be
    /// older than it.
    changes: u64,
    /// What the store held when this node found that it had forgotten, while `log` has not been written there yet.
    unwritten_over: Option<Option<WriteId>>,
}

#[derive(Default)]
pub(super) struct State {
    held: ArcSwap<Held>,
    epoch: AtomicU64,
    floor: AtomicU64,
    read: ReadAt,
    /// Held while what is held is replaced, never across a wait.
    changing: Mutex<Reads>,
    /// Somebody wants a read at once.
    pub(super) wish: Notify,
    /// Whether there has been a good read.
    pub(super) is_read: watch::Sender<bool>,
    /// What was applied last. Receipts follow it.
    pub(super) applied: watch::Sender<Option<Applied>>,
}

/// When the last good read was asked for, by both clocks.
struct ReadAt {
    mono: AtomicU64,
    wall: AtomicU64,
}

impl Default for ReadAt {
    fn default() -> Self {
        Self { mono: AtomicU64::new(NEVER), wall: AtomicU64::new(NEVER) }
    }
}

#[derive(Default)]
struct Reads {
    fault: Option<String>,
}

/// When something was asked of the store, and what was gone by then.
#[derive(Clone, Copy)]
pub(super) struct Asked {
    at: Moment,
    changes: u64,
}

/// What has to be written, and over what.
pub(super) struct Teach {
    pub(super) expected: Option<WriteId>,
    pub(super) log: Arc<Log>,
}

impl State {
    pub(super) fn held(&self) -> Guard<Arc<Held>> {
        self.held.load()
    }

    pub(super) fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// How old what is known is, in milliseconds, by the clock that says more: a machine that slept has a monotonic clock that
    /// slept too.
    pub(super) fn age_ms(&self, now: Moment) -> Option<u64> {
        let (mono, wall) = (self.read.mono.load(Ordering::Acquire), self.read.wall.load(Ordering::Acquire));
        (mono != NEVER).then(|| now.mono.0.saturating_sub(mono).max(now.raw.0.saturating_sub(wall)))
    }

    fn changing(&self) -> MutexGuard<'_, Reads> {
        // A panic while the lock was held left plain values behind, each of them valid.
        self.changing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fault(&self) -> Option<String> {
        self.changing().fault.clone()
    }

    /// Notes what became of reads. Returns the fault before, if it is another one now.
    pub(super) fn note(&self, fault: Option<String>) -> Option<Option<String>> {
        let mut reads = self.changing();
        let was_there = reads.fault.is_some();
        let before = std::mem::replace(&mut reads.fault, fault);
        (was_there != reads.fault.is_some()).then_some(before)
    }

    /// Whether the store still holds what is gone by, as a question asked at `asked` found. Then nothing else needs to be done.
    pub(super) fn is_confirmed(&self, op: WriteId, asked: Asked) -> bool {
        let _one_at_a_time = self.changing();
        let held = self.held.load();
        let is_same = held.unwritten_over.is_none() && held.log.as_ref().is_some_and(|log| log.op == op);
        if is_same {
            self.read_at(asked.at);
        }
        is_same
    }

    /// Takes over what a question asked at `asked` found; `now` says later times. Returns what the store has to be taught.
    pub(super) fn found(
        &self,
        found: Option<Log>,
        asked: Asked,
        fresh: WriteId,
        now: impl Fn() -> Moment,
    ) -> Option<Teach> {
        let _one_at_a_time = self.changing();
        let held = self.held.load();
        let expected = found.as_ref().map(|found| found.op);
        // A late answer must not be taken for a store that went back.
        if held.changes != asked.changes && expected != held.log.as_ref().map(|log| log.op) {
            return None;
        }
        let (log, unwritten_over) = match follow(held.log.as_deref(), found, fresh, now()) {
            Followed::Same => (held.log.clone(), None),
            Followed::Adopt(log) => (Some(Arc::new(log)), None),
            // The same as last time: it only has to be written.
            Followed::Teach(_) if held.unwritten_over == Some(expected) => (held.log.clone(), Some(expected)),
            Followed::Teach(log) => (Some(Arc::new(log)), Some(expected)),
        };
        self.replace(&held, log.clone(), unwritten_over, now);
        self.read_at(asked.at);
        let expected = unwritten_over?;
        log.map(|log| Teach { expected, log })
    }

    /// Takes over what this node has written itself, by a swap that was asked for at `asked`.
    pub(super) fn wrote(&self, log: Arc<Log>, asked: Moment, now: impl Fn() -> Moment) {
        let _one_at_a_time = self.changing();
        let held = self.held.load();
        // Somebody else may have written after that, and been read already.
        if held.log.as_ref().is_none_or(|held| held.epoch <= log.epoch) {
            self.replace(&held, Some(log), None, now);
            self.read_at(asked);
        }
    }

    /// INVARIANT: `changing` is held. A slower question that was asked earlier says nothing newer.
    fn read_at(&self, asked: Moment) {
        let before = self.read.mono.load(Ordering::Acquire);
        if before != NEVER && asked.mono.0 < before {
            return;
        }
        self.read.mono.store(asked.mono.0, Ordering::Release);
        self.read.wall.store(asked.raw.0, Ordering::Release);
        if before == NEVER {
            self.is_read.send_replace(true);
        }
    }

    /// A question to the store, which begins now.
    pub(super) fn asking(&self, at: Moment) -> Asked {
        Asked { at, changes: self.held.load().changes }
    }

    /// INVARIANT: the log is there before its epoch is, so that no verdict that was made by the old log carries the new
    /// epoch; and both are before the receipt.
    fn replace(
        &self,
        held: &Held,
        log: Option<Arc<Log>>,
        unwritten_over: Option<Option<WriteId>>,
        now: impl Fn() -> Moment,
    ) {
        let op = |log: &Option<Arc<Log>>| log.as_ref().map(|log| log.op);
        let is_other = op(&log) != op(&held.log);
        if !is_other && unwritten_over == held.unwritten_over {
            return;
        }
        let (epoch, floor) = log.as_ref().map_or((0, 0), |log| (log.epoch, log.floor));
        let changes = held.changes.wrapping_add(u64::from(is_other));
        self.held.store(Arc::new(Held { log, changes, unwritten_over }));
        self.floor.store(floor, Ordering::Release);
        let before = self.epoch.swap(epoch, Ordering::AcqRel);
        if before != epoch {
            // Read after the switch: what was accepted by the log before it was accepted before this.
            self.applied.send_replace(Some(Applied { epoch, at: now().wall }));
        }
    }
}
