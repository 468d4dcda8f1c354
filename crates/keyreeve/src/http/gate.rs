//! `ANY /auth/{gate}`: whether a request that a proxy has before it may go through.
//!
//! | who asks | where it says what is asked for |
//! |---|---|
//! | nginx `auth_request` | `X-Original-Method`, `X-Original-URI` (or as configured) |
//! | Traefik `forwardAuth`, Caddy `forward_auth` | `X-Forwarded-Method`, `X-Forwarded-Uri` |
//! | Envoy `ext_authz` over HTTP | the method and the path of the request itself, behind `/auth/{gate}` |
//!
//! 200 has the identity headers; 401 and 403 a challenge (RFC 6750 3) and a problem document. Whatever else is wrong
//! (no keys to judge by, a proxy that says nothing) is none of these, so that nobody is turned away as a stranger for it.

use std::sync::Arc;

use http::header::{AUTHORIZATION, CONTENT_LENGTH};
use http::request::Parts as Head;
use http::{HeaderMap, HeaderName, HeaderValue};
use keyreeve_core::jwt::Refusal;
use keyreeve_core::policy::{Decision, Request, RequestPath};
use keyreeve_core::time::Moment;

use super::api::{Answering, Api};
use super::problem::{Answer, FORBIDDEN, KEYS_UNAVAILABLE, MALFORMED, NOT_FOUND, Problem, UNAUTHENTICATED};
use super::route::Later;
use crate::inbound::{Accepted, Gate, Inbound, Proxy};
use crate::jwt::VerifyError;

const FORWARDED_METHOD: HeaderName = HeaderName::from_static("x-forwarded-method");
const FORWARDED_URI: HeaderName = HeaderName::from_static("x-forwarded-uri");
/// The challenge to who sent no token.
const CHALLENGE: &str = "Bearer";

/// What a proxy asks about.
struct Asked<'h> {
    name: &'h str,
    gate: &'h Gate,
    method: &'h str,
    uri: &'h str,
}

/// The answer, where it takes no waiting: the token was seen before, or there is none.
///
/// # Errors
/// The refusal.
pub(super) fn now(api: &Api, live: &Answering, raw: &str, head: &Head) -> Result<Option<Answer>, Problem> {
    let asked = asked(&live.inbound, raw, head)?;
    let token = token(&head.headers)?;
    match live.inbound.seen(token, api.host.now()) {
        Some(accepted) => decide(&live.inbound, &asked, &accepted).map(Some),
        None => Ok(None),
    }
}

/// The answer, verification included.
///
/// # Errors
/// The refusal.
pub(super) async fn wait(later: &Later, head: &Head) -> Result<Answer, Problem> {
    let inbound = &later.live.inbound;
    let asked = asked(inbound, &later.name, head)?;
    let token = token(&head.headers)?;
    let accepted = accept(inbound, token, later.api.host.now()).await?;
    decide(inbound, &asked, &accepted)
}

/// Verifies a token.
///
/// # Errors
/// 401 with little for strangers and the whole reason for the log; 503 where nothing is known about the token.
async fn accept(inbound: &Inbound, token: &str, now: Moment) -> Result<Arc<Accepted>, Problem> {
    inbound.accept(token, now).await.map_err(|error| match error {
        VerifyError::Refused(refusal) => refused(&refusal),
        VerifyError::Unavailable(why) => unavailable(&why.to_string()),
        VerifyError::Stale(stale) => super::revocations::stale(&stale),
    })
}

/// What strangers hear about a token that was refused.
fn refused(refusal: &Refusal) -> Problem {
    let public = refusal.public();
    let challenge = format!("{CHALLENGE} error=\"invalid_token\", error_description=\"{public}\"");
    let text = format!("{public}\nhint: get a new token, and send the request again");
    Problem::new(UNAUTHENTICATED, text).challenging(challenge).because(refusal.to_string())
}

/// No keys: a matter of ours, not of who sent the token.
pub(super) fn unavailable(why: &str) -> Problem {
    let text = "tokens cannot be verified at the moment\nhint: try again; the log tells why under this request's id";
    Problem::new(KEYS_UNAVAILABLE, text).because(why.to_owned()).after(1000)
}

/// The bearer token (RFC 6750 2.1). Two headers are none: which one is meant is not guessed.
fn token(headers: &HeaderMap) -> Result<&str, Problem> {
    let refuse = |text: &str, challenge: &str| {
        Err(Problem::new(UNAUTHENTICATED, text.to_owned()).challenging(challenge.to_owned()))
    };
    let mut sent = headers.get_all(AUTHORIZATION).iter();
    let value = match (sent.next(), sent.next()) {
        (None, _) => return refuse("this needs a token\nhint: send `Authorization: Bearer <token>`", CHALLENGE),
        (Some(value), None) => value.to_str().ok(),
        (Some(_), Some(_)) => {
            return refuse("`Authorization` is there twice", "Bearer error=\"invalid_request\"");
        }
    };
    let token = value
        .and_then(|value| value.split_at_checked(7))
        .filter(|(scheme, token)| scheme.eq_ignore_ascii_case("bearer ") && !token.is_empty() && !token.contains(' '));
    match token {
        Some((_, token)) => Ok(token),
        None => refuse("this needs a token\nhint: send `Authorization: Bearer <token>`", CHALLENGE),
    }
}

