//! What a node does with what it has read: takes it over, or teaches a store that has forgotten.

use super::log::{Entry, Log};
use crate::id::WriteId;
use crate::time::{Moment, Timestamp};

/// What came of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Followed {
    /// Nothing new: this node goes on with what it holds.
    Same,
    /// This is what the node goes on with.
    Adopt(Log),
    /// The store has forgotten what this node knows: the node goes on with this, and writes it.
    Teach(Log),
}

/// Decides about what was `found` in the store by a node that goes by `held`.
///
/// INVARIANT: what a node goes by never says less than before, whatever the store says, and its epoch grows with every
/// change.
#[must_use]
pub fn follow(held: Option<&Log>, found: Option<Log>, fresh: WriteId, now: Moment) -> Followed {
    let (held, found) = match (held, found) {
        (None, None) => return Followed::Same,
        (None, Some(found)) => return Followed::Adopt(found),
        (Some(held), None) => return Followed::Teach(Log::nothing().joined(held, fresh, now)),
        (Some(held), Some(found)) if held.op == found.op => return Followed::Same,
        (Some(held), Some(found)) => (held, found),
    };
    if found.epoch > held.epoch && found.covers(held, now) {
        return Followed::Adopt(found);
    }
    Followed::Teach(found.joined(held, fresh, now))
}

impl Log {
    /// Whether this says all that `other` says and that still matters.
    fn covers(&self, other: &Self, now: Moment) -> bool {
        let has_cut = |cut: &super::log::Cut| self.cuts.iter().any(|own| own.scope == cut.scope && own >= cut);
        let has = |entry: &Entry| {
            self.entry(entry.kind, entry.mark).is_some_and(|own| own.covers(entry)) || self.is_dispensed(entry, now)
        };
        self.floor >= other.floor
            && self.lost_at >= other.lost_at
            && self.answered_at >= other.answered_at
            && other.cuts.iter().all(has_cut)
            && other.entries.iter().all(has)
    }

    /// Whether an entry is missing here on purpose.
    fn is_dispensed(&self, entry: &Entry, now: Moment) -> bool {
        let is_cut = || self.cuts.iter().any(|cut| cut.scope == entry.scope && cut.issued_by >= entry.issued_by);
        if entry.is_told() {
            return !entry.is_open() && entry.epoch <= self.floor;
        }
        // The clock of whoever dropped it may be ahead of this one, by less than the grace it was given.
        let is_over = !entry.is_open() && entry.until <= now.latest() && entry.until != Timestamp(u64::MAX);
        is_over && (entry.is_exact || is_cut())
    }

    /// What the store has, which went back, and what `held` knows, under an epoch that neither has had.
    fn joined(&self, held: &Self, fresh: WriteId, now: Moment) -> Self {
        let base = if self.epoch >= held.epoch { self } else { held };
        let mut next = Self::following(Some(base), fresh, now);
        next.entries.clone_from(&self.entries);
        next.cuts.clone_from(&self.cuts);
        for cut in &held.cuts {
            next.cut(cut.scope, cut.issued_by);
        }
        for entry in &held.entries {
            match self.entry(entry.kind, entry.mark) {
                Some(_) => next.put(entry.clone()),
                // The store may have forgotten the token's own record as well: only the log knows it then, for good.
                None if entry.is_told() => next.put(entry.clone().remembered()),
                None if self.is_dispensed(entry, now) => {}
                None => next.put(entry.clone()),
            }
        }
        next.written_at = next.written_at.max(self.written_at.max(held.written_at).plus(1));
        next.floor = self.floor.max(held.floor);
        next.lost_at = self.lost_at.max(held.lost_at);
        next.answered_at = self.answered_at.max(held.answered_at);
        if held.floor > self.floor {
            // What was left to the records of tokens, and has been dropped here since: the store may have forgotten those.
            next.lost_at = next.written_at;
        }
        next.fit();
        next
    }

    /// The log of a store that forgot what nobody remembers: under an epoch that no node has had, and saying so until somebody
    /// has answered.
    #[must_use]
    pub fn lost(base: Option<&Self>, epoch_seen: u64, fresh: WriteId, now: Moment) -> Self {
        let mut next = Self::following(base, fresh, now);
        next.epoch = next.epoch.max(epoch_seen.saturating_add(1));
        // Verdicts that rest on what is gone rest on nothing.
        next.floor = next.epoch;
        next.lost_at = next.written_at;
        next
    }

    /// The log that says that an operator knows of the loss. `None` where there is none to be answered.
    #[must_use]
    pub fn answered(&self, fresh: WriteId, now: Moment) -> Option<Self> {
        let lost_at = self.lost_since()?;
        let mut next = Self::following(Some(self), fresh, now);
        next.answered_at = lost_at;
        Some(next)
    }
}
