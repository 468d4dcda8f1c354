//! The shipped source holds, whatever happens within the bounds of each scenario.

use std::collections::BTreeSet;

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::laws::minted_at;
use keyreeve_sim::walk::machine::{shipped_lifecycle::Renewer, shipped_view::View};
use keyreeve_sim::walk::scenario::{Belief, Faults, Scenario, rules};
use keyreeve_sim::walk::search::walk_showing;
use keyreeve_sim::walk::world::World;

use super::holds;

const MODES: [Mode; 3] = [Mode::Lease, Mode::Exclusive, Mode::Replay];

/// Two holders without readers that trust no wall clock.
fn observed(name: &'static str, mode: Mode) -> Scenario {
    let rules = Rules { is_clock_trusted: false, ..rules(mode) };
    Scenario { has_readers: false, ..Scenario::new(name, rules) }
}

/// Two holders without readers whose clocks differ by as much as the operator vouches for.
fn walled(name: &'static str, mode: Mode, offset: i64) -> Scenario {
    let rules = Rules { skew_ms: 1, lead_ms: 5, life_ms: if mode == Mode::Replay { 9 } else { 7 }, ..rules(mode) };
    Scenario { has_readers: false, offsets: vec![0, offset], ..Scenario::new(name, rules) }
}

/// Three holders with a bound on how much goes wrong.
fn three(name: &'static str, mode: Mode, faults_max: u8) -> Scenario {
    Scenario {
        offsets: vec![0; 3],
        faults: Faults { crashes: 2, lost: 2, jumps: 1, ..Faults::default() },
        faults_max,
        jumps: &[2],
        belief: Belief::AtOnce,
        ..observed(name, mode)
    }
}

/// `KEYREEVE_WALK=deep` walks through the larger worlds of docs/walk.md.
fn is_deep() -> bool {
    std::env::var("KEYREEVE_WALK").is_ok_and(|depth| depth == "deep")
}

#[test]
fn three_holders_two_crashes_two_lost_answers_and_clock_jumps() {
    let scenario = if is_deep() {
        three("three holders, deep", Mode::Exclusive, u8::MAX)
    } else {
        three("three holders", Mode::Exclusive, 3)
    };
    let report = holds(&scenario);
    let tally = report.tally;
    assert!(report.states > 1_000_000, "{}", report.line());
    assert!(tally.fenced > 10_000 && tally.takeovers > 100_000, "{}", report.line());
    assert!(tally.late_mints > 10_000 && tally.stray_mints > 10_000, "{}", report.line());
    assert!(tally.swaps_unknown > 10_000 && tally.mints_unknown > 10_000, "{}", report.line());
}

#[test]
fn every_mode_holds_with_any_two_faults() {
    for mode in MODES {
        let scenario = Scenario {
            faults: Faults { crashes: 2, lost: 2, failures: 2, refusals: 1, ..Faults::default() },
            faults_max: 2,
            ..observed("any two faults", mode)
        };
        let report = holds(&scenario);
        assert!(report.tally.fenced > 0 && report.tally.takeovers > 0 && report.tally.late_mints > 0);
        assert_eq!(report.tally.replays > 0, mode == Mode::Replay);
    }
}

#[test]
fn every_mode_holds_with_walled_proofs_and_clocks_that_differ_by_the_skew() {
    for mode in MODES {
        for offset in [1, -1] {
            let scenario =
                Scenario { faults: Faults { crashes: 1, ..Faults::default() }, ..walled("walled", mode, offset) };
            assert_eq!(scenario.rules.check(), []);
            holds(&scenario);
        }
    }
}

#[test]
fn clocks_that_nobody_vouches_for_may_be_off_by_any_amount() {
    for mode in MODES {
        let scenario = Scenario {
            offsets: vec![0, 6],
            faults: Faults { crashes: 1, jumps: 1, ..Faults::default() },
            jumps: &[-6],
            belief: Belief::AtOnce,
            ..observed("no clock is trusted", mode)
        };
        holds(&scenario);
    }
}

