//! What a reader gets: never an expired credential, never an older one than before, and no surprise from a clock.

use proptest::prelude::*;

use keyreeve_core::record::{Credential, Record};
use keyreeve_core::rules::Rules;
use keyreeve_core::time::{Moment, Mono, Timestamp};
use keyreeve_core::view::{Serve, View};

use crate::given::{BOOTED, HOUR, MINUTE, SECOND, at, credential, exclusive, record, wall};

/// The skew of [`exclusive`]: a credential counts as over this long before its expiry.
const SKEW: u64 = 2 * SECOND;

fn holding(current: Credential, next: Option<Credential>, now: Moment) -> View {
    let record = Record { next, ..record(current) };
    View::default().adopt(&record, now).unwrap()
}

/// Generation 1 from the start for an hour, generation 2 to be used from minute 45 to minute 90.
fn handing_over() -> View {
    let next = Credential { use_from: wall(45 * MINUTE), ..credential(2, 30 * MINUTE) };
    holding(credential(1, 0), Some(next), at(30 * MINUTE))
}

fn served(view: View, now: Moment, min_ttl_ms: u64) -> Option<(u64, u64)> {
    view.serve(&exclusive(), now, min_ttl_ms).map(|serve| {
        assert!(!serve.is_stale);
        (serve.held.generation, serve.left_ms)
    })
}

fn generation(view: View, now: Moment) -> Option<u64> {
    served(view, now, 0).map(|(generation, _)| generation)
}

/// A moment at which the process has run for `mono` and its wall clock says `wall`.
fn torn(mono: u64, wall_ms: u64) -> Moment {
    Moment::new(wall(wall_ms), Mono(BOOTED + mono))
}

#[test]
fn a_node_that_holds_nothing_serves_nothing() {
    assert_eq!(View::default().serve(&exclusive(), at(0), 0), None);
    assert_eq!(View::default().newest_generation(), 0);
    assert_eq!(View::default().adopt(&Record::following(None, crate::given::op(1), at(0)), at(0)), None);
}

#[test]
fn a_credential_is_served_until_its_expiry_less_the_skew() {
    let view = holding(credential(1, 0), None, at(0));
    assert_eq!(served(view, at(0), 0), Some((1, HOUR - SKEW)));
    assert_eq!(served(view, at(HOUR - SKEW - 1), 0), Some((1, 1)));
    assert_eq!(served(view, at(HOUR - SKEW), 0), None);
    assert_eq!(served(view, at(2 * HOUR), 0), None);
}

#[test]
fn a_reader_gets_as_much_life_as_it_asks_for_or_nothing() {
    let view = holding(credential(1, 0), None, at(0));
    let left = 10 * MINUTE;
    let now = at(HOUR - SKEW - left);
    assert_eq!(served(view, now, left), Some((1, left)));
    assert_eq!(served(view, now, left + 1), None);
    assert_eq!(served(view, now, u64::MAX), None);
}

#[test]
fn either_clock_ends_a_credential() {
    let view = holding(credential(1, 0), None, at(0));
    let end = HOUR - SKEW;
    assert_eq!(generation(view, torn(MINUTE, end - 1)), Some(1));
    assert_eq!(generation(view, torn(MINUTE, end)), None, "by the wall clock");
    assert_eq!(generation(view, torn(end - 1, MINUTE)), Some(1));
    assert_eq!(generation(view, torn(end, MINUTE)), None, "by the monotonic clock");
    let stepped = Moment { raw: wall(end), ..at(MINUTE) };
    assert_eq!(generation(view, stepped), None, "by the wall clock before its step is believed");
}

#[test]
fn a_wall_clock_set_back_an_hour_does_not_bring_an_expired_credential_to_life() {
    let view = holding(credential(1, 0), None, at(0));
    assert_eq!(generation(view, torn(HOUR, 0)), None);
    assert_eq!(generation(view, torn(30 * HOUR, 0)), None);
    // Nor does reading it again from the store, together with a new one that is not in use yet.
    let next = Credential { use_from: wall(45 * MINUTE), ..credential(2, 30 * MINUTE) };
    let again = Record { next: Some(next), ..record(credential(1, 0)) };
    let view = view.adopt(&again, torn(40 * MINUTE, 0)).unwrap();
    assert_eq!(generation(view, torn(HOUR - SKEW - 1, 0)), Some(1));
    assert_eq!(generation(view, torn(HOUR - SKEW, 0)), Some(2));
}

