//! What the issuer is told, and what it counts.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::clock::PickyClock;
use crate::faults::Plan;

/// The largest answer that a `too-big` fault may ask for, in bytes.
const TOO_BIG_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The place of an issuer.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; the default is a free port of 127.0.0.1, and only loopback is taken.
    pub bind: SocketAddr,
    /// What `iat` and `exp` are measured by.
    pub clock: PickyClock,
    /// The `max-age` of the JWKS in seconds, if it has one.
    pub max_age_s: Option<u64>,
    /// What goes wrong from the start.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: PickyClock::real(),
            max_age_s: None,
            faults: Faults::default(),
        }
    }
}

/// Which requests for the document and the keys go wrong, and how.
pub type Faults = Plan<Fault>;

/// What goes wrong. In JSON: `{"kind":"status","status":500}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fault {
    /// An error answer.
    Status {
        /// 400 to 599.
        status: u16,
    },
    /// A redirect to the right place.
    Redirect,
    /// No answer comes.
    Hang,
    /// The headers come, a part of the body, and then nothing.
    HangBody,
    /// The connection is closed.
    Drop,
    /// What comes is not JSON.
    Garbage,
    /// Valid JSON of at least this size.
    TooBig {
        /// At most 64 MiB.
        bytes: usize,
    },
    /// A set without keys.
    NoKeys,
    /// Broken keys stand before the good ones.
    BadKeys,
    /// The discovery document names somebody else.
    OtherIssuer,
}

impl Fault {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Status { .. } => "status",
            Self::Redirect => "redirect",
            Self::Hang => "hang",
            Self::HangBody => "hang-body",
            Self::Drop => "drop",
            Self::Garbage => "garbage",
            Self::TooBig { .. } => "too-big",
            Self::NoKeys => "no-keys",
            Self::BadKeys => "bad-keys",
            Self::OtherIssuer => "other-issuer",
        }
    }
}

/// Refuses a plan with numbers that cannot be answered with.
pub(crate) fn check(faults: &Faults) -> Result<(), String> {
    faults.check()?;
    match &faults.fault {
        Some(Fault::Status { status }) if !(400..=599).contains(status) => {
            Err(format!("`status` must be between 400 and 599: `{status}`"))
        }
        Some(Fault::TooBig { bytes }) if *bytes > TOO_BIG_BYTES_MAX => {
            Err(format!("`bytes` must be at most {TOO_BIG_BYTES_MAX}: `{bytes}`"))
        }
        _ => Ok(()),
    }
}

/// What the issuer has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Requests for the discovery document.
    pub discoveries: u64,
    /// Requests for the keys, whatever became of them.
    pub jwks_fetches: u64,
    /// When the first thousand of them came: real milliseconds since the start.
    pub jwks_fetched_at_ms: Vec<u64>,
    /// The most requests for keys in progress at one moment.
    pub in_flight_max: u64,
    /// Tokens made.
    pub tokens: u64,
    /// Requests that a fault has spoiled, by its kind.
    pub faults: BTreeMap<String, u64>,
    /// The ids of the published keys, the oldest first.
    pub published: Vec<String>,
    /// The id of the key that signs.
    pub signs_with: String,
}
