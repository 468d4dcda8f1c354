//! What the `keyreeve` binary reaches the operating system with. The binary's own business is in `main.rs`.
//!
//! - [`host`]: clocks, chance and tasks
//! - [`secrets`]: secrets by reference
//! - [`command`]: programs, for the `exec` source
//! - [`fetch`]: HTTP to the outside

pub mod command;

pub use keyreeve::system::{fetch, host, secrets};
