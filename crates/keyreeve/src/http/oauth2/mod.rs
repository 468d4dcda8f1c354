//! `/oauth2`: what clients ask of an issuer, with the errors of RFC 6749.
//!
//! - `form`: what they send
//! - `token`: grants
//! - `status`: introspection and revocation

mod form;
mod status;
mod token;

use std::sync::Arc;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{AUTHORIZATION, CACHE_CONTROL, PRAGMA, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderValue, StatusCode};
use keyreeve_core::id::IssuerName;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Moment;
use serde_json::json;

use super::auth::ClientCertificate;
use super::credentials::json_answer;
use super::input;
use super::issuer::issuing;
use super::problem::{Answer, Problem};
use super::route::Later;
use super::routes::Endpoint;
use crate::config::{Grant, IssuerConfig};
use crate::crypto::LocalCrypto;
use crate::error::{Error, ErrorKind};
use crate::inbound::Issuing;
use crate::inbound::client::{Client, Shows, Stranger};

use form::Form;

/// No token, as RFC 6749 5.2 has it, and the cause, as only the log sees it.
#[derive(Debug)]
struct Refusal {
    status: u16,
    error: &'static str,
    description: String,
    cause: Option<String>,
    retry_after_ms: Option<u64>,
    /// Whether the client tried `Authorization`.
    was_basic: bool,
}

fn refusal(error: &'static str, description: impl Into<String>) -> Refusal {
    let description = description.into();
    Refusal { status: 400, error, description, cause: None, retry_after_ms: None, was_basic: false }
}

impl Refusal {
    fn invalid_request(description: impl Into<String>) -> Self {
        refusal("invalid_request", description)
    }

    fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    /// What the issuer cannot do now. Nothing about the client or its token is said by it.
    fn unavailable(error: &Error) -> Self {
        let wait_ms = error.retry_after_ms.unwrap_or(1000);
        let mut refusal = refusal("temporarily_unavailable", "the issuer cannot answer now: try again");
        refusal.status = 503;
        refusal.retry_after_ms = Some(wait_ms);
        refusal.because(error.message.clone())
    }

    fn answer(self, later: &Later) -> Answer {
        let request_id = later.request_id();
        let (status, error) = (self.status, self.error);
        let said = self.cause.as_deref().unwrap_or(&self.description);
        if status >= 500 {
            tracing::warn!(%request_id, route = later.route.path, status, error, "{said}");
        } else {
            tracing::info!(%request_id, route = later.route.path, status, error, "{said}");
        }
        // RFC 6749 5.2: neither quotation marks nor backslashes.
        let description = self.description.replace(['"', '\\'], "'");
        let mut answer = json_answer(&json!({ "error": error, "error_description": description }));
        *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = answer.headers_mut();
        // RFC 6749 5.2: whoever tried a scheme is told that it is there.
        if self.was_basic {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"keyreeve\", charset=\"UTF-8\""));
        }
        if let Some(ms) = self.retry_after_ms {
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        }
        unkept(answer)
    }
}

/// RFC 6749 5.1: no cache may keep it.
fn unkept(mut answer: Answer) -> Answer {
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer.headers_mut().insert(PRAGMA, HeaderValue::from_static("no-cache"));
    answer
}

/// A client that has proved who it is, and what it asks.
struct Asked<'a> {
    later: &'a Later,
    issuing: &'a Issuing,
    name: &'a IssuerName,
    issuer: &'a IssuerConfig,
    client: Arc<Client>,
    /// The SHA-256 of the certificate it proved itself with.
    certificate: Option<[u8; 32]>,
    form: Form,
    now: Moment,
}

impl Asked<'_> {
    /// Who an assertion or an exchanged token may be for: the issuer, or the address it was sent to.
    fn audiences(issuer: &IssuerConfig) -> Vec<String> {
        let url = &issuer.url;
        vec![
            url.clone(),
            format!("{url}/oauth2/token"),
            format!("{url}/oauth2/introspect"),
            format!("{url}/oauth2/revoke"),
        ]
    }

    fn may(&self, grant: Grant) -> Result<(), Refusal> {
        if self.client.config.can.contains(&grant) {
            return Ok(());
        }
        let text = format!(
            "client `{0}` may not `{1}`: add it to `can` of client `{0}` in the configuration",
            self.client.id,
            grant.as_str()
        );
        Err(refusal("unauthorized_client", text))
    }
}

