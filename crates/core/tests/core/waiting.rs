//! What makes a node wait: doubt, the upstream's floor, the fleet's back-off, and clocks that cannot be trusted.

use keyreeve_core::lifecycle::{Context, Event, Fault, Minted, Step, Why};
use keyreeve_core::operator::{Verdict, resolve};
use keyreeve_core::record::{Credential, FaultClass, HistoryKind, LastMint, Record};
use keyreeve_core::rules::{OnDoubt, Rules};
use keyreeve_core::view::View;

use crate::fleet::{Node, Store, fault, first, minted, rested};
use crate::given::{HOUR, MINUTE, SECOND, at, exclusive, lease, op, replay, wall};

const DUE: u64 = 30 * MINUTE;
/// The mint window and `min_interval` of [`exclusive`].
const SPACED: u64 = 20 * MINUTE + 15 * SECOND;

/// Whoever is held back by a long floor looks again after a takeover: others may wait less long, take the lease and die.
const LOOKS_AGAIN: (u64, Why) = (25 * SECOND, Why::Floor);

fn unknown() -> Event {
    Event::MintUnknown(fault(FaultClass::Transient))
}

fn spent() -> Event {
    Event::MintSpent(fault(FaultClass::Transient))
}

/// Node a announced generation 2 at [`DUE`] and has not been heard of since; b saw it at once.
fn silent(rules: &Rules) -> (Node, Store) {
    let (mut a, mut b) = (Node::new("a", rules.clone()), Node::new("b", rules.clone()));
    let mut store = first("a");
    a.acquire(DUE, &mut store);
    assert_eq!(b.rest(DUE, &store).1, Why::Held);
    (b, store)
}

#[test]
fn a_definite_failure_gives_the_lease_back_and_makes_the_fleet_hold() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    a.acquire(DUE, &mut store);
    let last = store.now().last;
    let (for_ms, why) = a.settle(DUE + SECOND, &mut store, Event::MintFailed(fault(FaultClass::Transient)));
    let record = store.now();
    let failure = record.failure.as_ref().unwrap();
    assert_eq!((for_ms, why), (failure.hold_ms, Why::BackOff));
    assert_eq!((failure.count, failure.class, failure.at), (1, FaultClass::Transient, wall(DUE + SECOND)));
    assert_eq!(failure.message, "503 from the upstream");
    assert_eq!((record.intent.as_ref(), record.last), (None, last), "nothing was minted, so no floor applies");
    assert_eq!(store.generation(), 1, "and readers keep what they have");
    let entry = record.history.last().unwrap();
    assert_eq!(
        (entry.kind, entry.generation, entry.detail.as_str()),
        (HistoryKind::Failed, 2, "503 from the upstream")
    );
}

#[test]
fn a_back_off_lives_in_the_record_and_a_second_node_obeys_it() {
    let (mut a, mut b, mut store) = (Node::new("a", exclusive()), Node::new("b", exclusive()), first("a"));
    a.acquire(DUE, &mut store);
    let throttled = Fault { retry_after_ms: Some(90 * SECOND), ..fault(FaultClass::Throttled) };
    a.settle(DUE, &mut store, Event::MintFailed(throttled));
    assert_eq!(b.rest(DUE + 10 * SECOND, &store), (90 * SECOND, Why::BackOff), "from when it first saw it");
    assert_eq!(b.rest(DUE + 99 * SECOND, &store), (SECOND, Why::BackOff));
    assert_eq!(a.rest(DUE + 90 * SECOND - 1, &store), (1, Why::BackOff));
    assert_eq!(a.acquire(DUE + 90 * SECOND, &mut store).generation, 3, "the one that saw it first goes first");
}

#[test]
fn a_trusted_clock_counts_a_back_off_from_the_failure_itself() {
    let rules = Rules { is_clock_trusted: true, ..exclusive() };
    let (mut a, mut b, mut store) = (Node::new("a", rules.clone()), Node::new("b", rules), first("a"));
    a.acquire(DUE, &mut store);
    let throttled = Fault { retry_after_ms: Some(90 * SECOND), ..fault(FaultClass::Throttled) };
    a.settle(DUE + SECOND, &mut store, Event::MintFailed(throttled));
    assert_eq!(b.rest(DUE + 81 * SECOND, &store), (12 * SECOND, Why::BackOff), "ten seconds and the skew");
}

