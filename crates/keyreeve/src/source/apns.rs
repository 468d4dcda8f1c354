//! Apple's push provider token: an ES256 JWT with `iss` and `iat`, and no `exp`.
//!
//! Apple counts its life from `iat` (60 minutes) and its changes (no more than one in 20 minutes); both are the rules'
//! business. developer.apple.com, "Establishing a token-based connection to APNs".

use std::sync::Arc;

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::secret::Secret;
use serde_json::{Map, Value};

use super::{Material, MintError, Minting, Nature, Source};
use crate::crypto::{Signer, jws, signer};
use keyreeve_core::jwt::Algorithm;

/// Apple's identifiers of teams and keys have this many characters.
const ID_BYTES: usize = 10;

/// Mints Apple's push provider tokens.
pub struct Apns {
    signer: Arc<dyn Signer>,
    header: Map<String, Value>,
    team_id: String,
}

impl Apns {
    /// Takes the contents of the `.p8` file, the team and the key id.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn new(key: &Secret<Vec<u8>>, team_id: &str, key_id: &str) -> Result<Self, String> {
        for (name, id) in [("team_id", team_id), ("key_id", key_id)] {
            if id.len() != ID_BYTES || !id.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit()) {
                return Err(format!("`{name}` must be {ID_BYTES} characters of A-Z and 0-9, not `{id}`"));
            }
        }
        let signer = signer(Algorithm::Es256, key).map_err(|cause| format!("`key`: {cause}"))?;
        let header = [("alg", Algorithm::Es256.as_str()), ("kid", key_id)];
        let header = header.into_iter().map(|(name, value)| (name.to_owned(), Value::from(value))).collect();
        Ok(Self { signer, header, team_id: team_id.to_owned() })
    }
}

#[async_trait]
impl Source for Apns {
    fn kind(&self) -> &'static str {
        "apns"
    }

    fn nature(&self) -> Nature {
        Nature::Deterministic
    }

    async fn mint(&self, order: &Order, _idempotency_key: &str) -> Result<Minting, MintError> {
        let claims = [("iss", Value::from(self.team_id.as_str())), ("iat", Value::from(order.issued_at.seconds()))];
        let claims = claims.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        let token = jws::compact(self.signer.as_ref(), &self.header, &claims)
            .await
            .map_err(|cause| MintError::nothing_minted(FaultClass::Misconfigured, cause.to_string()))?;
        Ok(Minting { material: Material::bearer(token), issued_at: None, expires_at: order.expires_at })
    }
}
