//! The shipped source holds, whatever happens within the bounds of each scenario.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::scenario::{Faults, Scenario, rules};

use super::holds;

#[test]
fn three() {
    let rules = Rules { is_clock_trusted: false, ..rules(Mode::Exclusive) };
    for (n, crashes, lost) in [(3, 0, 0), (3, 1, 0), (3, 0, 1), (3, 1, 1)] {
        let mut s = Scenario::new("three", rules.clone());
        s.offsets = vec![0; n];
        s.has_readers = false;
        s.states_max = 3_000_000;
        s.faults = Faults { crashes, lost, ..Faults::default() };
        println!("PROBE {n} {crashes} {lost}");
        super::run::<keyreeve_sim::walk::machine::shipped_lifecycle::Renewer, keyreeve_sim::walk::machine::shipped_view::View>(&s);
    }
}