#[test]
fn failures_in_a_row_are_counted_and_a_success_clears_them() {
    let (mut a, mut store, mut now) = (Node::new("a", exclusive()), first("a"), DUE);
    for count in 1..=8 {
        a.acquire(now, &mut store);
        let (for_ms, why) = a.settle(now, &mut store, Event::MintFailed(fault(FaultClass::Transient)));
        assert_eq!((store.now().failure.as_ref().unwrap().count, why), (count, Why::BackOff));
        now += for_ms;
    }
    a.renew(now, &mut store);
    assert_eq!(store.now().failure, None, "never a sticky error");
}

#[test]
fn r2_a_fleet_asks_a_failing_upstream_a_handful_of_times_in_ten_minutes() {
    for class in [FaultClass::Transient, FaultClass::Throttled, FaultClass::Terminal, FaultClass::Misconfigured] {
        let mut store = first("n0");
        let mut nodes: Vec<Node> = (0..5).map(|n| Node::new(&format!("n{n}"), exclusive())).collect();
        let mut wakes = vec![DUE; nodes.len()];
        let mut asked_at = Vec::new();
        while let Some(n) = (0..nodes.len()).filter(|n| wakes[*n] < DUE + 10 * MINUTE).min_by_key(|n| wakes[*n]) {
            let now = wakes[n];
            let mut step = nodes[n].step(now, store.read());
            loop {
                step = match step {
                    Step::Rest { for_ms, .. } => {
                        assert!(for_ms > 0, "a rest of nothing is a loop");
                        wakes[n] = now + for_ms;
                        break;
                    }
                    Step::Read => nodes[n].step(now, store.read()),
                    Step::Mint(_) => {
                        asked_at.push(now);
                        nodes[n].step(now, Event::MintFailed(fault(class)))
                    }
                    swap => {
                        let answer = store.swap(&swap);
                        nodes[n].step(now, answer)
                    }
                };
            }
        }
        let pauses: Vec<u64> = asked_at.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert!(asked_at.len() >= 3, "the fleet goes on asking: {asked_at:?}");
        assert!(asked_at.len() <= 10, "{class:?}: {pauses:?}");
        let limit = if class <= FaultClass::Throttled { exclusive().hold_ms_max } else { exclusive().hard_hold_ms_max };
        assert!(pauses.windows(2).all(|pair| pair[1] > pair[0] || pair[1] >= limit), "growing: {pauses:?}");
    }
}

#[test]
fn in_doubt_an_exclusive_credential_waits_until_the_lost_mint_is_min_interval_back() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    a.acquire(DUE, &mut store);
    let (for_ms, why) = a.settle(DUE + 15 * SECOND, &mut store, unknown());
    assert_eq!(why, Why::InDoubt);
    assert!(for_ms <= exclusive().takeover_ms);
    let intent = store.now().intent.as_ref().unwrap();
    assert_eq!((intent.generation, intent.doubt.as_deref()), (2, Some("503 from the upstream")));
    assert_eq!(store.now().history.last().unwrap().kind, HistoryKind::InDoubt);

    // Everybody waits the same: each from when it first saw the intent, the holder itself from before it asked.
    let mut b = Node::new("b", exclusive());
    assert_eq!(b.rest(DUE + MINUTE, &store).1, Why::InDoubt);
    let seen_by_a = DUE;
    assert_eq!(a.rest(seen_by_a + SPACED - 1, &store), (1, Why::InDoubt));
    assert_eq!(b.rest(seen_by_a + SPACED, &store).1, Why::InDoubt);
    let order = a.acquire(seen_by_a + SPACED, &mut store);
    assert_eq!((order.generation, order.is_replay), (3, false));
    let record = store.now();
    assert_eq!(record.last, Some(LastMint { generation: 2, at_most: wall(DUE + 17 * SECOND) }), "it may have happened");
    let entry = record.history.last().unwrap();
    assert_eq!((entry.kind, entry.detail.as_str()), (HistoryKind::TakenOver, "from a in epoch 1"));
}

