//! The tokens of one issuer that are refused before they expire: one bounded record, which every node reads.
//!
//! This stops single tokens by their `jti`. It is no log-out of everybody: that takes records that grow with what is revoked
//! and not with how often it is read.
//!
//! Stored form: as [`record`](crate::record) has it, one byte for the layout (1), then a CBOR map.

use minicbor::{Decode, Encode};

use crate::id::WriteId;
use crate::record::{RecordError, read, stored};
use crate::time::{Moment, Timestamp};

const LAYOUT: u8 = 1;
/// The most tokens that are revoked and not expired at once.
pub const REVOKED_MAX: usize = 4096;
/// The largest stored record, in bytes.
pub const REVOKED_BYTES_MAX: usize = 128 * 1024;

/// Which token: the first half of the SHA-256 of its `jti`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TokenDigest(pub [u8; 16]);

/// The revoked tokens of one issuer.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revoked {
    /// The write that made this record; what the register compares.
    #[n(0)]
    pub op: WriteId,
    /// Counts writes.
    #[n(1)]
    pub rev: u64,
    /// When it was written, by the writer's clock, but later than the record before it.
    #[n(2)]
    pub written_at: Timestamp,
    /// Which tokens, sorted.
    #[n(3)]
    tokens: Vec<Token>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(array)]
struct Token {
    #[n(0)]
    digest: TokenDigest,
    /// When nobody accepts it any more, revoked or not.
    #[n(1)]
    over_at: Timestamp,
}

/// There are [`REVOKED_MAX`] already, and none of them has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{REVOKED_MAX} tokens are revoked and not expired, the most there can be\nhint: retire the key that signed them"
)]
pub struct Full;

/// The record with one token more, and without those that are over. `None` where it says so already.
///
/// # Errors
/// [`Full`].
pub fn revoke(
    base: Option<&Revoked>,
    fresh: WriteId,
    now: Moment,
    digest: TokenDigest,
    over_at: Timestamp,
) -> Result<Option<Revoked>, Full> {
    if base.is_some_and(|base| base.has(digest)) {
        return Ok(None);
    }
    let (rev, written_at) = base.map_or((1, now.wall), |base| {
        // Hybrid logical clock rule: never at or before the write it follows.
        (base.rev.saturating_add(1), now.wall.max(base.written_at.plus(1)))
    });
    let held = base.map_or(&[][..], |base| &base.tokens);
    let mut tokens: Vec<Token> = held.iter().filter(|token| token.over_at > now.earliest()).copied().collect();
    if tokens.len() >= REVOKED_MAX {
        return Err(Full);
    }
    tokens.push(Token { digest, over_at });
    tokens.sort_unstable();
    Ok(Some(Revoked { op: fresh, rev, written_at, tokens }))
}

impl Revoked {
    /// Whether the token is revoked.
    #[must_use]
    pub fn has(&self, digest: TokenDigest) -> bool {
        self.tokens.binary_search_by(|token| token.digest.cmp(&digest)).is_ok()
    }

    /// How many there are, those included that have expired since the last write.
    #[must_use]
    pub const fn count(&self) -> usize {
        self.tokens.len()
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
        let revoked: Self = read(LAYOUT, REVOKED_BYTES_MAX, bytes)?;
        if revoked.tokens.len() > REVOKED_MAX || !revoked.tokens.is_sorted() {
            return Err(RecordError::Corrupt("its tokens are too many, or not in order".into()));
        }
        Ok(revoked)
    }
}

bytes_in_cbor!(TokenDigest, "a digest has 16 bytes");
