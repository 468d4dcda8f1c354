//! Who may have an artifact: asked of whatever knows the tokens.

use std::net::IpAddr;

use async_trait::async_trait;
use keyreeve_core::time::Moment;

/// What a token is shown for.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// The token as it was sent.
    pub token: &'a str,
    /// Whose artifact is asked for.
    pub target: &'a str,
    /// The artifact below its target, beginning with a slash.
    pub path: &'a str,
    /// Which kind of artifact.
    pub kind: &'a str,
    /// Who is at the other end of the connection, where that is known.
    pub peer: Option<IpAddr>,
}

/// Why a token is not good for what is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    /// It is none.
    Malformed,
    /// Nobody knows it.
    Unknown,
    /// It was revoked.
    Revoked,
    /// Its time is over.
    Expired,
    /// It is good for other things.
    OutOfScope(String),
    /// What this node knows of revocations is too old.
    Stale,
    /// It cannot be known now.
    Unavailable {
        /// When to try again, in milliseconds.
        retry_ms: u64,
    },
}

/// What knows the tokens of a gate.
#[async_trait]
pub trait Checks: Send + Sync {
    /// The verdict, where no waiting is needed.
    fn seen(&self, ask: &Ask<'_>, now: Moment) -> Option<Result<(), Denied>>;

    /// The verdict.
    async fn check(&self, ask: &Ask<'_>, now: Moment) -> Result<(), Denied>;
}
