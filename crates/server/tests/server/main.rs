//! The binary as real processes: started, asked over real sockets, killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

mod callers;
mod demo;
mod leader;
mod node;
