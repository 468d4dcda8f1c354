//! Store-less mode: the edges of slots, and the proof that the three conditions of [`Slots::check`] are the right ones.
//!
//! # The search
//!
//! Nobody coordinates in this mode, so a configuration is sound or it is not, whatever the fleet does. [`search`] plays
//! through everything that a fleet and its upstream can do under given numbers and reports what goes wrong; it knows
//! nothing of the conditions. The test asks both for every combination of small numbers, and they must agree on all of
//! them: a condition that is too weak lets something through that the search finds, one that is too strong refuses what
//! the search finds nothing in.
//!
//! One tick is 1000 ms. What the search varies, with `d`, `du` and `f` in ticks:
//! - the moment at which a node chooses a token: every tick of a slot, by its own clock;
//! - that clock: true time and an offset in `-d..=d`, another one at each edge of a slot (clocks wander);
//! - the way of the request: `0..=f` ticks;
//! - the upstream's clock: true time and an offset in `-du..=du`.
//!
//! The upstream takes a token from `iat` (inclusive) to `exp` (exclusive) by its own clock, as RFC 7519 has it, and
//! wants at least MIN of true time from the first arrival of one token to the first arrival of the next. For that the
//! fleet is two busy nodes, each of which asks at every tick. An idle fleet is beyond any condition; the last test shows
//! why.

use proptest::prelude::*;

use keyreeve_core::schedule::Slots;
use keyreeve_core::time::Timestamp;

use crate::given::{MINUTE, SECOND, wall};

const TICK: u64 = 1000;
/// Far enough from 1970 that nothing saturates.
const SLOT: u64 = 1000;

/// What is wrong with a configuration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wrong {
    /// A token arrives before its issue time.
    is_early: bool,
    /// A token arrives at or after its expiry.
    is_late: bool,
    /// Two tokens arrive for the first time less than MIN apart.
    is_close: bool,
}

fn offsets(bound_ms: u64) -> impl Iterator<Item = i64> + Clone {
    let bound = i64::try_from(bound_ms / TICK).unwrap();
    (-bound..=bound).map(|ticks| ticks * 1000)
}

fn flights(slots: &Slots) -> impl Iterator<Item = u64> + Clone {
    (0..=slots.flight_ms / TICK).map(|ticks| ticks * TICK)
}

fn shifted(moment: u64, offset_ms: i64) -> u64 {
    moment.checked_add_signed(offset_ms).unwrap()
}

/// Every token that can arrive, by every clock: is it valid there?
fn search_ages(slots: &Slots) -> Wrong {
    let mut wrong = Wrong::default();
    let first = SLOT * slots.period_ms;
    for local in (first..first + slots.period_ms).step_by(1000) {
        let token = slots.at(Timestamp(local));
        for offset in offsets(slots.skew_ms) {
            for flight in flights(slots) {
                let arrives = shifted(local, -offset) + flight;
                for upstream_offset in offsets(slots.upstream_skew_ms) {
                    let upstream = Timestamp(shifted(arrives, upstream_offset));
                    wrong.is_early |= upstream < token.issued_at;
                    wrong.is_late |= upstream >= token.expires_at;
                }
            }
        }
    }
    wrong
}

/// The true time at which a node that asks at every tick first gets the token of slot `number`, its clock being off by
/// `offset_ms` then.
fn first_use(slots: &Slots, number: u64, offset_ms: i64) -> u64 {
    let start = number * slots.period_ms - slots.skew_ms;
    (start..).step_by(1000).find(|time| slots.at(Timestamp(shifted(*time, offset_ms))).number >= number).unwrap()
}

/// When the first token of slot `number` can arrive from a fleet of two: every combination of offsets and flights.
fn first_arrivals(slots: &Slots, number: u64) -> Vec<u64> {
    let mut arrivals = Vec::new();
    for one in offsets(slots.skew_ms) {
        for other in offsets(slots.skew_ms) {
            let used = first_use(slots, number, one).min(first_use(slots, number, other));
            arrivals.extend(flights(slots).map(|flight| used + flight));
        }
    }
    arrivals
}

/// The least time between the first arrivals of two tokens.
fn search_gaps(slots: &Slots) -> u64 {
    let next = first_arrivals(slots, SLOT + 1);
    let gaps = first_arrivals(slots, SLOT).into_iter().flat_map(|at| next.iter().map(move |next| next.abs_diff(at)));
    gaps.min().unwrap()
}

