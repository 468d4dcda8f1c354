//! Progress: what is published within which time once faults stop, and which lead absorbs how many faults.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::laws::Law;
use keyreeve_sim::walk::machine::{shipped_lifecycle::Renewer, shipped_view::View};
use keyreeve_sim::walk::scenario::{Calm, Faults, Scenario, rules};

use super::{breaks, holds};

/// Faults stop at any moment: `ticks` later a valid credential is published, and not always a tick sooner.
fn recovers_within(name: &'static str, rules: &Rules, ticks: u64) {
    for faults in [Faults { crashes: 1, ..Faults::default() }, Faults { lost: 1, ..Faults::default() }] {
        let scenario = Scenario {
            faults,
            has_readers: false,
            calm: Calm::Within(ticks),
            ..Scenario::new(name, rules.clone())
        };
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
fn replay_mode_recovers_within_a_takeover_and_a_rest_and_no_sooner() {
    recovers_within("live, replay", &Rules { life_ms: 12, ..observed(Mode::Replay) }, 4);
}

#[test]
fn exclusive_mode_with_trusted_clocks_recovers_within_the_window_and_no_sooner() {
    recovers_within("live, exclusive, walled", &rules(Mode::Exclusive), 4);
}

/// The least lead with which no live reader is ever without a credential, whatever happens when.
fn least_lead(mode: Mode, nodes: usize, skew_ms: u64, faults: Faults) -> u64 {
    let is_enough = |lead_ms: &u64| {
        let rules = Rules { skew_ms, lead_ms: *lead_ms, life_ms: lead_ms + 4, is_clock_trusted: false, ..rules(mode) };
        let scenario = Scenario {
            faults,
            offsets: vec![0; nodes],
            calm: Calm::Always,
            ..Scenario::new("lead", rules)
        };
        let report = super::run::<Renewer, View>(&scenario);
        report.laws().is_empty() && report.is_complete
    };
    (1..30).find(is_enough).unwrap()
}

#[test]
fn probe() {
    for mode in [Mode::Lease, Mode::Exclusive] {
        for skew in [0, 1] {
            for faults in [Faults::default(), Faults { crashes: 1, ..Faults::default() }, Faults { lost: 1, ..Faults::default() },
               Faults { lost: 2, ..Faults::default() }] {
            println!("PROBE {mode:?} d={skew} {faults:?} lead {}", least_lead(mode, 2, skew, faults));
            }
        }
    }
}
