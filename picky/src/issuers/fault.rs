//! What goes wrong when something is issued.

use serde::{Deserialize, Serialize};

use crate::faults::Plan;

/// Which calls go wrong, and how. `delay_ms` without a fault is a slow issuer.
pub type Faults = Plan<Fault>;

/// What goes wrong. In JSON: `{"kind":"fail","status":400,"code":"Throttling"}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// An error in the form of the protocol; nothing is issued.
    Fail {
        /// 400 to 599.
        status: u16,
        /// The code of the protocol: `invalid_client`, `Throttling`.
        code: String,
        /// The `retry-after` header, in seconds.
        #[serde(default)]
        retry_after_s: Option<u64>,
    },
    /// An error as a proxy writes it, in plain text; nothing is issued.
    Plain {
        /// 400 to 599.
        status: u16,
    },
    /// No answer comes.
    Hang {
        /// Whether something was issued before.
        #[serde(default)]
        issued: bool,
    },
    /// Something is issued, then the connection is closed: the answer is lost.
    DropAfterIssue,
    /// The connection is closed; nothing is issued.
    DropBefore,
    /// Something is issued, and the answer is neither JSON nor XML.
    Garbage,
    /// Something is issued, and the answer has no body.
    Empty,
    /// Something is issued, and the token has characters that no header may carry.
    BadToken,
    /// The last answer is given again, as from a cache.
    Same,
    /// Something is issued, and its end is wrong.
    Expiry {
        /// In what way.
        wrong: WrongExpiry,
    },
}

/// What is wrong with the end of what is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrongExpiry {
    /// Zero, or the beginning of 1970.
    Zero,
    /// No such field.
    Absent,
    /// A hundred years.
    Absurd,
    /// A text that is no time.
    Nonsense,
}

impl Fault {
    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Fail { .. } => "fail",
            Self::Plain { .. } => "plain",
            Self::Hang { .. } => "hang",
            Self::DropAfterIssue => "drop-after-issue",
            Self::DropBefore => "drop-before",
            Self::Garbage => "garbage",
            Self::Empty => "empty",
            Self::BadToken => "bad-token",
            Self::Same => "same",
            Self::Expiry { .. } => "expiry",
        }
    }

    /// Whether nothing is issued.
    pub(super) const fn is_before(&self) -> bool {
        matches!(self, Self::Fail { .. } | Self::Plain { .. } | Self::Hang { issued: false } | Self::DropBefore)
    }
}

/// Refuses a plan with numbers that cannot be answered with.
pub(super) fn check(faults: &Faults) -> Result<(), String> {
    faults.check()?;
    match &faults.fault {
        Some(Fault::Fail { status, .. } | Fault::Plain { status }) if !(400..=599).contains(status) => {
            Err(format!("`status` must be between 400 and 599: `{status}`"))
        }
        _ => Ok(()),
    }
}
