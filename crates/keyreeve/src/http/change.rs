//! What callers and operators ask of a credential: reports, renewals, verdicts.
//!
//! Each runs as the node's own task. A caller that hangs up, or a request whose time is over, cancels nothing half-way.

use axum::body::Body;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use http::StatusCode;
use http::request::Parts as Head;
use keyreeve_core::operator::Verdict;
use keyreeve_core::time::Span;
use serde_json::{Value, json};

use super::credentials::json_answer;
use super::input::{self, required, wrong_type};
use super::problem::{Answer, Problem, STORE_UNAVAILABLE, UNPROCESSABLE};
use super::route::Later;
use crate::error::Error;
use crate::outbound::{Outbound, Reported};

/// The longest `reason` of a report, in bytes. Too short for a token that was put there by mistake.
const REASON_BYTES_MAX: usize = 64;

/// `POST /v1/credentials/{name}/report`
pub(super) async fn report(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let object = input::object(later, head, body, false).await?;
    let [generation, status, reason] = object.take(["generation", "upstream_status", "reason"])?;
    let generation = required(generation, "generation")?;
    let generation = generation.as_u64().ok_or_else(|| wrong_type("generation", "a whole number", &generation))?;
    let status = refusal(&required(status, "upstream_status")?)?;
    let reason = reason.map(|reason| reason_text(&reason)).transpose()?.unwrap_or_default();
    let request_id = later.request_id();
    tracing::info!(%request_id, caller = later.who(), credential = later.name, generation, status, reason, "reported");
    let name = later.name.clone();
    let reported = detached(later, move |outbound| Box::pin(async move { outbound.report(&name, generation).await }));
    Ok(match reported.await? {
        Reported::Renewing => accepted(&json!({ "result": "renewing" }), None),
        Reported::IgnoredStale => accepted(&json!({ "result": "ignored-stale" }), None),
        Reported::FloorWait(ms) => accepted(&json!({ "result": "floor-wait", "retry_after_ms": ms }), Some(ms)),
    })
}

/// An upstream's answer that says that the credential was refused. A new credential helps against no other.
fn refusal(value: &Value) -> Result<u64, Problem> {
    let status = value.as_u64().ok_or_else(|| wrong_type("upstream_status", "a whole number", value))?;
    match status {
        401 | 403 => Ok(status),
        _ => {
            let text = format!(
                "`upstream_status` must be 401 or 403, not `{status}`\nhint: report only refusals of the credential; a new one does not help against other answers"
            );
            Err(Problem::new(UNPROCESSABLE, text))
        }
    }
}

fn reason_text(value: &Value) -> Result<String, Problem> {
    let text = value.as_str().ok_or_else(|| wrong_type("reason", "a string", value))?;
    if text.len() > REASON_BYTES_MAX || !text.chars().all(|c| c == ' ' || c.is_ascii_graphic()) {
        let text = format!("`reason` must be at most {REASON_BYTES_MAX} printable ASCII characters");
        return Err(Problem::new(UNPROCESSABLE, text));
    }
    Ok(text.to_owned())
}

/// `POST /v1/credentials/{name}/renew`
pub(super) async fn renew(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    input::object(later, head, body, true).await?.take([])?;
    let request_id = later.request_id();
    tracing::info!(%request_id, caller = later.who(), credential = later.name, "renewal asked for");
    let name = later.name.clone();
    detached(later, move |outbound| Box::pin(async move { outbound.renew(&name).await })).await?;
    Ok(accepted(&json!({ "result": "renewing" }), None))
}

/// `POST /v1/credentials/{name}/resolve`
pub(super) async fn resolve(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    const VERDICTS: [Verdict; 3] = [Verdict::Adopt, Verdict::Discard, Verdict::Reauthorize];
    input::query(head, [])?;
    let [decision] = input::object(later, head, body, false).await?.take(["decision"])?;
    let decision = required(decision, "decision")?;
    let text = decision.as_str().ok_or_else(|| wrong_type("decision", "a string", &decision))?;
    let verdict = VERDICTS.into_iter().find(|verdict| verdict.as_str() == text);
    let verdict =
        verdict.ok_or_else(|| Problem::new(UNPROCESSABLE, "`decision` must be `adopt`, `discard` or `reauthorize`"))?;
    let request_id = later.request_id();
    tracing::info!(%request_id, caller = later.who(), credential = later.name, decision = text, "resolved");
    let (name, who) = (later.name.clone(), later.who().to_owned());
    detached(later, move |outbound| Box::pin(async move { outbound.resolve(&name, verdict, &who).await })).await?;
    Ok(accepted(&json!({ "result": "resolved", "decision": verdict.as_str() }), None))
}

fn accepted(body: &Value, retry_after_ms: Option<u64>) -> Answer {
    let mut answer = json_answer(body);
    *answer.status_mut() = StatusCode::ACCEPTED;
    if let Some(ms) = retry_after_ms {
        answer.headers_mut().insert(http::header::RETRY_AFTER, ms.div_ceil(1000).max(1).into());
    }
    answer
}

/// Runs a change as a task of its own, and waits for it as long as a request may take.
async fn detached<T: Send + 'static>(
    later: &Later,
    change: impl FnOnce(Outbound) -> BoxFuture<'static, Result<T, Error>>,
) -> Result<T, Problem> {
    let (done, outcome) = oneshot::channel();
    let change = change(later.live.outbound.clone());
    let host = &later.api.host;
    host.spawn(Box::pin(async move {
        // Nobody may be waiting any more.
        let _ = done.send(change.await);
    }));
    let limit_ms = later.live.limits.request_ms_max;
    let until = host.now().mono.plus(limit_ms);
    match select(outcome, host.sleep_until(until)).await {
        Either::Left((Ok(result), _)) => result.map_err(|error| Problem::of_change(&later.name, error)),
        Either::Left((Err(_), _)) | Either::Right(_) => {
            let text = format!(
                "the change to `{}` was not done after {}; it goes on\nhint: look at its history, or send the request again",
                later.name,
                Span(limit_ms)
            );
            Err(Problem::new(STORE_UNAVAILABLE, text).after(1000))
        }
    }
}
