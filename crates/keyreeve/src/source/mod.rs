//! How credentials are minted. One file a source.
//!
//! A source is called by the holder of the lease only, with an [`Order`] that says which generation, with which times,
//! and until when. It does not retry, cache, or decide when to renew.

use std::collections::BTreeMap;

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Timestamp;
use serde::{Deserialize, Serialize};

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

/// The secret part of a credential, as stored inside the seal envelope (JSON, `v` is the layout).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Material {
    /// One token, or named fields.
    pub secret: Fields,
    /// `bearer`, `aws`, or what the source calls it.
    pub kind: String,
}

/// The secret itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fields {
    /// A single token.
    Token(Secret<String>),
    /// Several named values, such as an AWS key pair with its session token.
    Named(BTreeMap<String, Secret<String>>),
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
    /// The upstream's `Retry-After`, in milliseconds.
    pub retry_after_ms: Option<u64>,
    /// For callers and the history: names the upstream's answer, never a secret.
    pub message: String,
}

impl MintError {
    /// Nothing was minted.
    #[must_use]
    pub fn nothing_minted(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, may_have_minted: false, retry_after_ms: None, message: message.into() }
    }

    /// Something may have been minted.
    #[must_use]
    pub fn in_doubt(class: FaultClass, message: impl Into<String>) -> Self {
        Self { class, may_have_minted: true, retry_after_ms: None, message: message.into() }
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StoredMaterial {
    v: u8,
    kind: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    fields: BTreeMap<String, String>,
}

impl Drop for StoredMaterial {
    fn drop(&mut self) {
        use zeroize::Zeroize as _;
        self.token.zeroize();
        self.fields.values_mut().for_each(zeroize::Zeroize::zeroize);
    }
}

impl Material {
    const LAYOUT: u8 = 1;

    /// A bearer token.
    #[must_use]
    pub fn bearer(token: String) -> Self {
        Self { secret: Fields::Token(Secret::new(token)), kind: "bearer".into() }
    }

    /// The form that goes into the seal envelope.
    #[must_use]
    pub fn to_bytes(&self) -> Secret<Vec<u8>> {
        let (token, fields) = match &self.secret {
            Fields::Token(token) => (Some(token.expose().clone()), BTreeMap::new()),
            Fields::Named(named) => {
                (None, named.iter().map(|(name, value)| (name.clone(), value.expose().clone())).collect())
            }
        };
        let stored = StoredMaterial { v: Self::LAYOUT, kind: self.kind.clone(), token, fields };
        // Strings and maps of strings always serialize.
        Secret::new(serde_json::to_vec(&stored).unwrap_or_default())
    }

    /// Reads the form that was in a seal envelope.
    ///
    /// # Errors
    /// A sentence without any of the content.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, String> {
        let mut stored: StoredMaterial =
            serde_json::from_slice(bytes).map_err(|_| String::from("the opened envelope holds no credential"))?;
        if stored.v != Self::LAYOUT {
            return Err(format!("the sealed credential has layout {}, this keyreeve reads 1", stored.v));
        }
        let fields = std::mem::take(&mut stored.fields);
        let secret = match stored.token.take() {
            Some(token) => Fields::Token(Secret::new(token)),
            None => Fields::Named(fields.into_iter().map(|(name, value)| (name, Secret::new(value))).collect()),
        };
        Ok(Self { secret, kind: std::mem::take(&mut stored.kind) })
    }
}
