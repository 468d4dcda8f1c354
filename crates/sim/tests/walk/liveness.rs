//! Progress: what is published within which time once faults stop, and which lead absorbs how many faults.

use keyreeve_core::rules::{Mode, Rules};
use keyreeve_sim::walk::laws::Law;
use keyreeve_sim::walk::machine::{shipped_lifecycle::Renewer, shipped_view::View};
use keyreeve_sim::walk::scenario::{Calm, Faults, Scenario, rules};

use super::{breaks, holds};

fn calming(name: &'static str, rules: Rules) -> Scenario {
    Scenario {
        faults: Faults { crashes: 1, lost: 1, ..Faults::default() },
        states_max: 1_000_000,
        ..Scenario::new(name, rules)
    }
}

#[test]
fn probe() {
    for mode in [Mode::Lease, Mode::Exclusive, Mode::Replay] {
        for trusted in [false, true] {
            for bound in 2..9 {
                let mut s = calming("probe", Rules { is_clock_trusted: trusted, ..rules(mode) });
                s.calm = Calm::Within(bound);
                let r = super::run::<Renewer, View>(&s);
                println!("PROBE {mode:?} {trusted} {bound} {:?}", r.laws());
                if r.laws().is_empty() { break; }
            }
        }
    }
}