/// What [`Slots::check`] says, in the words of the search.
fn checked(slots: &Slots) -> Wrong {
    let mut wrong = Wrong::default();
    for contradiction in slots.check() {
        let sum = &contradiction.sum;
        match contradiction.field {
            "backdate" => wrong.is_early = true,
            "slot" if sum.contains(" > max ") => wrong.is_late = true,
            "slot" if sum.contains("min_interval") => wrong.is_close = true,
            _ => panic!("{contradiction:?}"),
        }
    }
    wrong
}

#[test]
fn the_closed_conditions_say_what_an_exhaustive_search_finds_in_every_case() {
    let (mut cases, mut sound, mut early, mut late, mut close) = (0_u32, 0_u32, 0_u32, 0_u32, 0_u32);
    let ticks = |most: u64| (0..=most).map(|ticks| ticks * TICK);
    for period_ms in ticks(8).skip(1) {
        for skew_ms in ticks(2) {
            for flight_ms in ticks(2) {
                let idle = Slots {
                    period_ms,
                    backdate_ms: 0,
                    life_ms: 0,
                    skew_ms,
                    upstream_skew_ms: 0,
                    flight_ms,
                    min_interval_ms: 0,
                };
                let gap = search_gaps(&idle);
                for upstream_skew_ms in ticks(2) {
                    for backdate_ms in ticks(4) {
                        for life_ms in ticks(18).skip(1) {
                            let aged = Slots { upstream_skew_ms, backdate_ms, life_ms, ..idle };
                            let ages = search_ages(&aged);
                            for min_interval_ms in ticks(3) {
                                let slots = Slots { min_interval_ms, ..aged };
                                let found = Wrong { is_close: gap < min_interval_ms, ..ages };
                                assert_eq!(checked(&slots), found, "{slots:?}");
                                cases += 1;
                                sound += u32::from(found == Wrong::default());
                                early += u32::from(found.is_early);
                                late += u32::from(found.is_late);
                                close += u32::from(found.is_close);
                            }
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases, 8 * 3 * 3 * 3 * 5 * 18 * 4);
    assert_eq!((cases, sound, early, late, close), (77_760, 14_958, 31_104, 36_720, 29_160), "each verdict is reached");
}

/// A slot of half an hour for an upstream that wants 20 to 60 minutes, with clocks good to two seconds.
const HALF_HOUR: Slots = Slots {
    period_ms: 30 * MINUTE,
    backdate_ms: 60 * SECOND,
    life_ms: 60 * MINUTE,
    skew_ms: 2 * SECOND,
    upstream_skew_ms: 58 * SECOND,
    flight_ms: 30 * SECOND,
    min_interval_ms: 20 * MINUTE,
};

fn sums(slots: Slots) -> Vec<(&'static str, String)> {
    slots.check().into_iter().map(|found| (found.field, found.sum)).collect()
}

#[test]
fn half_an_hour_is_sound_for_an_issuer_of_20_to_60_minutes() {
    assert_eq!(sums(HALF_HOUR), []);
}

#[test]
fn a_slot_that_does_not_add_up_is_refused_with_the_sum_at_the_very_millisecond() {
    let future = Slots { upstream_skew_ms: 58 * SECOND + 1, ..HALF_HOUR };
    assert_eq!(
        sums(future),
        [("backdate", "backdate 1m is less than skew 2s + upstream skew 58s 1ms = 1m 1ms".to_owned())]
    );
    let oldest = Slots { life_ms: 32 * MINUTE + 30 * SECOND, ..HALF_HOUR };
    assert_eq!(sums(oldest), []);
    assert_eq!(
        sums(Slots { life_ms: oldest.life_ms - 1, ..oldest }),
        [(
            "slot",
            "slot 30m + backdate 1m + skew 2s + upstream skew 58s + flight 30s = 32m 30s > max 32m 29s 999ms"
                .to_owned()
        )]
    );
    let close = Slots { min_interval_ms: 29 * MINUTE + 26 * SECOND, ..HALF_HOUR };
    assert_eq!(sums(close), []);
    assert_eq!(
        sums(Slots { min_interval_ms: close.min_interval_ms + 1, ..close }),
        [("slot", "slot 30m is less than min_interval 29m 26s 1ms + 2 x skew 2s + flight 30s = 30m 1ms".to_owned())]
    );
    let all = Slots { backdate_ms: 0, life_ms: MINUTE, min_interval_ms: MINUTE * 60, ..HALF_HOUR };
    assert_eq!(sums(all).into_iter().map(|(field, _)| field).collect::<Vec<_>>(), ["backdate", "slot", "slot"]);
}

#[test]
fn slots_are_whole_seconds_because_the_times_in_a_token_are() {
    for slots in [
        Slots { period_ms: 30 * MINUTE + 1, ..HALF_HOUR },
        Slots { backdate_ms: 60_500, ..HALF_HOUR },
        Slots { period_ms: 0, min_interval_ms: 0, ..HALF_HOUR },
    ] {
        let found = sums(slots);
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].1.ends_with("must be whole seconds"), "{found:?}");
    }
}

#[test]
fn a_slot_begins_at_its_first_millisecond_and_ends_before_the_next_one_begins() {
    let slot = HALF_HOUR.at(wall(0));
    assert_eq!(slot.number, 1_000_000);
    assert_eq!((slot.starts_at, slot.ends_at), (wall(0), wall(30 * MINUTE)));
    assert_eq!(slot.issued_at, Timestamp(wall(0).0 - MINUTE));
    assert_eq!(slot.expires_at, wall(59 * MINUTE));
    assert_eq!(HALF_HOUR.at(wall(30 * MINUTE - 1)), slot);
    assert_eq!(HALF_HOUR.at(wall(30 * MINUTE)).number, slot.number + 1);
    assert_eq!(HALF_HOUR.at(wall(0).minus(1)).number, slot.number - 1);
    assert_eq!(HALF_HOUR.numbered(slot.number), slot);
}

proptest! {
    #[test]
    fn every_moment_is_in_exactly_one_slot(now in 0_u64..1 << 50, seconds in 1_u64..100_000, backdate: u32) {
        let slots = Slots { period_ms: seconds * 1000, backdate_ms: u64::from(backdate), ..HALF_HOUR };
        let slot = slots.at(Timestamp(now));
        prop_assert!(slot.starts_at <= Timestamp(now) && Timestamp(now) < slot.ends_at);
        prop_assert_eq!(slots.numbered(slot.number), slot);
        prop_assert_eq!(slots.at(slot.starts_at), slot);
        prop_assert_eq!(slots.at(slot.ends_at.minus(1)), slot);
        prop_assert_eq!(slots.at(slot.ends_at), slots.numbered(slot.number + 1));
        prop_assert_eq!(slots.at(slot.ends_at).starts_at, slot.ends_at, "no gap between two slots");
    }

    #[test]
    fn no_number_makes_a_slot_panic(
        now: u64, number: u64, period_ms: u64, backdate_ms: u64, life_ms: u64, skew_ms: u64, flight_ms: u64,
    ) {
        let slots = Slots {
            period_ms, backdate_ms, life_ms, skew_ms, flight_ms, upstream_skew_ms: skew_ms, min_interval_ms: life_ms,
        };
        let _ = (slots.at(Timestamp(now)), slots.numbered(number), slots.ready_ms(), slots.check());
        let _ = Slots { period_ms: 0, ..slots }.at(Timestamp(now));
    }
}

#[test]
fn the_next_token_is_ready_before_the_fastest_clock_needs_it() {
    assert_eq!(HALF_HOUR.ready_ms(), 64 * SECOND, "two skews and a minute");
    assert_eq!(Slots { period_ms: 4 * MINUTE, ..HALF_HOUR }.ready_ms(), MINUTE, "at most a quarter of the slot");
}

#[test]
fn an_idle_fleet_changes_tokens_sooner_than_any_slot_length_forbids() {
    // Why the condition asks for a busy fleet: the first use of a slot may be its last moment, and the first use of the
    // next slot comes right after it. Longer slots do not help; only not being idle does.
    for minutes in [20, 30, 600] {
        let slots = Slots { period_ms: minutes * MINUTE, ..HALF_HOUR };
        let last = slots.numbered(SLOT).ends_at.minus(1);
        assert_ne!(slots.at(last).issued_at, slots.at(last.plus(1)).issued_at);
    }
}
