//! The user's own renewal service: one request, one JSON answer.
//!
//! URL, headers and body may hold `{generation}`, `{idempotency_key}` and `{expires_at}` (RFC 3339). The request
//! carries an `Idempotency-Key` header. What its answer means:
//!
//! | answer | class | may have minted |
//! |---|---|---|
//! | 2xx, readable | - | minted |
//! | 2xx, empty, not JSON, without token or end | transient | yes |
//! | 3xx (never followed) | misconfigured | only 303 |
//! | 408, 425, 503 | transient, `Retry-After` | no |
//! | 429 | throttled, `Retry-After` | no |
//! | other 4xx | terminal | no |
//! | 500, 502, 504, other 5xx | transient, `Retry-After` | yes |
//! | none, or cut off | transient | yes |
//! | none, and certainly not sent | transient | no |

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};
use keyreeve_core::id::CredentialName;
use keyreeve_core::lifecycle::Order;
use keyreeve_core::secret::Secret;
use keyreeve_core::time::Timestamp;
use serde_json::{Map, Value};

use super::exec::{rfc3339, text};
use super::life::Window;
use super::redact::Redactor;
use super::template::{Escape, Template};
use super::upstream::{COMPLAINT_BYTES_MAX, Upstream};
use super::{MintError, Minting, Nature, Source, answer};
use crate::clock;
use crate::config::{HttpMapping, SecretRef};
use crate::port::{Host, Http, HttpAnswer, HttpRequest, Secrets, Via};

const PLACEHOLDERS: [&str; 3] = ["generation", "idempotency_key", "expires_at"];
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The settings of an `http` source.
#[derive(Clone, Copy, Debug)]
pub struct HttpSettings<'a> {
    /// The credential's name.
    pub name: &'a CredentialName,
    /// How far the service's clock may be from this one, in milliseconds, before it is worth a warning.
    pub skew_ms: u64,
    /// Where.
    pub url: &'a str,
    /// How the requests leave, where that is not the usual way.
    pub via: Option<&'a Via>,
    /// `GET` or `POST`.
    pub method: &'a str,
    /// Plain headers; values may hold placeholders.
    pub headers: &'a BTreeMap<String, String>,
    /// Headers with a secret value.
    pub secret_headers: &'a BTreeMap<String, SecretRef>,
    /// Body template.
    pub body: Option<&'a str>,
    /// Where in the answer things are.
    pub mapping: &'a HttpMapping,
    /// Whether the service honours `Idempotency-Key`.
    pub is_idempotent: bool,
    /// The largest answer, in bytes.
    pub answer_bytes_max: usize,
}

/// Mints by asking a service.
pub struct HttpService {
    upstream: Upstream,
    method: Method,
    url: Template,
    headers: Vec<(HeaderName, Template)>,
    secret_headers: Vec<(HeaderName, Secret<String>)>,
    body: Option<Template>,
    body_escape: Escape,
    mapping: HttpMapping,
    nature: Nature,
    answer_bytes_max: usize,
    redactor: Redactor,
}

impl HttpService {
    /// Reads the secrets and takes the settings.
    ///
    /// # Errors
    /// A sentence that names the setting.
    pub fn new(
        settings: HttpSettings<'_>,
        secrets: &dyn Secrets,
        host: Arc<dyn Host>,
        http: Arc<dyn Http>,
    ) -> Result<Self, String> {
        let method = match settings.method {
            "GET" => Method::GET,
            "POST" => Method::POST,
            other => return Err(format!("`method` must be `GET` or `POST`, not `{other}`")),
        };
        check_mapping(settings.mapping)?;
        let template = |setting: &str, text: &str| {
            Template::parse(text, &PLACEHOLDERS).map_err(|cause| format!("`{setting}`: {cause}"))
        };
        let url = template("url", settings.url)?;
        check_url(&url)?;
        let mut headers = Vec::new();
        for (name, value) in settings.headers {
            headers.push((header_name(name)?, template(&format!("headers.{name}"), value)?));
        }
        let mut secret_headers = Vec::new();
        for (name, reference) in settings.secret_headers {
            let value = text(name, &secrets.read(reference)?)?;
            if HeaderValue::from_str(value.expose()).is_err() {
                return Err(format!("`secret_headers.{name}` has characters that no header may carry"));
            }
            secret_headers.push((header_name(name)?, value));
        }
        let body = settings.body.map(|body| template("body", body)).transpose()?;
        let content_type = settings.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
        let is_form = content_type.is_some_and(|(_, value)| value.starts_with("application/x-www-form-urlencoded"));
        Ok(Self {
            upstream: Upstream {
                name: settings.name.clone(),
                who: "the service",
                skew_ms: settings.skew_ms,
                via: settings.via.cloned(),
                host,
                http,
                offset_ms: AtomicI64::new(0),
            },
            method,
            url,
            headers,
            redactor: Redactor::new(secret_headers.iter().map(|(_, value)| value.expose().as_str())),
            secret_headers,
            body,
            body_escape: if is_form { Escape::Url } else { Escape::Json },
            mapping: settings.mapping.clone(),
            nature: if settings.is_idempotent { Nature::Idempotent } else { Nature::Opaque },
            answer_bytes_max: settings.answer_bytes_max,
        })
    }

