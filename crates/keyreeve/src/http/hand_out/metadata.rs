//! What clouds tell their machines at a link-local address, told on a listener of our own: the credential of whoever can
//! connect to it.
//!
//! | kind | clients find it by | what keeps others out, besides the address |
//! |---|---|---|
//! | `aws` | `AWS_EC2_METADATA_SERVICE_ENDPOINT` | a token by `PUT` first (IMDSv2), which no plain fetch of a URL can do |
//! | `gce` | `GCE_METADATA_HOST` | `Metadata-Flavor: Google` |
//! | `azure` | `AZURE_POD_IDENTITY_AUTHORITY_HOST` | `Metadata: true` |
//! | `azure` | `IDENTITY_ENDPOINT`, `IDENTITY_HEADER` | the API key of a caller in `X-IDENTITY-HEADER` |

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::header::CONTENT_TYPE;
use http::request::Parts as Head;
use http::{HeaderName, HeaderValue};
use keyreeve_core::crypto::Crypto as _;
use keyreeve_core::id::CredentialName;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Timestamp;
use serde::Serialize;
use serde_json::json;
use subtle::ConstantTimeEq as _;

use super::aws::{keys, secret_json};
use super::{expires_at, held, taken};
use crate::config::{Action, MetadataKind, Surface, bare_resource};
use crate::crypto::LocalCrypto;
use crate::http::api::Api;
use crate::http::auth::Caller;
use crate::http::credentials::json_answer;
use crate::http::input::{rfc3339, unescaped};
use crate::http::problem::{Answer, CONFLICT, FORBIDDEN, MALFORMED, NOT_FOUND, Problem, UNAUTHENTICATED};
use crate::http::route::Later;
use crate::outbound::Served;
use crate::port::Host;
use crate::source::Fields;

const FLAVOR: HeaderName = HeaderName::from_static("metadata-flavor");
const METADATA: HeaderName = HeaderName::from_static("metadata");
const SESSION: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token");
const SESSION_TTL: HeaderName = HeaderName::from_static("x-aws-ec2-metadata-token-ttl-seconds");
/// The header in which App Service clients send the value of `IDENTITY_HEADER`.
pub(in crate::http) const IDENTITY: HeaderName = HeaderName::from_static("x-identity-header");
/// The longest life of a session token, in seconds.
const SESSION_S_MAX: u64 = 21_600;
/// The account by its other name.
const DEFAULT_ACCOUNT: &str = "default";

/// What is asked of a metadata service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Asked {
    ImdsSession,
    ImdsRoles,
    ImdsKeys,
    GceRoot,
    GceInstance,
    GceProject,
    GceUniverse,
    GceAccount,
    GceEmail,
    GceToken,
    GceIdentity,
    AzureToken,
    AzureAppToken,
}

/// What one listener hands out.
pub(in crate::http) struct Metadata {
    kind: MetadataKind,
    /// Marks the session tokens of IMDS. A reload makes another: clients ask for a new token where theirs is refused.
    session_key: Secret<[u8; 32]>,
}

impl Metadata {
    /// A service of this kind.
    pub(in crate::http) fn new(kind: MetadataKind, host: &dyn Host) -> Self {
        let mut key = [0; 32];
        host.fill(&mut key);
        Self { kind, session_key: Secret::new(key) }
    }

    /// Its routes.
    pub(in crate::http) const fn surface(&self) -> Surface {
        match self.kind {
            MetadataKind::Aws { .. } => Surface::Imds,
            MetadataKind::Gce { .. } => Surface::Gce,
            MetadataKind::Azure { .. } => Surface::Azure,
        }
    }
}

/// Refuses whoever does not ask as the cloud's own clients do.
///
/// # Errors
/// The refusal.
pub(in crate::http) fn check(api: &Api, metadata: &Metadata, head: &Head, asked: Asked) -> Result<(), Problem> {
    super::check_local(head, matches!(metadata.kind, MetadataKind::Gce { .. }))?;
    let demand = |name: HeaderName, value: &str| match head.headers.get(&name) {
        Some(sent) if sent.as_bytes().eq_ignore_ascii_case(value.as_bytes()) => Ok(()),
        _ => {
            Err(Problem::new(FORBIDDEN, format!("`{name}: {value}` is missing\nhint: the cloud's own clients send it")))
        }
    };
    match asked {
        Asked::ImdsSession | Asked::AzureAppToken => Ok(()),
        Asked::ImdsRoles | Asked::ImdsKeys => check_session(api, metadata, head),
        Asked::AzureToken => demand(METADATA, "true"),
        _ => demand(FLAVOR, "Google"),
    }
}

