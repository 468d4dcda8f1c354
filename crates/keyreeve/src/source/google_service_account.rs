//! A Google service account with a key: a signed assertion for an access token (RFC 7523 2.1).

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::secret::Secret;
use serde_json::{Map, Value};

use super::assertion::Assertion;
use super::build::Made;
use super::token_endpoint::{Shown, TokenEndpoint};
use super::{MintError, Minting, Nature, Source, answer};
use crate::config::{Algorithm, GoogleConfig};

/// RFC 7523 2.1.
const GRANT: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";
const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";

/// Mints as a service account.
pub struct GoogleServiceAccount {
    endpoint: TokenEndpoint,
    assertion: Assertion,
}

impl GoogleServiceAccount {
    pub(super) fn new(config: &GoogleConfig, made: &Made<'_>) -> Result<Self, String> {
        let file = made.secret("key", &config.key)?;
        let document = answer::object(file.expose())
            .map_err(|what| format!("`key`: {what}\nhint: it is the JSON file that Google gave for the key, whole"))?;
        let member = |name: &str| {
            let text = document.0.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
            text.ok_or_else(|| format!("`key`: the key file has no `{name}`"))
        };
        if document.0.get("type").is_some_and(|kind| kind != "service_account") {
            return Err("`key`: the key file is not that of a service account: its `type` is another one".into());
        }
        let email = member("client_email")?;
        let key = Secret::new(member("private_key")?.as_bytes().to_vec());
        let key_id = document.0.get("private_key_id").and_then(Value::as_str);
        let url = document.0.get("token_uri").and_then(Value::as_str).unwrap_or(TOKEN_URL);
        super::http::check_plain_url("token_uri", url).map_err(|cause| format!("`key`: {cause}"))?;
        let mut claims = Map::new();
        let mut claim = |name: &str, value: &str| claims.insert(name.to_owned(), Value::from(value));
        claim("iss", email);
        claim("sub", config.subject.as_deref().unwrap_or(email));
        claim("scope", &config.scopes.join(" "));
        claim("aud", url);
        claim("iat", "{iat}");
        claim("exp", "{exp}");
        let assertion = Assertion::signed(&key, Algorithm::Rs256, key_id, &claims, made.tools.signer)
            .map_err(|cause| format!("`key`: `private_key`: {cause}"))?;
        Ok(Self { endpoint: TokenEndpoint::without_client(url.to_owned(), Vec::new(), made), assertion })
    }
}

#[async_trait]
impl Source for GoogleServiceAccount {
    fn kind(&self) -> &'static str {
        "google-service-account"
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        let grant = [("grant_type", Secret::new(GRANT.to_owned()))];
        let shown = Shown { field: "assertion", assertion: &self.assertion };
        let granted = self.endpoint.ask_showing(order, idempotency_key, &grant, shown).await?;
        self.endpoint.minting(&granted)
    }
}
