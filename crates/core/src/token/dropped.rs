//! A target whose tokens are all taken back, written down before the first of them is, so that any node can finish it.
//!
//! Stored form: as [`record`](crate::record) has it, one byte for the layout (1), then a CBOR map.

use minicbor::{Decode, Encode};

use crate::id::WriteId;
use crate::record::{RecordError, read, stored};
use crate::time::Timestamp;

const LAYOUT: u8 = 1;
const STORED_BYTES_MAX: usize = 4096;

/// That a target was dropped, and how far that is.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Dropped {
    /// The write that made this record; what the register compares.
    #[n(0)]
    pub op: WriteId,
    /// The family of the tokens.
    #[n(1)]
    pub family: String,
    /// The target.
    #[n(2)]
    pub target: String,
    /// Tokens made at this moment or before are taken back.
    #[n(3)]
    pub at: Timestamp,
    /// Who asked for it.
    #[n(4)]
    pub by: String,
    /// When the last of them was; none while there may be more.
    #[n(5)]
    pub done_at: Option<Timestamp>,
    /// How many tokens whoever finished it found.
    #[n(6)]
    pub count: u64,
}

impl Dropped {
    /// The stored form.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        stored(LAYOUT, self)
    }

    /// Reads a stored form of layout 1.
    ///
    /// # Errors
    /// [`RecordError`]; nothing is guessed.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        read(LAYOUT, STORED_BYTES_MAX, bytes)
    }
}
