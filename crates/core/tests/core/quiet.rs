//! Maintenance windows: renewals come before them, and never endanger validity.

use proptest::prelude::*;

use keyreeve_core::quiet::{Quiet, WEEK_MS, longest_ms, moved_ahead, next};
use keyreeve_core::rules::Rules;
use keyreeve_core::schedule::refresh_at;
use keyreeve_core::time::Timestamp;

use crate::given::{HOUR, MINUTE, lease, op};

const DAY: u64 = 24 * HOUR;
/// 2026-11-23T00:00:00Z, a Monday.
const MONDAY: Timestamp = Timestamp(1_795_392_000_000);

fn daily(from_ms: u64, for_ms: u64) -> Vec<Quiet> {
    (0..7).map(|day| Quiet { from_ms: day * DAY + from_ms, for_ms }).collect()
}

/// Credentials of 12 hours, renewed an hour ahead, and never from 22:00 to 06:00.
fn nightly() -> Rules {
    Rules {
        life_ms: 12 * HOUR,
        lead_ms: HOUR,
        wake_spread_ms: 5 * MINUTE,
        refresh_jitter_ms: 10 * MINUTE,
        quiet: daily(22 * HOUR, 8 * HOUR),
        ..lease()
    }
}

fn is_quiet(windows: &[Quiet], at: Timestamp) -> bool {
    next(windows, at).is_some_and(|(from, _)| from <= at)
}

#[test]
fn a_monday_is_a_monday() {
    let window = [Quiet { from_ms: 90 * MINUTE, for_ms: HOUR }];
    let starts = MONDAY.plus(90 * MINUTE);
    assert_eq!(next(&window, MONDAY), Some((starts, starts.plus(HOUR))));
    assert_eq!(next(&window, starts.plus(HOUR - 1)), Some((starts, starts.plus(HOUR))), "it is on");
    assert_eq!(next(&window, starts.plus(HOUR)), Some((starts.plus(WEEK_MS), starts.plus(WEEK_MS + HOUR))));
    let over_sunday = [Quiet { from_ms: 6 * DAY + 23 * HOUR, for_ms: 2 * HOUR }];
    assert!(is_quiet(&over_sunday, MONDAY.plus(HOUR - 1)) && !is_quiet(&over_sunday, MONDAY.plus(HOUR)));
}

#[test]
fn a_renewal_that_would_fall_into_the_window_is_over_before_it() {
    let rules = nightly();
    assert_eq!(rules.check(), []);
    for write in 0..200 {
        // Minted at 12:00: without the window due at 23:00.
        let minted = MONDAY.plus(12 * HOUR);
        let due = refresh_at(&rules, minted, minted, minted.plus(12 * HOUR), op(write));
        assert!(due.plus(rules.settled_ms()) < MONDAY.plus(22 * HOUR), "{due:?}");
        assert!(due > MONDAY.plus(21 * HOUR), "no earlier than it must: {due:?}");
    }
    // What falls due outside stays where it was.
    let minted = MONDAY.plus(7 * HOUR);
    let plain = Rules { quiet: Vec::new(), ..rules.clone() };
    let due = |rules: &Rules| refresh_at(rules, minted, minted, minted.plus(12 * HOUR), op(1));
    assert_eq!(due(&rules), due(&plain));
}

#[test]
fn a_window_gives_way_to_a_life_that_is_too_short_for_it() {
    let rules = nightly();
    // The upstream gave an hour and not twelve, in the middle of the night.
    let minted = MONDAY.plus(23 * HOUR);
    let due = refresh_at(&rules, minted, minted, minted.plus(HOUR), op(1));
    let plain = Rules { quiet: Vec::new(), ..rules };
    assert_eq!(due, refresh_at(&plain, minted, minted, minted.plus(HOUR), op(1)));
}

#[test]
fn windows_that_no_credential_lives_through_are_refused_with_the_sum() {
    let found = |quiet| Rules { quiet, ..nightly() }.check();
    assert_eq!(found(daily(22 * HOUR, 10 * HOUR)), []);
    let long = found(daily(22 * HOUR, 11 * HOUR));
    assert_eq!(long.len(), 1, "{long:?}");
    assert_eq!(long[0].field, "quiet");
    assert!(long[0].sum.starts_with("quiet 11h + jitter 10m + "), "{}", long[0].sum);
    assert!(long[0].sum.ends_with(" + lead 1h is more than max 12h"), "{}", long[0].sum);
    // Two that leave no time between them are one.
    let mut pair = daily(HOUR, 6 * HOUR);
    pair.extend(daily(7 * HOUR + 5 * MINUTE, 5 * HOUR));
    assert!(found(pair)[0].sum.starts_with("quiet 11h 5m"), "joined");
    assert!(found(daily(0, DAY))[0].sum.starts_with("quiet never ends"));
}

#[test]
fn windows_are_joined_over_the_end_of_a_week() {
    let pair = [Quiet { from_ms: 6 * DAY + 20 * HOUR, for_ms: 4 * HOUR }, Quiet { from_ms: 0, for_ms: 3 * HOUR }];
    assert_eq!(longest_ms(&pair, 1), 7 * HOUR);
    assert_eq!(longest_ms(&[], 1), 0);
}

prop_compose! {
    fn any_window()(from_ms in 0..WEEK_MS, for_ms in 1..=WEEK_MS) -> Quiet { Quiet { from_ms, for_ms } }
}

proptest! {
    #[test]
    fn what_is_moved_is_free_before_and_after_and_never_late_or_below_the_floor(
        windows in prop::collection::vec(any_window(), 0..12),
        at in 0..4 * WEEK_MS, before in 0..2 * HOUR, after in 0..2 * HOUR, room in 0..WEEK_MS,
    ) {
        let at = MONDAY.plus(at);
        let floor = at.minus(room);
        if let Some(moved) = moved_ahead(&windows, at, (before, after), floor) {
            prop_assert!(floor <= moved && moved <= at);
            let mut probe = moved.minus(before);
            while probe <= moved.plus(after) {
                prop_assert!(!is_quiet(&windows, probe), "{moved:?} {probe:?}");
                probe = probe.plus(MINUTE);
            }
            // And it was moved no further than needed: where it has moved, a window is what it stands in front of.
            prop_assert!(moved == at || is_quiet(&windows, moved.plus(after + 1)), "{moved:?}");
        }
    }

    #[test]
    fn a_window_never_makes_a_renewal_later_or_breaks_the_floor(
        windows in prop::collection::vec(any_window(), 0..12), at in 0..4 * WEEK_MS, life in 1..3 * DAY, write: u64,
    ) {
        let rules = Rules { quiet: windows, ..nightly() };
        let plain = Rules { quiet: Vec::new(), ..nightly() };
        let minted = MONDAY.plus(at);
        let expires = minted.plus(life);
        let due = refresh_at(&rules, minted, minted, expires, op(write));
        let latest = refresh_at(&Rules { refresh_jitter_ms: 0, ..plain.clone() }, minted, minted, expires, op(write));
        prop_assert!(due <= latest);
        let allowed = minted.plus(rules.min_interval_ms).plus(rules.skew_ms);
        prop_assert!(due >= allowed.min(refresh_at(&plain, minted, minted, expires, op(write))));
    }
}
