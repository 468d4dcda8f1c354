//! The renewal protocol where writes get lost, answers come late and holders change.

use std::sync::Arc;

use keyreeve_core::lifecycle::{Event, Minted, Phase, Step, Why};
use keyreeve_core::record::{FaultClass, HistoryKind, OneUse, Record};
use keyreeve_core::rules::Rules;

use crate::fleet::{Node, Store, fault, first, minted, rested};
use crate::given::{BOOTED, HOUR, MINUTE, SECOND, exclusive, lease, op, replay, wall};

/// When the credential of [`first`] is due under [`exclusive`].
const DUE: u64 = 30 * MINUTE;

#[test]
fn a_renewal_is_two_swaps_and_nothing_is_written_in_between() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    assert_eq!(a.rest(0, &store), (DUE, Why::Fresh));
    assert_eq!(a.rest(DUE - 1, &store), (1, Why::Fresh), "not a millisecond before it is due");
    let order = a.renew(DUE, &mut store);
    assert_eq!(store.swaps, 2);
    assert_eq!(order.generation, 2);
    assert_eq!(a.rest(DUE + MINUTE, &store), (29 * MINUTE, Why::Fresh));
    for n in 2..10 {
        a.renew(DUE * n, &mut store);
    }
    assert_eq!((store.swaps, store.generation()), (18, 10));
}

#[test]
fn the_first_swap_announces_the_mint_and_the_second_publishes_it() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    let order = a.acquire(DUE, &mut store);
    let announced = store.now().clone();
    let intent = announced.intent.as_ref().unwrap();
    assert_eq!((intent.generation, intent.op, &intent.holder), (2, announced.op, &a.me));
    assert_eq!((intent.started_at, intent.is_replay, intent.doubt.as_ref()), (wall(DUE), false, None));
    assert_eq!((intent.issued_at, intent.expires_at), (order.issued_at, order.expires_at));
    assert_eq!(announced.generation, 2, "attempted");
    assert_eq!(store.generation(), 1, "but readers still have the first");
    assert_eq!((order.send_by.0, order.answer_by.0), (BOOTED + DUE + 5 * SECOND, BOOTED + DUE + 15 * SECOND));

    a.settle(DUE + SECOND, &mut store, minted(&order));
    let record = store.now();
    let current = record.current.as_ref().unwrap();
    assert_eq!((current.generation, current.use_from), (2, wall(DUE + SECOND)));
    assert_eq!((current.issued_at, current.expires_at), (wall(DUE), wall(DUE + HOUR)));
    assert_eq!((current.refresh_at, &current.sealed[..]), (wall(2 * DUE), &b"sealed 2"[..]));
    let last = record.last.unwrap();
    assert_eq!((last.generation, last.at_most), (2, wall(DUE + 3 * SECOND)), "by a clock that is behind by the skew");
    assert_eq!((record.next.as_ref(), record.intent.as_ref(), record.failure.as_ref()), (None, None, None));
    assert_eq!(record.history.last().unwrap().kind, HistoryKind::Minted);
}

#[test]
fn what_a_mint_uses_up_is_announced_with_it_and_forgotten_when_something_is_published() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    store = Store::holding(Record { spent: Some(vec![OneUse([1; 32])]), ..store.now().clone() });
    assert_eq!(a.renewer.announce(OneUse([2; 32])), None, "nothing is to be announced");
    let Step::Swap { expected, record } = a.step(DUE, store.read()) else { panic!("no swap") };
    let announced = a.renewer.announce(OneUse([2; 32])).unwrap();
    let intent = announced.intent.as_ref().unwrap();
    assert_eq!((intent.uses, announced.op), (Some(OneUse([2; 32])), record.op));
    let answer = store.swap(&Step::Swap { expected, record: announced });
    let Step::Mint(order) = a.step(DUE, answer) else { panic!("no mint") };
    assert_eq!(a.renewer.announce(OneUse([3; 32])), None, "it has been announced");

    // A doubt keeps what is in doubt, and what was used up before.
    let (mut doubting, mut doubted) = (a.clone(), store.clone());
    doubting.settle(DUE, &mut doubted, Event::MintUnknown(fault(FaultClass::Transient)));
    assert_eq!(doubted.now().intent.as_ref().unwrap().uses, Some(OneUse([2; 32])));
    assert_eq!(doubted.now().spent, Some(vec![OneUse([1; 32])]));

    a.settle(DUE, &mut store, minted(&order));
    assert_eq!(store.now().spent, None, "what is published now has left something of its own");
}

