//! The library through its public face, in one binary so that it links once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod config;
mod fleet;
mod keys;
mod life;
mod material;
mod parsers;
mod redact;
mod requirements;
mod sealing;
mod signatures;
mod signed;
mod support;