    fn request(&self, order: &Order, idempotency_key: &str) -> HttpRequest {
        let value_of = |name: &str| match name {
            "generation" => order.generation.to_string(),
            "idempotency_key" => idempotency_key.to_owned(),
            _ => rfc3339(order.expires_at),
        };
        let mut headers = self.secret_headers.clone();
        let plain = self.headers.iter().map(|(name, value)| (name.clone(), value.fill(Escape::None, value_of)));
        headers.extend(plain.map(|(name, value)| (name, Secret::new(value))));
        let absent =
            |name: &HeaderName, headers: &[(HeaderName, Secret<String>)]| !headers.iter().any(|h| h.0 == *name);
        let ours = [
            (IDEMPOTENCY_KEY, idempotency_key, true),
            (header::ACCEPT, "application/json", true),
            (header::CONTENT_TYPE, "application/json", self.body.is_some()),
        ];
        for (name, value, is_needed) in ours {
            if is_needed && absent(&name, &headers) {
                headers.push((name, Secret::new(value.to_owned())));
            }
        }
        let body = self.body.as_ref().map(|body| body.fill(self.body_escape, value_of)).unwrap_or_default();
        HttpRequest {
            method: self.method.clone(),
            url: self.url.fill(Escape::Url, value_of),
            via: None,
            headers,
            body: Secret::new(body.into_bytes()),
            answer_bytes_max: self.answer_bytes_max,
        }
    }
}

#[async_trait]
impl Source for HttpService {
    fn kind(&self) -> &'static str {
        "http"
    }

    fn nature(&self) -> Nature {
        self.nature
    }

    async fn mint(&self, order: &Order, idempotency_key: &str) -> Result<Minting, MintError> {
        let request = self.request(order, idempotency_key);
        let heard = self.upstream.ask(order, request, &self.redactor).await?;
        let status = heard.answer.status;
        if !(200..=299).contains(&status) {
            let complaint = self.redactor.start(&complaint(&heard.answer), COMPLAINT_BYTES_MAX);
            return Err(self.upstream.refused(&heard, None, &complaint));
        }
        read(heard.answer.body.expose(), &self.mapping, heard.window)
            .map_err(|error| self.upstream.blame(status, error))
    }
}

/// Reads an answer by its mapping.
///
/// # Errors
/// [`MintError`] with a message that continues "the service answered with ..".
pub fn read(body: &[u8], mapping: &HttpMapping, window: Window) -> Result<Minting, MintError> {
    let document = answer::object(body).map_err(answer::unusable)?;
    let at = |pointer: &String| document.0.pointer(pointer);
    let blame = |error: MintError| MintError { message: format!("an answer in which {}", error.message), ..error };
    let material = || match &mapping.token {
        Some(pointer) => answer::token(pointer, at(pointer)),
        None => {
            let mut named = answer::Wiped(Value::Object(Map::new()));
            if let Value::Object(named) = &mut named.0 {
                for (name, pointer) in &mapping.fields {
                    named.insert(name.clone(), Value::from(answer::text(pointer, at(pointer))?));
                }
                return answer::fields("fields", named);
            }
            Err(answer::wrong("there are no fields"))
        }
    };
    let expires_at = || match (&mapping.expires_at, &mapping.expires_in) {
        (Some(pointer), _) => window.expires_at(pointer, at(pointer)),
        (None, Some(pointer)) => window.expires_in(pointer, at(pointer)),
        (None, None) => Err(super::LifeError::Absent("expires_at".into())),
    };
    let material = material().map_err(blame)?;
    let expires_at = expires_at().map_err(|error| blame(error.into()))?;
    Ok(Minting { material, issued_at: None, expires_at })
}