#[test]
fn a_lease_that_was_granted_too_late_is_not_used() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    let step = a.step(DUE, store.read());
    let answer = store.swap(&step);
    // At the last moment it may still be sent; the driver holds to `send_by`.
    assert!(matches!(a.clone().step(DUE + 5 * SECOND, answer.clone()), Step::Mint(_)));
    assert_eq!(a.step(DUE + 5 * SECOND + 1, answer), Step::Read);
    // It knows that no mint left under that intent, so it announces another without waiting.
    let order = a.acquire(DUE + 6 * SECOND, &mut store);
    assert_eq!((order.generation, order.is_replay), (3, false));
    assert_eq!(order.send_by.0, BOOTED + DUE + 11 * SECOND);
}

#[test]
fn a_lease_whose_grant_got_lost_is_found_by_reading_and_taken_anew() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    let step = a.step(DUE, store.read());
    assert_eq!(store.swap(&step), Event::Swapped);
    assert_eq!(a.step(DUE + SECOND, Event::SwapUnknown), Step::Read);
    let order = a.acquire(DUE + 2 * SECOND, &mut store);
    assert_eq!(order.generation, 3, "the first announcement was never acted upon");
    a.settle(DUE + 3 * SECOND, &mut store, minted(&order));
    assert_eq!((store.swaps, store.generation()), (3, 3));
}

#[test]
fn a_lease_that_was_not_granted_is_asked_for_again() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    assert!(matches!(a.step(DUE, store.read()), Step::Swap { .. }));
    assert_eq!(a.step(DUE + SECOND, Event::SwapUnknown), Step::Read);
    let order = a.acquire(DUE + 2 * SECOND, &mut store);
    assert_eq!(order.generation, 2);
}

#[test]
fn the_loser_of_a_race_for_the_lease_waits() {
    let (mut a, mut b, mut store) = (Node::new("a", exclusive()), Node::new("b", exclusive()), first("c"));
    let from_a = a.step(DUE, store.read());
    let from_b = b.step(DUE, store.read());
    assert_eq!(store.swap(&from_a), Event::Swapped);
    assert_eq!(store.swap(&from_b), Event::SwapLost);
    assert!(matches!(a.step(DUE, Event::Swapped), Step::Mint(_)));
    assert_eq!(b.step(DUE, Event::SwapLost), Step::Read);
    assert_eq!(b.rest(DUE, &store), (2 * SECOND, Why::Held));
}

/// Node a has minted generation 2, and the answer to its publication got lost.
fn publication_unknown(is_made: bool) -> (Node, Store, Step) {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    let order = a.acquire(DUE, &mut store);
    let publish = a.step(DUE + SECOND, minted(&order));
    if is_made {
        assert_eq!(store.swap(&publish), Event::Swapped);
    }
    assert_eq!(a.step(DUE + 2 * SECOND, Event::SwapUnknown), Step::Read);
    (a, store, publish)
}

#[test]
fn a_publication_whose_answer_got_lost_is_not_made_twice() {
    let (mut a, store, _) = publication_unknown(true);
    assert_eq!(a.rest(DUE + 2 * SECOND, &store), (30 * MINUTE - 2 * SECOND, Why::Fresh));
    assert_eq!((store.swaps, store.generation()), (2, 2));
}

#[test]
fn a_publication_that_did_not_arrive_is_sent_again_as_it_was() {
    let (mut a, mut store, publish) = publication_unknown(false);
    let again = a.step(DUE + 2 * SECOND, store.read());
    assert_eq!(again, publish, "the minted credential is not thrown away");
    assert_eq!(store.swap(&again), Event::Swapped);
    assert_eq!(rested(a.step(DUE + 3 * SECOND, Event::Swapped)).1, Why::Fresh);
    assert_eq!(store.generation(), 2);
}

#[test]
fn a_stale_read_after_a_lost_answer_costs_a_swap_and_nothing_else() {
    let (mut a, mut store, publish) = publication_unknown(true);
    // A replica that is two writes behind.
    let again = a.step(DUE + 2 * SECOND, first("a").read());
    assert_eq!(again, publish);
    assert_eq!(store.swap(&again), Event::SwapLost, "made already");
    assert_eq!(a.step(DUE + 2 * SECOND, Event::SwapLost), Step::Read);
    assert_eq!(a.rest(DUE + 2 * SECOND, &store).1, Why::Fresh);
}

