//! Errors as RFC 9457 problem documents.
//!
//! An upstream or a store that fails is always a 503, never a 401, 403 or 404: clients of cloud credentials (the AWS SDKs
//! among them) try a 503 again and give up on the others. That is also why an upstream's timeout is a 503 and no 504.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};
use serde_json::{Map, Value, json};

use super::api::RequestId;
use crate::error::{Error, ErrorKind};

/// A kind of problem: what `type`, `title` and status say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The last part of `urn:keyreeve:problem:NAME`. Stable.
    pub name: &'static str,
    /// The status. An operator's request that a credential's state forbids is a 409 whatever stands here.
    pub status: u16,
    /// What happened, without the particulars.
    pub title: &'static str,
    /// Whether the same request, sent again as it is, can do no harm and may succeed.
    pub is_safe_to_retry: bool,
}

const fn kind(name: &'static str, status: u16, title: &'static str, is_safe_to_retry: bool) -> Kind {
    Kind { name, status, title, is_safe_to_retry }
}

pub(super) const MALFORMED: Kind = kind("malformed-request", 400, "the request cannot be read", false);
pub(super) const UNAUTHENTICATED: Kind = kind("unauthenticated", 401, "not authenticated", false);
pub(super) const FORBIDDEN: Kind = kind("forbidden", 403, "not allowed", false);
pub(super) const NOT_FOUND: Kind = kind("not-found", 404, "not found", false);
pub(super) const METHOD: Kind = kind("method-not-allowed", 405, "no such method here", false);
pub(super) const BODY_TIMEOUT: Kind = kind("request-timeout", 408, "the request did not arrive in time", true);
pub(super) const LIFE_TOO_SHORT: Kind = kind("life-too-short", 409, "not as much life as asked for", true);
pub(super) const CONFLICT: Kind = kind("conflict", 409, "in conflict with the present state", true);
pub(super) const TOO_LARGE: Kind = kind("too-large", 413, "the body is too large", false);
pub(super) const URI_TOO_LONG: Kind = kind("uri-too-long", 414, "the URL is too long", false);
pub(super) const MEDIA_TYPE: Kind = kind("unsupported-media-type", 415, "the body is not JSON", false);
pub(super) const UNPROCESSABLE: Kind = kind("unprocessable", 422, "a value is not acceptable", false);
pub(super) const RATE_LIMITED: Kind = kind("rate-limited", 429, "too many at once", true);
pub(super) const HEADERS: Kind = kind("headers-too-large", 431, "the headers are too large", false);
/// What the Worker's shim answers where a request has ended in a panic (`tools/bindgen/src/shim.js`).
const INTERNAL: Kind = kind("internal-error", 500, "something went wrong inside", false);
pub(super) const NOT_IMPLEMENTED: Kind = kind("not-implemented", 501, "not in this home of keyreeve", false);
pub(super) const NOT_READY: Kind = kind("not-ready", 503, "not ready", true);
pub(super) const STORE_UNAVAILABLE: Kind = kind("store-unavailable", 503, "the store does not answer", true);
pub(super) const KEYS_UNAVAILABLE: Kind = kind("keys-unavailable", 503, "tokens cannot be verified now", true);
pub(super) const STALE_REVOCATIONS: Kind =
    kind("stale-revocation-data", 503, "nobody can tell what is revoked now", true);
pub(super) const UPSTREAM_TIMEOUT: Kind = kind("upstream-timeout", 503, "the upstream has not answered yet", true);
pub(super) const UPSTREAM_FAILED: Kind = kind("upstream-failed", 503, "the upstream failed", true);
const UPSTREAM_THROTTLED: Kind = kind("upstream-throttled", 503, "the upstream asks for fewer calls", true);
const UPSTREAM_REJECTED: Kind = kind("upstream-rejected", 503, "the upstream said no", false);
const CONFIG_INVALID: Kind = kind("config-invalid", 503, "set up wrongly", false);
const IN_DOUBT: Kind = kind("in-doubt", 503, "a mint has no outcome yet", true);
const NEEDS_REAUTH: Kind = kind("needs-reauth", 503, "an operator has to decide", false);
const RENEWAL_TOO_SOON: Kind = kind("renewal-too-soon", 503, "too soon for the next mint", true);
const SEAL_KEY_MISSING: Kind = kind("seal-key-missing", 503, "the stored secret cannot be opened", false);
pub(super) const RECORD_REFUSED: Kind = kind("record-refused", 503, "the stored record cannot be read", false);

