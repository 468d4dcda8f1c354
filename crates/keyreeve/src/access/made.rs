//! What is asked for, and what comes of it.

use keyreeve_core::secret::Secret;
use keyreeve_core::token::{Format, Record, Scope};

/// A token to be made.
#[derive(Clone, Debug)]
pub struct New {
    /// What it is to open.
    pub target: String,
    /// What people call it: 1 to 100 characters.
    pub alias: String,
    /// What it is good for within its target.
    pub scope: Scope,
    /// How long it lives, in milliseconds; as long as its family allows where nothing is said.
    pub life_ms: Option<u64>,
    /// How it is spelt; as its family has it where nothing is said. A target has one legacy token, which is computed.
    pub format: Option<Format>,
}

/// A token that was just made: the only time that its text is known.
#[derive(Debug)]
pub struct Made {
    /// The token.
    pub text: Secret<String>,
    /// What is stored of it.
    pub record: Record,
}
