//! Tokens and keys, on both stacks of cryptography.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod attacks;
mod given;
mod rfc;
mod wycheproof;
