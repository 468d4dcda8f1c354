//! Requests that only the node which renews a credential can answer, on a node that only follows it.
//!
//! They have passed every check here. Where they go they are checked once more, by the same rules: whoever renews need not
//! trust whoever forwards.

use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use bytes::Bytes;
use futures::future::{Either, select};
use http::Request;
use http::request::Parts as Head;
use keyreeve_core::id::CredentialName;
use keyreeve_core::time::Span;

use super::input;
use super::problem::{Answer, Problem, STORE_UNAVAILABLE};
use super::route::{Endpoint, Later};

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

fn reported_generation(body: &[u8]) -> Option<u64> {
    serde_json::from_slice::<serde_json::Value>(body).ok()?.get("generation")?.as_u64()
}