#[test]
fn a_holder_that_went_silent_is_in_doubt_as_soon_as_its_lease_is_over() {
    let (mut b, mut store) = silent(&exclusive());
    assert_eq!(b.rest(DUE + 25 * SECOND - 1, &store), (1, Why::Held));
    assert_eq!(b.rest(DUE + 25 * SECOND, &store).1, Why::InDoubt);
    assert_eq!(b.rest(DUE + SPACED - 1, &store), (1, Why::InDoubt));
    assert_eq!(b.acquire(DUE + SPACED, &mut store).generation, 3);
}

#[test]
fn in_lease_mode_the_next_generation_is_minted_as_soon_as_the_lease_is_over() {
    let (mut a, mut b) = (Node::new("a", lease()), Node::new("b", lease()));
    let mut store = first("a");
    a.acquire(50 * MINUTE, &mut store);
    assert_eq!(b.rest(50 * MINUTE, &store), (2 * SECOND, Why::Held));
    assert_eq!(b.rest(50 * MINUTE + 25 * SECOND - 1, &store), (1, Why::Held));
    let order = b.acquire(50 * MINUTE + 25 * SECOND, &mut store);
    assert_eq!((order.generation, order.epoch, order.is_replay), (3, 2, false));
}

#[test]
fn a_lease_is_over_as_soon_as_its_holder_says_that_its_call_is() {
    // It waited for an answer as long as it may, and none came: nobody has to wait for the rest of its lease.
    let (mut a, mut b, mut store) = (Node::new("a", lease()), Node::new("b", lease()), first("a"));
    a.acquire(50 * MINUTE, &mut store);
    let over = 50 * MINUTE + 10 * SECOND;
    let (hold_ms, why) = a.settle(over, &mut store, unknown());
    assert_eq!(why, Why::BackOff);
    assert!((2 * SECOND..=3 * SECOND).contains(&hold_ms), "the first hold: {hold_ms}");
    assert_eq!(b.rest(over, &store), (hold_ms, Why::BackOff), "a node that has not looked before waits no longer");
    assert_eq!(a.rest(over + hold_ms - 1, &store), (1, Why::BackOff));
    let order = b.acquire(over + hold_ms, &mut store);
    assert_eq!((order.generation, order.epoch, order.is_replay), (3, 2, false));
    // Where mints have to be apart, what was sent may still arrive.
    let (mut a, mut store) = (Node::new("a", replay()), first("a"));
    a.acquire(DUE, &mut store);
    assert_eq!(a.settle(DUE + 10 * SECOND, &mut store, unknown()).1, Why::InDoubt);
    assert_eq!(a.rest(DUE + 25 * SECOND - 1, &store), (1, Why::InDoubt));
    assert!(a.acquire(DUE + 25 * SECOND, &mut store).is_replay);
}

#[test]
fn a_replay_mints_the_same_generation_with_the_same_inputs_however_often_holders_crash() {
    let (mut a, mut store) = (Node::new("a", replay()), first("a"));
    let original = a.acquire(DUE, &mut store);
    assert!(!original.is_replay);
    let mut now = DUE;
    for name in ["b", "c", "d", "e"] {
        let mut node = Node::new(name, replay());
        assert_eq!(node.rest(now, &store).1, Why::Held);
        now += 25 * SECOND;
        let order = node.acquire(now, &mut store);
        assert!(order.is_replay);
        assert_eq!(
            (order.generation, order.issued_at, order.expires_at),
            (original.generation, original.issued_at, original.expires_at)
        );
        assert_eq!(store.now().last, first("a").now().last, "finishing a mint is not another one");
    }
    assert_eq!(store.now().generation, 2);
    assert_eq!(store.now().epoch, 5);
}

