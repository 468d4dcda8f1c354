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

use bytes::Bytes;
use keyreeve::config::CacheTier;
use keyreeve::engine::VALUE_BYTES_MAX;
use keyreeve::port::Shared;
use worker::Env;

use crate::js::{self, Unread};

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

/// What a cache keeps, read to its end.
async fn entry(stream: &web_sys::ReadableStream) -> Result<Bytes, String> {
    match js::read(stream, VALUE_BYTES_MAX).await {
        Ok(bytes) => Ok(Bytes::from(bytes)),
        Err(Unread::TooLarge) => Err(format!("an entry has more than {VALUE_BYTES_MAX} bytes")),
        Err(Unread::Broken(cause)) => Err(cause),
    }
}
