//! Refusals, what strangers hear of them, and how many there are.

use std::sync::{Arc, OnceLock};

use metrics::Counter;

use super::Granted;

/// Why a token opens nothing. Displayed for the operator; strangers are told [`public`](Self::public).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Not the spelling of any token. Nothing was read.
    #[error("not the spelling of a token")]
    Malformed,
    /// No such token, or another secret, or for another target.
    #[error("no such token for this target, or another secret")]
    Unknown,
    /// It was taken back.
    #[error("the token was revoked")]
    Revoked,
    /// Its time, or that of its successor's grace, is over.
    #[error("the token has expired")]
    Expired,
    /// It is good, and for something else.
    #[error("{0}")]
    OutOfScope(String),
    /// This node has not heard for too long which tokens are revoked.
    #[error("this node does not know which tokens are revoked by now")]
    Stale,
    /// Nobody can say now: never a refusal.
    #[error("the token cannot be checked now")]
    Unavailable {
        /// When asking again may help, in milliseconds.
        retry_ms: u64,
    },
}

/// The names of verdicts, in the order of their counters.
const VERDICTS: [&str; 8] =
    ["good", "malformed", "unknown", "revoked", "expired", "out-of-scope", "stale", "unavailable"];

impl Denied {
    /// What strangers are told: no more than whether another token, another request or patience may help.
    #[must_use]
    pub const fn public(&self) -> &'static str {
        match self {
            Self::Malformed | Self::Unknown | Self::Revoked | Self::Expired => {
                "the token is not valid, or not for this target"
            }
            Self::OutOfScope(_) => "the token does not allow this request",
            Self::Stale | Self::Unavailable { .. } => "the token cannot be checked now",
        }
    }

    /// The name used in the API, logs and metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        VERDICTS.get(self.index()).copied().unwrap_or_default()
    }

    const fn index(&self) -> usize {
        match self {
            Self::Malformed => 1,
            Self::Unknown => 2,
            Self::Revoked => 3,
            Self::Expired => 4,
            Self::OutOfScope(_) => 5,
            Self::Stale => 6,
            Self::Unavailable { .. } => 7,
        }
    }
}

/// `keyreeve_access_checks_total` by family and verdict: looked up in the recorder once, then a single addition.
pub(super) struct Counts {
    family: String,
    counters: [OnceLock<Counter>; VERDICTS.len()],
}

impl Counts {
    pub(super) fn new(family: &str) -> Self {
        Self { family: family.to_owned(), counters: Default::default() }
    }

    pub(super) fn count(&self, verdict: &Result<Arc<Granted>, Denied>) {
        let index = verdict.as_ref().err().map_or(0, Denied::index);
        let (Some(counter), Some(name)) = (self.counters.get(index), VERDICTS.get(index)) else { return };
        let counter = counter.get_or_init(
            || metrics::counter!("keyreeve_access_checks_total", "family" => self.family.clone(), "verdict" => *name),
        );
        counter.increment(1);
    }
}