#[test]
fn a_replay_whose_inputs_have_grown_old_starts_over_after_the_floor() {
    let (_, store) = silent(&replay());
    // Nothing is published, so it stays due; the intent's own expiry is at minute 90, and half an hour before that its
    // credential would be due again as soon as it was minted.
    let mut store = Store::holding(Record { current: None, ..store.now().clone() });
    let mut b = Node::new("b", replay());
    let (seen, edge) = (HOUR - 30 * SECOND, HOUR);
    assert_eq!(b.rest(seen, &store).1, Why::Held);
    assert!(b.clone().acquire(edge - 1, &mut store.clone()).is_replay, "a millisecond before, it is finished");
    assert_eq!(b.rest(edge, &store).1, Why::InDoubt);
    assert_eq!(b.rest(seen + SPACED - 1, &store), (1, Why::InDoubt));
    let order = b.acquire(seen + SPACED, &mut store);
    assert_eq!((order.generation, order.is_replay), (3, false));
}

#[test]
fn what_is_spent_is_not_replayed_but_minted_anew_after_the_floor() {
    let (mut a, mut b, mut store) = (Node::new("a", replay()), Node::new("b", replay()), first("a"));
    a.acquire(DUE, &mut store);
    assert_eq!(a.settle(DUE + SECOND, &mut store, spent()).1, Why::InDoubt);
    let intent = store.now().intent.as_ref().unwrap();
    assert_eq!((intent.is_spent, intent.doubt.as_deref()), (true, Some("503 from the upstream")));
    // With a doubt alone the same node would finish it as soon as the lease is over.
    assert_eq!(b.rest(DUE + SECOND, &store).1, Why::InDoubt);
    assert_eq!(b.rest(DUE + MINUTE, &store).1, Why::InDoubt);
    assert_eq!(a.rest(DUE + SPACED - 1, &store), (1, Why::InDoubt));
    let order = a.acquire(DUE + SPACED, &mut store);
    assert_eq!((order.generation, order.is_replay), (3, false));
    assert!(!store.now().intent.as_ref().unwrap().is_spent, "another mint, another outcome");
    assert_eq!(store.now().last.unwrap().generation, 2, "something was minted");
}

#[test]
fn a_failed_replay_leaves_it_possible_that_an_earlier_holder_minted() {
    let (mut b, mut store) = silent(&replay());
    let now = DUE + 25 * SECOND;
    b.acquire(now, &mut store);
    b.settle(now + SECOND, &mut store, Event::MintFailed(fault(FaultClass::Transient)));
    assert_eq!(store.now().last, Some(LastMint { generation: 2, at_most: wall(now + 17 * SECOND) }));
    let (for_ms, why) = b.rest(now + 10 * SECOND, &store);
    assert_eq!((for_ms, why), LOOKS_AGAIN);
    let seen = now + SECOND;
    assert_eq!(b.rest(seen + 20 * MINUTE - 1, &store), (1, Why::Floor), "so the floor counts from it");
}

#[test]
fn where_a_mint_cannot_be_repeated_only_an_operator_goes_on() {
    let rules = Rules { on_doubt: OnDoubt::Reauthorize, ..lease() };
    let (mut a, mut b, mut store) = (Node::new("a", rules.clone()), Node::new("b", rules), first("a"));
    a.acquire(50 * MINUTE, &mut store);
    a.settle(50 * MINUTE + SECOND, &mut store, unknown());
    assert_eq!(b.rest(50 * MINUTE + SECOND, &store), (2 * SECOND, Why::NeedsOperator), "at once");
    for minutes in [51, 60, 600, 60_000] {
        assert_eq!(b.rest(minutes * MINUTE, &store), (2 * SECOND, Why::NeedsOperator));
        assert_eq!(a.rest(minutes * MINUTE, &store).1, Why::NeedsOperator);
    }
    // What was spent has been replaced: the fleet goes on by itself.
    let me = b.me.clone();
    let now = b.clock(60_001 * MINUTE);
    let ctx = Context { rules: &b.rules, me: &me, now, fresh: op(9) };
    let mut store = Store::holding(resolve(ctx, store.now(), Verdict::Reauthorize, "alice").unwrap());
    assert_eq!(b.renew(60_002 * MINUTE, &mut store).generation, 3);
}

