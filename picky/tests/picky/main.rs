//! The fakes, spoken to over real sockets; time is moved by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

mod client;
mod control;
mod faults;
mod issuer;
mod issuers;
mod requests;
mod rules;
mod score;
