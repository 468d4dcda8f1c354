//! Tests only: what checks keyreeve from outside its crates.
//!
//! - [`conformance`]: one suite that every register engine passes
//! - [`history`]: was this register history possible with one true order of events?
//! - [`chance`]: all randomness here, from a seed
//! - [`walk`]: every interleaving of a small fleet, on the shipped state machine

pub mod chance;
pub mod conformance;
pub mod history;
pub mod walk;