#[test]
fn a_node_that_knows_its_mint_never_left_does_not_wait_and_one_that_restarted_does() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    a.acquire(DUE, &mut store);
    let mut a = a.restarted();
    assert_eq!(a.rest(DUE + SECOND, &store).1, Why::Held, "it may have minted before it crashed");
    assert_eq!(a.rest(DUE + SECOND + SPACED - 1, &store).1, Why::InDoubt);
    assert_eq!(a.acquire(DUE + SECOND + SPACED, &mut store).generation, 3);
}

#[test]
fn a_holder_that_was_told_that_nothing_was_minted_does_not_wait_for_its_own_mint() {
    let (mut a, mut store) = (Node::new("a", exclusive()), first("a"));
    a.acquire(DUE, &mut store);
    // Something was written around the intent meanwhile, so that the failure cannot be recorded.
    let mut store = Store::holding(Record { op: op(5), rev: store.now().rev + 1, ..store.now().clone() });
    let record = a.step(DUE + SECOND, Event::MintFailed(fault(FaultClass::Transient)));
    assert_eq!(store.swap(&record), Event::SwapLost);
    assert_eq!(a.step(DUE + SECOND, Event::SwapLost), Step::Read);
    assert_eq!(a.acquire(DUE + SECOND, &mut store).generation, 3);
}

/// The register of [`first`], minted by second 2 at most, with a wish for a new one, so that it is due whatever the clock
/// says.
fn wanted() -> Store {
    let last = Some(LastMint { generation: 1, at_most: wall(2 * SECOND) });
    Store::holding(Record { renew: Some(1), last, ..first("a").now().clone() })
}

#[test]
fn the_floor_holds_a_renewal_back_until_the_upstream_allows_it() {
    let (mut a, mut store) = (Node::new("a", exclusive()), wanted());
    assert_eq!(a.rest(5 * MINUTE, &store), LOOKS_AGAIN);
    assert_eq!(a.rest(25 * MINUTE - 1, &store), (1, Why::Floor), "from when this node first saw the last mint");
    assert_eq!(a.acquire(25 * MINUTE, &mut store).generation, 2);
}

#[test]
fn a_trusted_clock_counts_the_floor_from_the_mint_itself() {
    let rules = Rules { is_clock_trusted: true, ..exclusive() };
    let (mut a, mut store) = (Node::new("a", rules), wanted());
    // The mint was over at second 2 by any clock, and this one may be ahead by another two.
    let allowed = 20 * MINUTE + 4 * SECOND;
    assert_eq!(a.rest(5 * MINUTE, &store), LOOKS_AGAIN);
    assert_eq!(a.rest(allowed - 1, &store), (1, Why::Floor));
    assert_eq!(a.acquire(allowed, &mut store).generation, 2);
}

#[test]
fn a_trusted_clock_ends_a_dead_holders_lease_for_a_node_that_was_not_watching() {
    let rules = Rules { is_clock_trusted: true, ..lease() };
    let (mut a, mut store) = (Node::new("a", rules.clone()), first("a"));
    a.acquire(50 * MINUTE, &mut store);
    // Start, lease, the holder's skew and this node's.
    let over = 50 * MINUTE + 24 * SECOND;
    let mut cold = Node::new("b", rules.clone());
    assert_eq!(cold.rest(over - 1, &store), (1, Why::Held));
    assert_eq!(Node::new("b", rules).acquire(over, &mut store).generation, 3);
    // Without trust a cold node waits in full.
    let (mut a, mut store) = (Node::new("a", lease()), first("a"));
    a.acquire(50 * MINUTE, &mut store);
    let mut cold = Node::new("b", lease());
    cold.rest(over, &store);
    assert_eq!(cold.rest(over + 25 * SECOND - 1, &store), (1, Why::Held));
}

#[test]
fn a_wall_clock_that_jumps_an_hour_proves_nothing_unless_somebody_vouches_for_it() {
    let (mut b, store) = silent(&exclusive());
    for ahead in [3_600_000, 86_400_000] {
        b = b.ahead(ahead);
        assert_eq!(b.rest(DUE + 24 * SECOND, &store).1, Why::Held);
        assert_eq!(b.rest(DUE + SPACED - 1, &store), (1, Why::InDoubt));
    }
}

