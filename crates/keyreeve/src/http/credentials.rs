//! Where credentials stand, and what became of them. Never a secret.

use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::request::Parts as Head;
use keyreeve_core::id::CredentialName;
use keyreeve_core::record::{Credential, Record};
use serde_json::{Map, Value, json};

use super::forward::{self, Told};
use super::input::{self, rfc3339};
use super::problem::{Answer, MALFORMED, Problem};
use super::route::Later;
use crate::error::{Error, ErrorKind};
use crate::outbound::CredentialState;

/// The most credentials on one page.
const PAGE_MAX: usize = 1000;
/// The most where each of them is asked of another node: a page ends sooner there, and says where it goes on.
const ASKED_PAGE_MAX: usize = 32;

/// An answer of JSON.
pub(super) fn json_answer(body: &Value) -> Answer {
    let mut answer = Answer::new(body.to_string().into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}

/// `GET /v1/credentials`
pub(super) async fn list(later: &Later, head: &Head) -> Result<Answer, Problem> {
    let [after, limit] = input::query(head, ["after", "limit"])?;
    let mut limit = limit.map_or(Ok(PAGE_MAX), |limit| page_size(&limit))?;
    if later.live.forward.is_some() {
        limit = limit.min(ASKED_PAGE_MAX);
    }
    let outbound = &later.live.outbound;
    let is_after = |name: &str| after.as_deref().is_none_or(|after| name > after);
    let mut names: Vec<&CredentialName> = outbound.names().collect();
    names.retain(|name| is_after(name.as_str()) && later.reaches(name.as_str()));
    names.sort_unstable();
    let more = names.len() > limit;
    names.truncate(limit);
    let last = names.last().map(|name| name.as_str());
    let mut body = json!({ "credentials": states(later, head, &names).await });
    if let (true, Some(last), Some(members)) = (more, last, body.as_object_mut()) {
        members.insert("next_after".into(), last.into());
    }
    Ok(json_answer(&body))
}

/// Where these credentials stand: by this node, or by the nodes that renew them where this one only follows.
async fn states(later: &Later, head: &Head, names: &[&CredentialName]) -> Vec<Value> {
    let mut known = forward::states(later, head, names).await.into_iter();
    let rows = names.iter().filter_map(|name| {
        let told = known.next().flatten();
        let here = later.live.outbound.state(name.as_str())?;
        Some(match told {
            Some(Told::State(state)) => state,
            Some(Told::Nothing) => state_json(later, &CredentialState { last_error: Some(unanswered()), ..here }),
            None => state_json(later, &here),
        })
    });
    rows.collect()
}

/// What stands in a list in place of what a silent node knows.
fn unanswered() -> Error {
    Error::new(ErrorKind::UpstreamTimeout, "the node that renews it did not answer: this is what is known here")
        .after(1000)
}

fn page_size(text: &str) -> Result<usize, Problem> {
    text.parse()
        .ok()
        .filter(|limit| (1..=PAGE_MAX).contains(limit))
        .ok_or_else(|| Problem::new(MALFORMED, format!("`limit` is not a number from 1 to {PAGE_MAX}")))
}

/// `GET /v1/credentials/{name}`
pub(super) fn show(later: &Later, head: &Head) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let state = later.live.outbound.state(&later.name).ok_or_else(|| Problem::unknown_name(&later.name))?;
    Ok(json_answer(&state_json(later, &state)))
}

/// What an error may say to this caller: a store's own words may hold paths and addresses.
pub(super) fn message_for<'a>(later: &Later, error: &'a Error) -> &'a str {
    match error.kind {
        ErrorKind::StoreUnavailable if !later.tells_causes() => "the store does not answer",
        _ => &error.message,
    }
}

fn state_json(later: &Later, state: &CredentialState) -> Value {
    let error = state.last_error.as_ref().map(|error| {
        json!({
            "kind": error.kind.as_str(),
            "message": message_for(later, error),
            "retry_after_ms": error.retry_after_ms,
        })
    });
    json!({
        "name": state.name.as_str(),
        "source": state.source,
        "mode": state.mode,
        "status": state.status.map(keyreeve_core::operator::Status::as_str),
        "generation": state.generation,
        "expires_at": state.expires_at.map(rfc3339),
        "refresh_at": state.refresh_at.map(rfc3339),
        "renewal": {
            "from": state.refresh_at.map(rfc3339),
            "until": state.renew_by.map(rfc3339),
            "quiet": state.quiet.map(|(from, until)| json!({ "from": rfc3339(from), "until": rfc3339(until) })),
            "looks_at": state.looks_at.map(rfc3339),
            "why": state.why.map(keyreeve_core::lifecycle::Why::as_str),
        },
        "next": state.next.map(|(generation, use_from)| {
            json!({ "generation": generation, "use_from": rfc3339(use_from) })
        }),
        "is_wanted": state.is_wanted,
        "faults_absorbed": state.faults_absorbed,
        "error": error,
    })
}

/// `GET /v1/credentials/{name}/history`
pub(super) async fn history(later: &Later, head: &Head) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let (outbound, name) = (&later.live.outbound, later.name.as_str());
    let record = outbound.record(name).await.map_err(|error| Problem::of_change(name, error))?;
    let status = outbound.status_of(name, record.as_ref());
    let mut body = Map::new();
    body.insert("name".into(), name.into());
    body.insert("status".into(), status.map(keyreeve_core::operator::Status::as_str).into());
    if let Some(record) = &record {
        add_record(&mut body, record);
    }
    let history = record.map(|record| record.history).unwrap_or_default();
    let entries = history.iter().map(|entry| {
        json!({
            "at": rfc3339(entry.at),
            "kind": entry.kind.as_str(),
            "generation": entry.generation,
            "epoch": entry.epoch,
            "node": entry.node.as_str(),
            "detail": entry.detail,
        })
    });
    body.insert("history".into(), entries.collect());
    Ok(json_answer(&body.into()))
}

fn add_record(body: &mut Map<String, Value>, record: &Record) {
    body.insert("generation".into(), record.generation.into());
    body.insert("epoch".into(), record.epoch.into());
    body.insert("holder".into(), record.holder.as_ref().map(|holder| holder.node.as_str()).into());
    let published = |credential: &Credential| {
        json!({
            "generation": credential.generation,
            "issued_at": rfc3339(credential.issued_at),
            "expires_at": rfc3339(credential.expires_at),
            "refresh_at": rfc3339(credential.refresh_at),
            "use_from": rfc3339(credential.use_from),
        })
    };
    body.insert("current".into(), record.current.as_ref().map(published).into());
    body.insert("next".into(), record.next.as_ref().map(published).into());
    let intent = record.intent.as_ref().map(|intent| {
        json!({
            "generation": intent.generation,
            "node": intent.holder.node.as_str(),
            "started_at": rfc3339(intent.started_at),
            "is_replay": intent.is_replay,
            "doubt": intent.doubt,
        })
    });
    body.insert("intent".into(), intent.into());
    let last = record.last.map(|last| json!({ "generation": last.generation, "at_most": rfc3339(last.at_most) }));
    body.insert("last_mint".into(), last.into());
    let failure = record.failure.as_ref().map(|failure| {
        json!({
            "count": failure.count,
            "class": failure.class.as_str(),
            "hold_ms": failure.hold_ms,
            "at": rfc3339(failure.at),
            "message": failure.message,
        })
    });
    body.insert("failure".into(), failure.into());
    body.insert("renewal_asked_of".into(), record.renew.into());
}
