//! Stores behind the register port. One file an engine.
//!
//! - [`memory`]: this process only
//! - [`remote`]: the register behind a keyreeve Worker; [`wire`] is what the two say to each other
//! - `postgres`: a table in PostgreSQL (feature `postgres`)
//! - `sqlite`: one file that all processes of a machine share (feature `native`)
//! - [`table`]: schema and statements of the engines on SQLite, here and in a Durable Object
//! - `switched`: faults on purpose around any engine, for demonstrations (feature `native`)
//!
//! An engine stores and compares; it never looks into a value, decides nothing, and never retries a swap.
//! `changes` tells who wrote to a SQLite file. `lane` is what engines with a blocking client share.

#[cfg(feature = "native")]
mod changes;
#[cfg(feature = "native")]
mod lane;
pub mod memory;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod remote;
#[cfg(feature = "native")]
pub mod sqlite;
#[cfg(feature = "native")]
pub mod switched;
pub mod table;
pub mod wire;

pub use memory::check_value;

/// The largest value that an engine takes or hands out, in bytes.
pub const VALUE_BYTES_MAX: usize = keyreeve_core::record::RECORD_BYTES_MAX;
