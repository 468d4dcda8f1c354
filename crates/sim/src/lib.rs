//! Tests only: what checks keyreeve from outside its crates.
//!
//! - [`conformance`]: one suite that every register engine passes
//! - [`history`]: was this register history possible with one true order of events?
//! - [`chance`]: all randomness here, from a seed
//!
//! With the feature `fleets`, which a Worker that checks its engines leaves out:
//!
//! - [`walk`]: every interleaving of a small fleet, on the shipped state machine
//! - [`replay`]: runs seeds; [`plan`]: what a seed means
//! - [`world`], [`fleet`]: nodes with the shipped driver under simulated time
//! - [`faults`], [`upstream`]: what they talk to; [`oracle`]: what must never happen

pub mod chance;
pub mod conformance;
#[cfg(feature = "fleets")]
pub mod faults;
#[cfg(feature = "fleets")]
pub mod fleet;
pub mod history;
#[cfg(feature = "fleets")]
pub mod oracle;
#[cfg(feature = "fleets")]
pub mod plan;
#[cfg(feature = "fleets")]
pub mod replay;
#[cfg(feature = "fleets")]
pub mod upstream;
#[cfg(feature = "fleets")]
pub mod walk;
#[cfg(feature = "fleets")]
pub mod world;
