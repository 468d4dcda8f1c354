//! A client of an authorization server, for itself: client credentials (RFC 6749 4.4). With an assertion of somebody
//! else's as the client's proof it is Entra's workload identity federation.

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::secret::Secret;

use super::build::Made;
use super::token_endpoint::TokenEndpoint;
use super::{MintError, Minting, Nature, Source};
use crate::config::TokenConfig;

/// Mints with client credentials.
pub struct Oauth2Client {
    kind: &'static str,
    endpoint: TokenEndpoint,
}

impl Oauth2Client {
    pub(super) fn new(kind: &'static str, config: &TokenConfig, made: &Made<'_>) -> Result<Self, String> {
        Ok(Self { kind, endpoint: TokenEndpoint::new(config, made)? })
    }
}

#[async_trait]
impl Source for Oauth2Client {
    fn kind(&self) -> &'static str {
        self.kind
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        let grant = [("grant_type", Secret::new("client_credentials".to_owned()))];
        let granted = self.endpoint.ask(order, idempotency_key, &grant).await?;
        self.endpoint.minting(&granted)
    }
}