/// The answer.
///
/// # Errors
/// The refusal, after 1.8 s at the most.
pub(in crate::http) async fn answer(later: &Later, head: &Head, asked: Asked) -> Result<Answer, Problem> {
    let Some(metadata) = later.metadata.as_deref() else { return Err(nothing()) };
    let kind = &metadata.kind;
    match kind {
        MetadataKind::Aws { credential, role } => match asked {
            Asked::ImdsSession => session(&later.api, metadata, head),
            Asked::ImdsRoles => Ok(text(role)),
            _ if later.name == *role => imds_keys(later, credential).await,
            _ => Err(nothing()),
        },
        MetadataKind::Gce { .. } => gce(later, head, kind, asked).await.map(|mut answer| {
            answer.headers_mut().insert(FLAVOR, HeaderValue::from_static("Google"));
            answer
        }),
        MetadataKind::Azure { resources } => {
            let resource = parameter(head, "resource")?;
            let resource = resource.as_deref().map(bare_resource).unwrap_or_default();
            let Some(credential) = resources.get(resource) else {
                let known: Vec<&str> = resources.keys().map(String::as_str).collect();
                let text = format!("no credential is for this `resource`\nhint: there is {}", known.join(", "));
                return Err(Problem::new(MALFORMED, text));
            };
            if asked == Asked::AzureAppToken {
                check_key(later.caller.as_deref(), credential)?;
            }
            azure_token(later, resource, credential).await
        }
    }
}

fn nothing() -> Problem {
    Problem::new(NOT_FOUND, "there is nothing at this path\nhint: `config explain` shows what this listener hands out")
}

fn text(text: &str) -> Answer {
    let mut answer = Answer::new(text.to_owned().into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    answer
}

/// A parameter of the query; clients send others, which mean nothing here.
fn parameter<'h>(head: &'h Head, wanted: &str) -> Result<Option<Cow<'h, str>>, Problem> {
    let pairs = head.uri.query().unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
    let mut values = pairs.filter(|(name, _)| *name == wanted).map(|(_, value)| value);
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        // As forms have it: a space may be a plus.
        (Some(value), None) => match unescaped(value) {
            Some(value) => Ok(Some(value)),
            None => Err(Problem::new(MALFORMED, format!("`{wanted}` is not percent-encoded as RFC 3986 has it"))),
        },
        (Some(_), Some(_)) => Err(Problem::new(MALFORMED, format!("the query parameter `{wanted}` is there twice"))),
    }
}

async fn served(later: &Later, name: &CredentialName) -> Result<Served, Problem> {
    match held(&later.api, &later.live, name.as_str(), 0) {
        Some(served) => Ok(served),
        None => taken(later, name.as_str()).await,
    }
}

/// A single token.
fn token<'a>(name: &CredentialName, served: &'a Served) -> Result<&'a str, Problem> {
    match &served.material.secret {
        Fields::Token(token) => Ok(token.expose()),
        Fields::Named(_) => Err(Problem::new(
            CONFLICT,
            format!("`{name}` has named fields and is no token\nhint: name a credential that is one"),
        )),
    }
}

fn left_s(later: &Later, served: &Served) -> u64 {
    let now = later.api.host.now();
    expires_at(served, now).since(now.latest()) / 1000
}

// --- AWS: IMDSv2 ------------------------------------------------------------------------------------------------

/// A token that lets its holder ask for keys: when it ends, and our own mark on that. Nothing is kept, so nothing fills up.
fn session(api: &Api, metadata: &Metadata, head: &Head) -> Result<Answer, Problem> {
    let ttl = head.headers.get(&SESSION_TTL).and_then(|ttl| ttl.to_str().ok()?.parse::<u64>().ok());
    let Some(ttl) = ttl.filter(|ttl| (1..=SESSION_S_MAX).contains(ttl)) else {
        let text = format!("`{SESSION_TTL}` must be a number of seconds from 1 to {SESSION_S_MAX}");
        return Err(Problem::new(MALFORMED, text));
    };
    let until = api.host.now().latest().plus(ttl.saturating_mul(1000)).0.to_be_bytes();
    let mark = LocalCrypto.hmac_sha256(metadata.session_key.expose(), &[b"imds", &until]);
    let mut answer = text(&URL_SAFE_NO_PAD.encode([&until[..], &mark].concat()));
    answer.headers_mut().insert(SESSION_TTL, ttl.into());
    Ok(answer)
}

fn check_session(api: &Api, metadata: &Metadata, head: &Head) -> Result<(), Problem> {
    let sent = head.headers.get(&SESSION).map(HeaderValue::as_bytes).unwrap_or_default();
    let bytes = URL_SAFE_NO_PAD.decode(sent).unwrap_or_default();
    if let Some((until, mark)) = bytes.split_first_chunk::<8>() {
        let is_ours = LocalCrypto.hmac_sha256(metadata.session_key.expose(), &[b"imds", until]).as_slice().ct_eq(mark);
        if bool::from(is_ours) && api.host.now().latest() < Timestamp(u64::from_be_bytes(*until)) {
            return Ok(());
        }
    }
    let hint = "`PUT /latest/api/token` gives one; version 1 of this service, without tokens, is not there";
    Err(Problem::new(UNAUTHENTICATED, format!("`{SESSION}` is missing, over, or not from here\nhint: {hint}")))
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ImdsKeys<'a> {
    code: &'static str,
    last_updated: String,
    #[serde(rename = "Type")]
    kind: &'static str,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    token: &'a str,
    expiration: String,
}

