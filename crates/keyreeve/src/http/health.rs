//! `/livez`, `/readyz`, `/metrics`.

use std::collections::HashSet;

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use keyreeve_core::operator::Status;
use serde_json::{Map, Value, json};

use super::api::StoreAway;
use super::credentials::{json_answer, message_for};
use super::input::rfc3339;
use super::problem::{Answer, NOT_FOUND, NOT_READY, Problem};
use super::route::Later;
use crate::outbound::{CredentialState, Outbound};
use crate::revocation::Health;

/// The store is asked at most this often for the sake of probes, in milliseconds.
const PROBE_MS: u64 = 1000;

/// The process answers: that is all.
pub(super) fn live() -> Answer {
    json_answer(&json!({ "status": "alive" }))
}

/// Whether everything that is wanted can be served, and tokens can be judged. A store that is away makes a node degraded, not
/// unready: what it holds is still good. One that has never read what is revoked holds nothing, and accepts no token.
pub(super) async fn ready(later: &Later) -> Result<Answer, Problem> {
    let away = store_away(later).await;
    let states = later.live.outbound.states();
    let unserved: Vec<_> = states.iter().filter(|state| state.is_wanted && state.generation.is_none()).collect();
    let mut told = Map::new();
    let revocation = later.live.inbound.revocations().map(crate::revocation::Revocations::health);
    let is_unsure = revocation.as_ref().is_some_and(|health| health.is_stale || health.lost_since.is_some());
    if later.caller.is_some() {
        told.insert("version".into(), later.api.version.clone().into());
        if let Some(away) = &away {
            let cause = later.tells_causes().then_some(&away.cause);
            told.insert("store".into(), json!({ "since": rfc3339(away.since), "cause": cause }));
        }
        if let Some(health) = &revocation {
            told.insert("revocation".into(), revocation_json(later, health));
        }
        let mine = unserved.iter().filter(|state| later.reaches(state.name.as_str()));
        let mine: Vec<Value> = mine.map(|state| unserved_json(later, state)).collect();
        if !mine.is_empty() {
            told.insert("unserved".into(), mine.into());
        }
    }
    let is_unread = revocation.as_ref().is_some_and(|health| health.age_ms.is_none());
    if unserved.is_empty() && !is_unread {
        let status = if away.is_some() || is_unsure { "degraded" } else { "ready" };
        let mut body = Map::new();
        body.insert("status".into(), status.into());
        body.extend(told);
        return Ok(json_answer(&body.into()));
    }
    let why = match unserved.is_empty() {
        true => "what is revoked has not been read yet",
        false => "a credential that is wanted cannot be served",
    };
    let problem = Problem::new(NOT_READY, why).after(1000);
    Err(told.into_iter().fold(problem, |problem, (name, value)| problem.member(&name, value)))
}

fn revocation_json(later: &Later, health: &Health) -> Value {
    let fault = health.fault.as_deref();
    json!({
        "stale": health.is_stale,
        "on_stale": health.on_stale.as_str(),
        "epoch": health.epoch,
        "read_ms_ago": health.age_ms,
        "cause": fault.map(|why| if later.tells_causes() { why } else { "the store does not answer" }),
        "lost_since": health.lost_since.map(rfc3339),
    })
}

fn unserved_json(later: &Later, state: &CredentialState) -> Value {
    let why = state.last_error.as_ref().map(|error| message_for(later, error));
    json!({ "name": state.name.as_str(), "status": state.status.map(Status::as_str), "why": why })
}

/// Asks the store, or remembers what it said a moment ago; many probes at once are one question.
async fn store_away(later: &Later) -> Option<StoreAway> {
    let host = &later.api.host;
    let mut probe = later.api.probe.lock().await;
    if let Some((asked_at, away)) = probe.as_ref()
        && host.now().mono.since(*asked_at) < PROBE_MS
    {
        return away.clone();
    }
    let fault = later.live.outbound.store_fault().await;
    let now = host.now();
    let away = fault.map(|(since_ms, cause)| StoreAway { since: now.wall.minus(since_ms), cause });
    *probe = Some((now.mono, away.clone()));
    away
}

/// The metrics of this process, with the gauges of its credentials as they are now.
pub(super) fn metrics_page(later: &Later) -> Result<Answer, Problem> {
    let render = later.api.metrics.as_ref().ok_or_else(|| Problem::new(NOT_FOUND, "this node has no metrics"))?;
    metrics::gauge!("keyreeve_build_info", "version" => later.api.version.clone()).set(1.0);
    for state in later.live.outbound.states() {
        set_gauges(&state);
    }
    if let Some(health) = later.live.inbound.revocations().map(crate::revocation::Revocations::health) {
        set_revocation_gauges(&health);
    }
    let mut answer = Answer::new(render().into());
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    Ok(answer)
}

#[expect(clippy::cast_precision_loss, reason = "seconds and generations stay far below 2^52")]
fn set_gauges(state: &CredentialState) {
    let name = state.name.as_str();
    for status in Status::ALL {
        let is_it = f64::from(u8::from(state.status == Some(status)));
        metrics::gauge!("keyreeve_credential_state", "credential" => name.to_owned(), "state" => status.as_str())
            .set(is_it);
    }
    let expires_at = state.expires_at.map_or(0.0, |at| at.0 as f64 / 1000.0);
    metrics::gauge!("keyreeve_credential_expires_at_seconds", "credential" => name.to_owned()).set(expires_at);
    let generation = state.generation.unwrap_or(0) as f64;
    metrics::gauge!("keyreeve_credential_generation", "credential" => name.to_owned()).set(generation);
    if let Some(faults) = state.faults_absorbed {
        metrics::gauge!("keyreeve_credential_faults_absorbed", "credential" => name.to_owned()).set(faults as f64);
    }
}

#[expect(clippy::cast_precision_loss, reason = "epochs and seconds stay far below 2^52")]
fn set_revocation_gauges(health: &Health) {
    metrics::gauge!("keyreeve_revocation_epoch").set(health.epoch as f64);
    metrics::gauge!("keyreeve_revocation_entries").set(health.entries as f64);
    // Without a read there is no age; the gauge that says so is the other one.
    metrics::gauge!("keyreeve_revocation_age_seconds").set(health.age_ms.unwrap_or(0) as f64 / 1000.0);
    metrics::gauge!("keyreeve_revocation_stale").set(f64::from(u8::from(health.is_stale)));
    metrics::gauge!("keyreeve_revocation_lost").set(f64::from(u8::from(health.lost_since.is_some())));
}

/// Takes credentials that are no longer configured out of every state, so that no alert stays on for them.
pub(super) fn forget_credentials(old: &Outbound, new: &Outbound) {
    let kept: HashSet<_> = new.names().collect();
    for name in old.names().filter(|name| !kept.contains(name)) {
        for status in Status::ALL {
            let labels = [("credential", name.as_str().to_owned()), ("state", status.as_str().to_owned())];
            metrics::gauge!("keyreeve_credential_state", &labels).set(0.0);
        }
    }
}