/// Every kind of problem the API answers with.
pub const PROBLEMS: &[Kind] = &[
    MALFORMED,
    UNAUTHENTICATED,
    FORBIDDEN,
    NOT_FOUND,
    METHOD,
    BODY_TIMEOUT,
    LIFE_TOO_SHORT,
    CONFLICT,
    TOO_LARGE,
    URI_TOO_LONG,
    MEDIA_TYPE,
    UNPROCESSABLE,
    RATE_LIMITED,
    HEADERS,
    INTERNAL,
    NOT_IMPLEMENTED,
    NOT_READY,
    STORE_UNAVAILABLE,
    KEYS_UNAVAILABLE,
    STALE_REVOCATIONS,
    UPSTREAM_TIMEOUT,
    UPSTREAM_FAILED,
    UPSTREAM_THROTTLED,
    UPSTREAM_REJECTED,
    CONFIG_INVALID,
    IN_DOUBT,
    NEEDS_REAUTH,
    RENEWAL_TOO_SOON,
    SEAL_KEY_MISSING,
    RECORD_REFUSED,
];

const fn kind_of(kind: ErrorKind) -> Kind {
    match kind {
        ErrorKind::NotFound => NOT_FOUND,
        ErrorKind::StoreUnavailable => STORE_UNAVAILABLE,
        ErrorKind::UpstreamTimeout => UPSTREAM_TIMEOUT,
        ErrorKind::UpstreamFailed => UPSTREAM_FAILED,
        ErrorKind::UpstreamThrottled => UPSTREAM_THROTTLED,
        ErrorKind::UpstreamRejected => UPSTREAM_REJECTED,
        ErrorKind::ConfigInvalid => CONFIG_INVALID,
        ErrorKind::InDoubt => IN_DOUBT,
        ErrorKind::NeedsReauth => NEEDS_REAUTH,
        ErrorKind::RenewalTooSoon => RENEWAL_TOO_SOON,
        ErrorKind::LifeTooShort => LIFE_TOO_SHORT,
        ErrorKind::SealKeyMissing => SEAL_KEY_MISSING,
        ErrorKind::RecordRefused => RECORD_REFUSED,
        ErrorKind::Conflict => CONFLICT,
        ErrorKind::Unacceptable => UNPROCESSABLE,
    }
}

/// No answer, as a caller sees it, and the cause, as only the log sees it.
#[derive(Debug)]
pub(super) struct Problem(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: Kind,
    detail: String,
    hint: Option<String>,
    retry_after_ms: Option<u64>,
    allow: Option<String>,
    challenge: Option<String>,
    members: Map<String, Value>,
    cause: Option<String>,
}

/// An answer, its body still to be sent.
pub type Answer = http::Response<axum::body::Body>;

