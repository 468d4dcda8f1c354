//! A token endpoint (RFC 6749 3.2): the client shows who it is, asks with a grant, and reads the answer or the error.
//!
//! | answer | class | may have minted |
//! |---|---|---|
//! | 2xx, readable | - | minted |
//! | 2xx without token, `expires_in` absent or zero | transient | yes |
//! | `invalid_client`, `invalid_request`, `invalid_scope`, `invalid_target`, `unauthorized_client`, `unsupported_*` | misconfigured | no |
//! | `invalid_grant`, `access_denied`, `consent_required`, .. | terminal | no |
//! | `temporarily_unavailable` | transient | no |
//! | `slow_down` | throttled | no |
//! | anything else | by its status, as in [`http`](super::http) | |
//!
//! Where a signed assertion is refused and the answer's `Date` shows that this node's clock is wrong, it is signed once more
//! with the corrected time.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, header};
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Timestamp;
use serde_json::{Value, json};

use super::assertion::Assertion;
use super::build::Made;
use super::life::{LifeError, Window};
use super::redact::Redactor;
use super::upstream::{ANSWER_BYTES_MAX, COMPLAINT_BYTES_MAX, Heard, Upstream, form, percent};
use super::{Material, MintError, Minting, answer};
use crate::config::{AskingProof, TokenConfig};
use crate::port::HttpRequest;

/// RFC 7523 2.2.
const JWT_BEARER: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// What servers say to a client assertion that they do not believe (RFC 7523 3.2). Not `invalid_grant`: a refresh token
/// that was refused is not shown again.
const CLIENT_REFUSED: [&str; 2] = ["invalid_client", "unauthorized_client"];
/// What servers say to an assertion in a grant that they do not believe (RFC 7523 3.1, RFC 8693 2.2.2).
const GRANT_REFUSED: [&str; 2] = ["invalid_grant", "invalid_request"];

/// A token endpoint and a client of it.
pub(super) struct TokenEndpoint {
    pub(super) upstream: Upstream,
    url: String,
    client_id: String,
    client: Client,
    /// `scope`, `audience`, `resource`.
    asked: Vec<(&'static str, String)>,
    default_life_ms: Option<u64>,
    known: Vec<Secret<String>>,
}

enum Client {
    Name,
    Basic(Secret<String>),
    Post(Secret<String>),
    Assertion(Assertion),
    /// The grant says who asks.
    Nobody,
}

/// An assertion that is part of a grant.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    pub(super) field: &'static str,
    pub(super) assertion: &'a Assertion,
}

