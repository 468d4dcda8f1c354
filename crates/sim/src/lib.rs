//! Tests only: what checks keyreeve from outside its crates.
//!
//! - [`conformance`]: one suite that every register engine passes
//! - [`history`]: was this register history possible with one true order of events?
//! - [`chance`]: all randomness here, from a seed
//! - [`walk`]: every interleaving of a small fleet, on the shipped state machine
//! - [`replay`]: runs seeds; [`plan`]: what a seed means
//! - [`world`], [`fleet`]: nodes with the shipped driver under simulated time
//! - [`faults`], [`upstream`]: what they talk to; [`oracle`]: what must never happen

pub mod chance;
pub mod conformance;
pub mod faults;
pub mod fleet;
pub mod history;
pub mod oracle;
pub mod plan;
pub mod replay;
pub mod upstream;
pub mod walk;
pub mod world;