impl Problem {
    /// A problem; what follows a line break and `hint: ` in `detail` is the hint.
    pub(super) fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let detail = detail.into();
        let (detail, hint) = match detail.split_once("\nhint: ") {
            Some((detail, hint)) => (detail.to_owned(), Some(hint.to_owned())),
            None => (detail, None),
        };
        let members = Map::new();
        Self(Box::new(Inner {
            kind,
            detail,
            hint,
            retry_after_ms: None,
            allow: None,
            challenge: None,
            members,
            cause: None,
        }))
    }

    /// Says no more than that there was no proof, or a wrong one.
    pub(super) fn unauthenticated() -> Self {
        Self::new(UNAUTHENTICATED, "this needs an API key\nhint: send `Authorization: Bearer <api key>`")
    }

    /// The same whether the name is unknown or not for this caller.
    pub(super) fn unknown_name(name: &str) -> Self {
        let is_a_name = keyreeve_core::id::CredentialName::parse(name).is_ok();
        let named = if is_a_name { format!("named `{name}`") } else { "of that name".into() };
        let hint = "\nhint: `GET /v1/credentials` lists the ones there are for you";
        Self::new(NOT_FOUND, format!("there is no credential {named} for you{hint}"))
    }

    /// What came of asking for `name`'s token.
    pub(super) fn of_token(name: &str, error: Error) -> Self {
        match error.kind {
            ErrorKind::NotFound => Self::unknown_name(name),
            ErrorKind::StoreUnavailable => {
                let text = format!(
                    "the store does not answer, and this node holds no valid `{name}`\nhint: try again; the log tells why under this request's id"
                );
                Self::with_cause(STORE_UNAVAILABLE, text, error)
            }
            kind => {
                let text = error.message.clone();
                Self::with_cause(kind_of(kind), text, error)
            }
        }
    }

    /// What came of asking for a change to `name`, or for its history: what its state forbids is a conflict.
    pub(super) fn of_change(name: &str, error: Error) -> Self {
        let mut problem = match error.kind {
            ErrorKind::StoreUnavailable => {
                let text = format!(
                    "the store does not answer, and nothing about `{name}` is known to be changed\nhint: try again; the log tells why under this request's id"
                );
                Self::with_cause(STORE_UNAVAILABLE, text, error)
            }
            _ => Self::of_token(name, error),
        };
        let kind = &mut problem.0.kind;
        if [IN_DOUBT, NEEDS_REAUTH, RENEWAL_TOO_SOON, CONFIG_INVALID].contains(kind) {
            kind.status = CONFLICT.status;
        }
        problem
    }

    fn with_cause(kind: Kind, text: String, error: Error) -> Self {
        let mut problem = Self::new(kind, text);
        problem.0.retry_after_ms = error.retry_after_ms;
        problem.0.cause = Some(error.message);
        problem
    }

    pub(super) fn after(mut self, retry_after_ms: u64) -> Self {
        self.0.retry_after_ms = Some(retry_after_ms);
        self
    }

    /// The methods there are.
    pub(super) fn allowing(mut self, methods: String) -> Self {
        self.0.allow = Some(methods);
        self
    }

    /// What `WWW-Authenticate` says (RFC 6750 3).
    pub(super) fn challenging(mut self, challenge: String) -> Self {
        self.0.challenge = Some(challenge);
        self
    }

    /// What only the log is told.
    pub(super) fn because(mut self, cause: String) -> Self {
        self.0.cause = Some(cause);
        self
    }

    /// The last part of its `type`.
    pub(super) const fn kind_name(&self) -> &'static str {
        self.0.kind.name
    }

    /// What it says to the caller, the hint included.
    pub(super) fn sentence(&self) -> String {
        match &self.0.hint {
            Some(hint) => format!("{}; {hint}", self.0.detail),
            None => self.0.detail.clone(),
        }
    }

    /// Adds a member of its own to the document.
    pub(super) fn member(mut self, name: &str, value: Value) -> Self {
        self.0.members.insert(name.to_owned(), value);
        self
    }

    /// The answer. Writes what the caller is not told to the log, under the same id.
    pub(super) fn answer(self, id: RequestId, who: Option<&str>, route: &str) -> Answer {
        let Inner { kind, detail, hint, retry_after_ms, allow, challenge, members, cause } = *self.0;
        let request_id = id.to_string();
        let said = cause.as_deref().unwrap_or(&detail);
        let who = who.unwrap_or("-");
        if kind.status >= 500 {
            tracing::warn!(%request_id, caller = who, route, status = kind.status, problem = kind.name, "{said}");
        } else if cause.is_some() {
            // The caller was told less: whoever asks why has nothing but this line.
            tracing::info!(%request_id, caller = who, route, status = kind.status, problem = kind.name, "{said}");
        } else {
            tracing::debug!(%request_id, caller = who, route, status = kind.status, problem = kind.name, "{said}");
        }
        let mut body = Map::new();
        body.insert("type".into(), format!("urn:keyreeve:problem:{}", kind.name).into());
        body.insert("title".into(), kind.title.into());
        body.insert("status".into(), kind.status.into());
        body.insert("detail".into(), detail.into());
        if let Some(hint) = hint {
            body.insert("hint".into(), hint.into());
        }
        body.insert("instance".into(), format!("urn:keyreeve:request:{request_id}").into());
        body.insert("request_id".into(), request_id.clone().into());
        body.insert("safe_to_retry".into(), kind.is_safe_to_retry.into());
        if let Some(ms) = retry_after_ms {
            body.insert("retry_after_ms".into(), ms.into());
        }
        body.extend(members);
        let mut answer = Answer::new(Bytes::from(json!(body).to_string()).into());
        *answer.status_mut() = StatusCode::from_u16(kind.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = answer.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(challenge) = challenge.and_then(|challenge| HeaderValue::try_from(challenge).ok()) {
            headers.insert(WWW_AUTHENTICATE, challenge);
        } else if kind == UNAUTHENTICATED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(ms) = retry_after_ms {
            headers.insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000).max(1)));
        }
        if let Some(allow) = allow.and_then(|allow| HeaderValue::try_from(allow).ok()) {
            headers.insert(ALLOW, allow);
        }
        answer
    }
}
