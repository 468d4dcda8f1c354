//! Whose verdict on a token counts in a family that somebody else's service also judges: theirs, the *old* one, or ours, the
//! *new* one; and how often the two were not the same.
//!
//! Stored form: as [`record`](crate::record) has it, one byte for the layout (1), then a CBOR map. Unknown keys are skipped,
//! and causes are names, so that a node of an older version keeps what it does not know.

use std::fmt;

use minicbor::{Decode, Encode};

use crate::id::WriteId;
use crate::record::{RecordError, read, stored};
use crate::time::Timestamp;

const LAYOUT: u8 = 1;
/// The largest stored record, in bytes: every cause with all of its examples fits.
pub const MODE_BYTES_MAX: usize = 64 * 1024;
/// The most examples that are kept of a cause.
pub const EXAMPLES_MAX: usize = 5;
/// The most causes that are kept.
const CAUSES_MAX: usize = 64;

/// Whose verdict counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Mode {
    /// Ours. An imported hash is compared by bcrypt when its token is seen for the first time, a legacy one too.
    #[n(0)]
    #[default]
    Off,
    /// Theirs. Ours is found beside it, and both are compared.
    #[n(1)]
    Shadow,
    /// Ours. A legacy token is computed from the secret of its makers.
    #[n(2)]
    Enforce,
}

impl Mode {
    /// Every mode.
    pub const ALL: [Self; 3] = [Self::Off, Self::Shadow, Self::Enforce];

    /// The name used in the API and on the command line.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Shadow => "shadow",
            Self::Enforce => "enforce",
        }
    }

    /// The mode of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|mode| mode.as_str() == name)
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of two verdicts on one token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Compared {
    /// Both let it through.
    BothAccept,
    /// Both refuse it.
    BothRefuse,
    /// They let through a spelling that is not the one that the token was made in.
    Malformed,
    /// They let through a legacy token that the secret here does not give.
    WrongSecret,
    /// They let through a key whose id is that of another target's token here.
    OtherTarget,
    /// They let through what was revoked here: its hash is still there.
    Revoked,
    /// They let through what is over here: its hash is still there.
    Expired,
    /// They refuse it because its hash is gone.
    MissingHash,
    /// They refuse it because its hash is one of something else.
    WrongHash,
    /// They refuse a legacy token because it begins as a key does.
    ReadAsKey,
    /// One of the verdicts was not to be had.
    Unavailable,
}

impl Compared {
    /// Every outcome, in the order of its counter.
    pub const ALL: [Self; 11] = [
        Self::BothAccept,
        Self::BothRefuse,
        Self::Malformed,
        Self::WrongSecret,
        Self::OtherTarget,
        Self::Revoked,
        Self::Expired,
        Self::MissingHash,
        Self::WrongHash,
        Self::ReadAsKey,
        Self::Unavailable,
    ];

    /// The name used in records, the API and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BothAccept => "agree.accepted",
            Self::BothRefuse => "agree.refused",
            Self::Malformed => "old_accepts_new_refuses.malformed",
            Self::WrongSecret => "old_accepts_new_refuses.wrong_secret",
            Self::OtherTarget => "old_accepts_new_refuses.other_target",
            Self::Revoked => "old_accepts_new_refuses.revoked",
            Self::Expired => "old_accepts_new_refuses.expired",
            Self::MissingHash => "old_refuses_new_accepts.missing_hash",
            Self::WrongHash => "old_refuses_new_accepts.wrong_hash",
            Self::ReadAsKey => "old_refuses_new_accepts.read_as_key",
            Self::Unavailable => "unavailable",
        }
    }

    /// Where its counter is.
    #[must_use]
    pub fn index(self) -> usize {
        Self::ALL.iter().position(|one| *one == self).unwrap_or_default()
    }

    /// Whether the verdicts are not the same.
    #[must_use]
    pub const fn is_difference(self) -> bool {
        !matches!(self, Self::BothAccept | Self::BothRefuse | Self::Unavailable)
    }

    /// What an operator does about it; nothing where nothing has to be done.
    #[must_use]
    pub fn advice(name: &str) -> &'static str {
        match Self::ALL.into_iter().find(|one| one.as_str() == name) {
            Some(Self::Malformed) => {
                "a client sends the token in another spelling than it was given: have it send the token as it is"
            }
            Some(Self::WrongSecret) => {
                "`legacy.hmac_key` is not the secret that these legacy tokens were made with: set the one of Hive's own service"
            }
            Some(Self::OtherTarget) => "two targets have a key of one id: give the holders of one of them a new token",
            Some(Self::Revoked | Self::Expired) => {
                "its hash is still in the bucket: `keyreeve token revoke ID` takes it away"
            }
            Some(Self::MissingHash) => {
                "its hash was taken away there: `keyreeve token revoke ID` takes the token back here too"
            }
            Some(Self::WrongHash) => {
                "its hash in the bucket was made of another token: `keyreeve doctor` compares hashes with the secret"
            }
            Some(Self::ReadAsKey) => {
                "a legacy token that begins with `hv2`, which Hive refuses and keyreeve takes: nothing to do"
            }
            Some(Self::BothAccept | Self::BothRefuse | Self::Unavailable) | None => "",
        }
    }
}

