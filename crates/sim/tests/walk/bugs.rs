//! Each bug is seeded into a copy of the shipped source by `build.rs`. The walk must find it, in a scenario in which
//! the shipped source holds.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::laws::Law;
use keyreeve_sim::walk::machine::{self, shipped_lifecycle::Renewer, shipped_view::View};
use keyreeve_sim::walk::scenario::{Compare, Faults, Scenario, rules};
use keyreeve_sim::walk::{Machine, Sight};

use super::{breaks, holds};

/// Two holders without readers that trust no wall clock.
fn scenario(name: &'static str, mode: Mode) -> Scenario {
    let rules = Rules { is_clock_trusted: false, ..rules(mode) };
    Scenario { has_readers: false, ..Scenario::new(name, rules) }
}

/// Two holders whose clocks differ by as much as the operator vouches for.
fn skewed(name: &'static str, mode: Mode, offset: i64) -> Scenario {
    let rules = Rules { skew_ms: 1, ..rules(mode) };
    Scenario { has_readers: false, offsets: vec![0, offset], ..Scenario::new(name, rules) }
}

/// The bug breaks `law`; without it, in the same scenario, nothing breaks.
fn only_the_bug_breaks<M: Machine, V: Sight>(scenario: &Scenario, law: Law) {
    assert_eq!(scenario.rules.check(), [], "{}", scenario.name);
    holds(scenario);
    breaks::<M, V>(scenario, law);
}

#[test]
fn bug_01_publishing_without_the_compare_takes_a_generation_back() {
    use machine::bug_01_publication_is_forced_through_after_a_conflict as bug;
    only_the_bug_breaks::<bug::Renewer, View>(&scenario("bug-01", Mode::Lease), Law::GenerationNeverBack);
}

#[test]
fn bug_02_an_intent_that_is_only_a_lease_lets_two_mints_come_close() {
    use machine::bug_02_intent_is_a_lease_only as bug;
    only_the_bug_breaks::<bug::Renewer, View>(&scenario("bug-02", Mode::Exclusive), Law::MintsApart);
}

#[test]
fn bug_03_a_lease_without_a_margin_for_clocks_has_two_holders() {
    use machine::bug_03_lease_expires_by_the_wall_clock_without_margin as bug;
    only_the_bug_breaks::<bug::Renewer, View>(&skewed("bug-03", Mode::Lease, 1), Law::OneMintPerLease);
}

#[test]
fn bug_04_a_lease_measured_from_the_answer_has_two_holders() {
    use machine::bug_04_lease_is_measured_from_the_answer as bug;
    let scenario = Scenario { forgets_late: false, ..scenario("bug-04", Mode::Lease) };
    only_the_bug_breaks::<bug::Renewer, View>(&scenario, Law::OneMintPerLease);
}

#[test]
fn bug_05_a_lost_answer_taken_for_success_makes_two_holders() {
    use machine::bug_05_lost_answer_is_taken_for_success as bug;
    let mut scenario = scenario("bug-05", Mode::Lease);
    scenario.faults = Faults { lost: 1, ..Faults::default() };
    only_the_bug_breaks::<bug::Renewer, View>(&scenario, Law::OneMintPerLease);
}

#[test]
fn bug_06_a_holder_without_a_boot_number_takes_its_former_life_for_itself() {
    use machine::bug_06_holder_has_no_boot_number as bug;
    let mut scenario = Scenario { is_dead_named: true, ..scenario("bug-06", Mode::Exclusive) };
    scenario.faults = Faults { crashes: 1, ..Faults::default() };
    only_the_bug_breaks::<bug::Renewer, View>(&scenario, Law::MintsApart);
}

#[test]
fn bug_07_a_reader_without_a_margin_is_handed_an_expired_credential() {
    use machine::bug_07_reader_has_no_margin as bug;
    let mut scenario = Scenario { has_readers: true, ..skewed("bug-07", Mode::Lease, -1) };
    scenario.rules.is_clock_trusted = false;
    only_the_bug_breaks::<Renewer, bug::View>(&scenario, Law::NothingExpired);
}

#[test]
fn bug_08_a_timed_out_mint_retried_at_once_comes_too_close() {
    use machine::bug_08_timed_out_mint_is_retried_at_once as bug;
    let mut scenario = scenario("bug-08", Mode::Exclusive);
    scenario.faults = Faults { lost: 1, ..Faults::default() };
    only_the_bug_breaks::<bug::Renewer, View>(&scenario, Law::MintsApart);
}

#[test]
fn bug_09_a_mint_sent_after_its_deadline_comes_too_close() {
    use machine::bug_09_mint_leaves_after_its_deadline as bug;
    let scenario = Scenario { forgets_late: false, ..scenario("bug-09", Mode::Exclusive) };
    only_the_bug_breaks::<bug::Renewer, View>(&scenario, Law::MintsApart);
}

#[test]
fn bug_10_spacing_counted_from_the_intent_lets_two_mints_come_close() {
    use machine::bug_10_spacing_is_counted_from_the_intent as bug;
    only_the_bug_breaks::<bug::Renewer, View>(&scenario("bug-10", Mode::Exclusive), Law::MintsApart);
}

#[test]
fn bug_11_a_reader_that_takes_any_generation_goes_back() {
    use machine::bug_11_reader_takes_any_generation as bug;
    let scenario = Scenario { has_readers: true, has_stale_reads: true, ..scenario("bug-11", Mode::Lease) };
    only_the_bug_breaks::<Renewer, bug::View>(&scenario, Law::ReaderNeverBack);
}

#[test]
fn bug_12_a_failed_replay_recorded_as_never_minted_lets_two_mints_come_close() {
    use machine::bug_12_failed_replay_is_recorded_as_never_minted as bug;
    let mut scenario = scenario("bug-12", Mode::Replay);
    scenario.faults = Faults { failures: 1, ..Faults::default() };
    only_the_bug_breaks::<bug::Renewer, View>(&scenario, Law::MintsApart);
}

#[test]
fn bug_13_an_engine_without_a_compare_attempts_a_generation_twice() {
    let scenario = scenario("bug-13", Mode::Lease);
    holds(&scenario);
    let blind = Scenario { compare: Compare::Nothing, ..scenario };
    breaks::<Renewer, View>(&blind, Law::GenerationAttemptedOnce);
}

#[test]
fn bug_14_without_a_rate_floor_a_fast_clock_mints_in_a_loop() {
    use machine::bug_14_no_rate_floor as bug;
    let scenario = Scenario { offsets: vec![0, 6], ..scenario("bug-14", Mode::Lease) };
    only_the_bug_breaks::<bug::Renewer, View>(&scenario, Law::RateFloor);
}
