//! What the issuer counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What the issuer has seen so far. `at_ms` is simulated time since 1970, `real_ms` real time since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// `POST /mint` requests, whatever became of them.
    pub calls: u64,
    /// Tokens made, also those whose answer was lost or unreadable.
    pub mints: u64,
    /// Calls answered with an earlier token because of their `idempotency-key`.
    pub replays: u64,
    /// Calls refused with 429 because `min_interval` was not over.
    pub refused: u64,
    /// Calls spoiled by a fault, by its kind.
    pub faults: BTreeMap<String, u64>,
    /// The most `POST /mint` requests in progress at one moment.
    pub in_flight_max: u64,
    /// Tokens not yet expired and not replaced, now. Never above 1 with `one_valid`.
    pub valid_now: u64,
    /// The most such tokens at one moment.
    pub most_valid_at_once: u64,
    /// `POST /use` requests by their result: `ok`, `expired`, `replaced`, `unknown`.
    pub uses: BTreeMap<String, u64>,
    /// How many rules were broken; the first [`ROWS_MAX`](super::ROWS_MAX) are listed.
    pub violations: u64,
    /// Which rules were broken, and when.
    pub violation_list: Vec<Violation>,
    /// The tokens made, in order; the first [`ROWS_MAX`](super::ROWS_MAX).
    pub minted: Vec<Mint>,
    /// The calls, in order; the first [`ROWS_MAX`](super::ROWS_MAX).
    pub call_list: Vec<Call>,
}

/// One call and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Simulated milliseconds since 1970.
    pub at_ms: i64,
    /// Real milliseconds since the start.
    pub real_ms: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// The kind of the fault that spoiled it.
    pub fault: Option<String>,
    /// Its `idempotency-key`.
    pub idempotency_key: Option<String>,
}

/// What a call did to the issuer, whether or not the caller got to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// A token was made.
    Minted,
    /// An earlier token was given again: the same idempotency key, or a fault.
    Replayed,
    /// Refused with 429, nothing was made.
    Refused,
    /// A fault came first, nothing was made.
    Nothing,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mint {
    /// The token. It opens nothing, so it may be shown.
    pub token: String,
    /// When it was made, in simulated milliseconds since 1970.
    pub at_ms: i64,
    /// When it was made, in real milliseconds since the start.
    pub real_ms: u64,
    /// When it ends, in simulated milliseconds since 1970.
    pub expires_at_ms: i64,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Violation {
    /// When, in simulated milliseconds since 1970.
    pub at_ms: i64,
    /// Which rule.
    pub kind: ViolationKind,
}

/// Which rule was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ViolationKind {
    /// A mint before `min_interval` was over.
    TooSoon,
    /// With `one_valid`: a mint call while another one was in progress.
    Concurrent,
}
