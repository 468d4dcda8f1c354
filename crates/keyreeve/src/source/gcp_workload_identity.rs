//! A workload identity at Google: a token of ours for a federated one at the STS (RFC 8693), and that, where a service
//! account is named, for one of the service account (`generateAccessToken`).

use async_trait::async_trait;
use http::{Method, header};
use keyreeve_core::lifecycle::Order;
use keyreeve_core::secret::Secret;
use serde_json::json;

use super::assertion::Assertion;
use super::build::Made;
use super::redact::Redactor;
use super::token_endpoint::{Shown, TokenEndpoint, class_of};
use super::token_exchange::GRANT;
use super::upstream::{ANSWER_BYTES_MAX, COMPLAINT_BYTES_MAX, Upstream};
use super::{Fields, MintError, Minting, Nature, Source, answer};
use crate::config::GcpConfig;
use crate::port::HttpRequest;

const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
/// What the federated token is good for where a service account is acted as.
const IMPERSONATION: &str = "https://www.googleapis.com/auth/iam";

/// Mints by workload identity federation.
pub struct GcpWorkloadIdentity {
    sts: TokenEndpoint,
    assertion: Assertion,
    account: Option<Account>,
}

struct Account {
    iam: Upstream,
    url: String,
    scopes: Vec<String>,
}

impl GcpWorkloadIdentity {
    pub(super) fn new(config: &GcpConfig, made: &Made<'_>) -> Result<Self, String> {
        let scope = match &config.service_account {
            Some(_) => IMPERSONATION.to_owned(),
            None => config.scopes.join(" "),
        };
        let asked = vec![
            ("audience", format!("//iam.googleapis.com/{}", config.provider)),
            ("scope", scope),
            ("requested_token_type", ACCESS_TOKEN.to_owned()),
            ("subject_token_type", JWT.to_owned()),
        ];
        let account = config.service_account.as_ref().map(|account| Account {
            iam: made.upstream("the IAM credentials API"),
            url: format!("{}/v1/projects/-/serviceAccounts/{account}:generateAccessToken", config.iam_url),
            scopes: config.scopes.clone(),
        });
        Ok(Self {
            sts: TokenEndpoint::without_client(config.sts_url.clone(), asked, made),
            assertion: Assertion::new(&config.assertion, &made.tools.secrets, made.tools.signer)?,
            account,
        })
    }
}

#[async_trait]
impl Source for GcpWorkloadIdentity {
    fn kind(&self) -> &'static str {
        "gcp-workload-identity"
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        let grant = [("grant_type", Secret::new(GRANT.to_owned()))];
        let shown = Shown { field: "subject_token", assertion: &self.assertion };
        let federated = self.sts.minting(&self.sts.ask_showing(order, idempotency_key, &grant, shown).await?)?;
        let Some(account) = &self.account else { return Ok(federated) };
        let Fields::Token(token) = &federated.material.secret else {
            return Err(answer::wrong("the federated token is not one token"));
        };
        account.act(order, token).await
    }
}

impl Account {
    async fn act(&self, order: &Order, token: &Secret<String>) -> Result<Minting, MintError> {
        let life_s = order.expires_at.since(order.issued_at) / 1000;
        let body = json!({ "scope": self.scopes, "lifetime": format!("{life_s}s") }).to_string();
        let request = HttpRequest {
            method: Method::POST,
            url: self.url.clone(),
            via: None,
            headers: vec![
                (header::ACCEPT, Secret::new("application/json".to_owned())),
                (header::CONTENT_TYPE, Secret::new("application/json".to_owned())),
                (header::AUTHORIZATION, Secret::new(format!("Bearer {}", token.expose()))),
            ],
            body: Secret::new(body.into_bytes()),
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let redactor = Redactor::new([token.expose().as_str()]);
        let heard = self.iam.ask(order, request, &redactor).await?;
        let status = heard.answer.status;
        let document = answer::object(heard.answer.body.expose());
        if !(200..=299).contains(&status) {
            let text = |pointer: &str| document.as_ref().ok()?.0.pointer(pointer)?.as_str();
            let code = text("/error/status");
            let said: Vec<&str> = code.into_iter().chain(text("/error/message")).collect();
            let complaint = redactor.start(&said.join(": "), COMPLAINT_BYTES_MAX);
            return Err(self.iam.refused(&heard, code.and_then(class_of), &complaint));
        }
        let read = || {
            let document = document.map_err(answer::unusable)?;
            let blame =
                |error: MintError| MintError { message: format!("an answer in which {}", error.message), ..error };
            let material = answer::token("accessToken", document.0.get("accessToken")).map_err(blame)?;
            let expires_at = heard.window.expires_at("expireTime", document.0.get("expireTime"));
            let expires_at = expires_at.map_err(|error| blame(error.into()))?;
            Ok(Minting { material, issued_at: None, expires_at })
        };
        read().map_err(|error| self.iam.blame(status, error))
    }
}
