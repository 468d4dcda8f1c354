//! An installation of a GitHub App: an assertion of the app for a token of the installation.
//!
//! GitHub refuses assertions from the future and those that live longer than ten minutes, so they are backdated by one
//! minute and live nine; where the answer's `Date` shows another time, the assertion is signed once more with that.
//! A token that has just been made may be refused with 401 for some seconds, until GitHub's replicas know it: a report of
//! such a 401 within `life.min_interval` of the mint renews nothing.

use async_trait::async_trait;
use http::{HeaderName, Method, header};
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::secret::Secret;
use serde_json::{Map, Value};

use super::assertion::Assertion;
use super::build::Made;
use super::redact::Redactor;
use super::upstream::{ANSWER_BYTES_MAX, COMPLAINT_BYTES_MAX, Heard, Upstream};
use super::{MintError, Minting, Nature, Source, answer};
use crate::config::{Algorithm, GithubConfig};
use crate::port::HttpRequest;

const API_VERSION: &str = "2022-11-28";

/// Mints installation tokens.
pub struct GithubApp {
    upstream: Upstream,
    url: String,
    body: String,
    assertion: Assertion,
}

impl GithubApp {
    pub(super) fn new(config: &GithubConfig, made: &Made<'_>) -> Result<Self, String> {
        let key = made.secret("key", &config.key)?;
        let mut claims = Map::new();
        for (name, value) in [("iat", "{iat}"), ("exp", "{exp}"), ("iss", config.app_id.as_str())] {
            claims.insert(name.to_owned(), Value::from(value));
        }
        let assertion = Assertion::signed(&key, Algorithm::Rs256, None, &claims, made.tools.signer)
            .map_err(|cause| format!("`key`: {cause}"))?;
        let mut body = Map::new();
        if !config.repositories.is_empty() {
            body.insert("repositories".to_owned(), Value::from(config.repositories.clone()));
        }
        if !config.permissions.is_empty() {
            let permissions =
                config.permissions.iter().map(|(name, level)| (name.clone(), Value::from(level.as_str())));
            body.insert("permissions".to_owned(), Value::Object(permissions.collect()));
        }
        Ok(Self {
            upstream: made.upstream("GitHub"),
            url: format!("{}/app/installations/{}/access_tokens", config.api_url, config.installation_id),
            body: Value::Object(body).to_string(),
            assertion,
        })
    }

    async fn ask(&self, order: &Order, key: &str) -> Result<Minting, (MintError, bool)> {
        let signed_at = self.upstream.signing_time();
        let assertion = self.assertion.at(order, key, signed_at).await.map_err(|error| (error, false))?;
        let text = |text: &str| Secret::new(text.to_owned());
        let request = HttpRequest {
            method: Method::POST,
            url: self.url.clone(),
            via: None,
            headers: vec![
                (header::ACCEPT, text("application/vnd.github+json")),
                (header::CONTENT_TYPE, text("application/json")),
                (HeaderName::from_static("x-github-api-version"), text(API_VERSION)),
                (header::AUTHORIZATION, Secret::new(format!("Bearer {}", assertion.expose()))),
            ],
            body: Secret::new(self.body.clone().into_bytes()),
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let redactor = Redactor::new([assertion.expose().as_str()]);
        let heard = self.upstream.ask(order, request, &redactor).await.map_err(|error| (error, false))?;
        if heard.answer.status == 201 || heard.answer.status == 200 {
            return self.read(&heard).map_err(|error| (self.upstream.blame(heard.answer.status, error), false));
        }
        let is_worth_another = heard.answer.status == 401 && self.upstream.would_sign_otherwise(signed_at);
        Err((self.refused(&heard, &redactor), is_worth_another))
    }

    fn read(&self, heard: &Heard) -> Result<Minting, MintError> {
        let document = answer::object(heard.answer.body.expose()).map_err(answer::unusable)?;
        let blame = |error: MintError| MintError { message: format!("an answer in which {}", error.message), ..error };
        let material = answer::token("token", document.0.get("token")).map_err(blame)?;
        let expires_at = heard.window.expires_at("expires_at", document.0.get("expires_at"));
        Ok(Minting { material, issued_at: None, expires_at: expires_at.map_err(|error| blame(error.into()))? })
    }

    fn refused(&self, heard: &Heard, redactor: &Redactor) -> MintError {
        let document = answer::object(heard.answer.body.expose());
        let said = document.as_ref().ok().and_then(|document| document.0.get("message")).and_then(Value::as_str);
        let complaint = redactor.start(said.unwrap_or_default(), COMPLAINT_BYTES_MAX);
        let header = |name: &str| heard.answer.headers.get(name).and_then(|value| value.to_str().ok());
        let class = match heard.answer.status {
            // The primary limit is 403 with nothing remaining; the secondary one comes with `Retry-After`.
            403 if header("x-ratelimit-remaining") == Some("0") || header("retry-after").is_some() => {
                Some(FaultClass::Throttled)
            }
            // The key or the app id is wrong; the installation is gone; what was asked for is more than it has.
            401 | 404 | 422 => Some(FaultClass::Misconfigured),
            _ => None,
        };
        let mut error = self.upstream.refused(heard, class, &complaint);
        if error.class == FaultClass::Throttled {
            let reset_at = header("x-ratelimit-reset").and_then(|at| at.parse::<u64>().ok());
            let until_reset = reset_at.map(|at| at.saturating_mul(1000).saturating_sub(heard.window.now.0));
            let after = super::http::retry_after_ms(&heard.answer.headers, heard.window.now);
            error.retry_after_ms = after.or(until_reset);
        }
        error
    }
}

#[async_trait]
impl Source for GithubApp {
    fn kind(&self) -> &'static str {
        "github-app"
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        match self.ask(order, idempotency_key).await {
            Err((_, true)) => self.ask(order, idempotency_key).await.map_err(|(error, _)| error),
            result => result.map_err(|(error, _)| error),
        }
    }
}