/// How often something came of a comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Tally {
    /// The name of a [`Compared`].
    #[n(0)]
    pub cause: String,
    /// How often.
    #[n(1)]
    pub count: u64,
    /// Some tokens that it was about: `TARGET/ID`. Only where the verdicts were not the same.
    #[n(2)]
    pub examples: Vec<String>,
}

/// What the fleet knows about a family: whose verdict counts, and what came of comparing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct ModeRecord {
    /// The write that made this record; what the register compares.
    #[n(0)]
    pub op: WriteId,
    /// Whose verdict counts.
    #[n(1)]
    pub mode: Mode,
    /// Another one each time that somebody sets the mode, also to what it was. Counts belong to one of them.
    #[n(2)]
    pub run: WriteId,
    /// Since when, by the clock of the node that was told.
    #[n(3)]
    pub since: Timestamp,
    /// Who set it.
    #[n(4)]
    pub by: String,
    /// What came of comparing, since comparing began last.
    #[n(5)]
    pub tallies: Vec<Tally>,
}

/// Why ours does not count yet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotYet {
    /// Nobody has compared anything.
    NotShadowing,
    /// No token was seen that both let through.
    NothingCompared,
    /// The verdicts were not the same: how often, by cause.
    Disagree(Vec<Tally>),
}

impl ModeRecord {
    /// How often this came of a comparison.
    #[must_use]
    pub fn count(&self, what: Compared) -> u64 {
        self.tallies.iter().find(|tally| tally.cause == what.as_str()).map_or(0, |tally| tally.count)
    }

    /// The causes of differences, those included that this version does not know.
    pub fn differences(&self) -> impl Iterator<Item = &Tally> {
        let agrees = [Compared::BothAccept, Compared::BothRefuse, Compared::Unavailable].map(Compared::as_str);
        self.tallies.iter().filter(move |tally| tally.count > 0 && !agrees.contains(&tally.cause.as_str()))
    }

    /// Whether ours may count from now on without anybody's insisting.
    ///
    /// # Errors
    /// [`NotYet`]: why not.
    pub fn may_enforce(&self) -> Result<(), NotYet> {
        if self.mode != Mode::Shadow {
            return Err(NotYet::NotShadowing);
        }
        let differences: Vec<Tally> = self.differences().cloned().collect();
        if !differences.is_empty() {
            return Err(NotYet::Disagree(differences));
        }
        if self.count(Compared::BothAccept) == 0 { Err(NotYet::NothingCompared) } else { Ok(()) }
    }

    /// Adds what one node has counted. Examples are kept up to [`EXAMPLES_MAX`] a cause.
    pub fn add(&mut self, tally: Tally) {
        let place = self.tallies.iter().position(|own| own.cause == tally.cause);
        let Some(own) = place.and_then(|place| self.tallies.get_mut(place)) else {
            if self.tallies.len() < CAUSES_MAX {
                self.tallies.push(tally);
            }
            return;
        };
        own.count = own.count.saturating_add(tally.count);
        for example in tally.examples {
            if own.examples.len() < EXAMPLES_MAX && !own.examples.contains(&example) {
                own.examples.push(example);
            }
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
        read(LAYOUT, MODE_BYTES_MAX, bytes)
    }
}
