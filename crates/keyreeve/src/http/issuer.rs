//! What issuers publish, and what operators ask of their keys.

use axum::body::Body;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, CONTENT_TYPE, ETAG};
use http::request::Parts as Head;
use http::{HeaderValue, StatusCode};
use keyreeve_core::crypto::Crypto as _;
use keyreeve_core::id::IssuerName;
use keyreeve_core::time::Span;
use serde_json::{Value, json};

use super::credentials::json_answer;
use super::input::{self, required, rfc3339, wrong_type};
use super::problem::{Answer, NOT_FOUND, Problem, STORE_UNAVAILABLE};
use super::route::Later;
use crate::crypto::LocalCrypto;
use crate::error::{Error, ErrorKind};
use crate::hex;
use crate::inbound::Issuing;
use crate::inbound::issuer::{IssuerState, Issuers};

/// For how long a discovery document may be kept, in seconds: it changes with the configuration only.
const DOCUMENT_S: u64 = 300;
/// The most issuers in one answer.
const ISSUERS_MAX: usize = 1000;

/// The issuer that a request is about: the one it names, or the only one.
pub(super) fn issuing(later: &Later) -> Option<(&Issuing, &IssuerName)> {
    let issuing = later.live.issuing.as_ref()?;
    let name = if later.name.is_empty() {
        issuing.issuers.only()
    } else {
        issuing.issuers.names().find(|name| name.as_str() == later.name)
    };
    Some((issuing, name?))
}

/// The same whether there is none or none for this caller.
pub(super) fn no_such(name: &str) -> Problem {
    let named = if IssuerName::parse(name).is_ok() { format!("named `{name}`") } else { "of that name".into() };
    Problem::new(
        NOT_FOUND,
        format!("there is no issuer {named} here\nhint: `GET /v1/issuers` lists the ones there are for you"),
    )
}

fn at(later: &Later) -> Result<(&Issuers, &IssuerName), Problem> {
    let (issuing, name) = issuing(later).ok_or_else(|| no_such(&later.name))?;
    Ok((&issuing.issuers, name))
}

/// `GET /.well-known/jwks.json`
pub(super) async fn jwks(later: &Later, head: &Head) -> Result<Answer, Problem> {
    let (issuers, name) = at(later)?;
    let (body, keep_ms) = issuers.jwks(name.as_str()).await.map_err(|error| {
        tracing::warn!(request_id = %later.request_id(), issuer = %name, "the keys are not published: {error}");
        let text = format!(
            "the keys of issuer `{name}` cannot be read now\nhint: go on with those that you hold, and try again"
        );
        Problem::new(STORE_UNAVAILABLE, text).after(error.retry_after_ms.unwrap_or(1000))
    })?;
    Ok(published(head, body, "application/jwk-set+json", keep_ms / 1000))
}

/// `GET /.well-known/openid-configuration` (OpenID Connect Discovery 1.0 3, RFC 8414 2).
pub(super) fn discovery(later: &Later, head: &Head) -> Result<Answer, Problem> {
    let (issuing, name) = issuing(later).ok_or_else(|| no_such(&later.name))?;
    let issuers = &issuing.issuers;
    let config = issuers.config(name.as_str()).ok_or_else(|| no_such(&later.name))?;
    let url = &config.url;
    let algorithms = ["EdDSA", "ES256", "ES384", "ES512", "RS256", "RS384", "RS512", "PS256", "PS384", "PS512"];
    let mut methods = vec!["client_secret_basic", "client_secret_post", "private_key_jwt"];
    // RFC 8705 5: where some client proves itself so.
    let certificates = issuing.clients.certificates_of(name.as_str());
    methods.extend(certificates.by_name.then_some("tls_client_auth"));
    methods.extend(certificates.by_itself.then_some("self_signed_tls_client_auth"));
    let body = json!({
        "issuer": url,
        "jwks_uri": format!("{url}/.well-known/jwks.json"),
        "token_endpoint": format!("{url}/oauth2/token"),
        "introspection_endpoint": format!("{url}/oauth2/introspect"),
        "revocation_endpoint": format!("{url}/oauth2/revoke"),
        "grant_types_supported": [
            "client_credentials",
            "urn:ietf:params:oauth:grant-type:token-exchange",
            "urn:ietf:params:oauth:grant-type:jwt-bearer",
        ],
        "response_types_supported": [],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": [config.rules.algorithm],
        "token_endpoint_auth_methods_supported": methods,
        "token_endpoint_auth_signing_alg_values_supported": algorithms,
        "introspection_endpoint_auth_methods_supported": methods,
        "introspection_endpoint_auth_signing_alg_values_supported": algorithms,
        "revocation_endpoint_auth_methods_supported": methods,
        "revocation_endpoint_auth_signing_alg_values_supported": algorithms,
        "tls_client_certificate_bound_access_tokens": certificates.by_name || certificates.by_itself,
    });
    Ok(published(head, body.to_string(), "application/json", DOCUMENT_S))
}

