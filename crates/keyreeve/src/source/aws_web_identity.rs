//! A role at AWS, assumed with a web identity: `AssumeRoleWithWebIdentity` of the STS query API, version 2011-06-15.
//!
//! The request is not signed: the web identity is the proof. What its errors mean:
//!
//! | code | class | may have minted |
//! |---|---|---|
//! | `Throttling`, `ThrottlingException`, `RequestLimitExceeded`, `SlowDown` | throttled | no |
//! | `IDPCommunicationError`, `ServiceUnavailable`, `RequestExpired` | transient | no |
//! | `ExpiredTokenException`, `InvalidIdentityToken`, `IDPRejectedClaim`, `AccessDenied` | terminal | no |
//! | `MalformedPolicyDocument`, `PackedPolicyTooLarge`, `RegionDisabledException`, `ValidationError`, .. | misconfigured | no |
//! | anything else, also what is no XML | by its status, as in [`http`](super::http) | |

use std::collections::BTreeMap;

use async_trait::async_trait;
use http::{Method, header};
use keyreeve_core::lifecycle::Order;
use keyreeve_core::record::FaultClass;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Timestamp;
use serde_json::Value;

use super::assertion::Assertion;
use super::build::Made;
use super::redact::Redactor;
use super::upstream::{ANSWER_BYTES_MAX, COMPLAINT_BYTES_MAX, Heard, Upstream, form};
use super::xml::{Document, texts};
use super::{Fields, Material, MintError, Minting, Nature, Source, answer};
use crate::config::AwsConfig;
use crate::port::HttpRequest;

const VERSION: &str = "2011-06-15";

/// Mints by assuming a role.
pub struct AwsWebIdentity {
    upstream: Upstream,
    config: AwsConfig,
    assertion: Assertion,
}

impl AwsWebIdentity {
    pub(super) fn new(config: &AwsConfig, made: &Made<'_>) -> Result<Self, String> {
        Ok(Self {
            upstream: made.upstream("STS"),
            config: config.clone(),
            assertion: Assertion::new(&config.assertion, &made.tools.secrets, made.tools.signer)?,
        })
    }

    fn request(&self, order: &Order, identity: &Secret<String>) -> HttpRequest {
        let config = &self.config;
        let life_s = (order.expires_at.since(order.issued_at) / 1000).to_string();
        let arns: Vec<(String, &str)> = config
            .policy_arns
            .iter()
            .enumerate()
            .map(|(at, arn)| (format!("PolicyArns.member.{}.arn", at.saturating_add(1)), arn.as_str()))
            .collect();
        let mut fields = vec![
            ("Action", "AssumeRoleWithWebIdentity"),
            ("Version", VERSION),
            ("RoleArn", &config.role_arn),
            ("RoleSessionName", &config.session_name),
            ("DurationSeconds", &life_s),
        ];
        fields.extend(config.policy.as_deref().map(|policy| ("Policy", policy)));
        fields.extend(arns.iter().map(|(name, arn)| (name.as_str(), *arn)));
        fields.push(("WebIdentityToken", identity.expose()));
        let text = |text: &str| Secret::new(text.to_owned());
        HttpRequest {
            method: Method::POST,
            url: config.endpoint.clone(),
            via: None,
            headers: vec![
                (header::ACCEPT, text("text/xml")),
                (header::CONTENT_TYPE, text("application/x-www-form-urlencoded; charset=utf-8")),
            ],
            body: form(fields),
            answer_bytes_max: ANSWER_BYTES_MAX,
        }
    }

    async fn ask(&self, order: &Order, key: &str, now: Timestamp) -> Result<Minting, MintError> {
        let identity = self.assertion.at(order, key, now).await?;
        let redactor = Redactor::new([identity.expose().as_str()]);
        let heard = self.upstream.ask(order, self.request(order, &identity), &redactor).await?;
        if heard.answer.status != 200 {
            return Err(self.refused(&heard, &redactor));
        }
        read(&heard).map_err(|error| self.upstream.blame(200, error))
    }

    /// Whether an identity that was refused was signed by a clock that is wrong.
    fn would_be_believed(&self, error: &MintError, signed_at: Timestamp) -> bool {
        let is_refused = error.class == FaultClass::Terminal && !error.may_have_minted;
        is_refused && self.assertion.is_signed() && self.upstream.would_sign_otherwise(signed_at)
    }

