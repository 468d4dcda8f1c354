//! What the walk needs of a renewal machine and of a reader's view, and every copy of the shipped ones.

use std::sync::Arc;

use keyreeve_core::id::WriteId;
use keyreeve_core::lifecycle::{Context, Event, Step};
use keyreeve_core::record::{LastMint, Record};
use keyreeve_core::rules::Rules;
use keyreeve_core::time::{Moment, Mono, Timestamp};

/// The shipped state machine, or a copy of it with a bug seeded.
pub trait Machine: Clone + Default + Send + Sync {
    /// Takes in an event and says what to do.
    fn step(&mut self, ctx: Context<'_>, event: Event) -> Step;
    /// All that it remembers.
    fn memory(&self) -> Memory<'_>;
}

/// The shipped reader's view, or a copy of it with a bug seeded.
pub trait Sight: Clone + Default + Send + Sync {
    /// Takes what a record publishes; `None` where that is nothing new.
    fn adopt(&self, record: &Record, now: Moment) -> Option<Self>;
    /// What a reader is handed.
    fn serve(&self, rules: &Rules, now: Moment) -> Option<Served>;
    /// The current and the next generation held.
    fn held(&self) -> [Option<HeldFacts>; 2];
}

/// An answer to a reader.
#[derive(Clone, Copy, Debug)]
pub struct Served {
    /// Its generation.
    pub generation: u64,
    /// When it expires, by the upstream's clock.
    pub expires_at: Timestamp,
    /// Whether the policy allows it past expiry.
    pub is_stale: bool,
}

/// What a view keeps of one generation.
#[derive(Clone, Copy, Debug)]
pub struct HeldFacts {
    /// Its generation.
    pub generation: u64,
    /// When it expires.
    pub expires_at: Timestamp,
    /// When nodes switch to it.
    pub use_from: Timestamp,
    /// When it expires, by the node's monotonic clock.
    pub expires_mono: Mono,
    /// When the node switches to it, by its monotonic clock.
    pub use_from_mono: Mono,
}

/// A machine's phase.
#[derive(Clone, Copy, Debug)]
pub enum Stage<'a> {
    /// Not renewing.
    Idle,
    /// Waiting for the swap that takes the lease.
    Acquiring {
        /// Before the swap was sent.
        asked_at: Mono,
        /// What was sent.
        record: &'a Arc<Record>,
    },
    /// Waiting for the source.
    Minting {
        /// What the lease is counted from.
        asked_at: Mono,
        /// The record with the intent.
        record: &'a Arc<Record>,
    },
    /// Waiting for the swap that records an outcome.
    Settling {
        /// The write it replaces.
        base: Option<WriteId>,
        /// What was sent.
        record: &'a Arc<Record>,
    },
}

/// All that a machine remembers.
#[derive(Clone, Copy, Debug)]
pub struct Memory<'a> {
    /// Its phase.
    pub stage: Stage<'a>,
    /// The intent last seen, and since when.
    pub intent_seen: Option<(WriteId, Mono)>,
    /// The last mint last seen, and since when.
    pub last_seen: Option<(LastMint, Mono)>,
    /// The failure last seen, and since when.
    pub failure_seen: Option<(u32, Timestamp, Mono)>,
    /// The intent under which a mint left and is not known to have failed.
    pub sent: Option<WriteId>,
}

include!(concat!(env!("OUT_DIR"), "/machines.rs"));
