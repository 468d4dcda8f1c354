//! How credentials are minted. One file a source.
//!
//! A source is called by the holder of the lease only, with an [`Order`] that says which generation, with which times,
//! and until when. It does not retry, cache, or decide when to renew.
//!
//! - [`apns`], [`jwt`]: signed here; any node makes the same bytes
//! - [`exec`], [`http`]: the user's own script or service
//! - [`oauth2_client`], [`oauth2_refresh`], [`token_exchange`]: authorization servers
//! - [`github_app`], [`google_service_account`], [`aws_web_identity`], [`gcp_workload_identity`]: clouds, by their own protocols
//! - [`life`]: no credential without an end
//! - [`redact`]: what strangers wrote, made fit for a history
//! - [`build`]: from settings to a source

mod answer;
pub mod apns;
mod assertion;
pub mod aws_web_identity;
mod build;
pub mod exec;
pub mod gcp_workload_identity;
pub mod github_app;
pub mod google_service_account;
pub mod http;
mod identity;
pub mod jwt;
pub mod life;
mod material;
pub mod oauth2_client;
pub mod oauth2_refresh;
pub mod redact;
mod template;
mod token_endpoint;
pub mod token_exchange;
mod upstream;
mod xml;

pub use build::{Tools, build};
pub use identity::Identity;
pub use life::LifeError;
pub use material::{AwsKeys, Fields, Kept, Material};

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::{FaultClass, OneUse};
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

/// What a chained mint goes on from.
#[derive(Clone, Copy, Debug, Default)]
pub struct Before<'a> {
    /// What the mint of the newest published generation has left.
    pub kept: Option<&'a Kept>,
    /// Where an operator has said since that a mint in doubt used up what it used: `kept` counts no more as something to
    /// use, and neither do these.
    pub spent: Option<&'a [OneUse]>,
    /// What the intent of this mint says that it uses up.
    pub announced: Option<OneUse>,
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
    /// What came for the next mint all the same. It is committed, and then nothing is in doubt.
    pub left: Option<Kept>,
}

impl MintError {
    /// Nothing was minted.
    #[must_use]
    pub fn nothing_minted(class: FaultClass, message: impl Into<String>) -> Self {
        Self { may_have_minted: false, ..Self::in_doubt(class, message) }
    }

    /// What was minted cannot be used by anybody, and the same request would bring the same again: an expired token.
    #[must_use]
    pub fn spent(class: FaultClass, message: impl Into<String>) -> Self {
        Self { is_spent: true, ..Self::in_doubt(class, message) }
    }

    /// Something may have been minted.
    #[must_use]
    pub fn in_doubt(class: FaultClass, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { class, may_have_minted: true, is_spent: false, retry_after_ms: None, message, left: None }
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

    /// What its credentials are for, where that is part of what they are stored under: a change of it starts anew, and
    /// nobody is handed what was minted for something else. `None` where the name is all.
    fn identity(&self) -> Option<Identity> {
        None
    }

    /// Whether each mint needs what the one before it has left: then it is called by [`mint_after`](Self::mint_after).
    fn is_chained(&self) -> bool {
        false
    }

    /// What the next mint would use up that is good for one use. It is written into the intent of that mint, and the mint
    /// uses nothing else. `None` where it uses nothing up, or cannot say; then the mint says why.
    fn uses(&self, before: Before<'_>) -> Option<OneUse> {
        let _ = before;
        None
    }

    /// As [`mint`](Self::mint), with what was left before; and leaves something for the next one, which is sealed and
    /// committed together with the credential.
    ///
    /// # Errors
    /// As [`mint`](Self::mint).
    async fn mint_after(
        &self,
        order: &Order,
        idempotency_key: &str,
        before: Before<'_>,
    ) -> Result<(Minting, Option<Kept>), MintError> {
        let _ = before;
        self.mint(order, idempotency_key).await.map(|minting| (minting, None))
    }
}