#[test]
fn a_step_of_the_clock_that_is_put_right_harms_neither_holders_nor_readers() {
    for (mode, has_readers) in [(Mode::Lease, false), (Mode::Exclusive, false), (Mode::Lease, true)] {
        let mut scenario = Scenario {
            has_readers,
            faults: Faults { jumps: 1, ..Faults::default() },
            jumps: &[6, -6],
            ..observed("a step that is ridden over", mode)
        };
        // Holders go by their walls; readers by both clocks whatever is vouched for.
        scenario.rules.is_clock_trusted = !has_readers;
        holds(&scenario);
    }
}

#[test]
fn readers_go_forward_through_a_handover() {
    for offset in [0, 1] {
        let mut scenario = Scenario { has_readers: true, ..observed("handover", Mode::Lease) };
        scenario.offsets = vec![0, offset];
        scenario.rules = Rules { handover_ms: 1, skew_ms: offset.unsigned_abs(), ..scenario.rules };
        assert_eq!(scenario.rules.check(), []);
        holds(&scenario);
    }
}

#[test]
fn stale_reads_cost_time_and_never_correctness() {
    let scenario = Scenario {
        has_stale_reads: true,
        faults: Faults { crashes: 1, lost: 1, ..Faults::default() },
        ..observed("stale reads", Mode::Exclusive)
    };
    holds(&scenario);
}

#[test]
fn verdicts_and_early_renewals_break_nothing() {
    for mode in MODES {
        let scenario =
            Scenario { faults: Faults { lost: 1, verdicts: 2, ..Faults::default() }, ..observed("an operator", mode) };
        let report = holds(&scenario);
        assert!(report.tally.operated > 0);
    }
}

/// What of a state both ways of hashing must agree on.
fn outline(world: &World<Renewer, View>, mode: Mode) -> [u64; 8] {
    let back = |at: u64, most: u64| at.max(world.at - most).wrapping_sub(world.at);
    // In lease mode nobody asks when the upstream minted last, only when what is published was minted.
    let minted = world.upstream.last_mint_at.filter(|_| mode != Mode::Lease);
    let mut outline = [world.at, 0, 0, 0, 0, 0, 0, minted.map_or(9, |at| back(at, 2))];
    if let Some(record) = &world.register {
        outline[1] = 1 + u64::from(record.failure.is_some());
        outline[2] = record.newest().map_or(9, |newest| back(minted_at(newest), 2));
        outline[3] = record.newest().map_or(9, |newest| back(newest.refresh_at.0, 0));
        outline[4] = record.intent.as_ref().map_or(9, |intent| back(intent.started_at.0, 4));
        outline[5] = record.intent.as_ref().map_or(9, |intent| u64::from(intent.is_replay));
        outline[6] = record.last.map_or(9, |last| back(last.at_most.0, 2));
    }
    outline
}

#[test]
fn states_that_are_taken_for_the_same_lead_to_the_same_registers_and_mints() {
    // Some with faults, and some without, but for longer than every wait of theirs.
    for (mode, faults, ticks) in [
        (Mode::Lease, Faults { crashes: 1, ..Faults::default() }, 3),
        (Mode::Exclusive, Faults { lost: 1, ..Faults::default() }, 3),
        (Mode::Replay, Faults { failures: 1, ..Faults::default() }, 3),
        (Mode::Lease, Faults::default(), 5),
        (Mode::Exclusive, Faults::default(), 6),
    ] {
        let reduced = Scenario { rules: rules(mode), faults, ticks_max: Some(ticks), ..observed("reduced", mode) };
        let raw = Scenario { name: "raw", is_raw: true, ..reduced.clone() };
        let [few, all] = [reduced, raw].map(|scenario| {
            let mut seen = BTreeSet::new();
            let report = walk_showing::<Renewer, View>(&scenario, &mut |world| {
                seen.insert(outline(world, mode));
            });
            println!("{}, {} outlines", report.line(), seen.len());
            assert!(report.is_complete && report.laws().is_empty());
            (report.states, seen)
        });
        assert!(few.0 * 3 < all.0, "{} states are hardly fewer than {}", few.0, all.0);
        let apart: Vec<_> = few.1.symmetric_difference(&all.1).take(5).collect();
        assert!(apart.is_empty(), "{mode:?}: {apart:?}");
    }
}
