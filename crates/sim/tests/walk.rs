//! The renewal protocol, walked through exhaustively within stated bounds: see docs/walk.md.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stdout)]

#[path = "walk/bugs.rs"]
mod bugs;
#[path = "walk/environment.rs"]
mod environment;
#[path = "walk/holds.rs"]
mod holds;
#[path = "walk/liveness.rs"]
mod liveness;

use keyreeve_sim::walk::laws::Law;
use keyreeve_sim::walk::machine::{shipped_lifecycle::Renewer, shipped_view::View};
use keyreeve_sim::walk::scenario::Scenario;
use keyreeve_sim::walk::search::{Report, walk};
use keyreeve_sim::walk::{Machine, Sight};

/// Walks the machine and the view given, and prints what was found.
fn run<M: Machine, V: Sight>(scenario: &Scenario) -> Report {
    let report = walk::<M, V>(scenario);
    println!("{}", report.line());
    for violation in &report.violations {
        println!("  {:?}:\n{}", violation.law, violation.trace);
    }
    report
}

/// Walks the shipped code: every state is reached, and every law holds.
fn holds(scenario: &Scenario) -> Report {
    let report = run::<Renewer, View>(scenario);
    assert_eq!(report.laws(), [], "{}", scenario.name);
    assert!(report.is_complete, "{}: more than {} states", scenario.name, scenario.states_max);
    report
}

/// Walks the code given until `law` breaks.
fn breaks<M: Machine, V: Sight>(scenario: &Scenario, law: Law) -> Report {
    let scenario = Scenario { until: Some(law), ..scenario.clone() };
    let report = run::<M, V>(&scenario);
    assert!(report.laws().contains(&law), "{}: {:?} holds", scenario.name, law);
    report
}