async fn imds_keys(later: &Later, name: &CredentialName) -> Result<Answer, Problem> {
    let served = served(later, name).await?;
    let keys = keys(name.as_str(), &served)?;
    let token = keys.session_token.map_or("", |token| token.expose());
    let document = ImdsKeys {
        code: "Success",
        last_updated: rfc3339(served.issued_at),
        kind: "AWS-HMAC",
        access_key_id: keys.access_key_id.expose(),
        secret_access_key: keys.secret_access_key.expose(),
        token,
        expiration: rfc3339(expires_at(&served, later.api.host.now())),
    };
    Ok(secret_json(&document, token.len().saturating_add(1024)))
}

// --- Google -----------------------------------------------------------------------------------------------------

async fn gce(later: &Later, head: &Head, kind: &MetadataKind, asked: Asked) -> Result<Answer, Problem> {
    let MetadataKind::Gce { credential, project, email, scopes, audiences } = kind else { return Err(nothing()) };
    let is_about_account = matches!(asked, Asked::GceAccount | Asked::GceEmail | Asked::GceToken | Asked::GceIdentity);
    if is_about_account && later.name != DEFAULT_ACCOUNT && later.name != *email {
        return Err(nothing());
    }
    match asked {
        Asked::GceRoot => Ok(text("computeMetadata/\n")),
        Asked::GceInstance => Ok(text("service-accounts/\n")),
        Asked::GceUniverse => Ok(text("googleapis.com")),
        Asked::GceProject => project.as_deref().map(text).ok_or_else(nothing),
        Asked::GceEmail => Ok(text(email)),
        Asked::GceAccount => {
            Ok(json_answer(&json!({ "aliases": [DEFAULT_ACCOUNT], "email": email, "scopes": scopes })))
        }
        Asked::GceToken => gce_token(later, credential).await,
        _ => {
            let audience = parameter(head, "audience")?;
            let named = audience.as_deref().and_then(|audience| audiences.get(audience));
            let Some(name) = named else {
                let text = "no credential is for this `audience`\nhint: name one in `audiences` of this listener";
                return Err(Problem::new(MALFORMED, text));
            };
            let served = served(later, name).await?;
            Ok(text(token(name, &served)?))
        }
    }
}

#[derive(Serialize)]
struct GceToken<'a> {
    access_token: &'a str,
    expires_in: u64,
    token_type: &'static str,
}

async fn gce_token(later: &Later, name: &CredentialName) -> Result<Answer, Problem> {
    let served = served(later, name).await?;
    let access_token = token(name, &served)?;
    let document = GceToken { access_token, expires_in: left_s(later, &served), token_type: "Bearer" };
    Ok(secret_json(&document, access_token.len().saturating_add(256)))
}

// --- Azure ------------------------------------------------------------------------------------------------------

/// Whether the API key that came as identity header belongs to somebody who may have the credential.
fn check_key(caller: Option<&Caller>, name: &CredentialName) -> Result<(), Problem> {
    let Some(caller) = caller else {
        let text = "this needs an API key\nhint: set IDENTITY_HEADER to the API key of a caller";
        return Err(Problem::new(UNAUTHENTICATED, text));
    };
    if caller.may(Action::Token) && caller.reaches(name.as_str()) {
        return Ok(());
    }
    let hint = "`can` and `credentials` of the caller say what it may have";
    Err(Problem::new(FORBIDDEN, format!("`{}` may not take this credential\nhint: {hint}", caller.name)))
}

#[derive(Serialize)]
struct AzureToken<'a> {
    access_token: &'a str,
    expires_on: String,
    expires_in: String,
    resource: &'a str,
    token_type: &'static str,
}

async fn azure_token(later: &Later, resource: &str, name: &CredentialName) -> Result<Answer, Problem> {
    let served = served(later, name).await?;
    let access_token = token(name, &served)?;
    let expires_on = expires_at(&served, later.api.host.now()).0 / 1000;
    let document = AzureToken {
        access_token,
        expires_on: expires_on.to_string(),
        expires_in: left_s(later, &served).to_string(),
        resource,
        token_type: "Bearer",
    };
    Ok(secret_json(&document, access_token.len().saturating_add(resource.len()).saturating_add(256)))
}

/// A problem with the members that the clients look for.
pub(super) fn dressed(problem: Problem, asked: Asked) -> Problem {
    match asked {
        Asked::AzureToken | Asked::AzureAppToken => {
            let (code, message) = (problem.kind_name(), problem.sentence());
            problem.member("error", code.into()).member("error_description", message.into())
        }
        Asked::ImdsSession | Asked::ImdsRoles | Asked::ImdsKeys => {
            let (code, message) = (problem.kind_name(), problem.sentence());
            problem.member("Code", code.into()).member("Message", message.into())
        }
        _ => problem,
    }
}
