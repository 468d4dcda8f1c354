//! The shipped source holds, whatever happens within the bounds of each scenario.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::scenario::{Belief, Faults, Scenario, rules};

#[test]
fn three() {
    for (mode, crashes, lost, jumps, by) in [
        (Mode::Exclusive, 0, 0, 1, 2),
        (Mode::Exclusive, 0, 0, 1, 6),
        (Mode::Lease, 0, 0, 1, 2),
        (Mode::Lease, 1, 1, 1, 2),
        (Mode::Exclusive, 2, 2, 0, 0),
    ] {
        let rules = Rules { is_clock_trusted: false, ..super::holds::rules(mode) };
        let mut s = Scenario::new("three", rules.clone());
        s.offsets = vec![0; 3];
        s.has_readers = false;
        s.states_max = 8_000_000;
        s.faults = Faults { crashes, lost, jumps, ..Faults::default() };
        s.jumps = match by {
            2 => &[2],
            6 => &[6],
            _ => &[],
        };
        s.belief = Belief::AtOnce;
        println!("PROBE {mode:?} {crashes} {lost} {jumps} {by}");
        super::run::<
            keyreeve_sim::walk::machine::shipped_lifecycle::Renewer,
            keyreeve_sim::walk::machine::shipped_view::View,
        >(&s);
    }
}
