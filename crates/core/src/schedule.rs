//! When to renew, how long to hold back after a failure, and the slots of store-less mode.

use crate::id::{Holder, WriteId};
use crate::quiet;
use crate::record::{Credential, FaultClass, Record};
use crate::rules::Rules;
use crate::time::{Span, Timestamp};

/// Nodes that did not hold the lease last give the one that did this head start.
pub(crate) const AFFINITY_MS: u64 = 5000;
/// A `Retry-After` is believed up to this.
pub const RETRY_AFTER_MS_MAX: u64 = 60 * 60_000;

/// A number in `0..=most` that depends on nothing but `seed`. Spreads work; keeps no secret.
#[must_use]
pub const fn spread(seed: u64, most: u64) -> u64 {
    // splitmix64 (Steele, Lea, Flood 2014)
    let mut x = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^= x >> 31;
    match most.checked_add(1) {
        Some(buckets) => x % buckets,
        None => x,
    }
}

fn seed_of(op: WriteId) -> u64 {
    op.0.iter().fold(0, |seed: u64, byte| seed.rotate_left(8) ^ u64::from(*byte))
}

/// How long the fleet holds back after the `count`th failure in a row: doubling, with half of it drawn at random.
#[must_use]
pub fn hold_ms(rules: &Rules, class: FaultClass, count: u32, retry_after_ms: Option<u64>, op: WriteId) -> u64 {
    let (first, most) = match class {
        FaultClass::Transient | FaultClass::Throttled => (rules.hold_ms, rules.hold_ms_max),
        FaultClass::Terminal | FaultClass::Misconfigured => (rules.hard_hold_ms, rules.hard_hold_ms_max),
    };
    let doubled = first.saturating_mul(1 << count.saturating_sub(1).min(20)).min(most);
    let drawn = doubled.saturating_add(spread(seed_of(op), doubled / 2));
    drawn.max(retry_after_ms.unwrap_or(0).min(RETRY_AFTER_MS_MAX))
}

/// When the renewal of a credential falls due: `lead` before expiry, by the jitter earlier so that
/// credentials minted together do not stay together, but never before the upstream allows the next mint. Where that
/// would be in a quiet window, it is before the window; where nothing before the window is allowed, the window gives
/// way, since a credential that expires in it helps nobody.
#[must_use]
pub fn refresh_at(
    rules: &Rules,
    issued_at: Timestamp,
    minted_at: Timestamp,
    expires_at: Timestamp,
    op: WriteId,
) -> Timestamp {
    let life_ms = expires_at.since(issued_at);
    let latest = expires_at.minus(lead_ms(rules, life_ms));
    let allowed = minted_at.plus(rules.min_interval_ms).plus(rules.skew_ms);
    let early_ms = rules.refresh_jitter_ms.min(life_ms / 4);
    let latest = quiet::moved_ahead(&rules.quiet, latest, (early_ms, rules.settled_ms()), allowed).unwrap_or(latest);
    // Drawn from what is allowed, rather than cut off at it, or those that were cut would fall due together.
    let early_ms = early_ms.min(latest.since(allowed));
    latest.minus(spread(seed_of(op), early_ms))
}

/// The lead of a credential that was given `life_ms`. An upstream may give less than was asked for; a lead that takes
/// more than half of that shrinks with it, or the renewal would fall due again as soon as it was made.
fn lead_ms(rules: &Rules, life_ms: u64) -> u64 {
    let share = u128::from(rules.lead_ms) * u128::from(life_ms) / u128::from(rules.life_ms.max(1));
    let share = u64::try_from(share).unwrap_or(u64::MAX).min(rules.lead_ms);
    rules.lead_ms.min(life_ms / 2).max(share)
}

/// When `me` looks for the renewal of `credential`: the last holder at `refresh_at`, the others spread behind it, so that
/// a fleet of any size makes a handful of writes. Never later than half-way to expiry.
#[must_use]
pub fn wake_at(rules: &Rules, record: &Record, credential: &Credential, me: &Holder) -> Timestamp {
    if record.holder.as_ref().is_some_and(|holder| holder.node == me.node) {
        return credential.refresh_at;
    }
    let seed =
        me.node.as_str().bytes().fold(credential.generation, |seed, byte| spread(seed ^ u64::from(byte), u64::MAX));
    let half_way_ms = credential.expires_at.since(credential.refresh_at) / 2;
    let head_start_ms = AFFINITY_MS.min(rules.wake_spread_ms).min(half_way_ms);
    // A spread that does not fit shrinks: a fleet that is cut off at half-way would arrive there as one.
    let spread_ms = rules.wake_spread_ms.min(half_way_ms - head_start_ms);
    credential.refresh_at.plus(head_start_ms).plus(spread(seed, spread_ms))
}