    fn refused(&self, heard: &Heard, redactor: &Redactor) -> MintError {
        let document = texts(heard.answer.body.expose()).ok();
        let text = |name: &str| document.as_ref().and_then(|found| found.text(name)).unwrap_or_default().to_owned();
        let (code, message) = (text("Error/Code"), text("Error/Message"));
        let class = class_of(&code);
        // A code that is known is no secret, though it may look like one.
        let code = if class.is_some() { code } else { redactor.start(&code, COMPLAINT_BYTES_MAX) };
        let message = redactor.start(&message, COMPLAINT_BYTES_MAX);
        let said: Vec<String> = [code, message].into_iter().filter(|part| !part.is_empty()).collect();
        self.upstream.refused(heard, class, &said.join(": "))
    }
}

#[async_trait]
impl Source for AwsWebIdentity {
    fn kind(&self) -> &'static str {
        "aws-web-identity"
    }

    fn nature(&self) -> Nature {
        Nature::Opaque
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        let signed_at = self.upstream.signing_time();
        match self.ask(order, idempotency_key, signed_at).await {
            Err(error) if self.would_be_believed(&error, signed_at) => {
                self.ask(order, idempotency_key, self.upstream.signing_time()).await
            }
            result => result,
        }
    }
}

fn read(heard: &Heard) -> Result<Minting, MintError> {
    const CREDENTIALS: &str = "AssumeRoleWithWebIdentityResult/Credentials";
    let body = heard.answer.body.expose();
    if body.trim_ascii().is_empty() {
        return Err(answer::unusable("nothing"));
    }
    let document = texts(body).map_err(|what| answer::unusable(format!("{} bytes that are {what}", body.len())))?;
    let blame = |error: MintError| MintError { message: format!("an answer in which {}", error.message), ..error };
    let mut named = BTreeMap::new();
    for name in ["AccessKeyId", "SecretAccessKey", "SessionToken"] {
        let value = present(&document, &format!("{CREDENTIALS}/{name}")).map(Value::from);
        let value = value.as_ref();
        let text = answer::text(name, value).map_err(blame)?;
        named.insert(name.to_owned(), Secret::new(text.to_owned()));
    }
    if let Some(account) = account_of(&document) {
        named.insert("AccountId".to_owned(), Secret::new(account.to_owned()));
    }
    let end = present(&document, &format!("{CREDENTIALS}/Expiration")).map(Value::from);
    let expires_at = heard.window.expires_at("Expiration", end.as_ref()).map_err(|error| blame(error.into()))?;
    let material = answer::bounded(Material { secret: Fields::Named(named), kind: Material::AWS.into() })?;
    Ok(Minting { material, issued_at: None, expires_at })
}

fn present<'a>(document: &'a Document, path: &str) -> Option<&'a str> {
    document.text(path).map(str::trim).filter(|text| !text.is_empty())
}

/// The account of the assumed role: `arn:aws:sts::123456789012:assumed-role/ROLE/SESSION`.
fn account_of(document: &Document) -> Option<&str> {
    let arn = present(document, "AssumeRoleWithWebIdentityResult/AssumedRoleUser/Arn")?;
    arn.split(':').nth(4).filter(|account| account.len() == 12 && account.bytes().all(|byte| byte.is_ascii_digit()))
}

/// What helps against an error of STS; `None` where the status knows better.
fn class_of(code: &str) -> Option<FaultClass> {
    Some(match code {
        "Throttling" | "ThrottlingException" | "RequestLimitExceeded" | "SlowDown" => FaultClass::Throttled,
        "IDPCommunicationError" | "IDPCommunicationErrorException" | "ServiceUnavailable" | "RequestExpired" => {
            FaultClass::Transient
        }
        "ExpiredTokenException"
        | "ExpiredToken"
        | "InvalidIdentityToken"
        | "InvalidIdentityTokenException"
        | "IDPRejectedClaim"
        | "IDPRejectedClaimException"
        | "AccessDenied"
        | "AccessDeniedException" => FaultClass::Terminal,
        "MalformedPolicyDocument"
        | "MalformedPolicyDocumentException"
        | "PackedPolicyTooLarge"
        | "PackedPolicyTooLargeException"
        | "RegionDisabledException"
        | "ValidationError"
        | "InvalidParameterValue"
        | "MissingParameter"
        | "InvalidAction" => FaultClass::Misconfigured,
        _ => return None,
    })
}