#[test]
fn a_lost_publication_gives_way_to_what_somebody_else_published_since() {
    let (mut a, mut store, _) = publication_unknown(false);
    let mut b = Node::new("b", exclusive());
    b.rest(DUE + 2 * SECOND, &store);
    let later = DUE + 25 * MINUTE;
    let order = b.renew(later, &mut store);
    assert_eq!(order.generation, 3);
    assert_eq!(a.rest(later, &store).1, Why::Fresh);
    assert_eq!(store.generation(), 3);
}

#[test]
fn a_register_that_was_wiped_is_not_written_with_what_was_lost() {
    let (mut a, _, _) = publication_unknown(false);
    let mut wiped = Store::default();
    let step = a.step(DUE + 2 * SECOND, wiped.read());
    assert_eq!(wiped.swap(&step), Event::Swapped);
    assert!(wiped.now().newest().is_none(), "announced anew, not published from memory");
}

#[test]
fn a_register_that_is_away_is_asked_again_and_what_was_to_be_written_is_kept() {
    let (mut a, mut store, publish) = publication_unknown(false);
    for second in 3..600 {
        assert_eq!(rested(a.step(DUE + second * SECOND, Event::ReadFailed)), (2 * SECOND, Why::StoreAway));
    }
    assert!(matches!(a.renewer.phase(), Phase::Settling { .. }));
    let later = DUE + 10 * MINUTE;
    assert_eq!(a.step(later, store.read()), publish);
    assert_eq!(rested(a.step(later, Event::SwapRefused)), (2 * SECOND, Why::StoreAway));
    assert_eq!(a.step(later, store.read()), publish);
    assert_eq!(store.swap(&publish), Event::Swapped);
    let mut idle = Node::new("b", exclusive());
    assert_eq!(rested(idle.step(later, Event::ReadFailed)), (2 * SECOND, Why::StoreAway));
    assert_eq!(idle.rest(later, &store).1, Why::Fresh);
}

#[test]
fn without_the_register_nothing_is_minted() {
    let (mut a, store) = (Node::new("a", exclusive()), first("a"));
    let step = a.step(DUE, store.read());
    assert!(matches!(step, Step::Swap { .. }));
    assert_eq!(rested(a.step(DUE, Event::SwapRefused)), (2 * SECOND, Why::StoreAway));
    for second in 1..1200 {
        assert_eq!(rested(a.step(DUE + second * SECOND, Event::ReadFailed)).1, Why::StoreAway);
    }
}

#[test]
fn a_holder_that_comes_back_after_its_lease_was_taken_over_changes_nothing() {
    let (mut a, mut b, mut store) = (Node::new("a", lease()), Node::new("b", lease()), first("a"));
    let late = a.acquire(50 * MINUTE, &mut store);
    b.rest(50 * MINUTE, &store);
    let order = b.renew(50 * MINUTE + 25 * SECOND, &mut store);
    assert_eq!((late.generation, order.generation), (2, 3));
    assert_eq!((late.epoch, order.epoch), (1, 2), "the successor has the higher epoch");
    let before = store.now().clone();

    let publish = a.step(51 * MINUTE, minted(&late));
    assert_eq!(store.swap(&publish), Event::SwapLost);
    assert_eq!(a.step(51 * MINUTE, Event::SwapLost), Step::Read);
    assert_eq!(a.rest(51 * MINUTE, &store).1, Why::Fresh);
    assert_eq!(*store.now(), before);
}

#[test]
fn a_late_failure_does_not_undo_a_successors_publication_either() {
    let (mut a, mut b, mut store) = (Node::new("a", lease()), Node::new("b", lease()), first("a"));
    a.acquire(50 * MINUTE, &mut store);
    b.rest(50 * MINUTE, &store);
    b.renew(50 * MINUTE + 25 * SECOND, &mut store);
    let record = a.step(51 * MINUTE, Event::MintFailed(fault(FaultClass::Transient)));
    assert_eq!(store.swap(&record), Event::SwapLost);
    assert_eq!((store.generation(), store.now().failure.as_ref()), (3, None));
}

#[test]
fn a_late_answer_that_nobody_overtook_is_still_published() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    let order = a.acquire(DUE, &mut store);
    a.settle(DUE + 5 * MINUTE, &mut store, minted(&order));
    assert_eq!(store.generation(), 2, "the swap is the fence, not the clock");
}