#[test]
fn what_is_over_by_a_nodes_own_clocks_is_renewed_at_the_floor_although_it_is_not_due() {
    let mut node = Node::new("a", lease());
    let mut store = first("a");
    assert_eq!(rested(node.step(SECOND, store.read())).1, Why::Fresh);
    node.renewer.heed_own_clocks(true);
    node.acquire(SECOND, &mut store);
    let given = Event::Minted(Minted { sealed: vec![], issued_at: wall(SECOND), expires_at: wall(HOUR) });
    assert_eq!(node.settle(SECOND, &mut store, given).1, Why::Floor);
    node.renewer.heed_own_clocks(false);
    assert_eq!(node.rest(SECOND, &store).1, Why::Fresh);
}

#[test]
fn r11_a_node_whose_clock_is_two_hours_ahead_mints_no_faster_than_the_floor() {
    let mut fast = Node::new("a", lease()).ahead(7_200_000);
    let (mut store, mut now, mut mints) = (first("a"), 0, Vec::new());
    while now < 10 * MINUTE {
        let step = fast.step(now, store.read());
        if let Step::Rest { for_ms, .. } = step {
            now += for_ms;
            continue;
        }
        let answer = store.swap(&step);
        let Step::Mint(order) = fast.step(now, answer) else { panic!() };
        mints.push(now);
        // The upstream goes by the right clock, so to this node everything is over already.
        let given = Event::Minted(Minted { sealed: vec![], issued_at: wall(now), expires_at: wall(now + HOUR) });
        let publish = fast.step(now, given);
        let answer = store.swap(&publish);
        now += rested(fast.step(now, answer)).0;
        assert!(order.generation <= 1 + mints.len() as u64);
    }
    assert!(mints.len() > 10, "it is due all the time: {mints:?}");
    assert!(mints.windows(2).all(|pair| pair[1] - pair[0] >= 10 * SECOND), "{mints:?}");
}

#[test]
fn an_empty_register_is_no_proof_that_nothing_was_minted() {
    let rules = Rules { first_mint_waits: true, ..exclusive() };
    let (mut a, mut store) = (Node::new("a", rules.clone()), Store::default());
    let step = a.step(0, store.read());
    assert_eq!(store.swap(&step), Event::Swapped);
    assert_eq!(rested(a.step(0, Event::Swapped)), LOOKS_AGAIN);
    assert_eq!(store.now().last, Some(LastMint { generation: 0, at_most: wall(2 * SECOND) }));
    assert_eq!((store.now().intent.as_ref(), store.now().generation), (None, 0));
    let mut b = Node::new("b", rules);
    assert_eq!(b.rest(MINUTE, &store), LOOKS_AGAIN);
    assert_eq!(b.rest(21 * MINUTE - 1, &store), (1, Why::Floor), "from when it first saw the record");
    assert_eq!(a.rest(20 * MINUTE - 1, &store), (1, Why::Floor));
    assert_eq!(a.renew(20 * MINUTE, &mut store).generation, 1);
    assert_eq!(store.generation(), 1);
}

#[test]
fn two_nodes_that_find_an_empty_register_write_one_first_record() {
    let rules = Rules { first_mint_waits: true, ..exclusive() };
    let (mut a, mut b, mut store) = (Node::new("a", rules.clone()), Node::new("b", rules), Store::default());
    let (from_a, from_b) = (a.step(0, store.read()), b.step(0, store.read()));
    assert_eq!(store.swap(&from_a), Event::Swapped);
    assert_eq!(store.swap(&from_b), Event::SwapLost);
    assert_eq!(b.step(0, Event::SwapLost), Step::Read);
    assert_eq!(b.rest(0, &store), LOOKS_AGAIN);
}

#[test]
fn where_the_operator_vouches_for_a_virgin_source_the_first_mint_is_made_at_once() {
    let (mut a, mut store) = (Node::new("a", exclusive()), Store::default());
    let order = a.renew(0, &mut store);
    assert_eq!((order.generation, order.epoch, store.swaps), (1, 1, 2));
}

