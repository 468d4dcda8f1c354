//! What an issuer is told: its rules, and what goes wrong.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::PickyClock;
use crate::faults::Plan;

/// The largest answer that a `too-big` fault may ask for.
const TOO_BIG_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The rules and the place of an issuer.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; the default is a free port of 127.0.0.1, and only loopback is taken.
    pub bind: SocketAddr,
    /// What `expires_at` and the rules are measured by.
    pub clock: PickyClock,
    /// How long a token lives; one hour.
    pub life: Duration,
    /// How the end of a token is written.
    pub expiry: ExpiryForm,
    /// The least time between two mints, if there is one. A mint before that is refused and a violation.
    pub min_interval: Option<Duration>,
    /// Whether a mint ends the token before it. Then two mint calls in progress at once are a violation.
    pub one_valid: bool,
    /// Whether a repeated `idempotency-key` gives the same token and is no second mint.
    pub honours_idempotency: bool,
    /// What goes wrong from the start.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: PickyClock::real(),
            life: Duration::from_secs(3600),
            expiry: ExpiryForm::Rfc3339,
            min_interval: None,
            one_valid: false,
            honours_idempotency: false,
            faults: Faults::default(),
        }
    }
}

/// How the end of a token is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ExpiryForm {
    /// `"expires_at": "2026-01-01T00:00:00Z"`.
    #[default]
    Rfc3339,
    /// `"expires_at": 1767225600`.
    UnixSeconds,
    /// `"expires_in": 3600`, counted from the answer.
    ExpiresIn,
}

/// Which calls go wrong, and how. `delay_ms` without a fault is a slow issuer.
pub type Faults = Plan<Fault>;

/// What goes wrong with a `POST /mint`. In JSON: `{"kind":"fail","status":503,"retry_after_s":30}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// An error answer; nothing is minted.
    Fail {
        /// 400 to 599.
        status: u16,
        /// The `retry-after` header, in seconds.
        retry_after_s: Option<u64>,
    },
    /// No answer comes.
    Hang {
        /// Whether a token was minted before.
        #[serde(default)]
        minted: bool,
    },
    /// A token is minted, then the connection is closed: the answer is lost.
    DropAfterCount,
    /// The connection is closed; nothing is minted.
    DropBefore,
    /// A token is minted, and the answer is not JSON.
    Garbage,
    /// A token is minted, and the answer is valid JSON of at least this size.
    TooBig {
        /// At most 64 MiB.
        bytes: usize,
    },
    /// A token is minted, and the answer has no body.
    Empty,
    /// The last token is given again, with its old expiry, as from a cache.
    SameToken,
    /// A token is minted, and its end is wrong.
    Expiry {
        /// In what way.
        wrong: WrongExpiry,
    },
}

/// What is wrong with the end of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WrongExpiry {
    /// The number 0.
    Zero,
    /// No such field.
    Absent,
    /// One hour ago, in the configured form.
    Past,
    /// A text that is no time.
    Nonsense,
}

impl Fault {
    pub(crate) fn kind(&self) -> &'static str {
        match self {
            Self::Fail { .. } => "fail",
            Self::Hang { .. } => "hang",
            Self::DropAfterCount => "drop-after-count",
            Self::DropBefore => "drop-before",
            Self::Garbage => "garbage",
            Self::TooBig { .. } => "too-big",
            Self::Empty => "empty",
            Self::SameToken => "same-token",
            Self::Expiry { .. } => "expiry",
        }
    }

    pub(crate) fn is_before_mint(&self) -> bool {
        matches!(self, Self::Fail { .. } | Self::Hang { minted: false } | Self::DropBefore)
    }
}

/// Refuses a plan with numbers that cannot be answered with.
pub(crate) fn check(faults: &Faults) -> Result<(), String> {
    faults.check()?;
    match &faults.fault {
        Some(Fault::Fail { status, .. }) if !(400..=599).contains(status) => {
            Err(format!("`status` must be between 400 and 599: `{status}`"))
        }
        Some(Fault::TooBig { bytes }) if *bytes > TOO_BIG_BYTES_MAX => {
            Err(format!("`bytes` must be at most {TOO_BIG_BYTES_MAX}: `{bytes}`"))
        }
        _ => Ok(()),
    }
}