/// Answers a client.
pub(super) async fn answer(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    let Some((issuing, name)) = issuing(later) else { return Err(super::issuer::no_such(&later.name)) };
    let bytes = input::body_bytes(later, head, body).await?;
    let result = match asked(later, head, &bytes, issuing, name).await {
        Ok(asked) => match later.route.endpoint {
            Endpoint::IssueToken => token::answer(asked).await,
            Endpoint::Introspect => status::introspect(asked).await,
            _ => status::revoke(asked).await,
        },
        Err(refusal) => Err(refusal),
    };
    Ok(result.unwrap_or_else(|refusal| refusal.answer(later)))
}

async fn asked<'a>(
    later: &'a Later,
    head: &Head,
    body: &[u8],
    issuing: &'a Issuing,
    name: &'a IssuerName,
) -> Result<Asked<'a>, Refusal> {
    let issuer = issuing.issuers.config(name.as_str()).ok_or_else(|| Refusal::invalid_request("no such issuer"))?;
    let form = Form::read(&head.headers, body)?;
    let now = later.api.host.now();
    let basic = basic(&head.headers)?;
    let certificate = head.extensions.get::<ClientCertificate>();
    let shows = shown(&form, basic.as_ref(), certificate)?;
    let is_certificate = matches!(shows, Shows::Certificate(..));
    let audiences = Asked::audiences(issuer);
    let found = issuing.clients.identify(&LocalCrypto, (name.as_str(), issuer), &audiences, shows, now.latest()).await;
    match found {
        Ok(client) => {
            let certificate = certificate.filter(|_| is_certificate).map(|certificate| certificate.sha256);
            Ok(Asked { later, issuing, name, issuer, client, certificate, form, now })
        }
        Err(Stranger::TooMany(id)) => {
            let error = Error::new(ErrorKind::Conflict, Stranger::TooMany(id).to_string()).after(60_000);
            Err(Refusal::unavailable(&error))
        }
        Err(stranger) => {
            let mut refusal = refusal("invalid_client", "client authentication failed").because(stranger.to_string());
            refusal.status = 401;
            refusal.was_basic = basic.is_some();
            Err(refusal)
        }
    }
}

/// What a client shows; RFC 6749 2.3: one thing, or it is refused.
fn shown<'a>(
    form: &'a Form,
    basic: Option<&'a (String, Secret<String>)>,
    certificate: Option<&'a ClientCertificate>,
) -> Result<Shows<'a>, Refusal> {
    /// RFC 7523 2.2.
    const ASSERTION: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
    let id = form.one("client_id");
    let ways = [basic.is_some(), form.one("client_secret").is_some(), form.one("client_assertion").is_some()];
    if ways.iter().filter(|is_there| **is_there).count() > 1 {
        return Err(Refusal::invalid_request("the client proves itself in more than one way: use one"));
    }
    if let Some((user, secret)) = basic {
        if id.is_some_and(|id| id != user) {
            return Err(Refusal::invalid_request("`client_id` is not that of the `Authorization` header"));
        }
        return Ok(Shows::Secret(user, secret));
    }
    if let Some(assertion) = form.one("client_assertion") {
        if form.one("client_assertion_type") != Some(ASSERTION) {
            return Err(Refusal::invalid_request(format!("`client_assertion_type` must be `{ASSERTION}`")));
        }
        return Ok(Shows::Assertion(assertion, id));
    }
    match (id, form.secret(), certificate) {
        (Some(id), Some(secret), _) => Ok(Shows::Secret(id, secret)),
        (Some(id), None, Some(shown)) => Ok(Shows::Certificate(id, shown.sha256, &shown.names)),
        _ => {
            let mut refusal =
                refusal("invalid_client", "client authentication failed").because("no client showed itself");
            refusal.status = 401;
            Err(refusal)
        }
    }
}

/// `client_id` and secret of an `Authorization: Basic` header (RFC 6749 2.3.1: each encoded as in a form).
fn basic(headers: &HeaderMap) -> Result<Option<(String, Secret<String>)>, Refusal> {
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let Some(value) = sent.next() else { return Ok(None) };
    let broken = || {
        let mut refusal = refusal("invalid_client", "client authentication failed");
        refusal.status = 401;
        refusal.was_basic = true;
        refusal.because("the `Authorization` header is not `Basic` with a `client_id` and a secret")
    };
    if sent.next().is_some() {
        return Err(broken());
    }
    let (scheme, rest) = value.as_bytes().split_at_checked(6).ok_or_else(broken)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Err(broken());
    }
    let decoded = Secret::new(STANDARD.decode(rest.trim_ascii()).map_err(|_| broken())?);
    let text = std::str::from_utf8(decoded.expose()).map_err(|_| broken())?;
    let (id, secret) = text.split_once(':').ok_or_else(broken)?;
    let id = form::decoded(id).ok_or_else(broken)?;
    let secret = Secret::new(form::decoded(secret).ok_or_else(broken)?);
    Ok(Some((id, secret)))
}
