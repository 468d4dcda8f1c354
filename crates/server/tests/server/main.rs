//! Tests of the server's parts with real programs and real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod answers;
mod fetch;
mod scripts;
mod support;