/// What an error answer says: the usual members of JSON errors (RFC 6749 5.2, RFC 9457), or short plain text.
fn complaint(answer: &HttpAnswer) -> String {
    let body = answer.body.expose();
    if let Ok(document) = answer::object(body) {
        let member = |pointer: &str| document.0.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let said =
            ["/error", "/error/code", "/code", "/title", "/error_description", "/error/message", "/message", "/detail"];
        let mut said: Vec<String> = said.into_iter().filter_map(member).collect();
        said.dedup();
        return said.join(": ");
    }
    let is_text = answer
        .headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.starts_with("text/plain"));
    if is_text { String::from_utf8_lossy(body).into_owned() } else { String::new() }
}

/// Reads `Retry-After` (RFC 9110 10.2.3) in milliseconds. A date is measured from the answer's own `Date`, so that a
/// wrong clock on either side does not matter; without one from `now`.
#[must_use]
pub fn retry_after_ms(headers: &HeaderMap, now: Timestamp) -> Option<u64> {
    let value = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if !value.is_empty() && value.bytes().all(|b| b.is_ascii_digit()) {
        return Some(value.parse::<u64>().unwrap_or(u64::MAX).saturating_mul(1000));
    }
    Some(clock::http_date(value)?.since(clock::date(headers).unwrap_or(now)))
}

fn header_name(name: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| format!("`{name}` is no name of a header"))
}

fn check_mapping(mapping: &HttpMapping) -> Result<(), String> {
    if mapping.token.is_some() != mapping.fields.is_empty() {
        return Err("the answer's mapping must have either `token` or `fields`".into());
    }
    if mapping.expires_at.is_some() == mapping.expires_in.is_some() {
        return Err("the answer's mapping must have either `expires_at` or `expires_in`\nhint: a credential without an end is not taken".into());
    }
    let all = [&mapping.token, &mapping.expires_at, &mapping.expires_in];
    let mut pointers = all.into_iter().flatten().chain(mapping.fields.values());
    // RFC 6901 3: a pointer is empty or begins with a slash.
    match pointers.find(|pointer| !pointer.starts_with('/')) {
        Some(pointer) => Err(format!("`{pointer}` is no JSON pointer\nhint: `/{pointer}` may be meant")),
        None => Ok(()),
    }
}

/// `https`, `http` to this machine, or another Worker by its binding; no user information, because URLs end up in messages.
fn check_url(url: &Template) -> Result<(), String> {
    check_plain_url("url", &url.fill(Escape::Url, |_| "0".into()))
}

/// As above, of a URL without placeholders that stands in `setting`.
pub(super) fn check_plain_url(setting: &str, filled: &str) -> Result<(), String> {
    if let Some((name, path)) = filled.strip_prefix("service:").and_then(|rest| rest.split_once('/')) {
        let is_good = !name.is_empty() && format!("https://service/{path}").parse::<Uri>().is_ok();
        return if is_good { Ok(()) } else { Err(format!("`{setting}` is not `service:NAME/path`")) };
    }
    let uri: Uri = filled.parse().map_err(|_| format!("`{setting}` is not a URL"))?;
    let (Some(scheme), Some(authority)) = (uri.scheme_str(), uri.authority()) else {
        return Err(format!("`{setting}` must be absolute"));
    };
    if authority.as_str().contains('@') {
        return Err(format!("`{setting}` must not hold a user or password\nhint: use `secret_headers`"));
    }
    let host = authority.host().trim_start_matches('[').trim_end_matches(']');
    let is_loopback =
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback());
    match scheme {
        "https" => Ok(()),
        "http" if is_loopback => Ok(()),
        "http" => Err(format!("`{setting}` must be `https`, except to this machine")),
        other => Err(format!("`{setting}` must be `https`, not `{other}`")),
    }
}
