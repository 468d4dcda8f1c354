//! Windows in which no renewal falls due by itself: the maintenance hours of an upstream, a freeze, the night.

use crate::time::Timestamp;

const DAY_MS: u64 = 24 * 60 * 60_000;
/// One week, in milliseconds: what every window repeats within.
pub const WEEK_MS: u64 = 7 * DAY_MS;
/// 1970 began on a Thursday, this long after a Monday.
const MONDAY_OFFSET_MS: u64 = 3 * DAY_MS;

/// A window that returns every week, in UTC. What is to return every day is written as seven of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quiet {
    /// Its start, in milliseconds after Monday 00:00 UTC; less than [`WEEK_MS`].
    pub from_ms: u64,
    /// Its length in milliseconds, 1 to [`WEEK_MS`]. It may reach into the next week.
    pub for_ms: u64,
}

impl Quiet {
    /// The start of its last occurrence that starts at or before `at`.
    const fn last(self, at: Timestamp) -> Timestamp {
        at.minus(at.plus(MONDAY_OFFSET_MS).minus(self.from_ms).0 % WEEK_MS)
    }

    /// The start of the last occurrence that meets `from..=until`.
    fn met(self, from: Timestamp, until: Timestamp) -> Option<Timestamp> {
        let starts_at = self.last(until);
        (from < starts_at.plus(self.for_ms)).then_some(starts_at)
    }
}

/// The window that `at` falls into, or else the next one: its start and its end. Windows that follow one another are not
/// joined.
#[must_use]
pub fn next(windows: &[Quiet], at: Timestamp) -> Option<(Timestamp, Timestamp)> {
    let occurrence = |window: &Quiet| {
        // Each starts once within the week from `at`.
        let start = window.met(at, at).unwrap_or_else(|| window.last(at.plus(WEEK_MS - 1)));
        (start, start.plus(window.for_ms))
    };
    windows.iter().map(occurrence).min()
}

/// The latest moment at or before `at` from which the next `after_ms`, and the `before_ms` ahead of it, are free of
/// every window; `None` where that would be before `floor`.
#[must_use]
pub fn moved_ahead(
    windows: &[Quiet],
    at: Timestamp,
    (before_ms, after_ms): (u64, u64),
    floor: Timestamp,
) -> Option<Timestamp> {
    let mut moved = at;
    // Each step ends one window; windows that follow one another take as many steps.
    for _ in 0..=windows.len() {
        if moved < floor {
            return None;
        }
        let (from, until) = (moved.minus(before_ms), moved.plus(after_ms));
        match windows.iter().filter_map(|window| window.met(from, until)).min() {
            None => return Some(moved),
            // One millisecond before it: the end of what is to be free is part of it.
            Some(start) => moved = moved.min(start.minus(after_ms).minus(1)),
        }
    }
    None
}

/// The longest time, in milliseconds, for which windows follow one another with gaps of less than `gap_ms` between
/// them. Twice [`WEEK_MS`] where they never leave such a gap.
#[must_use]
pub fn longest_ms(windows: &[Quiet], gap_ms: u64) -> u64 {
    let mut twice: Vec<(u64, u64)> = windows
        .iter()
        .flat_map(|window| [window.from_ms, window.from_ms + WEEK_MS].map(|from| (from, from + window.for_ms)))
        .collect();
    twice.sort_unstable();
    let (mut longest, mut run) = (0, None::<(u64, u64)>);
    for (from, until) in twice {
        let next = match run {
            Some((start, end)) if from < end.saturating_add(gap_ms) => (start, end.max(until)),
            _ => (from, until),
        };
        longest = longest.max(next.1 - next.0);
        run = Some(next);
    }
    if longest >= WEEK_MS { 2 * WEEK_MS } else { longest }
}