#[test]
fn the_epoch_grows_when_the_lease_changes_hands_and_not_otherwise() {
    let (mut a, mut b, mut store) = (Node::new("a", exclusive()), Node::new("b", exclusive()), first("a"));
    assert_eq!(a.renew(DUE, &mut store).epoch, 1, "the same holder again");
    b.rest(DUE, &store);
    let order = a.acquire(2 * DUE, &mut store);
    assert_eq!(order.epoch, 1);
    a.settle(2 * DUE, &mut store, Event::MintFailed(fault(FaultClass::Transient)));
    assert_eq!(store.now().epoch, 1);
    b.rest(2 * DUE, &store);
    assert_eq!(b.renew(2 * DUE + MINUTE, &mut store).epoch, 2);
    assert_eq!(b.renew(3 * DUE + MINUTE, &mut store).epoch, 2);
    let mut restarted = b.restarted();
    restarted.rest(3 * DUE + 2 * MINUTE, &store);
    assert_eq!(restarted.renew(4 * DUE + MINUTE, &mut store).epoch, 3, "after a crash it is somebody else");
    a.rest(4 * DUE + 2 * MINUTE, &store);
    assert_eq!(a.renew(5 * DUE + MINUTE, &mut store).epoch, 4);
}

#[test]
fn events_that_nobody_waits_for_change_nothing() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    let order = a.acquire(DUE, &mut store);
    let before = a.renewer.clone();
    for event in [store.read(), Event::ReadFailed, Event::Swapped, Event::SwapLost, Event::SwapUnknown] {
        rested(a.step(DUE + SECOND, event));
        assert_eq!(a.renewer, before, "still minting");
    }
    a.settle(DUE + 2 * SECOND, &mut store, minted(&order));
    let before = a.renewer.clone();
    for event in [minted(&order), Event::MintFailed(fault(FaultClass::Transient)), Event::Swapped] {
        rested(a.step(DUE + 3 * SECOND, event));
        assert_eq!(a.renewer, before, "an answer that came twice");
    }
    assert_eq!(store.swaps, 2);
}

/// Local signing for an upstream that must not see tokens change faster than every 20 minutes, ten minutes ahead.
fn handing_over() -> Rules {
    Rules { handover_ms: 10 * MINUTE, ..replay() }
}

#[test]
fn with_a_handover_the_new_one_is_published_before_the_switch() {
    let (mut a, mut store) = (Node::new("a", handing_over()), first("a"));
    a.renew(DUE, &mut store);
    let record = store.now();
    assert_eq!(record.current.as_ref().unwrap().generation, 1, "still in use");
    let next = record.next.as_ref().unwrap();
    assert_eq!((next.generation, next.use_from), (2, wall(DUE + 10 * MINUTE)));
    // The next renewal makes the one in use the current one.
    a.renew(2 * DUE, &mut store);
    let record = store.now();
    assert_eq!(record.current.as_ref().unwrap().generation, 2);
    assert_eq!(record.next.as_ref().unwrap().generation, 3);
}

#[test]
fn the_first_credential_is_used_at_once() {
    let (mut a, mut store) = (Node::new("a", handing_over()), Store::default());
    a.renew(0, &mut store);
    assert_eq!(store.now().current.as_ref().unwrap().use_from, wall(0));
    assert_eq!(store.now().next, None);
}

#[test]
fn two_switches_are_at_least_min_interval_apart() {
    let (mut a, mut store) = (Node::new("a", handing_over()), first("a"));
    let mut current = store.now().current.clone().unwrap();
    current.use_from = wall(25 * MINUTE);
    store = Store::holding(Record { current: Some(current), ..store.now().clone() });
    a.renew(DUE, &mut store);
    let next = store.now().next.as_ref().unwrap();
    assert_eq!(next.use_from, wall(45 * MINUTE), "25 + 20, not 30 + 10");
}

#[test]
fn a_switch_comes_before_the_expiry_of_the_one_in_use_by_every_clock() {
    let (mut a, mut store) = (Node::new("a", handing_over()), first("a"));
    a.renew(55 * MINUTE, &mut store);
    let next = store.now().next.as_ref().unwrap();
    assert_eq!(next.use_from, wall(HOUR - 4 * SECOND), "two skews before, not ten minutes after");
    // With less than two skews left it is used at once, and over is over.
    for (late, is_next) in [(HOUR - 3 * SECOND, true), (HOUR - 2 * SECOND, false), (2 * HOUR, false)] {
        let (mut a, mut store) = (Node::new("a", handing_over()), first("a"));
        a.renew(late, &mut store);
        let newest = store.now().newest().unwrap();
        assert_eq!((newest.use_from, store.now().next.is_some()), (wall(late), is_next), "{late}");
    }
}

