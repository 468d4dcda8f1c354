//! Tokens and keys, on both stacks of cryptography.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    clippy::print_stderr
)]

mod attacks;
mod dpop;
mod given;
mod kit;
mod layer;
mod rfc;
mod wycheproof;
