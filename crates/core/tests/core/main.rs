//! What the core claims, in the words of its callers: one test binary, one module a subject.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod cache;
mod crypto;
mod fleet;
mod given;
mod issuer;
mod issuer_walk;
mod json;
mod operator;
mod policy;
mod quiet;
mod record;
mod renewal;
mod revocation;
mod revoked;
mod rules;
mod schedule;
mod seal;
mod slots;
mod token;
mod view;
mod waiting;
