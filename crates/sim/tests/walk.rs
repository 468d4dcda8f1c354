//! The renewal protocol, walked through exhaustively within stated bounds.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

use keyreeve_core::rules::Mode;
use keyreeve_sim::walk::machine::{shipped_lifecycle::Renewer, shipped_view::View};
use keyreeve_sim::walk::scenario::{Faults, Scenario, rules};
use keyreeve_sim::walk::search::{Report, walk};

fn shipped(scenario: &Scenario) -> Report {
    assert_eq!(scenario.rules.check(), [], "{}", scenario.name);
    let report = walk::<Renewer, View>(scenario);
    println!("{}", report.line());
    for violation in &report.violations {
        println!("{:?}\n{}", violation.law, violation.trace);
    }
    assert!(report.violations.is_empty());
    assert!(report.is_complete);
    report
}

#[test]
fn lease_mode_holds_with_a_crash() {
    let mut scenario = Scenario::new("lease, a crash", rules(Mode::Lease));
    scenario.faults = Faults { crashes: 1, ..Faults::default() };
    shipped(&scenario);
}