#[test]
fn a_clock_that_is_ahead_for_a_moment_shortens_no_life_for_good() {
    let ahead = |ms| Moment { raw: wall(20 * MINUTE + ms), ..at(ms) };
    let view = holding(credential(1, 0), None, ahead(0));
    assert_eq!(generation(view, ahead(40 * MINUTE - SKEW - 1)), Some(1));
    assert_eq!(generation(view, ahead(40 * MINUTE - SKEW)), None, "while it is ahead, it is heeded");
    assert_eq!(generation(view, at(60 * MINUTE - SKEW - 1)), Some(1), "when it is right again, it is forgotten");
    assert_eq!(generation(view, at(60 * MINUTE - SKEW)), None);
}

#[test]
fn nodes_switch_at_use_from_by_either_clock() {
    let view = handing_over();
    assert_eq!(generation(view, at(45 * MINUTE - 1)), Some(1));
    assert_eq!(generation(view, at(45 * MINUTE)), Some(2));
    assert_eq!(generation(view, torn(31 * MINUTE, 45 * MINUTE)), Some(2), "by the wall clock");
    assert_eq!(generation(view, torn(45 * MINUTE, 31 * MINUTE)), Some(2), "by the monotonic clock");
    assert_eq!(generation(view, torn(45 * MINUTE - 1, 31 * MINUTE)), Some(1));
}

#[test]
fn a_wall_clock_set_back_after_the_switch_does_not_undo_it() {
    let view = handing_over();
    assert_eq!(generation(view, at(46 * MINUTE)), Some(2));
    assert_eq!(generation(view, torn(47 * MINUTE, 0)), Some(2));
}

#[test]
fn the_next_one_answers_before_its_time_once_the_current_one_is_over() {
    let late = Credential { use_from: wall(80 * MINUTE), ..credential(2, 30 * MINUTE) };
    let view = holding(credential(1, 0), Some(late), at(30 * MINUTE));
    assert_eq!(generation(view, at(HOUR - SKEW - 1)), Some(1));
    assert_eq!(generation(view, at(HOUR - SKEW)), Some(2));
    assert!(view.serve(&exclusive(), at(HOUR - SKEW), 0).unwrap().is_next);
}

#[test]
fn a_wish_for_a_longer_life_does_not_switch_one_reader_ahead_of_the_others() {
    // Until the switch the upstream knows one credential. A reader that asks for more life than that has left must not
    // be the one that shows it the second, or two would be in use, one after the other and back again.
    let view = handing_over();
    let now = at(40 * MINUTE);
    assert_eq!(served(view, now, 0), Some((1, 20 * MINUTE - SKEW)));
    assert_eq!(served(view, now, 30 * MINUTE), None, "generation 2 would have 50 minutes left");
    assert_eq!(served(view, at(45 * MINUTE), 30 * MINUTE), Some((2, 45 * MINUTE - SKEW)));
}

#[test]
fn after_the_switch_the_old_one_is_not_served_whatever_it_has_left() {
    let short = Credential { use_from: wall(35 * MINUTE), expires_at: wall(40 * MINUTE), ..credential(2, 30 * MINUTE) };
    let view = holding(credential(1, 0), Some(short), at(30 * MINUTE));
    assert_eq!(generation(view, at(39 * MINUTE)), Some(2));
    assert_eq!(served(view, at(39 * MINUTE), 10 * MINUTE), None, "generation 1 would have 21 minutes left");
    assert_eq!(generation(view, at(40 * MINUTE)), None);
}

#[test]
fn a_node_that_learns_of_the_switch_switches_at_once_and_stays() {
    let view = handing_over();
    let now = at(33 * MINUTE);
    assert_eq!(generation(view, now), Some(1));
    let switched = view.switched(now);
    assert_eq!(generation(switched, now), Some(2));
    assert_eq!(generation(switched.switched(at(50 * MINUTE)), now), Some(2), "a later notice does not put it off");
    assert_eq!(generation(switched, torn(34 * MINUTE, 0)), Some(2));
    let alone = holding(credential(1, 0), None, at(0));
    assert_eq!(alone.switched(now), alone, "nothing to switch to");
}

fn stale(view: View, now: Moment, min_ttl_ms: u64) -> Option<Serve> {
    view.serve(&Rules { stale_ms: 10 * MINUTE, ..exclusive() }, now, min_ttl_ms)
}

#[test]
fn a_stale_answer_is_marked_and_bounded_by_the_policy() {
    let view = holding(credential(1, 0), None, at(0));
    assert!(!stale(view, at(HOUR - SKEW - 1), 0).unwrap().is_stale);
    for late in [HOUR - SKEW, HOUR, HOUR + 10 * MINUTE - 1] {
        let serve = stale(view, at(late), 0).unwrap();
        assert!(serve.is_stale && serve.left_ms == 0 && serve.held.generation == 1, "{late}");
        assert_eq!(generation(view, at(late)), None, "and not at all where the policy does not allow it");
    }
    assert_eq!(stale(view, at(HOUR + 10 * MINUTE), 0), None);
    assert_eq!(stale(view, torn(HOUR + 10 * MINUTE, 0), 0), None, "by the monotonic clock");
    assert_eq!(stale(view, torn(MINUTE, HOUR + 10 * MINUTE), 0), None, "by the wall clock");
}

