//! Requests that only the node which renews a credential can answer, on a node that only follows it.
//!
//! They have passed every check here. Where they go they are checked once more, by the same rules: whoever renews need not
//! trust whoever forwards.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use futures::future::{Either, select};
use futures::{StreamExt as _, stream};
use http::Request;
use http::header::AUTHORIZATION;
use http::request::Parts as Head;
use http_body_util::{BodyExt as _, Limited};
use keyreeve_core::id::CredentialName;
use keyreeve_core::time::{Mono, Span};
use serde_json::Value;

use super::input;
use super::problem::{Answer, Problem, STORE_UNAVAILABLE};
use super::route::Later;
use super::routes::Endpoint;

/// How many nodes are asked at the same time for one list: Workers allow six connections of a request.
const ASKED_AT_ONCE: usize = 6;
/// A list waits so long for all of them, in milliseconds, and never longer than for one request: its reader wants a list.
const ASKED_MS: u64 = 5000;
/// The largest state of one credential, in bytes.
const STATE_BYTES_MAX: usize = 64 * 1024;

/// The way to the node that renews.
#[async_trait]
pub trait Forward: Send + Sync {
    /// Sends a request about `name` on, as it is, and returns the answer. Secrets are in its headers.
    ///
    /// # Errors
    /// A sentence, where there is no answer.
    async fn forward(&self, name: &CredentialName, request: Request<Bytes>) -> Result<Answer, String>;
}

/// Whether the request is answered elsewhere.
pub(super) fn applies(later: &Later) -> Option<Arc<dyn Forward>> {
    let is_about_the_record = matches!(
        later.route.endpoint,
        Endpoint::Show | Endpoint::History | Endpoint::Report | Endpoint::Renew | Endpoint::Resolve
    );
    let forward = later.live.forward.as_ref().filter(|_| is_about_the_record)?;
    later.live.outbound.is_followed(&later.name).then(|| Arc::clone(forward))
}

/// Sends the request on. A report or a wish for a renewal that was accepted makes this node look for the next generation
/// as well.
pub(super) async fn send(later: &Later, to: &dyn Forward, head: Head, body: Body) -> Result<Answer, Problem> {
    let Ok(name) = CredentialName::parse(&later.name) else { return Err(Problem::unknown_name(&later.name)) };
    let body = input::body_bytes(later, &head, body).await?;
    let replaced = match later.route.endpoint {
        Endpoint::Report => reported_generation(&body),
        Endpoint::Renew => later.live.outbound.state(name.as_str()).and_then(|state| state.generation),
        _ => None,
    };
    let host = &later.api.host;
    let limit_ms = later.live.limits.request_ms_max;
    let until = host.now().mono.plus(limit_ms);
    let unanswered = |why: String| {
        let text = format!("the node that renews `{name}` {why}\nhint: send the request again");
        Problem::new(STORE_UNAVAILABLE, text).after(1000)
    };
    let answer = match select(to.forward(&name, Request::from_parts(head, body)), host.sleep_until(until)).await {
        Either::Left((Ok(answer), _)) => answer,
        Either::Left((Err(error), _)) => {
            tracing::warn!(credential = %name, "a request could not be forwarded: {error}");
            return Err(unanswered("cannot be reached".into()));
        }
        Either::Right(_) => return Err(unanswered(format!("did not answer within {}", Span(limit_ms)))),
    };
    if let Some(generation) = replaced.filter(|_| answer.status().is_success()) {
        later.live.outbound.look_beyond(name.as_str(), generation);
    }
    Ok(answer)
}

/// What the node that renews a credential said about it.
pub(super) enum Told {
    /// The JSON of its state.
    State(Value),
    /// Nothing that can be used, or not in time.
    Nothing,
}

/// Asks each credential's own node where it stands, a few at a time. `None` for those that this node knows best itself.
pub(super) async fn states(later: &Later, head: &Head, names: &[&CredentialName]) -> Vec<Option<Told>> {
    let Some(to) = &later.live.forward else { return Vec::new() };
    let until = later.api.host.now().mono.plus(ASKED_MS.min(later.live.limits.request_ms_max));
    let asked: Vec<_> = names.iter().map(|name| state(later, to.as_ref(), head, name, until)).collect();
    stream::iter(asked).buffered(ASKED_AT_ONCE).collect().await
}

async fn state(later: &Later, to: &dyn Forward, head: &Head, name: &CredentialName, until: Mono) -> Option<Told> {
    if !later.live.outbound.is_followed(name.as_str()) {
        return None;
    }
    let mut request = Request::get(format!("/v1/credentials/{}", name.as_str().replace('/', "%2F")));
    if let Some(authorization) = head.headers.get(AUTHORIZATION) {
        request = request.header(AUTHORIZATION, authorization);
    }
    let sent = to.forward(name, request.body(Bytes::new()).ok()?);
    let why = match select(sent, later.api.host.sleep_until(until)).await {
        Either::Left((Ok(answer), _)) if answer.status().is_success() => match state_in(answer).await {
            Some(state) => return Some(Told::State(state)),
            None => "its answer could not be read".to_owned(),
        },
        Either::Left((Ok(answer), _)) => format!("it answered {}", answer.status()),
        Either::Left((Err(error), _)) => error,
        Either::Right(_) => "it did not answer in time".to_owned(),
    };
    tracing::warn!(credential = %name, "the node that renews it was not heard for a list: {why}");
    Some(Told::Nothing)
}

async fn state_in(answer: Answer) -> Option<Value> {
    let body = Limited::new(answer.into_body(), STATE_BYTES_MAX).collect().await.ok()?.to_bytes();
    serde_json::from_slice(&body).ok().filter(Value::is_object)
}

fn reported_generation(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Value>(body).ok()?.get("generation")?.as_u64()
}
