//! One token for another (RFC 8693).

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::secret::Secret;

use super::assertion::Assertion;
use super::build::Made;
use super::token_endpoint::{Shown, TokenEndpoint};
use super::{MintError, Minting, Nature, Source};
use crate::config::ExchangeConfig;

/// RFC 8693 2.1.
pub(super) const GRANT: &str = "urn:ietf:params:oauth:grant-type:token-exchange";

/// Mints by exchanging a token.
pub struct TokenExchange {
    endpoint: TokenEndpoint,
    subject: Assertion,
    subject_type: String,
    requested_type: Option<String>,
}

impl TokenExchange {
    pub(super) fn new(config: &ExchangeConfig, made: &Made<'_>) -> Result<Self, String> {
        Ok(Self {
            endpoint: TokenEndpoint::new(&config.token, made)?,
            subject: Assertion::new(&config.subject, &made.tools.secrets, made.tools.signer)?,
            subject_type: config.subject_type.clone(),
            requested_type: config.requested_type.clone(),
        })
    }
}

#[async_trait]
impl Source for TokenExchange {
    fn kind(&self) -> &'static str {
        "token-exchange"
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        let mut grant = vec![
            ("grant_type", Secret::new(GRANT.to_owned())),
            ("subject_token_type", Secret::new(self.subject_type.clone())),
        ];
        grant.extend(self.requested_type.clone().map(|kind| ("requested_token_type", Secret::new(kind))));
        let shown = Shown { field: "subject_token", assertion: &self.subject };
        let granted = self.endpoint.ask_showing(order, idempotency_key, &grant, shown).await?;
        self.endpoint.minting(&granted)
    }
}
