//! The binary as real processes, and the server's parts with real programs and real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

mod access;
mod agents;
mod answers;
mod artifact_cases;
mod artifacts;
mod callers;
mod certificates;
mod clock;
mod clouds;
mod commands;
mod demo;
mod doubt;
mod expiry;
mod fetch;
mod hand_out;
mod hive;
mod issuer_keys;
mod issuers;
mod jwks;
mod leader;
mod migration;
mod mtls;
mod nginx;
mod node;
mod outage;
mod policy;
mod postgres;
#[path = "../../../../tests/stores/private.rs"]
mod private;
mod refresh;
mod revocation;
mod running;
mod scripts;
mod secrets;
mod slots;
mod sources;
mod support;
mod tokens;
mod worker;
