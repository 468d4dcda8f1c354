//! The shipped source holds, whatever happens within the bounds of each scenario.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::scenario::{Faults, Scenario, rules};

use super::holds;

#[test]
fn lease_mode_holds_with_a_crash() {
    let mut scenario = Scenario::new("lease, a crash", Rules { is_clock_trusted: false, ..rules(Mode::Lease) });
    scenario.faults = Faults { crashes: 1, ..Faults::default() };
    holds(&scenario);
}
