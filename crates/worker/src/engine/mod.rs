//! Stores of the platform. One file an engine.
//!
//! - [`durable`]: a register in a Durable Object's own SQLite
//! - [`r2`]: a register in a bucket, by conditional put
//! - [`kv`], [`cache`]: shared caches, which can be no register
//!
//! An engine stores and compares; it never looks into a value, decides nothing, and never retries a swap.

pub mod cache;
pub mod durable;
pub mod kv;
pub mod r2;

use std::sync::Arc;

use keyreeve::config::CacheTier;
use keyreeve::port::Shared;
use worker::Env;

/// The cache of one entry of `caches`.
///
/// # Errors
/// A sentence that names the binding.
pub fn shared(env: &Env, tier: &CacheTier) -> Result<Arc<dyn Shared>, String> {
    Ok(match tier {
        CacheTier::Cache => Arc::new(cache::EdgeCache),
        CacheTier::Kv(binding) => Arc::new(kv::Kv::new(env, binding)?),
    })
}
