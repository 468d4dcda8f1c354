//! Was this register history possible with one true order of events?
//!
//! Each call took place between two moments. A history is linearizable (Herlihy and Wing 1990) if the calls can be put
//! into one order that respects those moments and in which each answer is what a plain register would have said. The
//! search is Wing and Gong's (1993): try every call that may come next, and never search from the same place twice. A
//! call without an answer may have happened at any time after it began, or never.

use std::collections::HashSet;

use keyreeve_core::id::WriteId;

/// The longest history, in calls. The search is exponential in how many overlap.
pub const CALLS_MAX: usize = 128;

/// One call on one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Call {
    /// When it began, by a clock that all calls share.
    pub from: u64,
    /// When its answer came; none for a call without an answer.
    pub until: Option<u64>,
    /// What was asked and answered.
    pub act: Act,
}

/// What was asked, and what was answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// A read that found this write.
    Found(Option<WriteId>),
    /// A swap that was made, or has no answer.
    Swap {
        /// The write it expected.
        expected: Option<WriteId>,
        /// The write it makes.
        next: WriteId,
    },
    /// A swap that was lost.
    Lost {
        /// The write it expected.
        expected: Option<WriteId>,
    },
}

impl Act {
    /// What the register holds after this act; `None` where it cannot have happened on `held`.
    fn on(self, held: Option<WriteId>) -> Option<Option<WriteId>> {
        match self {
            Self::Found(found) => (found == held).then_some(held),
            Self::Swap { expected, next } => (expected == held).then_some(Some(next)),
            Self::Lost { expected } => (expected != held).then_some(held),
        }
    }
}

/// Whether `calls`, on a key that held nothing before, can be put into one order. `Err` for more than [`CALLS_MAX`].
///
/// # Errors
/// How many calls there are, where they are too many.
pub fn is_linearizable(calls: &[Call]) -> Result<bool, usize> {
    if calls.len() > CALLS_MAX {
        return Err(calls.len());
    }
    let answered = mask(calls, |call| call.until.is_some());
    let mut seen = HashSet::new();
    let mut open = vec![(0_u128, None)];
    while let Some((done, held)) = open.pop() {
        if done & answered == answered {
            return Ok(true);
        }
        if !seen.insert((done, held)) {
            continue;
        }
        // A call may come next if it began before every call that is still to come was answered.
        let pending = calls.iter().zip(0..).filter(|(_, at)| done & (1 << at) == 0);
        let first_answer = pending.clone().filter_map(|(call, _)| call.until).min().unwrap_or(u64::MAX);
        for (call, at) in pending.filter(|(call, _)| call.from <= first_answer) {
            if let Some(next) = call.act.on(held) {
                open.push((done | (1 << at), next));
            }
        }
    }
    Ok(false)
}

fn mask(calls: &[Call], mut is_in: impl FnMut(&Call) -> bool) -> u128 {
    calls.iter().zip(0..).filter(|(call, _)| is_in(call)).fold(0, |mask, (_, at)| mask | (1 << at))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: WriteId = WriteId([1; 16]);
    const B: WriteId = WriteId([2; 16]);

    fn call(from: u64, until: u64, act: Act) -> Call {
        Call { from, until: Some(until), act }
    }

    fn lost_answer(from: u64, act: Act) -> Call {
        Call { from, until: None, act }
    }

    const fn swap(expected: Option<WriteId>, next: WriteId) -> Act {
        Act::Swap { expected, next }
    }

    #[test]
    fn calls_in_order_must_answer_like_a_register() {
        let create = call(0, 1, swap(None, A));
        assert_eq!(is_linearizable(&[]), Ok(true));
        assert_eq!(is_linearizable(&[create, call(2, 3, Act::Found(Some(A)))]), Ok(true));
        assert_eq!(is_linearizable(&[create, call(2, 3, Act::Found(None))]), Ok(false));
        assert_eq!(is_linearizable(&[create, call(2, 3, Act::Lost { expected: None })]), Ok(true));
        assert_eq!(is_linearizable(&[create, call(2, 3, Act::Lost { expected: Some(A) })]), Ok(false));
    }

    #[test]
    fn of_two_swaps_with_one_expectation_only_one_can_have_been_made() {
        let (one, two) = (call(0, 9, swap(None, A)), call(0, 9, swap(None, B)));
        assert_eq!(is_linearizable(&[one, two]), Ok(false));
        assert_eq!(is_linearizable(&[one, call(0, 9, Act::Lost { expected: None })]), Ok(true));
    }

    #[test]
    fn calls_that_overlap_may_have_happened_in_either_order_and_then_keep_to_it() {
        let create = call(0, 5, swap(None, A));
        assert_eq!(is_linearizable(&[create, call(1, 2, Act::Found(None))]), Ok(true));
        assert_eq!(is_linearizable(&[create, call(1, 2, Act::Found(Some(A)))]), Ok(true));
        let (new, old) = (call(1, 2, Act::Found(Some(A))), call(3, 4, Act::Found(None)));
        assert_eq!(is_linearizable(&[create, new, old]), Ok(false), "a new value was seen, then the old one");
    }

    #[test]
    fn a_call_without_an_answer_may_have_happened_at_any_later_time_or_never() {
        let create = lost_answer(0, swap(None, A));
        let (absent, there) = (call(10, 11, Act::Found(None)), call(20, 21, Act::Found(Some(A))));
        assert_eq!(is_linearizable(&[create, absent]), Ok(true));
        assert_eq!(is_linearizable(&[create, absent, there]), Ok(true), "it arrived late");
        let gone = call(30, 31, Act::Found(None));
        assert_eq!(is_linearizable(&[create, absent, there, gone]), Ok(false));
        let too_early = call(0, 1, Act::Found(Some(B)));
        assert_eq!(is_linearizable(&[too_early, lost_answer(2, swap(None, B))]), Ok(false));
    }

    #[test]
    fn a_history_above_the_limit_is_refused_not_guessed() {
        let reads = vec![call(0, 1, Act::Found(None)); CALLS_MAX + 1];
        assert_eq!(is_linearizable(&reads), Err(CALLS_MAX + 1));
        assert_eq!(is_linearizable(&reads[..CALLS_MAX]), Ok(true));
    }
}
