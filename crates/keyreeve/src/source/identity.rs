//! What a credential is for: everything that decides what it can be used for, and where it comes from.
//!
//! It is part of what a credential is stored under. So two credentials share nothing unless all of it is the same, the
//! name with its tenant included; and after a change of what is asked for nobody is handed what was asked for before.
//! Two callers share a credential where both may take the one of a name: that is what the configuration says.

use std::sync::Arc;

use async_trait::async_trait;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::OneUse;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::{Before, Kept, MintError, Minting, Nature, Source};
use crate::config::{AssertionConfig, CredentialConfig, Plan, SourceConfig, TokenConfig};

/// A digest of what a credential is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity(pub [u8; 32]);

impl Identity {
    /// The identity of what a credential's source mints; `None` where the name is all, as it has always been for `apns`,
    /// `jwt`, `exec` and `http`, and has to be for `oauth2-refresh`, whose chain of refresh tokens outlives a change of
    /// what is asked for.
    #[must_use]
    pub fn of(config: &CredentialConfig) -> Option<Self> {
        let facts = facts(&config.source)?;
        let life_ms = match &config.plan {
            Plan::Fleet(rules) => rules.life_ms,
            Plan::Slot(slots) => slots.life_ms,
        };
        // An array of JSON values has one way to be written, so two lists of facts never look alike.
        let text = json!(["keyreeve identity v1", config.source.kind(), life_ms, facts]).to_string();
        Some(Self(Sha256::digest(text.as_bytes()).into()))
    }
}

/// Everything that decides what a credential is. Not the secrets: a new one for the same client is the same client.
fn facts(source: &SourceConfig) -> Option<Value> {
    Some(match source {
        SourceConfig::Apns { .. }
        | SourceConfig::Jwt { .. }
        | SourceConfig::Exec { .. }
        | SourceConfig::Http { .. }
        | SourceConfig::Oauth2Refresh(_) => return None,
        SourceConfig::Oauth2Client(token) => token_facts(token),
        SourceConfig::AzureFederated(token) => json!([token_facts(token), shown(source)]),
        SourceConfig::TokenExchange(exchange) => {
            json!([token_facts(&exchange.token), exchange.subject_type, exchange.requested_type, shown(source)])
        }
        SourceConfig::GithubApp(github) => {
            json!([github.api_url, github.app_id, github.installation_id, github.repositories, github.permissions])
        }
        // Whose key it is stands in the key.
        SourceConfig::GoogleServiceAccount(google) => json!([reference(&google.key), google.scopes, google.subject]),
        SourceConfig::AwsWebIdentity(aws) => {
            json!([aws.endpoint, aws.role_arn, aws.session_name, aws.policy, aws.policy_arns, shown(source)])
        }
        SourceConfig::GcpWorkloadIdentity(gcp) => {
            json!([gcp.sts_url, gcp.iam_url, gcp.provider, gcp.service_account, gcp.scopes, shown(source)])
        }
    })
}

fn token_facts(token: &TokenConfig) -> Value {
    json!([token.url, token.client.id, token.scopes, token.audience, token.resource])
}

/// Who is shown to be asking: where the assertion is read from, or what is signed.
fn shown(source: &SourceConfig) -> Value {
    match source.assertion() {
        None => Value::Null,
        Some(AssertionConfig::Read(found)) => json!(["read", reference(found)]),
        Some(AssertionConfig::Credential { name, signed }) => {
            let claims = signed.as_ref().map(|signed| match &signed.source {
                SourceConfig::Jwt { header, claims, algorithm, key } => {
                    json!([header, claims, algorithm.as_str(), reference(key)])
                }
                _ => Value::Null,
            });
            json!(["signed", name.as_str(), claims])
        }
    }
}

/// Where a secret is. A literal one stands for itself, as a digest.
fn reference(found: &crate::config::SecretRef) -> Value {
    use crate::config::SecretRef;

    match found {
        SecretRef::Env(name) => json!(["env", name]),
        SecretRef::File(path) => json!(["file", path.to_string_lossy()]),
        SecretRef::Binding(name) => json!(["binding", name]),
        SecretRef::NameIn(name) => json!(["name-in", name]),
        SecretRef::Literal(text) => json!(["literal", crate::hex::encode(&Sha256::digest(text.expose().as_bytes()))]),
    }
}

/// A source whose credentials are stored by what they are for.
pub(super) struct Identified {
    pub(super) source: Arc<dyn Source>,
    pub(super) identity: Identity,
}

#[async_trait]
impl Source for Identified {
    fn kind(&self) -> &'static str {
        self.source.kind()
    }

    fn nature(&self) -> Nature {
        self.source.nature()
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        self.source.mint(order, idempotency_key).await
    }

    fn identity(&self) -> Option<Identity> {
        Some(self.identity)
    }

    fn is_chained(&self) -> bool {
        self.source.is_chained()
    }

    fn uses(&self, before: Before<'_>) -> Option<OneUse> {
        self.source.uses(before)
    }

    async fn mint_after(
        &self,
        order: &Order,
        idempotency_key: &str,
        before: Before<'_>,
    ) -> Result<(Minting, Option<Kept>), MintError> {
        self.source.mint_after(order, idempotency_key, before).await
    }
}
