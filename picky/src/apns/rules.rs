//! The rules about when tokens may change. Sans-IO: time comes in as a number.

use std::collections::VecDeque;
use std::time::Duration;

use super::token::TokenId;
use crate::clock::millis;

/// Where the fake Apple remembers the last token change.
///
/// Apple documents the team, across keys; what its servers do looks more like one memory per connection. A fleet has
/// to hold up under both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// One current token per team, whatever connection or key it comes by.
    #[default]
    Team,
    /// One current token per TCP connection.
    Connection,
}

/// The numbers of the rules, in milliseconds of simulated time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) min_interval_ms: i64,
    pub(crate) max_age_ms: i64,
    pub(crate) overlap_ms: i64,
    pub(crate) max_skew_future_ms: i64,
    pub(crate) handover_ms: i64,
}

impl Limits {
    pub(crate) fn new(config: &super::Config) -> Self {
        let ms = |duration: Duration| millis(duration);
        Self {
            min_interval_ms: ms(config.min_interval),
            max_age_ms: ms(config.max_age),
            overlap_ms: ms(config.overlap),
            max_skew_future_ms: ms(config.max_skew_future),
            handover_ms: ms(config.handover),
        }
    }

    /// Whether a token's own time lets it be used at `now_ms`; the edges belong to the good side.
    pub(crate) fn age(&self, issued_at: i64, now_ms: i64) -> Age {
        let age_ms = now_ms.saturating_sub(issued_at.saturating_mul(1000));
        if age_ms < self.max_skew_future_ms.saturating_neg() {
            Age::Future
        } else if age_ms > self.max_age_ms {
            Age::TooOld
        } else {
            Age::Usable
        }
    }
}

/// What a token's `iat` says about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Age {
    Usable,
    Future,
    TooOld,
}

/// What the rules say about one presentation of a correctly signed token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is, or has just become, the current token.
    Accepted { is_change: bool },
    /// Not yet valid, or of another team than the connection's first.
    Invalid,
    /// Older than the life of a token, or replaced by a newer one.
    Expired,
    /// A new token before `min_interval` has passed since the last change.
    TooManyUpdates,
}

/// How many replaced tokens of one iat a slot tells apart from new ones.
const REPLACED_MAX: usize = 8;

/// One current token and what it replaced: per team or per connection.
#[derive(Clone, Debug)]
pub(crate) struct Current {
    id: TokenId,
    issued_at: i64,
    changed_at_ms: i64,
    replaced: VecDeque<(TokenId, i64)>,
}

/// Judges a token of usable age against the slot's current one, and makes it current where the rules let it.
pub(crate) fn judge(slot: &mut Option<Current>, id: TokenId, issued_at: i64, now_ms: i64, limits: &Limits) -> Verdict {
    let Some(current) = slot else {
        *slot = Some(Current { id, issued_at, changed_at_ms: now_ms, replaced: VecDeque::new() });
        return Verdict::Accepted { is_change: true };
    };
    if current.id == id {
        return Verdict::Accepted { is_change: false };
    }
    if let Some((_, replaced_at_ms)) = current.replaced.iter().find(|(replaced, _)| *replaced == id) {
        // A token that was replaced never becomes current again; at most it is let through for a while.
        let since_ms = now_ms.saturating_sub(*replaced_at_ms);
        return if since_ms < limits.overlap_ms { Verdict::Accepted { is_change: false } } else { Verdict::Expired };
    }
    if issued_at < current.issued_at {
        return Verdict::Expired;
    }
    if now_ms.saturating_sub(current.changed_at_ms) < limits.min_interval_ms {
        return Verdict::TooManyUpdates;
    }
    current.replaced.push_front((current.id, now_ms));
    current.replaced.truncate(REPLACED_MAX);
    current.id = id;
    current.issued_at = issued_at;
    current.changed_at_ms = now_ms;
    Verdict::Accepted { is_change: true }
}
