//! The shipped source holds, whatever happens within the bounds of each scenario.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::scenario::{Faults, Scenario, rules};

use super::holds;

#[test]
fn three() {
    let rules = Rules { is_clock_trusted: false, ..rules(Mode::Exclusive) };
    for (n, crashes, lost, jumps) in [(3, 0, 0, 1), (3, 1, 1, 1), (3, 2, 2, 0), (3, 2, 2, 1)] {
        let mut s = Scenario::new("three", rules.clone());
        s.offsets = vec![0; n];
        s.has_readers = false;
        s.states_max = 20_000_000;
        s.faults = Faults { crashes, lost, jumps, ..Faults::default() };
        s.jumps = &[6];
        s.is_jump_believed = true;
        println!("PROBE {n} {crashes} {lost} {jumps}");
        super::run::<keyreeve_sim::walk::machine::shipped_lifecycle::Renewer, keyreeve_sim::walk::machine::shipped_view::View>(&s);
    }
}
