//! What the protocol takes for granted: without it, the shipped source breaks the laws named here, and no others are
//! promised. With it, in the same scenario, nothing breaks.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::laws::Law;
use keyreeve_sim::walk::machine::{shipped_lifecycle::Renewer, shipped_view::View};
use keyreeve_sim::walk::scenario::{Compare, Faults, Scenario, rules};

use super::{breaks, holds, run};

fn scenario(name: &'static str, mode: Mode) -> Scenario {
    let rules = Rules { is_clock_trusted: false, ..rules(mode) };
    Scenario { has_readers: false, ..Scenario::new(name, rules) }
}

#[test]
fn env_1_a_mint_request_delayed_without_bound_comes_too_close() {
    let bounded = scenario("env-1", Mode::Exclusive);
    holds(&bounded);
    let immortal = Scenario { is_mint_immortal: true, ..bounded };
    breaks::<Renewer, View>(&immortal, Law::MintsApart);
}

#[test]
fn env_2_more_skew_than_declared_makes_two_holders() {
    let declared = Scenario {
        offsets: vec![0, 1],
        has_readers: false,
        ..Scenario::new("env-2", Rules { skew_ms: 1, ..rules(Mode::Lease) })
    };
    holds(&declared);
    let undeclared = Scenario { rules: rules(Mode::Lease), ..declared };
    breaks::<Renewer, View>(&undeclared, Law::OneMintPerLease);
}

#[test]
fn env_3_with_unbounded_skew_a_reader_is_handed_an_expired_credential() {
    let right = Scenario { has_readers: true, ..scenario("env-3", Mode::Lease) };
    holds(&right);
    let wrong = Scenario { offsets: vec![0, -6], ..right };
    breaks::<Renewer, View>(&wrong, Law::NothingExpired);
}

fn failing_over(name: &'static str, mode: Mode, compare: Compare) -> Scenario {
    Scenario {
        faults: Faults { failovers: 1, ..Faults::default() },
        compare,
        collects_all: true,
        ticks_max: Some(7),
        ..scenario(name, mode)
    }
}

#[test]
fn env_4_an_engine_that_loses_an_acknowledged_write_breaks_exclusiveness() {
    let lossy = failing_over("env-4", Mode::Exclusive, Compare::WriteId);
    holds(&Scenario { faults: Faults::default(), ..lossy.clone() });
    let laws = run::<Renewer, View>(&lossy).laws();
    assert!(laws.contains(&Law::OneMintPerLease) && laws.contains(&Law::MintsApart), "{laws:?}");
}

#[test]
fn env_5_after_a_failover_a_counter_lets_a_stale_holder_overwrite_a_newer_generation() {
    let lossy = failing_over("env-5", Mode::Lease, Compare::Counter);
    holds(&Scenario { faults: Faults::default(), ..lossy.clone() });
    let laws = run::<Renewer, View>(&lossy).laws();
    for law in [Law::OneMintPerLease, Law::GenerationAttemptedOnce, Law::GenerationNeverBack] {
        assert!(laws.contains(&law), "{laws:?}");
    }
}

#[test]
fn env_6_after_a_failover_a_random_write_id_still_fences() {
    let report = run::<Renewer, View>(&failing_over("env-6", Mode::Lease, Compare::WriteId));
    assert!(report.is_complete);
    // Two holders mint, because the intent of the first was forgotten. But only one of them publishes.
    assert_eq!(report.laws(), [Law::OneMintPerLease, Law::GenerationAttemptedOnce]);
}

#[test]
fn env_7_a_slow_clock_needs_a_longer_takeover() {
    let wider = Rules { is_clock_trusted: false, takeover_ms: 3, ..rules(Mode::Lease) };
    let slow = Scenario { slow: Some(1), has_readers: false, ..Scenario::new("env-7", wider) };
    holds(&slow);
    let as_long = Scenario { rules: Rules { takeover_ms: 2, ..slow.rules.clone() }, ..slow };
    breaks::<Renewer, View>(&as_long, Law::OneMintPerLease);
    let real = Rules { lease_ms: 20_000, takeover_ms: 20_000, send_ms: 5000, answer_ms: 10_000, ..rules(Mode::Lease) };
    assert!(real.check().iter().any(|found| found.field == "takeover"), "{:?}", real.check());
}

/// Replay mode with a lease of 2 ticks, and requests that live for up to 4.
fn outlived(failures: u8) -> Scenario {
    let short = Rules { answer_ms: 3, is_clock_trusted: false, ..rules(Mode::Replay) };
    assert!(short.check().iter().any(|found| found.field == "lease"), "{:?}", short.check());
    Scenario { faults: Faults { failures, ..Faults::default() }, has_readers: false, ..Scenario::new("env-8", short) }
}

#[test]
fn env_8_a_request_that_outlives_its_lease_and_a_failed_replay_let_two_mints_come_close() {
    breaks::<Renewer, View>(&outlived(1), Law::MintsApart);
    let longer = Rules { lease_ms: 4, takeover_ms: 4, lead_ms: 5, life_ms: 11, ..outlived(1).rules };
    holds(&Scenario { rules: longer, ..outlived(1) });
}

#[test]
fn env_9_a_request_that_outlives_its_lease_is_harmless_without_failures() {
    holds(&Scenario { name: "env-9", ..outlived(0) });
}
