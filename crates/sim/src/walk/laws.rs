//! What must hold in every state and on every step.

use std::fmt;

use keyreeve_core::record::{Credential, Record};

/// A promise of the protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Law {
    /// S1: at most one holder that believes in its lease has a mint call under way.
    OneMintPerLease,
    /// S2: the published generation never goes back.
    GenerationNeverBack,
    /// S2: a published generation is never replaced by another credential of the same number.
    GenerationNeverReplaced,
    /// S2: a generation is attempted once, or again with the same inputs.
    GenerationAttemptedOnce,
    /// S2: what a reader is handed never goes back.
    ReaderNeverBack,
    /// S3: mints are at least `min_interval` apart, those included whose answer was lost.
    MintsApart,
    /// S4: no reader is handed an expired credential.
    NothingExpired,
    /// S5: published generations were minted at least `min_interval` apart.
    RateFloor,
    /// The epoch grows whenever the lease changes hands, and never goes back.
    EpochGrows,
    /// L1: once faults have stopped, a valid credential is published within the bound.
    PublishedInTime,
    /// L2: a live reader is never without a credential that one read would not bring.
    AlwaysServed,
}

impl Law {
    const ALL: [Self; 11] = [
        Self::OneMintPerLease,
        Self::GenerationNeverBack,
        Self::GenerationNeverReplaced,
        Self::GenerationAttemptedOnce,
        Self::ReaderNeverBack,
        Self::MintsApart,
        Self::NothingExpired,
        Self::RateFloor,
        Self::EpochGrows,
        Self::PublishedInTime,
        Self::AlwaysServed,
    ];
}

/// The laws that a step broke.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
pub struct Broken(u16);

impl Broken {
    /// Notes that `law` is broken.
    pub const fn note(&mut self, law: Law) {
        self.0 |= 1 << law as u16;
    }

    /// Whether no law is broken.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `law` is broken.
    #[must_use]
    pub const fn has(self, law: Law) -> bool {
        self.0 & (1 << law as u16) != 0
    }

    /// The broken laws.
    pub fn iter(self) -> impl Iterator<Item = Law> {
        Law::ALL.into_iter().filter(move |law| self.has(*law))
    }
}

impl fmt::Debug for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

/// When a credential of the walk was minted: the walk writes the true time where a sealed secret would be.
#[must_use]
pub fn minted_at(credential: &Credential) -> u64 {
    credential.sealed.first_chunk::<8>().map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

/// Judges one write to the register.
pub fn judge_write(old: Option<&Record>, new: &Record, min_interval: u64, broken: &mut Broken) {
    let Some(old) = old else { return };
    if new.epoch < old.epoch || (new.holder != old.holder && new.epoch == old.epoch) {
        broken.note(Law::EpochGrows);
    }
    if new.generation < old.generation {
        broken.note(Law::GenerationNeverBack);
    }
    let Some(was) = old.newest() else { return };
    let Some(is) = new.newest() else {
        broken.note(Law::GenerationNeverBack);
        return;
    };
    if is.generation < was.generation {
        broken.note(Law::GenerationNeverBack);
    }
    if is.generation == was.generation && is.sealed != was.sealed {
        broken.note(Law::GenerationNeverReplaced);
    }
    if is.generation > was.generation && minted_at(is) < minted_at(was) + min_interval {
        broken.note(Law::RateFloor);
    }
}