#[test]
fn a_reader_that_asks_for_any_life_gets_no_stale_answer() {
    let view = holding(credential(1, 0), None, at(0));
    assert!(stale(view, at(HOUR), 0).is_some());
    assert_eq!(stale(view, at(HOUR), 1), None);
}

#[test]
fn the_newest_of_two_expired_ones_is_the_stale_answer() {
    let view = handing_over();
    let serve = stale(view, at(91 * MINUTE), 0).unwrap();
    assert!(serve.is_stale && serve.is_next);
    assert_eq!(serve.held.generation, 2);
}

#[test]
fn only_a_newer_generation_is_adopted() {
    let view = holding(credential(5, 0), None, at(0));
    for old in [1, 4, 5] {
        assert_eq!(view.adopt(&record(credential(old, MINUTE)), at(MINUTE)), None, "{old}");
    }
    assert_eq!(view.adopt(&record(credential(6, MINUTE)), at(MINUTE)).unwrap().newest_generation(), 6);
    // Newest counts: a record that still has the old current and something new beside it is news.
    let with_next = Record { next: Some(credential(6, MINUTE)), ..record(credential(5, 0)) };
    let view = view.adopt(&with_next, at(MINUTE)).unwrap();
    assert_eq!(view.newest_generation(), 6);
    assert_eq!(view.adopt(&record(credential(5, 0)), at(MINUTE)), None);
}

#[test]
fn a_generation_older_than_the_one_in_use_is_not_taken_up_beside_a_newer_one() {
    let view = holding(credential(5, 0), None, at(0));
    let later = Credential { use_from: wall(HOUR), ..credential(7, MINUTE) };
    let rolled_back = Record { next: Some(later), ..record(credential(4, 0)) };
    let view = view.adopt(&rolled_back, at(MINUTE)).unwrap();
    assert_eq!(view.current, None);
    assert_eq!(generation(view, at(MINUTE)), Some(7));
}

/// What a fleet publishes, one after the other: each time a new generation that is used at once, or beside the one in
/// use and after it.
fn publications() -> impl Strategy<Value = Vec<(u64, Record)>> {
    let each = (1_u64..4, 0..30 * MINUTE, 0..40 * MINUTE, 5 * MINUTE..HOUR, any::<bool>());
    proptest::collection::vec(each, 1..12).prop_map(|each| {
        let (mut published, mut now, mut last) = (Vec::<(u64, Record)>::new(), 0, None::<Credential>);
        for (generations, pause, handover, life, has_handover) in each {
            now += pause;
            let generation = last.as_ref().map_or(0, |last| last.generation) + generations;
            let mut fresh = Credential { expires_at: wall(now + life), ..credential(generation, now) };
            let record = match last.take() {
                Some(current) if has_handover => {
                    fresh.use_from = wall(now + handover);
                    Record { next: Some(fresh.clone()), ..record(current) }
                }
                _ => record(fresh.clone()),
            };
            last = Some(fresh);
            published.push((now, record));
        }
        published
    })
}

proptest! {
    #[test]
    fn no_reader_ever_gets_an_older_generation_than_before_or_an_expired_one(
        published in publications(),
        reads in proptest::collection::vec((0..20 * MINUTE, any::<prop::sample::Index>(), any::<bool>()), 1..60),
        min_ttl_ms in prop_oneof![Just(0), 0..HOUR],
        stale_ms in prop_oneof![Just(0), 0..HOUR],
    ) {
        let rules = Rules { stale_ms, ..exclusive() };
        let (mut view, mut now, mut newest, mut before) = (View::default(), 0, 0, 0);
        for (pause, index, has_news) in reads {
            now += pause;
            // Any record that had been published by then: caches and replicas are allowed to be late.
            let known = published.iter().take_while(|(at, _)| *at <= now).count();
            if has_news && known > 0 {
                let (_, record) = &published[index.index(known)];
                view = view.adopt(record, at(now)).unwrap_or(view);
            }
            prop_assert!(view.newest_generation() >= newest);
            newest = view.newest_generation();
            let Some(serve) = view.serve(&rules, at(now), min_ttl_ms) else { continue };
            prop_assert!(serve.held.generation >= before, "{} after {before}", serve.held.generation);
            before = serve.held.generation;
            let end = Timestamp(serve.held.expires_at.0 - SKEW);
            prop_assert_eq!(serve.is_stale, wall(now) >= end);
            prop_assert!(wall(now) < serve.held.expires_at.plus(stale_ms));
            prop_assert!(serve.left_ms >= min_ttl_ms);
        }
    }
}