/// Store-less mode: time is cut into slots, and the token of a slot is a pure function of key, claims and slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slots {
    /// Length of a slot (P).
    pub period_ms: u64,
    /// A slot's token says it was issued this long before the slot starts (b).
    pub backdate_ms: u64,
    /// Life of a token from its issue (MAX).
    pub life_ms: u64,
    /// Bound on the error of each node's clock (d).
    pub skew_ms: u64,
    /// Bound on the error of the upstream's clock (du).
    pub upstream_skew_ms: u64,
    /// Longest time from choosing a token to its arrival (f).
    pub flight_ms: u64,
    /// Least time between two tokens (MIN); 0 where the upstream does not care.
    pub min_interval_ms: u64,
}

/// One slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Counts slots since 1970; serves as the generation.
    pub number: u64,
    /// First moment of use.
    pub starts_at: Timestamp,
    /// First moment of the next slot.
    pub ends_at: Timestamp,
    /// Issue time to sign.
    pub issued_at: Timestamp,
    /// Expiry to sign.
    pub expires_at: Timestamp,
}

impl Slots {
    /// The slot that `now` falls into.
    #[must_use]
    pub const fn at(&self, now: Timestamp) -> Slot {
        let period = if self.period_ms == 0 { 1 } else { self.period_ms };
        self.numbered(now.0 / period)
    }

    /// The slot with this number.
    #[must_use]
    pub const fn numbered(&self, number: u64) -> Slot {
        let starts_at = Timestamp(number.saturating_mul(self.period_ms));
        let issued_at = starts_at.minus(self.backdate_ms);
        Slot {
            number,
            starts_at,
            ends_at: starts_at.plus(self.period_ms),
            issued_at,
            expires_at: issued_at.plus(self.life_ms),
        }
    }

    /// How long before a slot ends its successor should be ready: two skews and a minute, a quarter of it at most.
    #[must_use]
    pub const fn ready_ms(&self) -> u64 {
        let wanted = self.skew_ms.saturating_mul(2).saturating_add(60_000);
        if wanted < self.period_ms / 4 { wanted } else { self.period_ms / 4 }
    }

    /// Every closed condition that does not hold, with its sum (checked against a model in the design; the tests of
    /// this module check them against a search).
    #[must_use]
    pub fn check(&self) -> Vec<crate::rules::Contradiction> {
        let mut found = Vec::new();
        let skews = self.skew_ms.saturating_add(self.upstream_skew_ms);
        if self.backdate_ms < skews {
            found.push(crate::rules::Contradiction {
                field: "backdate",
                sum: format!(
                    "backdate {} is less than skew {} + upstream skew {} = {}",
                    Span(self.backdate_ms),
                    Span(self.skew_ms),
                    Span(self.upstream_skew_ms),
                    Span(skews)
                ),
                hint: "a node with a fast clock would present a token from the future: lengthen `backdate`".into(),
            });
        }
        let oldest =
            self.period_ms.saturating_add(self.backdate_ms).saturating_add(skews).saturating_add(self.flight_ms);
        if oldest > self.life_ms {
            found.push(crate::rules::Contradiction {
                field: "slot",
                sum: format!(
                    "slot {} + backdate {} + skew {} + upstream skew {} + flight {} = {} > max {}",
                    Span(self.period_ms),
                    Span(self.backdate_ms),
                    Span(self.skew_ms),
                    Span(self.upstream_skew_ms),
                    Span(self.flight_ms),
                    Span(oldest),
                    Span(self.life_ms)
                ),
                hint: "a node with a slow clock would present an expired token: shorten `slot`".into(),
            });
        }
        let apart = self.skew_ms.saturating_mul(2).saturating_add(self.flight_ms).saturating_add(self.min_interval_ms);
        if self.min_interval_ms > 0 && self.period_ms < apart {
            found.push(crate::rules::Contradiction {
                field: "slot",
                sum: format!(
                    "slot {} is less than min_interval {} + 2 x skew {} + flight {} = {}",
                    Span(self.period_ms),
                    Span(self.min_interval_ms),
                    Span(self.skew_ms),
                    Span(self.flight_ms),
                    Span(apart)
                ),
                hint: "the upstream would see two tokens too close together: lengthen `slot`".into(),
            });
        }
        if self.period_ms < 1000 || !self.period_ms.is_multiple_of(1000) || !self.backdate_ms.is_multiple_of(1000) {
            found.push(crate::rules::Contradiction {
                field: "slot",
                sum: format!(
                    "slot {} and backdate {} must be whole seconds",
                    Span(self.period_ms),
                    Span(self.backdate_ms)
                ),
                hint: "a token's times are whole seconds (RFC 7519)".into(),
            });
        }
        found
    }
}