/// What the proxy asks about, from where its kind says it.
fn asked<'h>(inbound: &'h Inbound, raw: &'h str, head: &'h Head) -> Result<Asked<'h>, Problem> {
    let (name, below) = match raw.find('/') {
        Some(at) => raw.split_at_checked(at).unwrap_or((raw, "")),
        None => (raw, ""),
    };
    let gate = inbound.gate(name).ok_or_else(|| {
        Problem::new(NOT_FOUND, "there is no gate of this name\nhint: gates have the names under `[gate.NAME]`")
    })?;
    let (method, uri) = match gate.config.proxy {
        Proxy::Nginx => by_headers(head, &gate.method_header, &gate.uri_header)?,
        Proxy::Traefik | Proxy::Caddy => by_headers(head, &FORWARDED_METHOD, &FORWARDED_URI)?,
        Proxy::Envoy => by_itself(head, below)?,
        Proxy::Any => any(head, gate, below)?,
    };
    Ok(Asked { name, gate, method, uri })
}

/// The one shape that is there. A proxy sets its own; what a client adds of another one must not be taken for it.
fn any<'h>(head: &'h Head, gate: &Gate, below: &str) -> Result<(&'h str, &'h str), Problem> {
    let has = |name: &HeaderName| head.headers.contains_key(name);
    let is_nginx = has(&gate.method_header) || has(&gate.uri_header);
    let is_forwarded = has(&FORWARDED_METHOD) || has(&FORWARDED_URI);
    match (is_nginx, is_forwarded, below.is_empty()) {
        (true, false, true) => by_headers(head, &gate.method_header, &gate.uri_header),
        (false, true, true) => by_headers(head, &FORWARDED_METHOD, &FORWARDED_URI),
        (false, false, false) => by_itself(head, below),
        (false, false, true) => {
            let hint = "the proxy sets `X-Original-Method` and `X-Original-URI`, or `X-Forwarded-Method` and `X-Forwarded-Uri`, or asks with the path behind the gate's name";
            Err(Problem::new(MALFORMED, format!("nothing says which request this is about\nhint: {hint}")))
        }
        _ => {
            let hint = "set `proxy` of this gate, so that the others are not looked at";
            Err(Problem::new(MALFORMED, format!("two kinds of proxies say which request this is about\nhint: {hint}")))
        }
    }
}

fn by_headers<'h>(head: &'h Head, method: &HeaderName, uri: &HeaderName) -> Result<(&'h str, &'h str), Problem> {
    Ok((header(head, method)?, header(head, uri)?))
}

/// The one value of a header that the proxy has to set.
fn header<'h>(head: &'h Head, name: &HeaderName) -> Result<&'h str, Problem> {
    let refuse = |what: &str| Problem::new(MALFORMED, format!("`{name}` {what}\nhint: the proxy has to set it, once"));
    let mut sent = head.headers.get_all(name).iter();
    match (sent.next(), sent.next()) {
        (Some(value), None) => value.to_str().map_err(|_| refuse("is not plain text")),
        (None, _) => Err(refuse("is missing")),
        (Some(_), Some(_)) => Err(refuse("is there twice")),
    }
}

/// Method and path as they stand, the gate's own part taken off.
fn by_itself<'h>(head: &'h Head, below: &str) -> Result<(&'h str, &'h str), Problem> {
    let whole = head.uri.path_and_query().map_or("", http::uri::PathAndQuery::as_str);
    let from = head.uri.path().len().saturating_sub(below.len());
    match whole.get(from..) {
        Some(uri) if !below.is_empty() => Ok((head.method.as_str(), uri)),
        _ => {
            let text = "no path follows the name of the gate\nhint: Envoy's `path_prefix` is `/auth/NAME`, without a slash at its end";
            Err(Problem::new(MALFORMED, text))
        }
    }
}

/// What the rules say.
fn decide(inbound: &Inbound, asked: &Asked<'_>, accepted: &Accepted) -> Result<Answer, Problem> {
    let path = RequestPath::parse(asked.uri).map_err(|error| denied(error.to_string()))?;
    let request = Request { on: &asked.gate.place, method: asked.method, path: &path };
    match inbound.decide(accepted, request) {
        Decision::Allow(_) => {
            let identity = accepted
                .identity(asked.name, asked.gate)
                .map_err(|header| denied(format!("the claim for `{header}` is too long for a header")))?;
            let mut answer = Answer::default();
            answer.headers_mut().clone_from(&identity);
            answer.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
            Ok(answer)
        }
        Decision::Deny(denial) => {
            let subject = accepted.verified().claims().subject().unwrap_or("-");
            let subject = keyreeve_core::jwt::Shown::of(subject);
            Err(denied(format!("`{subject}` of {}: {denial}", accepted.source())))
        }
    }
}

/// A good token that does not allow this. Who holds it hears no more than that.
fn denied(why: String) -> Problem {
    let text = "the token does not allow this\nhint: who runs this service finds the reason in the log, under this request's id";
    let challenge = format!("{CHALLENGE} error=\"insufficient_scope\"");
    Problem::new(FORBIDDEN, text).challenging(challenge).because(why)
}
