//! A token that is shown to get another one: read from where it lies, or signed here, for each mint anew.

use std::sync::Arc;

use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Timestamp;
use serde_json::{Map, Value};

use super::jwt::Jwt;
use super::{Fields, MintError, Source as _};
use crate::config::{Algorithm, AssertionConfig, SecretRef, SourceConfig};
use crate::crypto::MakeSigner;
use crate::port::Secrets;

/// How long an assertion lives that is signed for one request, in milliseconds: long enough for a clock that is some
/// minutes off, and for GitHub's limit of ten minutes from issue to end.
pub(super) const LIFE_MS: u64 = 9 * 60_000;
/// How much earlier than now it says it was issued.
pub(super) const BACKDATE_MS: u64 = 60_000;

/// Where an assertion comes from.
pub(super) enum Assertion {
    /// Read for each mint: orchestrators replace such files before their tokens expire.
    Read { reference: SecretRef, secrets: Arc<dyn Secrets> },
    /// Signed for each mint.
    Signed { jwt: Jwt, life_ms: u64, backdate_ms: u64 },
}

impl Assertion {
    /// Takes the settings; a key is read here, once.
    pub(super) fn new(
        config: &AssertionConfig,
        secrets: &Arc<dyn Secrets>,
        signer: MakeSigner,
    ) -> Result<Self, String> {
        match config {
            AssertionConfig::Read(reference) => {
                Ok(Self::Read { reference: reference.clone(), secrets: Arc::clone(secrets) })
            }
            AssertionConfig::Credential { name, signed } => {
                let signed = signed.as_ref().ok_or_else(|| format!("`params.assertion`: `{name}` signs nothing"))?;
                let SourceConfig::Jwt { key, algorithm, header, claims } = &signed.source else {
                    return Err(format!("`params.assertion`: the source of `{name}` is not `jwt`"));
                };
                let key = secrets.read(key)?;
                let signer = signer(*algorithm, &key).map_err(|cause| format!("`{name}`: `key`: {cause}"))?;
                let jwt = Jwt::new(signer, header, claims)?;
                Ok(Self::Signed { jwt, life_ms: signed.life_ms, backdate_ms: signed.backdate_ms })
            }
        }
    }

    /// One that is signed with `key` for one request at a time.
    pub(super) fn signed(
        key: &Secret<Vec<u8>>,
        algorithm: Algorithm,
        key_id: Option<&str>,
        claims: &Map<String, Value>,
        signer: MakeSigner,
    ) -> Result<Self, String> {
        let signer = signer(algorithm, key).map_err(|cause| cause.to_string())?;
        let mut header = Map::new();
        header.insert("typ".into(), Value::from("JWT"));
        if let Some(key_id) = key_id {
            header.insert("kid".into(), Value::from(key_id));
        }
        Ok(Self::Signed { jwt: Jwt::new(signer, &header, claims)?, life_ms: LIFE_MS, backdate_ms: BACKDATE_MS })
    }

    /// Whether the time of signing matters.
    pub(super) const fn is_signed(&self) -> bool {
        matches!(self, Self::Signed { .. })
    }

    /// The assertion for a request that is sent at `now`.
    pub(super) async fn at(&self, order: &Order, key: &str, now: Timestamp) -> Result<Secret<String>, MintError> {
        let misconfigured = |message: String| MintError::nothing_minted(FaultClass::Misconfigured, message);
        match self {
            Self::Read { reference, secrets } => {
                let bytes =
                    secrets.read(reference).map_err(|cause| misconfigured(format!("`params.assertion`: {cause}")))?;
                let text = std::str::from_utf8(bytes.expose()).map(str::trim).unwrap_or_default();
                if text.len() < 4 || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
                    return Err(misconfigured("`params.assertion` holds no token".into()));
                }
                Ok(Secret::new(text.to_owned()))
            }
            Self::Signed { jwt, life_ms, backdate_ms } => {
                let issued_at = now.minus(*backdate_ms);
                let order = Order { issued_at, expires_at: issued_at.plus(*life_ms), ..order.clone() };
                // RFC 7523 3: `jti` is good once, so a second request needs another one.
                let minting = jwt.mint(&order, &format!("{key} {}", now.0)).await?;
                match minting.material.secret {
                    Fields::Token(token) => Ok(token),
                    Fields::Named(_) => Err(misconfigured("an assertion is one token".into())),
                }
            }
        }
    }
}