#[test]
fn an_upstream_that_answers_with_its_old_token_is_asked_at_the_floor_and_not_in_a_loop() {
    // R20: near the end of its life a token service hands out the same token again; it is due as soon as it comes.
    let (mut a, mut store) = (Node::new("a", lease()), first("a"));
    let (mut now, mut asked) = (50 * MINUTE, 0);
    while now < 55 * MINUTE {
        let order = a.acquire(now, &mut store);
        asked += 1;
        let same = Minted {
            sealed: vec![],
            issued_at: wall(0),
            expires_at: first("a").now().current.as_ref().unwrap().expires_at,
        };
        let publish = a.step(now, Event::Minted(same));
        let answer = store.swap(&publish);
        let (for_ms, why) = rested(a.step(now, answer));
        assert_eq!((why, order.is_replay), (Why::Floor, false));
        now += for_ms;
    }
    assert_eq!(asked, 30, "every ten seconds, the floor of these rules");
}

#[test]
fn a_failed_first_mint_holds_and_is_tried_again() {
    let (mut a, mut store) = (Node::new("a", exclusive()), Store::default());
    a.acquire(0, &mut store);
    let (for_ms, why) = a.settle(SECOND, &mut store, Event::MintFailed(fault(FaultClass::Misconfigured)));
    assert_eq!(why, Why::BackOff);
    assert!((MINUTE..=90 * SECOND).contains(&for_ms));
    let order = a.acquire(SECOND + for_ms, &mut store);
    let (_, why) = a.settle(SECOND + for_ms, &mut store, minted(&order));
    assert_eq!((why, store.generation()), (Why::Fresh, 2));
}

#[test]
fn what_a_useless_answer_left_is_kept_beside_what_is_published_and_the_mint_counts() {
    let (mut a, mut store) = (Node::new("a", lease()), first("a"));
    let due = 50 * MINUTE;
    store = Store::holding(Record { spent: Some(Vec::new()), ..store.now().clone() });
    let before = store.now().clone();
    let order = a.acquire(due, &mut store);
    let left = Event::MintLeft(fault(FaultClass::Transient), b"1 and what is left".to_vec());
    let (_, why) = a.settle(due + SECOND, &mut store, left);
    assert_eq!(why, Why::BackOff);
    let record = store.now();
    let current = record.current.clone().unwrap();
    assert_eq!(current.sealed, b"1 and what is left");
    assert_eq!(Some(Credential { sealed: before.current.clone().unwrap().sealed, ..current }), before.current);
    assert_eq!((record.intent.as_ref(), record.spent.as_ref()), (None, None), "nothing is in doubt, nothing used up");
    assert_eq!(record.last.map(|last| last.generation), Some(order.generation), "it counts");
    assert_eq!(record.history.last().unwrap().kind, HistoryKind::Failed);
    assert_eq!(record.failure.as_ref().unwrap().count, 1);
}

#[test]
fn where_nothing_is_published_what_is_left_is_kept_by_itself_and_handed_to_nobody() {
    let rules = Rules { stale_ms: 100 * HOUR, ..lease() };
    let (mut a, mut store) = (Node::new("a", rules.clone()), Store::default());
    let order = a.acquire(0, &mut store);
    a.settle(0, &mut store, Event::MintLeft(fault(FaultClass::Transient), b"left".to_vec()));
    let kept = store.now().newest().unwrap().clone();
    assert_eq!((kept.generation, &kept.sealed[..]), (order.generation, &b"left"[..]));
    let view = View::default().adopt(store.now(), at(0)).unwrap();
    for ms in [0, 1, HOUR] {
        assert_eq!(view.serve(&rules, at(ms), 0), None, "not even as a stale one");
    }
    // After the back-off and the floor, the next one is minted and published as ever.
    let order = a.renew(MINUTE, &mut store);
    assert_eq!((store.generation(), order.generation), (2, 2));
    assert_eq!(store.now().current.as_ref().unwrap().sealed, b"sealed 2");
}
