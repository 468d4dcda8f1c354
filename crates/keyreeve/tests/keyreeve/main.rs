//! Tests of the library through its public surface.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod keys;
mod life;
mod material;
mod parsers;
mod redact;
mod sealing;
mod signatures;
mod signed;
mod support;
