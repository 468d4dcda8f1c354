//! When a renewal falls due, who looks first, and how long the fleet holds back after failures.

use proptest::prelude::*;

use keyreeve_core::id::{Holder, WriteId};
use keyreeve_core::record::{Credential, FaultClass, Record};
use keyreeve_core::rules::Rules;
use keyreeve_core::schedule::{RETRY_AFTER_MS_MAX, hold_ms, refresh_at, wake_at};
use keyreeve_core::time::Timestamp;

use crate::given::{HOUR, MINUTE, SECOND, START, UNIFORM, credential, distance_from_uniform, exclusive, holder};
use crate::given::{lease, op, record, wall};

fn transient(count: u32, write: WriteId) -> u64 {
    hold_ms(&exclusive(), FaultClass::Transient, count, None, write)
}

proptest! {
    #[test]
    fn each_failure_in_a_row_holds_longer_than_the_one_before_until_the_limit(
        count in 1_u32..=6, first: u64, second: u64,
    ) {
        // 2s doubled six times is 128s; the limit of these rules is 300s.
        prop_assert!(transient(count + 1, op(second)) > transient(count, op(first)));
    }

    #[test]
    fn no_hold_is_longer_than_one_and_a_half_limits_or_shorter_than_the_first(count: u32, write: u64) {
        let rules = exclusive();
        let soft = transient(count, op(write));
        prop_assert!((rules.hold_ms..=rules.hold_ms_max / 2 * 3).contains(&soft), "{soft}");
        let hard = hold_ms(&rules, FaultClass::Terminal, count, None, op(write));
        prop_assert!((rules.hard_hold_ms..=rules.hard_hold_ms_max / 2 * 3).contains(&hard), "{hard}");
        if count > 9 {
            prop_assert!(soft >= rules.hold_ms_max && hard >= rules.hard_hold_ms_max, "the limit is reached");
        }
    }

    #[test]
    fn a_retry_after_lengthens_a_hold_up_to_an_hour_and_never_shortens_it(count in 0_u32..40, write: u64, wish: u64) {
        let without = transient(count, op(write));
        let with = hold_ms(&exclusive(), FaultClass::Transient, count, Some(wish), op(write));
        prop_assert_eq!(with, without.max(wish.min(RETRY_AFTER_MS_MAX)));
    }
}

#[test]
fn a_retry_after_is_honoured_on_both_sides_of_its_limit() {
    let held = |wish| hold_ms(&exclusive(), FaultClass::Throttled, 1, Some(wish), op(1));
    assert_eq!(held(90 * SECOND), 90 * SECOND);
    assert_eq!(held(HOUR), HOUR);
    assert_eq!(held(HOUR + 1), HOUR);
    assert_eq!(held(u64::MAX), HOUR, "an upstream cannot switch a fleet off for a year");
}

#[test]
fn failures_that_will_not_pass_by_themselves_hold_longer() {
    for class in [FaultClass::Terminal, FaultClass::Misconfigured] {
        let held = hold_ms(&exclusive(), class, 1, None, op(1));
        assert!((MINUTE..=90 * SECOND).contains(&held), "{held}");
    }
    for class in [FaultClass::Transient, FaultClass::Throttled] {
        let held = hold_ms(&exclusive(), class, 1, None, op(1));
        assert!((2 * SECOND..=3 * SECOND).contains(&held), "{held}");
    }
}

#[test]
fn holds_are_jittered_over_half_their_length() {
    let drawn: Vec<u64> = (0..1000).map(|n| transient(6, op(n))).collect();
    let distance = distance_from_uniform(drawn, 64 * SECOND, 96 * SECOND);
    assert!(distance < UNIFORM, "{distance}");
}

/// When the renewal of a credential falls due that was issued and minted at the start and lives for `life_ms`.
fn due_after(rules: &Rules, life_ms: u64, write: WriteId) -> u64 {
    refresh_at(rules, START, START, START.plus(life_ms), write).since(START)
}

