//! Settings of what is revoked.

use super::problem::Fault;
use super::scope::Scope;
use super::sheet::Sheet;

/// The settings of the log of revocations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RevocationConfig {
    /// Within this every node refuses what was revoked, in milliseconds.
    pub max_staleness_ms: u64,
    /// What a node does that has had no news for that long.
    pub on_stale: OnStale,
    /// For how long a revocation is kept where nothing says how long its tokens live, in milliseconds.
    pub keep_ms: u64,
    /// The most by which two wall clocks differ, in milliseconds.
    pub skew_ms: u64,
}

/// What a node does that has had no news about revocations for too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnStale {
    /// It accepts nothing.
    Deny,
    /// It goes on by what it knows.
    Allow,
}

impl OnStale {
    /// The name in the configuration and the API.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deny => "deny",
            Self::Allow => "allow",
        }
    }
}

/// Reads them; none where nothing is revoked. `is_implied` says that something else needs them.
pub(super) fn one(sheet: &mut Sheet, is_implied: bool) -> Option<RevocationConfig> {
    if !is_implied && !sheet.is_written("revocation") {
        return None;
    }
    let mut scope = Scope::new(sheet, "revocation", "revocation");
    let config = RevocationConfig {
        max_staleness_ms: scope.number("max_staleness"),
        on_stale: scope.choice_or("on_stale", &[("deny", OnStale::Deny), ("allow", OnStale::Allow)], OnStale::Deny),
        keep_ms: scope.number("keep"),
        skew_ms: scope.number("skew"),
    };
    if config.keep_ms <= config.skew_ms {
        let fault = Fault::new("must be longer than `skew`", "for as long as the longest-lived token: `30d` is usual");
        scope.fault("keep", &fault);
    }
    Some(config)
}
