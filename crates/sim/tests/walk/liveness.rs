//! Progress: what is published within which time once faults stop, and which lead absorbs how many faults.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::laws::Law;
use keyreeve_sim::walk::machine::{shipped_lifecycle::Renewer, shipped_view::View};
use keyreeve_sim::walk::scenario::{Calm, Faults, Scenario, rules};

use super::{breaks, holds};

fn recovers_within(name: &'static str, rules: Rules, ticks: u64) {
    let scenario = Scenario {
        faults: Faults { crashes: 1, lost: 1, ..Faults::default() },
        calm: Calm::Within(ticks),
        states_max: 1_000_000,
        ..Scenario::new(name, rules)
    };
    assert_eq!(ticks, scenario.rules.fault_ms() + scenario.swap_timeout);
    holds(&scenario);
    breaks::<Renewer, View>(&Scenario { calm: Calm::Within(ticks - 1), ..scenario }, Law::PublishedInTime);
}

#[test]
fn lease_mode_recovers_within_a_takeover_and_a_timeout_and_no_sooner() {
    recovers_within("live, lease", Rules { is_clock_trusted: false, ..rules(Mode::Lease) }, 3);
}

#[test]
fn exclusive_mode_recovers_within_the_window_and_a_timeout_and_no_sooner() {
    recovers_within("live, exclusive", Rules { is_clock_trusted: false, ..rules(Mode::Exclusive) }, 5);
}
