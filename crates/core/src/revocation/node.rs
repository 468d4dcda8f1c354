//! What a node has applied, and when: where receipts come from.

use minicbor::{Decode, Encode};

use crate::id::{Holder, WriteId};
use crate::record::{RecordError, read, stored};
use crate::time::Timestamp;

const LAYOUT: u8 = 1;
/// The most moments that a node remembers.
pub const APPLIED_MAX: usize = 64;
/// The largest stored record of a node, in bytes.
pub const NODE_BYTES_MAX: usize = 4096;

/// A sign of life of one node.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Node {
    /// The write that made this record; what the register compares.
    #[n(0)]
    pub op: WriteId,
    /// Which node, in which life.
    #[n(1)]
    pub holder: Holder,
    /// When it wrote this, by its clock.
    #[n(2)]
    pub seen_at: Timestamp,
    /// How often it says so, in milliseconds.
    #[n(3)]
    pub every_ms: u64,
    /// Without news for this long it refuses everything, in milliseconds; 0 where it goes on instead.
    #[n(4)]
    pub refuses_after_ms: u64,
    /// Whether it has ended on purpose.
    #[n(5)]
    pub is_stopped: bool,
    /// What it has applied, the oldest first; bounded.
    #[n(6)]
    applied: Vec<Applied>,
}

/// An epoch, and since when a node goes by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(array)]
pub struct Applied {
    /// The epoch.
    #[n(0)]
    pub epoch: u64,
    /// Since when, by the node's clock.
    #[n(1)]
    pub at: Timestamp,
}

impl Node {
    /// A node that has applied nothing.
    #[must_use]
    pub const fn new(holder: Holder, op: WriteId, every_ms: u64, refuses_after_ms: u64) -> Self {
        Self { op, holder, seen_at: Timestamp(0), every_ms, refuses_after_ms, is_stopped: false, applied: Vec::new() }
    }

    /// Notes that this node goes by `epoch` from `at` on. An epoch that it went by already is no news.
    pub fn note(&mut self, epoch: u64, at: Timestamp) {
        if self.epoch() >= epoch {
            return;
        }
        if self.applied.len() >= APPLIED_MAX {
            self.applied.remove(0);
        }
        self.applied.push(Applied { epoch, at });
    }

    /// Takes over what an earlier record of the same life says: where there is no room for everything, the newest of it.
    pub fn note_earlier(&mut self, earlier: &Self) {
        let first = self.applied.first().map_or(u64::MAX, |first| first.epoch);
        let room = APPLIED_MAX.saturating_sub(self.applied.len());
        let older = earlier.applied.iter().filter(|applied| applied.epoch < first);
        let forgotten = older.clone().count().saturating_sub(room);
        let kept: Vec<Applied> = older.skip(forgotten).copied().collect();
        self.applied.splice(0..0, kept);
    }

    /// What it has applied, the oldest first.
    #[must_use]
    pub fn applied(&self) -> &[Applied] {
        &self.applied
    }

    /// What it goes by.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.applied.last().map_or(0, |applied| applied.epoch)
    }

    /// Since when it refuses what was revoked by `epoch`, at the latest; `None` where it does not yet. Moments that are
    /// forgotten are as late as the first that is remembered.
    #[must_use]
    pub fn applied_at(&self, epoch: u64) -> Option<Timestamp> {
        self.applied.iter().find(|applied| applied.epoch >= epoch).map(|applied| applied.at)
    }

    /// Whether it has said nothing for three times as long as it should have.
    #[must_use]
    pub const fn is_silent(&self, now: Timestamp) -> bool {
        now.since(self.seen_at) > self.every_ms.saturating_mul(3)
    }

    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        stored(LAYOUT, self)
    }

    /// Reads a stored form of layout 1.
    ///
    /// # Errors
    /// [`RecordError`] where the bytes are too new, too many, or no such record; nothing is guessed.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        let node: Self = read(LAYOUT, NODE_BYTES_MAX, bytes)?;
        if node.applied.len() > APPLIED_MAX || !node.applied.is_sorted_by(|a, b| a.epoch < b.epoch) {
            return Err(RecordError::Corrupt("its epochs are too many, or not in order".into()));
        }
        Ok(node)
    }
}
