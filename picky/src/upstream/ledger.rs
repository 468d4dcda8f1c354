//! What the issuer remembers. Sans-IO: times come in as numbers.

use std::collections::HashMap;

use super::score::{Call, Mint, Outcome, Score, Violation, ViolationKind};
use crate::clock::millis;
use crate::faults::Chooser;

/// How many rows each list of the score holds, and how many idempotency keys are remembered.
pub const ROWS_MAX: usize = 10_000;

/// When something happened: simulated milliseconds since 1970, and real ones since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) at_ms: i64,
    pub(crate) real_ms: u64,
}

/// What the rules made of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Minted {
    Token(Mint),
    TooSoon { wait_ms: i64 },
}

#[derive(Debug)]
pub(crate) struct Ledger {
    life_ms: i64,
    min_interval_ms: Option<i64>,
    one_valid: bool,
    honours_idempotency: bool,
    pub(crate) faults: Chooser<super::Fault>,
    in_flight: u64,
    /// By token; what `one_valid` has ended early has its end here.
    ends: HashMap<String, End>,
    /// Ends of tokens that may still be valid, for the count of valid ones.
    live: Vec<i64>,
    by_key: HashMap<String, Mint>,
    last: Option<Mint>,
    score: Score,
}

#[derive(Clone, Copy, Debug)]
struct End {
    expires_at_ms: i64,
    is_replaced: bool,
}

impl Ledger {
    pub(crate) fn new(config: &super::Config) -> Self {
        Self {
            life_ms: millis(config.life),
            min_interval_ms: config.min_interval.map(millis),
            one_valid: config.one_valid,
            honours_idempotency: config.honours_idempotency,
            faults: Chooser::new(config.faults.clone()),
            in_flight: 0,
            ends: HashMap::new(),
            live: Vec::new(),
            by_key: HashMap::new(),
            last: None,
            score: Score::default(),
        }
    }

    /// Counts a call that has begun; [`ended`](Self::ended) has to follow.
    pub(crate) fn begun(&mut self, now: Moment) {
        bump(&mut self.score.calls);
        self.in_flight = self.in_flight.saturating_add(1);
        self.score.in_flight_max = self.score.in_flight_max.max(self.in_flight);
        if self.one_valid && self.in_flight > 1 {
            self.violated(now.at_ms, ViolationKind::Concurrent);
        }
    }

    pub(crate) fn ended(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Makes a token, or gives an earlier one again, or refuses.
    pub(crate) fn mint(&mut self, now: Moment, idempotency_key: Option<&str>) -> (Minted, Outcome) {
        let key = idempotency_key.filter(|_| self.honours_idempotency);
        if let Some(mint) = key.and_then(|key| self.by_key.get(key)) {
            bump(&mut self.score.replays);
            return (Minted::Token(mint.clone()), Outcome::Replayed);
        }
        if let Some(wait_ms) = self.too_soon_by(now.at_ms) {
            bump(&mut self.score.refused);
            self.violated(now.at_ms, ViolationKind::TooSoon);
            return (Minted::TooSoon { wait_ms }, Outcome::Refused);
        }
        bump(&mut self.score.mints);
        let mint = Mint {
            token: format!("t-{}", self.score.mints),
            at_ms: now.at_ms,
            real_ms: now.real_ms,
            expires_at_ms: now.at_ms.saturating_add(self.life_ms),
        };
        self.remember(&mint, key);
        (Minted::Token(mint), Outcome::Minted)
    }

    fn too_soon_by(&self, now_ms: i64) -> Option<i64> {
        let last_ms = self.last.as_ref()?.at_ms;
        let left_ms = last_ms.saturating_add(self.min_interval_ms?).saturating_sub(now_ms);
        (left_ms > 0).then_some(left_ms)
    }

    fn remember(&mut self, mint: &Mint, key: Option<&str>) {
        self.live.retain(|end_ms| *end_ms > mint.at_ms);
        if self.one_valid {
            self.live.clear();
            if let Some(end) = self.last.as_ref().and_then(|last| self.ends.get_mut(&last.token)) {
                end.is_replaced = true;
            }
        }
        self.live.push(mint.expires_at_ms);
        self.score.most_valid_at_once = self.score.most_valid_at_once.max(self.live.len() as u64);
        if self.ends.len() < ROWS_MAX {
            let end = End { expires_at_ms: mint.expires_at_ms, is_replaced: false };
            self.ends.insert(mint.token.clone(), end);
            self.score.minted.push(mint.clone());
        }
        if let Some(key) = key.filter(|_| self.by_key.len() < ROWS_MAX) {
            self.by_key.insert(key.to_owned(), mint.clone());
        }
        self.last = Some(mint.clone());
    }

    /// The last token made, given again by a fault; a new one when there is none yet.
    pub(crate) fn same_again(&mut self, now: Moment, idempotency_key: Option<&str>) -> (Minted, Outcome) {
        match self.last.clone() {
            Some(mint) => (Minted::Token(mint), Outcome::Replayed),
            None => self.mint(now, idempotency_key),
        }
    }

    pub(crate) fn called(&mut self, now: Moment, outcome: Outcome, fault: Option<&str>, idempotency_key: Option<&str>) {
        if let Some(kind) = fault {
            bump(self.score.faults.entry(kind.to_owned()).or_default());
        }
        if self.score.call_list.len() < ROWS_MAX {
            let (fault, idempotency_key) = (fault.map(str::to_owned), idempotency_key.map(str::to_owned));
            let Moment { at_ms, real_ms } = now;
            self.score.call_list.push(Call { at_ms, real_ms, outcome, fault, idempotency_key });
        }
    }

    /// Whether a token is valid: `ok`, or why not.
    pub(crate) fn used(&mut self, token: &str, now_ms: i64) -> &'static str {
        let result = match self.ends.get(token) {
            None => "unknown",
            Some(end) if now_ms >= end.expires_at_ms => "expired",
            Some(end) if end.is_replaced => "replaced",
            Some(_) => "ok",
        };
        bump(self.score.uses.entry(result.to_owned()).or_default());
        result
    }

    pub(crate) fn score(&self, now_ms: i64) -> Score {
        let valid_now = self.live.iter().filter(|end_ms| **end_ms > now_ms).count() as u64;
        Score { valid_now, ..self.score.clone() }
    }

    fn violated(&mut self, at_ms: i64, kind: ViolationKind) {
        bump(&mut self.score.violations);
        if self.score.violation_list.len() < ROWS_MAX {
            self.score.violation_list.push(Violation { at_ms, kind });
        }
    }
}

fn bump(count: &mut u64) {
    *count = count.saturating_add(1);
}
