//! Which requests are spoiled, and how often.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The longest delay a plan may ask for, in real milliseconds.
pub const DELAY_MS_MAX: u64 = 600_000;

/// A fault and the requests that get it. The default spoils nothing.
///
/// As JSON, for a control listener: `{"fault":{"kind":"status","status":503},"next":5,"delay_ms":20}`. Every field is
/// optional and `{}` ends all faults.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Plan<F> {
    /// What goes wrong; none means that a chosen request is only delayed.
    pub fault: Option<F>,
    /// How many more requests are spoiled; none means without end.
    pub next: Option<u64>,
    /// The share of requests that are chosen, 0 to 1.
    pub probability: f64,
    /// Real milliseconds that a chosen request waits before its answer or its fault.
    pub delay_ms: u64,
    /// Where the random choice starts: one seed chooses the same requests, by order of arrival.
    pub seed: u64,
}

impl<F> Default for Plan<F> {
    fn default() -> Self {
        Self { fault: None, next: None, probability: 1.0, delay_ms: 0, seed: 0 }
    }
}

impl<F> Plan<F> {
    /// Spoils every request with `fault`.
    #[must_use]
    pub fn always(fault: F) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// Spoils the next `count` requests with `fault`, then none.
    #[must_use]
    pub fn next(count: u64, fault: F) -> Self {
        Self { fault: Some(fault), next: Some(count), ..Self::default() }
    }

    /// Answers every request correctly, but only after `delay`.
    #[must_use]
    pub fn slow(delay: Duration) -> Self {
        Self { delay_ms: u64::try_from(delay.as_millis()).unwrap_or(DELAY_MS_MAX), ..Self::default() }
    }

    /// Refuses numbers that no plan can mean.
    ///
    /// # Errors
    /// A sentence for whoever wrote the plan.
    pub fn check(&self) -> Result<(), String> {
        if !(0.0..=1.0).contains(&self.probability) {
            return Err(format!("`probability` must be between 0 and 1: `{}`", self.probability));
        }
        if self.delay_ms > DELAY_MS_MAX {
            return Err(format!("`delay_ms` must be at most {DELAY_MS_MAX}: `{}`", self.delay_ms));
        }
        Ok(())
    }
}

/// What a chosen request gets.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Chosen<F> {
    pub(crate) fault: Option<F>,
    pub(crate) delay: Duration,
}

/// A plan being carried out.
#[derive(Debug)]
pub(crate) struct Chooser<F> {
    plan: Plan<F>,
    drawn: u64,
}

impl<F: Clone> Chooser<F> {
    pub(crate) fn new(plan: Plan<F>) -> Self {
        Self { plan, drawn: 0 }
    }

    /// Decides about one request, in order of arrival, and uses up the plan's budget.
    pub(crate) fn choose(&mut self) -> Chosen<F> {
        let untouched = Chosen { fault: None, delay: Duration::ZERO };
        if self.plan.next == Some(0) {
            return untouched;
        }
        self.drawn = self.drawn.saturating_add(1);
        if unit(self.plan.seed.wrapping_add(self.drawn)) >= self.plan.probability {
            return untouched;
        }
        if let Some(left) = &mut self.plan.next {
            *left = left.saturating_sub(1);
        }
        Chosen { fault: self.plan.fault.clone(), delay: Duration::from_millis(self.plan.delay_ms) }
    }
}

/// A number in `0..1` that depends on nothing but `seed` (SplitMix64).
fn unit(seed: u64) -> f64 {
    let mut z = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    ((z ^ (z >> 31)) >> 11) as f64 / (1_u64 << 53) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spoiled(plan: Plan<u8>, of: usize) -> Vec<bool> {
        let mut chooser = Chooser::new(plan);
        (0..of).map(|_| chooser.choose().fault.is_some()).collect()
    }

    #[test]
    fn a_budget_ends() {
        assert_eq!(spoiled(Plan::next(2, 1), 4), [true, true, false, false]);
    }

    #[test]
    fn a_probability_is_kept_and_repeats_with_its_seed() {
        let plan = Plan { probability: 0.25, seed: 9, ..Plan::always(1) };
        let first = spoiled(plan.clone(), 4000);
        let share = first.iter().filter(|hit| **hit).count();
        assert!((900..1100).contains(&share), "{share} of 4000 at 1 in 4");
        assert_eq!(first, spoiled(plan, 4000));
    }

    #[test]
    fn nothing_is_chosen_at_probability_zero_and_everything_at_one() {
        assert!(!spoiled(Plan { probability: 0.0, ..Plan::always(1) }, 100).contains(&true));
        assert!(!spoiled(Plan::always(1), 100).contains(&false));
    }

    #[test]
    fn numbers_that_no_plan_can_mean_are_refused() {
        assert!(Plan { probability: 1.5, ..Plan::always(1) }.check().is_err());
        assert!(Plan { probability: f64::NAN, ..Plan::always(1) }.check().is_err());
        assert!(Plan { delay_ms: DELAY_MS_MAX + 1, ..Plan::always(1) }.check().is_err());
        assert!(Plan { delay_ms: DELAY_MS_MAX, ..Plan::always(1) }.check().is_ok());
    }
}