/// A document that anybody may read and keep.
fn published(head: &Head, body: String, kind: &'static str, keep_s: u64) -> Answer {
    let digest = LocalCrypto.sha256(&[body.as_bytes()]);
    let etag = format!("\"{}\"", hex::encode(digest.first_chunk::<16>().unwrap_or(&[0; 16])));
    let is_known = input::is_not_modified(&head.headers, etag.as_bytes());
    let mut answer = Answer::new(if is_known { Body::empty() } else { body.into() });
    if is_known {
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = answer.headers_mut();
    if !is_known {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Ok(etag) = HeaderValue::try_from(etag) {
        headers.insert(ETAG, etag);
    }
    if let Ok(keep) = HeaderValue::try_from(format!("public, max-age={keep_s}")) {
        headers.insert(CACHE_CONTROL, keep);
    }
    // There is nothing secret in it, and browsers verify tokens too.
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    answer
}

/// `GET /v1/issuers`
pub(super) fn list(later: &Later, head: &Head) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let issuers = later.live.issuing.as_ref().map(|issuing| &issuing.issuers);
    let names = issuers.into_iter().flat_map(|issuers| issuers.names().map(move |name| (issuers, name)));
    let mine = names.filter(|(_, name)| later.reaches_issuer(name.as_str())).take(ISSUERS_MAX);
    let states =
        mine.filter_map(|(issuers, name)| Some(state_json(later, issuers, name, &issuers.state(name.as_str()).ok()?)));
    Ok(json_answer(&json!({ "issuers": states.collect::<Vec<_>>() })))
}

/// `GET /v1/issuers/{name}`
pub(super) fn show(later: &Later, head: &Head) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let (issuers, name) = at(later)?;
    let state = issuers.state(name.as_str()).map_err(|error| Problem::of_issuer(name.as_str(), error))?;
    Ok(json_answer(&state_json(later, issuers, name, &state)))
}

/// `POST /v1/issuers/{name}/rotate`
pub(super) async fn rotate(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    input::object(later, head, body, true).await?.take([])?;
    let (who, name) = (later.who().to_owned(), later.name.clone());
    tracing::info!(request_id = %later.request_id(), caller = who, issuer = name, "rotation asked for");
    detached(later, |issuers| Box::pin(async move { issuers.rotate(&name, &who).await })).await
}

/// `POST /v1/issuers/{name}/retire`
pub(super) async fn retire(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let [kid] = input::object(later, head, body, false).await?.take(["kid"])?;
    let kid = required(kid, "kid")?;
    let kid = kid.as_str().ok_or_else(|| wrong_type("kid", "a string", &kid))?.to_owned();
    let (who, name) = (later.who().to_owned(), later.name.clone());
    tracing::info!(request_id = %later.request_id(), caller = who, issuer = name, "retirement asked for");
    detached(later, |issuers| Box::pin(async move { issuers.retire(&name, &kid, &who).await })).await
}

/// Runs a change as a task of its own, and waits for it as long as a request may take.
async fn detached(
    later: &Later,
    change: impl FnOnce(Issuers) -> BoxFuture<'static, Result<IssuerState, Error>>,
) -> Result<Answer, Problem> {
    let (issuers, name) = at(later)?;
    let (done, outcome) = oneshot::channel();
    let change = change(issuers.clone());
    let host = &later.api.host;
    host.spawn(Box::pin(async move {
        // Nobody may be waiting any more.
        let _ = done.send(change.await);
    }));
    let limit_ms = later.live.limits.request_ms_max;
    let until = host.now().mono.plus(limit_ms);
    match select(outcome, host.sleep_until(until)).await {
        Either::Left((Ok(result), _)) => {
            let state = result.map_err(|error| Problem::of_issuer(name.as_str(), error))?;
            let mut answer = json_answer(&state_json(later, issuers, name, &state));
            *answer.status_mut() = StatusCode::ACCEPTED;
            Ok(answer)
        }
        Either::Left((Err(_), _)) | Either::Right(_) => {
            let text = format!(
                "the change to issuer `{name}` was not done after {}; it goes on\nhint: look at its keys, or send the request again",
                Span(limit_ms)
            );
            Err(Problem::new(STORE_UNAVAILABLE, text).after(1000))
        }
    }
}

fn state_json(later: &Later, issuers: &Issuers, name: &IssuerName, state: &IssuerState) -> Value {
    let keys = state.keys.iter().map(|key| {
        json!({
            "kid": key.kid,
            "alg": key.algorithm,
            "phase": key.phase.as_str(),
            "published_at": rfc3339(key.published_at),
            "use_from": rfc3339(key.use_from),
            "leaves_at": key.leaves_at.map(rfc3339),
        })
    });
    let notes = state.notes.iter().map(|note| {
        json!({
            "at": rfc3339(note.at),
            "kind": note.kind.as_str(),
            "kid": note.kid,
            "node": note.node.as_str(),
            "detail": note.detail,
        })
    });
    let fault = state.fault.as_deref().map(|why| if later.tells_causes() { why } else { "the store does not answer" });
    json!({
        "name": name.as_str(),
        "url": issuers.config(name.as_str()).map(|config| config.url.as_str()),
        "rev": state.rev,
        "keys": keys.collect::<Vec<_>>(),
        "revoked_tokens": state.revoked,
        "read_ms_ago": state.age_ms,
        "good_for_ms": state.good_for_ms,
        "bound_ms": state.bound_ms,
        "fault": fault,
        "history": notes.collect::<Vec<_>>(),
    })
}

impl Problem {
    /// What came of asking something of an issuer: what its state forbids is a conflict.
    fn of_issuer(name: &str, error: Error) -> Self {
        match error.kind {
            ErrorKind::StoreUnavailable => Self::of_change(name, error),
            ErrorKind::NotFound => Self::new(NOT_FOUND, error.message),
            _ => Self::of_token(name, error),
        }
    }
}