/// A field of a form; the value may be a secret.
pub(super) type Field = (&'static str, Secret<String>);

/// An answer with a token in it.
pub(super) struct Granted {
    pub(super) status: u16,
    pub(super) document: answer::Wiped,
    pub(super) window: Window,
}

/// A request that brought no token.
pub(super) struct Refusal {
    pub(super) error: MintError,
    /// The `error` of RFC 6749 5.2.
    pub(super) code: Option<String>,
    /// The server said itself that it did nothing: by an error of its own, or by when to come back.
    pub(super) is_sure: bool,
}

impl From<MintError> for Refusal {
    fn from(error: MintError) -> Self {
        let is_sure = !error.may_have_minted;
        Self { error, code: None, is_sure }
    }
}

impl From<Refusal> for MintError {
    fn from(refusal: Refusal) -> Self {
        refusal.error
    }
}

impl TokenEndpoint {
    /// Reads the secrets and takes the settings.
    pub(super) fn new(config: &TokenConfig, made: &Made<'_>) -> Result<Self, String> {
        let id = &config.client.id;
        let mut known = Vec::new();
        let client = match &config.client.proof {
            AskingProof::Name => Client::Name,
            AskingProof::Basic(secret) => {
                let secret = made.text("params.client_secret", secret)?;
                // RFC 6749 2.3.1: both are form-encoded first.
                let mut pair = String::new();
                percent(&mut pair, id);
                pair.push(':');
                percent(&mut pair, secret.expose());
                let pair = Secret::new(pair);
                let encoded = Secret::new(STANDARD.encode(pair.expose()));
                let value = Secret::new(format!("Basic {}", encoded.expose()));
                known.extend([secret, pair, encoded]);
                Client::Basic(value)
            }
            AskingProof::Post(secret) => {
                let secret = made.text("params.client_secret", secret)?;
                known.push(secret.clone());
                Client::Post(secret)
            }
            AskingProof::Signed { key, algorithm, key_id, audience } => {
                let claims = json!({
                    "iss": id, "sub": id, "aud": audience, "jti": "{jti}", "iat": "{iat}", "exp": "{exp}",
                });
                let claims = claims.as_object().cloned().unwrap_or_default();
                let key = made.secret("params.client_key", key)?;
                let assertion = Assertion::signed(&key, *algorithm, key_id.as_deref(), &claims, made.tools.signer)
                    .map_err(|cause| format!("`params.client_key`: {cause}"))?;
                Client::Assertion(assertion)
            }
            AskingProof::Assertion(config) => {
                Client::Assertion(Assertion::new(config, &made.tools.secrets, made.tools.signer)?)
            }
        };
        let mut asked = Vec::new();
        if !config.scopes.is_empty() {
            asked.push(("scope", config.scopes.join(" ")));
        }
        asked.extend(config.audience.clone().map(|audience| ("audience", audience)));
        asked.extend(config.resource.clone().map(|resource| ("resource", resource)));
        Ok(Self {
            upstream: made.upstream("the token endpoint"),
            url: config.url.clone(),
            client_id: id.clone(),
            client,
            asked,
            default_life_ms: config.default_life_ms,
            known,
        })
    }

    /// One at which the grant itself says who asks.
    pub(super) fn without_client(url: String, asked: Vec<(&'static str, String)>, made: &Made<'_>) -> Self {
        Self {
            upstream: made.upstream("the token endpoint"),
            url,
            client_id: String::new(),
            client: Client::Nobody,
            asked,
            default_life_ms: None,
            known: Vec::new(),
        }
    }

    /// Asks with a grant. Where a signed client assertion is refused by a server with another time, asks once more.
    pub(super) async fn ask(&self, order: &Order, key: &str, grant: &[Field]) -> Result<Granted, Refusal> {
        let signed_at = self.upstream.signing_time();
        let refusal = match self.ask_at(order, key, grant, signed_at).await {
            Ok(granted) => return Ok(granted),
            Err(refusal) => refusal,
        };
        let is_dated = matches!(&self.client, Client::Assertion(assertion) if assertion.is_signed());
        if !(is_dated && refusal.is_any_of(&CLIENT_REFUSED) && self.upstream.would_sign_otherwise(signed_at)) {
            return Err(refusal);
        }
        self.ask_at(order, key, grant, self.upstream.signing_time()).await
    }

    /// As [`ask`](Self::ask), with an assertion in the grant, which is signed or read for this request.
    pub(super) async fn ask_showing(
        &self,
        order: &Order,
        key: &str,
        grant: &[Field],
        shown: Shown<'_>,
    ) -> Result<Granted, Refusal> {
        let signed_at = self.upstream.signing_time();
        let with = |token| grant.iter().cloned().chain([(shown.field, token)]).collect::<Vec<_>>();
        let first = with(shown.assertion.at(order, key, signed_at).await?);
        let refusal = match self.ask(order, key, &first).await {
            Ok(granted) => return Ok(granted),
            Err(refusal) => refusal,
        };
        let is_late = shown.assertion.is_signed() && refusal.is_any_of(&GRANT_REFUSED);
        if !(is_late && self.upstream.would_sign_otherwise(signed_at)) {
            return Err(refusal);
        }
        let second = with(shown.assertion.at(order, key, self.upstream.signing_time()).await?);
        self.ask(order, key, &second).await
    }

    async fn ask_at(&self, order: &Order, key: &str, grant: &[Field], now: Timestamp) -> Result<Granted, Refusal> {
        let mut headers = vec![
            (header::ACCEPT, Secret::new("application/json".to_owned())),
            (header::CONTENT_TYPE, Secret::new("application/x-www-form-urlencoded".to_owned())),
        ];
        let shown = match &self.client {
            Client::Assertion(assertion) => Some(assertion.at(order, key, now).await?),
            _ => None,
        };
        let mut fields: Vec<(&str, &str)> =
            grant.iter().map(|(name, value)| (*name, value.expose().as_str())).collect();
        fields.extend(self.asked.iter().map(|(name, value)| (*name, value.as_str())));
        match (&self.client, &shown) {
            (Client::Basic(value), _) => headers.push((header::AUTHORIZATION, value.clone())),
            (Client::Post(secret), _) => {
                fields.extend([("client_id", self.client_id.as_str()), ("client_secret", secret.expose())]);
            }
            (Client::Assertion(_), Some(shown)) => fields.extend([
                ("client_id", self.client_id.as_str()),
                ("client_assertion_type", JWT_BEARER),
                ("client_assertion", shown.expose()),
            ]),
            (Client::Name | Client::Assertion(_), _) => fields.push(("client_id", &self.client_id)),
            (Client::Nobody, _) => {}
        }
        let hidden = grant.iter().map(|(_, value)| value).chain(&self.known).chain(&shown);
        // Words of the protocol are no secrets.
        let hidden = hidden.map(|secret| secret.expose().as_str()).filter(|text| !is_plain(text));
        let redactor = Redactor::new(hidden);
        let request = HttpRequest {
            method: Method::POST,
            url: self.url.clone(),
            via: None,
            headers,
            body: form(fields),
            answer_bytes_max: ANSWER_BYTES_MAX,
        };
        let heard = self.upstream.ask(order, request, &redactor).await?;
        self.heard(heard, &redactor)
    }

    fn heard(&self, heard: Heard, redactor: &Redactor) -> Result<Granted, Refusal> {
        let status = heard.answer.status;
        let document = answer::object(heard.answer.body.expose());
        if (200..=299).contains(&status) {
            let document = document.map_err(|what| self.upstream.blame(status, answer::unusable(what)))?;
            // Some servers say 200 to everything.
            if document.0.get("error").is_none() || document.0.get("access_token").is_some() {
                return Ok(Granted { status, document, window: heard.window });
            }
            return Err(self.refused(&heard, &document.0, redactor));
        }
        match document {
            Ok(document) => Err(self.refused(&heard, &document.0, redactor)),
            Err(_) => {
                let error = self.upstream.refused(&heard, None, "");
                // A gateway that gave up says when to come back as well, and the server behind it may have answered.
                let is_sure = (400..=499).contains(&status);
                Err(Refusal { error, code: None, is_sure })
            }
        }
    }

    fn refused(&self, heard: &Heard, document: &Value, redactor: &Redactor) -> Refusal {
        let text = |pointer: &str| document.pointer(pointer).and_then(Value::as_str);
        let code = text("/error").or_else(|| text("/error/status")).or_else(|| text("/error/code"));
        let description = text("/error_description").or_else(|| text("/error/message")).or_else(|| text("/message"));
        let said: Vec<&str> = code.into_iter().chain(description).collect();
        let complaint = redactor.start(&said.join(": "), COMPLAINT_BYTES_MAX);
        // A gateway's own 5xx with a made-up body is no word of the server's.
        let class = code.and_then(class_of);
        let error = self.upstream.refused(heard, class, &complaint);
        let is_sure = class.is_some() || (400..=499).contains(&heard.answer.status);
        Refusal { error, code: code.map(str::to_owned), is_sure }
    }

    /// What an answer brings: its token and its end.
    pub(super) fn minting(&self, granted: &Granted) -> Result<Minting, MintError> {
        let blame = |error: MintError| {
            let message = format!("an answer in which {}", error.message);
            self.upstream.blame(granted.status, MintError { message, ..error })
        };
        let material = granted.material().map_err(blame)?;
        let expires_at = granted.expires_at(self.default_life_ms).map_err(|error| blame(error.into()))?;
        Ok(Minting { material, issued_at: None, expires_at })
    }

    pub(super) const fn default_life_ms(&self) -> Option<u64> {
        self.default_life_ms
    }
}

impl Refusal {
    /// The server says that it did nothing, with one of these codes.
    fn is_any_of(&self, codes: &[&str]) -> bool {
        self.is_sure && self.code.as_deref().is_some_and(|code| codes.contains(&code))
    }
}

impl Granted {
    pub(super) fn field(&self, name: &str) -> Option<&Value> {
        self.document.0.get(name)
    }

    pub(super) fn material(&self) -> Result<Material, MintError> {
        let kind = self.field("token_type").and_then(Value::as_str).unwrap_or("Bearer");
        // RFC 6749 7.1: a token of a type that one does not understand must not be used. RFC 8693 2.2.1 has `N_A`.
        if !["bearer", "n_a"].contains(&kind.to_ascii_lowercase().as_str()) {
            return Err(answer::wrong("`token_type` is not `Bearer`"));
        }
        answer::token("access_token", self.field("access_token"))
    }

    pub(super) fn expires_at(&self, default_life_ms: Option<u64>) -> Result<Timestamp, LifeError> {
        match (self.window.expires_in("expires_in", self.field("expires_in")), default_life_ms) {
            (Err(LifeError::Absent(_)), Some(life_ms)) => {
                Ok(self.window.asked_at.plus(life_ms.min(self.window.life_ms_max)))
            }
            (result, _) => result,
        }
    }
}

/// What helps against an `error` of RFC 6749 5.2 and its relatives; `None` where the status knows better.
pub(super) fn class_of(code: &str) -> Option<FaultClass> {
    Some(match code {
        "invalid_client"
        | "invalid_request"
        | "invalid_scope"
        | "invalid_target"
        | "unauthorized_client"
        | "unsupported_grant_type"
        | "unsupported_token_type"
        | "INVALID_ARGUMENT" => FaultClass::Misconfigured,
        "invalid_grant"
        | "access_denied"
        | "consent_required"
        | "interaction_required"
        | "login_required"
        | "PERMISSION_DENIED" => FaultClass::Terminal,
        "temporarily_unavailable" => FaultClass::Transient,
        "slow_down" | "RESOURCE_EXHAUSTED" => FaultClass::Throttled,
        _ => return None,
    })
}

/// Whether a value of a form is a word of the protocol: those are URNs, or short words without digits.
fn is_plain(text: &str) -> bool {
    text.starts_with("urn:") || ["client_credentials", "refresh_token"].contains(&text)
}