#[test]
fn without_jitter_a_renewal_falls_due_one_lead_before_expiry() {
    assert_eq!(due_after(&exclusive(), HOUR, op(1)), 30 * MINUTE);
    assert_eq!(due_after(&lease(), HOUR, op(1)), 50 * MINUTE);
    assert_eq!(due_after(&lease(), 12 * HOUR, op(1)), 12 * HOUR - 10 * MINUTE, "a longer life is used");
}

#[test]
fn r9_a_thousand_ids_created_in_the_same_second_renew_spread_over_the_window() {
    let rules = Rules { refresh_jitter_ms: 12 * MINUTE, ..lease() };
    let due: Vec<u64> = (0..1000).map(|n| due_after(&rules, HOUR, op(n))).collect();
    let (least, most) = (*due.iter().min().unwrap(), *due.iter().max().unwrap());
    assert!((most - least) * 5 >= HOUR - rules.lead_ms, "{least} to {most} is less than 20 % of the window");
    let distance = distance_from_uniform(due, 38 * MINUTE, 50 * MINUTE);
    assert!(distance < UNIFORM, "{distance}");
}

#[test]
fn jitter_takes_at_most_a_quarter_of_the_life() {
    let rules = Rules { refresh_jitter_ms: 10 * HOUR, ..lease() };
    let due: Vec<u64> = (0..1000).map(|n| due_after(&rules, HOUR, op(n))).collect();
    let distance = distance_from_uniform(due, 35 * MINUTE, 50 * MINUTE);
    assert!(distance < UNIFORM, "{distance}");
}

#[test]
fn jitter_is_drawn_from_what_the_upstream_allows_and_does_not_pile_up_at_its_edge() {
    // Not sooner than 20 minutes and the skew, so of the 15 minutes asked for there are 9m 58s.
    let rules = Rules { refresh_jitter_ms: 15 * MINUTE, ..exclusive() };
    let due: Vec<u64> = (0..1000).map(|n| due_after(&rules, HOUR, op(n))).collect();
    let distance = distance_from_uniform(due, 20 * MINUTE + 2 * SECOND, 30 * MINUTE);
    assert!(distance < UNIFORM, "{distance}");
}

#[test]
fn an_upstream_that_gives_less_than_was_asked_for_is_not_asked_again_at_once() {
    let rules = lease();
    assert_eq!(due_after(&rules, HOUR - SECOND, op(1)), 50 * MINUTE - SECOND, "hardly less: the same lead");
    assert_eq!(due_after(&rules, 20 * MINUTE, op(1)), 10 * MINUTE);
    assert_eq!(due_after(&rules, 20 * MINUTE - 2, op(1)), 10 * MINUTE - 1, "from here on half of it");
    assert_eq!(due_after(&rules, 10 * MINUTE + SECOND, op(1)), 5 * MINUTE + 500, "hardly more than the lead");
    assert_eq!(due_after(&rules, 10 * MINUTE, op(1)), 5 * MINUTE);
    assert_eq!(due_after(&rules, MINUTE, op(1)), 30 * SECOND);
    // A lead of more than half the life keeps its share, so that a second less does not halve it.
    let early = Rules { lead_ms: 45 * MINUTE, min_interval_ms: SECOND, ..lease() };
    assert_eq!(due_after(&early, HOUR, op(1)), 15 * MINUTE);
    assert_eq!(due_after(&early, 40 * MINUTE, op(1)), 10 * MINUTE);
    assert_eq!(due_after(&early, 4 * SECOND, op(1)), SECOND);
}

#[test]
fn a_credential_that_is_over_already_is_due_at_once() {
    let due = refresh_at(&lease(), wall(HOUR), wall(HOUR), wall(30 * MINUTE), op(1));
    assert!(due <= wall(30 * MINUTE));
    assert_eq!(due_after(&lease(), 0, op(1)), 0);
}

