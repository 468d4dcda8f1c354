//! What the `keyreeve` binary reaches the operating system with. The binary's own business is in `main.rs`.
//!
//! - [`host`]: clocks, chance and tasks
//! - [`secrets`]: secrets by reference
//! - [`written`]: files that hold a secret
//! - [`command`]: programs, for the `exec` source
//! - [`fetch`]: HTTP to the outside
//! - [`passage`]: the same with bodies that stream, for gates

pub mod command;
pub mod passage;
pub mod written;

pub use keyreeve::system::{fetch, host, secrets};