/// The record after somebody had its newest generation reported.
fn with_wish(store: &Store) -> Store {
    let renew = store.now().newest().map(|newest| newest.generation);
    Store::holding(Record { renew, op: op(5), rev: store.now().rev + 1, ..store.now().clone() })
}

#[test]
fn a_forced_renewal_is_due_at_once_and_switches_at_once() {
    let (mut a, store) = (Node::new("a", handing_over()), first("a"));
    let mut store = with_wish(&store);
    a.renew(21 * MINUTE, &mut store);
    let record = store.now();
    let current = record.current.as_ref().unwrap();
    assert_eq!((current.generation, current.use_from, record.next.as_ref()), (2, wall(21 * MINUTE), None));
    assert_eq!(record.renew, None, "the wish is granted once");
    assert_eq!(a.rest(22 * MINUTE, &store).1, Why::Fresh);
}

#[test]
fn a_forced_renewal_replaces_both_of_a_pair_in_handover() {
    let (mut a, mut store) = (Node::new("a", handing_over()), first("a"));
    a.renew(DUE, &mut store);
    let mut store = with_wish(&store);
    let now = DUE + 21 * MINUTE;
    a.renew(now, &mut store);
    let record = store.now();
    assert_eq!(record.current.as_ref().unwrap().generation, 3);
    assert_eq!((record.current.as_ref().unwrap().use_from, record.next.as_ref()), (wall(now), None));
}

#[test]
fn a_wish_about_a_generation_that_was_replaced_meanwhile_forces_nothing() {
    let (mut a, store) = (Node::new("a", exclusive()), first("a"));
    let store = Store::holding(Record { renew: Some(7), ..store.now().clone() });
    assert_eq!(a.rest(25 * MINUTE, &store), (5 * MINUTE, Why::Fresh));
}

#[test]
fn issue_times_of_a_local_signer_are_min_interval_apart_whatever_its_clock_says() {
    let rules = Rules { backdate_ms: MINUTE, ..replay() };
    let (mut a, mut store) = (Node::new("a", rules), first("a"));
    assert_eq!(a.renew(DUE, &mut store).issued_at, wall(29 * MINUTE), "backdated");
    let mut behind = Node::new("b", replay()).ahead(-3_600_000);
    let mut store = with_wish(&store);
    behind.rest(2 * DUE - MINUTE, &store);
    let order = behind.acquire(3 * DUE, &mut store);
    assert_eq!(order.issued_at, wall(49 * MINUTE), "its clock says minute 30");
    assert_eq!(order.expires_at, wall(109 * MINUTE));
}

#[test]
fn the_times_of_an_upstream_count_and_not_those_that_were_asked_for() {
    let (mut a, mut store) = (Node::new("a", lease()), first("a"));
    let order = a.acquire(50 * MINUTE, &mut store);
    let issued_at = wall(50 * MINUTE + SECOND);
    let short = Minted { sealed: vec![1], issued_at, expires_at: issued_at.plus(15 * MINUTE) };
    a.settle(50 * MINUTE + 2 * SECOND, &mut store, Event::Minted(short));
    let current = store.now().current.as_ref().unwrap();
    assert_eq!(current.expires_at, wall(65 * MINUTE + SECOND));
    assert!(current.expires_at < order.expires_at);
    assert_eq!(current.refresh_at, wall(57 * MINUTE + 31 * SECOND), "half of fifteen minutes before");
}

#[test]
fn a_swap_carries_the_record_it_was_made_from() {
    let (mut a, store) = (Node::new("a", exclusive()), first("a"));
    let Step::Swap { expected, record } = a.step(DUE, store.read()) else { panic!() };
    assert_eq!(expected, store.op());
    assert_eq!(record.rev, store.now().rev + 1);
    assert_ne!(Some(record.op), expected);
    let base = Arc::clone(store.record.as_ref().unwrap());
    assert_eq!((&record.current, &record.last, &record.history), (&base.current, &base.last, &base.history));
}
