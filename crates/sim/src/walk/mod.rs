//! An exhaustive walk through everything that can happen to a small fleet which renews one credential.
//!
//! What walks is the shipped source: `build.rs` copies `lifecycle.rs` and `view.rs` of the core, once as they are and
//! once for each seeded bug. docs/walk.md says what is covered, and with which numbers.
//!
//! - [`scenario`]: where a walk starts, and what may go wrong in it
//! - [`world`]: a fleet at one moment; [`acts`]: what can happen next
//! - [`laws`]: what must hold
//! - [`canon`]: when two states are the same
//! - [`search`]: breadth first, and the way to a violation
//! - [`machine`]: the copies of the shipped machines

pub mod acts;
pub mod canon;
pub mod laws;
pub mod machine;
pub mod scenario;
pub mod search;
pub mod world;

pub use machine::{HeldFacts, Machine, Memory, Served, Sight, Stage};
