//! What an issuer counts.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// How many calls the score lists.
pub const ROWS_MAX: usize = 10_000;

/// What an issuer has seen so far.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Score {
    /// Requests for something to be issued, whatever became of them.
    pub calls: u64,
    /// What was issued, also where the answer was lost or unreadable.
    pub issued: u64,
    /// Requests that were refused, by the code of the protocol.
    pub refused: BTreeMap<String, u64>,
    /// Requests spoiled by a fault, by its kind.
    pub faults: BTreeMap<String, u64>,
    /// The most such requests in progress at one moment.
    pub in_flight_max: u64,
    /// Uses of what was issued, by their result: `ok`, `expired`, `unknown`, `not-yet`.
    pub uses: BTreeMap<String, u64>,
    /// Refreshes that used up a refresh token, or an unchanging one.
    pub refreshes: u64,
    /// Uses of a refresh token that was used up already.
    pub reuses: u64,
    /// Families of refresh tokens that such a use has ended. Nobody gets back in without the user.
    pub families_revoked: u64,
    /// The requests, in order; the first [`ROWS_MAX`].
    pub call_list: Vec<Call>,
}

/// One request and what became of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// Simulated milliseconds since 1970.
    pub at_ms: i64,
    /// Real milliseconds since the start.
    pub real_ms: u64,
    /// `issued`, `nothing`, or the code it was refused with; whatever the caller got to know.
    pub outcome: String,
    /// The kind of the fault that spoiled it.
    pub fault: Option<String>,
}