proptest! {
    #[test]
    fn a_renewal_never_falls_due_after_expiry_or_so_early_that_it_would_only_wait(
        life in 0..48 * HOUR, lead in 0..HOUR, jitter in 0..48 * HOUR, min in 0..2 * HOUR, write: u64,
    ) {
        let rules = Rules { lead_ms: lead, refresh_jitter_ms: jitter, min_interval_ms: min, ..exclusive() };
        let due = due_after(&rules, life, op(write));
        let latest = due_after(&Rules { refresh_jitter_ms: 0, ..rules.clone() }, life, op(write));
        prop_assert!(due <= latest && latest <= life);
        prop_assert!(latest - due <= jitter.min(life / 4));
        prop_assert!(due >= latest.min(min + rules.skew_ms), "before the upstream allows the next mint");
        prop_assert!(latest >= (life - lead.min(life)).min(life / 2), "earlier than the lead and than half the life");
    }
}

/// A record that `node-0` wrote, and its credential, due for renewal after half an hour of its hour.
fn held_by_node_0(generation: u64) -> (Record, Credential) {
    let credential = credential(generation, 0);
    let mut record = record(credential.clone());
    record.holder = Some(holder("node-0"));
    (record, credential)
}

fn spread_over(ms: u64) -> Rules {
    Rules { wake_spread_ms: ms, ..lease() }
}

fn wakes_of(rules: &Rules, generation: u64, expires_at: Option<Timestamp>) -> Vec<u64> {
    let (record, mut credential) = held_by_node_0(generation);
    credential.expires_at = expires_at.unwrap_or(credential.expires_at);
    let wake = |n: u32| wake_at(rules, &record, &credential, &holder(&format!("node-{n}")));
    (1..=1000).map(|n| wake(n).since(credential.refresh_at)).collect()
}

#[test]
fn the_last_holder_looks_first_even_after_a_restart() {
    let (record, credential) = held_by_node_0(7);
    let rules = spread_over(10 * MINUTE);
    for boot in [1, 2, u64::MAX] {
        let me = Holder { boot, ..holder("node-0") };
        assert_eq!(wake_at(&rules, &record, &credential, &me), credential.refresh_at);
    }
    assert!(wakes_of(&rules, 7, None).into_iter().all(|wake| wake >= 5 * SECOND), "the others give it a head start");
}

#[test]
fn r9_a_thousand_nodes_look_spread_over_the_window() {
    for generation in [1, 2, 3, 1_000_000] {
        let distance =
            distance_from_uniform(wakes_of(&spread_over(10 * MINUTE), generation, None), 5 * SECOND, 605 * SECOND);
        assert!(distance < UNIFORM, "generation {generation}: {distance}");
    }
}

#[test]
fn another_node_is_the_second_each_time() {
    let second = |generation| {
        let wakes = wakes_of(&spread_over(10 * MINUTE), generation, None);
        (0..wakes.len()).min_by_key(|n| wakes[*n]).unwrap()
    };
    let seconds: std::collections::BTreeSet<usize> = (1..=20).map(second).collect();
    assert!(seconds.len() >= 15, "{seconds:?}");
}

#[test]
fn a_fleet_that_is_not_to_be_spread_looks_when_the_renewal_falls_due() {
    assert!(wakes_of(&spread_over(0), 7, None).into_iter().all(|wake| wake == 0));
}

#[test]
fn nobody_looks_later_than_half_way_to_expiry_and_nobody_piles_up_there() {
    // Four minutes are left when the renewal falls due, and the spread of ten has to fit into two of them.
    let expires_at = wall(34 * MINUTE);
    let wakes = wakes_of(&spread_over(10 * MINUTE), 7, Some(expires_at));
    assert!(wakes.iter().all(|wake| *wake <= 2 * MINUTE));
    let distance = distance_from_uniform(wakes, 5 * SECOND, 2 * MINUTE);
    assert!(distance < UNIFORM, "{distance}");
    // Six seconds are left: everybody but the last holder looks after three.
    let wakes = wakes_of(&spread_over(10 * MINUTE), 7, Some(wall(30 * MINUTE + 6 * SECOND)));
    assert!(wakes.into_iter().all(|wake| wake == 3 * SECOND));
    // Expired: now.
    let wakes = wakes_of(&spread_over(10 * MINUTE), 7, Some(wall(29 * MINUTE)));
    assert!(wakes.into_iter().all(|wake| wake == 0));
}
