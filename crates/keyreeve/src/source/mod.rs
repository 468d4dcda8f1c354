//! How credentials are minted. One file a source.
//!
//! A source is called by the holder of the lease only, with an [`Order`] that says which generation, with which times,
//! and until when. It does not retry, cache, or decide when to renew.
//!
//! - [`apns`], [`jwt`]: signed here; any node makes the same bytes
//! - [`exec`], [`http`]: the user's own script or service
//! - [`life`]: no credential without an end
//! - [`redact`]: what strangers wrote, made fit for a history
//! - [`build`]: from settings to a source

mod answer;
pub mod apns;
mod build;
pub mod exec;
pub mod http;
pub mod jwt;
pub mod life;
mod material;
pub mod redact;
mod template;

pub use build::{Tools, build};
pub use life::LifeError;
pub use material::{AwsKeys, Fields, Material};

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::time::Timestamp;

/// What a repeated call with the same order brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    /// The same bytes on every node: a local signature by a deterministic algorithm.
    Deterministic,
    /// The same credential, because the upstream honours an idempotency key.
    Idempotent,
    /// Another credential.
    Opaque,
}

/// What a source brings back.
#[derive(Clone, Debug)]
pub struct Minting {
    /// The secret.
    pub material: Material,
    /// When it was issued, if the source knows better than the order.
    pub issued_at: Option<Timestamp>,
    /// When it expires.
    pub expires_at: Timestamp,
}

/// A mint that brought nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MintError {
    /// What helps against it.
    pub class: FaultClass,
    /// Whether the upstream may have minted something all the same.
    pub may_have_minted: bool,
    /// Whether asking again in the same way would bring the same, which nobody can use.
    pub is_spent: bool,
    /// The upstream's `Retry-After`, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// For callers and the history: names the upstream's answer, never a secret.
    pub message: String,
}

impl MintError {
    /// Nothing was minted.
    #[must_use]
    pub fn nothing_minted(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, may_have_minted: false, is_spent: false, retry_after_ms: None, message: message.into() }
    }

    /// What was minted cannot be used by anybody, and the same request would bring the same again: an expired token.
    #[must_use]
    pub fn spent(class: FaultClass, message: impl Into<String>) -> Self {
        Self { is_spent: true, ..Self::in_doubt(class, message) }
    }

    /// Something may have been minted.
    #[must_use]
    pub fn in_doubt(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, may_have_minted: true, is_spent: false, retry_after_ms: None, message: message.into() }
    }
}

/// A way to mint one credential.
#[async_trait]
pub trait Source: Send + Sync {
    /// The name used in the configuration.
    fn kind(&self) -> &'static str;

    /// What a repeated call brings.
    fn nature(&self) -> Nature;

    /// Mints. Must not send anything after `order.send_by`, and must be done, or cut off, by `order.answer_by`.
    ///
    /// `idempotency_key` is the same for every call that may repeat this mint, and for no other.
    ///
    /// # Errors
    /// [`MintError`] says what helps, and whether something may have been minted.
    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError>;
}
