//! What is stored of one token. Never its secret.
//!
//! Stored form: as [`record`](crate::record) has it, one byte for the layout (1), then a CBOR map. Unknown keys are skipped.

use minicbor::{Decode, Encode};

use super::scope::Scope;
use super::text::{Format, TokenId};
use crate::id::{NodeId, WriteId};
use crate::record::{RecordError, read, stored};
use crate::time::{Moment, Timestamp};

const LAYOUT: u8 = 1;
/// The largest stored record, in bytes: a scope with full lists fits.
pub const RECORD_BYTES_MAX: usize = 64 * 1024;
/// The longest alias, in characters.
pub const ALIAS_CHARS_MAX: usize = 100;

/// Everything that is known about a token.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Record {
    /// The write that made this record; what the register compares.
    #[n(0)]
    pub op: WriteId,
    /// Counts writes.
    #[n(1)]
    pub rev: u64,
    /// When it was written, by the writer's clock, but later than the record before it.
    #[n(2)]
    pub written_at: Timestamp,
    /// Which token.
    #[n(3)]
    pub id: TokenId,
    /// Its family: the name of a table of the configuration.
    #[n(4)]
    pub family: String,
    /// What it opens.
    #[n(5)]
    pub target: String,
    /// What people call it. Several may have the same.
    #[n(6)]
    pub alias: String,
    /// How it is spelt.
    #[n(7)]
    pub format: Format,
    /// The keyed hash of its secret; none before an imported token was used for the first time.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub hash: Option<[u8; 32]>,
    /// What it is good for within its target.
    #[n(9)]
    pub scope: Scope,
    /// When it was made.
    #[n(10)]
    pub created_at: Timestamp,
    /// Who made it.
    #[n(11)]
    pub created_by: String,
    /// When it ends by itself.
    #[n(12)]
    pub expires_at: Option<Timestamp>,
    /// The token that takes its place.
    #[n(13)]
    pub rolled: Option<Rolled>,
    /// That it was taken back.
    #[n(14)]
    pub revoked: Option<Revocation>,
    /// When it was last seen in use, now and then.
    #[n(15)]
    pub used: Option<Used>,
    /// Where its hash comes from, if not from here.
    #[n(16)]
    pub import: Option<Import>,
    /// The token that it was rolled or duplicated from.
    #[n(17)]
    pub copied_from: Option<TokenId>,
}

/// Another token takes over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Rolled {
    /// Which.
    #[n(0)]
    pub to: TokenId,
    /// Until when both are good.
    #[n(1)]
    pub ends_at: Timestamp,
}

/// A token that was taken back.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revocation {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// By whom.
    #[n(1)]
    pub by: String,
}

/// A use of a token.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Used {
    /// When.
    #[n(0)]
    pub at: Timestamp,
    /// At which node.
    #[n(1)]
    pub node: NodeId,
}

/// A token whose hash somebody else made, and may take away.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Import {
    /// The SHA-256 of the hash, as text, that the secret was right for; none before the first use.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub was: Option<[u8; 32]>,
    /// The first characters of the secret, for the list.
    #[n(1)]
    pub first: String,
    /// The last characters.
    #[n(2)]
    pub last: String,
}

impl Import {
    /// How many characters are shown of either end of a secret of so many: a fifth, five at the most. GraphQL Hive shows five
    /// of ten, which is all of it.
    #[must_use]
    pub const fn shown(digits: usize) -> usize {
        let fifth = digits / 5;
        if fifth < 5 { fifth } else { 5 }
    }
}

/// Where a token is in its life, at a moment. Never stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Good.
    Active,
    /// Good, and another one has taken over.
    Rolling,
    /// Taken back.
    Revoked,
    /// Over, by itself or after its successor's grace.
    Expired,
}

impl State {
    /// The name used in the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Rolling => "rolling",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }
}

impl Record {
    /// Where it is in its life at `now`. A token is over at its end, not after it.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> State {
        if self.revoked.is_some() {
            State::Revoked
        } else if self.ends_at().is_some_and(|end| end <= now) {
            State::Expired
        } else if self.rolled.is_some() {
            State::Rolling
        } else {
            State::Active
        }
    }

    /// When it is over, as far as that is known.
    #[must_use]
    pub fn ends_at(&self) -> Option<Timestamp> {
        let grace = self.rolled.map(|rolled| rolled.ends_at);
        match (self.expires_at, grace) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The record that follows, written as `op`, with nothing else changed.
    #[must_use]
    pub fn following(&self, op: WriteId, now: Moment) -> Self {
        Self {
            op,
            rev: self.rev.saturating_add(1),
            // Hybrid logical clock rule: never at or before the write it follows.
            written_at: now.wall.max(self.written_at.plus(1)),
            ..self.clone()
        }
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
        read(LAYOUT, RECORD_BYTES_MAX, bytes)
    }
}

/// What is wrong with an alias; `None` where nothing is.
#[must_use]
pub fn alias_fault(alias: &str) -> Option<String> {
    let chars = alias.chars().count();
    if !(1..=ALIAS_CHARS_MAX).contains(&chars) {
        return Some(format!("has {chars} characters, it must have 1 to {ALIAS_CHARS_MAX}"));
    }
    alias.chars().any(char::is_control).then(|| "has a control character in it".to_owned())
}
