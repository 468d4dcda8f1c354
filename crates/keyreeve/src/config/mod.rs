//! Every setting: one TOML schema, text in, valid values out.
//!
//! [`types`] is what the rest of the crate works with: nothing in it needs to be checked again.

pub mod types;

pub use types::*;
