//! `/v1/artifacts/GATE/TARGET[/PATH]`: what operators and build machines do to artifacts.
//!
//! Whoever may do this with a target is known by `tokens` of the caller, as for the tokens of that target.

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures::future::{Either, select};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::request::Parts as Head;
use http::{HeaderName, Method, StatusCode};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use keyreeve_core::time::{Mono, Span};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tokio::sync::OwnedSemaphorePermit;

use super::super::credentials::json_answer;
use super::super::input;
use super::super::problem::{
    Answer, BODY_TIMEOUT, CONFLICT, MALFORMED, NOT_FOUND, Problem, STORE_UNAVAILABLE, TOO_LARGE, UNPROCESSABLE,
};
use super::super::route::Later;
use super::{ArtifactGate, Refusal, given, own};
use crate::artifact::Found;
use crate::artifact::gate::Refused;
use crate::artifact::name::{self, Asked};
use crate::artifact::origins::Told;
use crate::artifact::read::Wanted;
use crate::hex;

/// The digest of what is sent (RFC 9530 2), and of the whole artifact (3), which here are the same.
const DIGESTS: [HeaderName; 2] = [HeaderName::from_static("content-digest"), HeaderName::from_static("repr-digest")];
/// How long a list is where nobody says how long, and at the most.
const LIST_USUAL: usize = 100;
const LIST_MAX: usize = 1000;

/// Answers what is asked about artifacts on a listener that serves the API.
///
/// # Errors
/// The refusal.
pub(in super::super) async fn answer(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    let (gate_name, rest) = later.name.split_once('/').unwrap_or((&later.name, ""));
    let (target, below) = rest.split_once('/').unwrap_or((rest, ""));
    let gate = later
        .live
        .artifacts
        .get(gate_name)
        .filter(|gate| later.reaches_tokens(&gate.artifacts().config().tokens, target));
    let gate = gate.ok_or_else(|| {
        let hint = "\nhint: the caller's `tokens` say for which targets; gates have the names under `[gate.NAME]`";
        Problem::new(NOT_FOUND, format!("there is no such gate of artifacts for you, or no such target{hint}"))
    })?;
    let deadline = later.api.host.now().mono.plus(gate.artifacts().config().deadline_ms);
    if below.is_empty() {
        return if head.method == Method::GET && name::is_part(target) {
            list(gate, target, head, deadline).await
        } else {
            Err(no_name())
        };
    }
    let asked = name::stored(target, below).ok_or_else(no_name)?;
    if head.method == Method::PUT {
        put(later, gate, &asked, head, body).await
    } else {
        input::query(head, [])?;
        get(gate, &asked, head, deadline).await
    }
}

fn no_name() -> Problem {
    let hint = "the path is `/v1/artifacts/GATE/TARGET/PATH`, of letters, digits, `.`, `_`, `-` and `:`, and no part begins with `.`";
    Problem::new(MALFORMED, format!("this is not the name of an artifact\nhint: {hint}"))
}

async fn list(gate: &ArtifactGate, target: &str, head: &Head, deadline: Mono) -> Result<Answer, Problem> {
    let [after, limit] = input::query(head, ["after", "limit"])?;
    let after = after.unwrap_or_default();
    if !after.is_empty() && !name::is_listable(&after) {
        return Err(Problem::new(MALFORMED, "`after` must be `next` of the list before, percent-encoded"));
    }
    let limit = match limit.map(|text| text.parse::<usize>()) {
        None => LIST_USUAL,
        Some(Ok(limit)) if (1..=LIST_MAX).contains(&limit) => limit,
        Some(_) => return Err(Problem::new(MALFORMED, format!("`limit` must be a number from 1 to {LIST_MAX}"))),
    };
    let page = gate.artifacts().list(target, &after, limit, deadline).await.map_err(super::away)?;
    let artifacts: Vec<Value> = page
        .artifacts
        .into_iter()
        .map(|one| json!({ "path": one.path, "size": one.size, "modified_at": input::rfc3339(one.modified), "etag": one.etag }))
        .collect();
    Ok(json_answer(&json!({ "artifacts": artifacts, "strange": page.strange, "next": page.next })))
}

async fn get(gate: &ArtifactGate, asked: &Asked<'_>, head: &Head, deadline: Mono) -> Result<Answer, Problem> {
    match gate.artifacts().look(asked, deadline).await.map_err(super::away)? {
        Found::Absent => Err(own::refused(Refusal::Absent)),
        Found::Large(_) => {
            match gate.artifacts().stream(&asked.object, Wanted::default(), deadline).await.map_err(super::away)? {
                Told::Is(stream, _) => Ok(given::streamed(false, asked, stream, None)),
                Told::Absent | Told::Changed => Err(own::refused(Refusal::Absent)),
            }
        }
        found => Ok(given::kept(false, asked, head, &found)),
    }
}

async fn put(
    later: &Later,
    gate: &std::sync::Arc<ArtifactGate>,
    asked: &Asked<'_>,
    head: &Head,
    body: Body,
) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let wanted = wanted_digest(head)?;
    let (body, room) = body_bytes(later, gate, head, body).await?;
    let digest: [u8; 32] = Sha256::digest(&body).into();
    if wanted.is_some_and(|wanted| wanted != digest) {
        let text = format!("what arrived has the SHA-256 {}, not the one announced", hex::encode(&digest));
        return Err(Problem::new(UNPROCESSABLE, format!("{text}\nhint: nothing was written; send it again")));
    }
    let content_type = head.headers.get(CONTENT_TYPE).cloned();
    let host = std::sync::Arc::clone(&later.api.host);
    let deadline = host.now().mono.plus(later.live.limits.request_ms_max);
    let size = body.len();
    // A caller that hangs up in the middle must not decide which mirrors have it.
    let (done, outcome) = tokio::sync::oneshot::channel();
    let (artifacts, target, below) = (
        std::sync::Arc::clone(gate.artifacts()),
        asked.target.to_owned(),
        asked.path.trim_start_matches('/').to_owned(),
    );
    host.spawn(Box::pin(async move {
        if let Some(asked) = name::stored(&target, &below) {
            drop(done.send(artifacts.publish(&asked, body, content_type.as_ref(), deadline).await));
        }
        drop(room);
    }));
    let published = outcome.await.map_err(|_| Problem::new(STORE_UNAVAILABLE, "the artifact was not published"))?;
    let published = published.map_err(|refused| match refused {
        Refused::Fixed => {
            let hint = "publish another version";
            Problem::new(CONFLICT, format!("this version is there already, with other bytes, and never changes\nhint: {hint}"))
        }
        Refused::Away(away) => {
            let text = "the primary did not take the artifact, as far as is known\nhint: publish it again; the log tells why under this request's id";
            Problem::new(STORE_UNAVAILABLE, text).because(away.why).after(away.retry_ms)
        }
    })?;
    let what = if published.is_unchanged { "unchanged" } else { "written" };
    tracing::info!(target: "audit", who = later.who(), what = "artifact.publish", id = %asked.object, sha256 = hex::encode(&digest), "{what}");
    for (mirror, why) in &published.missing {
        tracing::warn!(object = %asked.object, mirror, "a mirror does not have the artifact: {why}");
    }
    let missing: Vec<&str> = published.missing.iter().map(|(mirror, _)| mirror.as_str()).collect();
    let mut answer = json_answer(&json!({
        "target": asked.target,
        "path": asked.path.trim_start_matches('/'),
        "size": size,
        "sha256": hex::encode(&digest),
        "unchanged": published.is_unchanged,
        "missing_on": missing,
    }));
    *answer.status_mut() = if published.is_unchanged { StatusCode::OK } else { StatusCode::CREATED };
    Ok(answer)
}

/// The SHA-256 that the headers announce. Other digests are allowed beside it (RFC 9530 5), and not instead of it.
fn wanted_digest(head: &Head) -> Result<Option<[u8; 32]>, Problem> {
    let refuse = || {
        let hint = "for example `Content-Digest: sha-256=:uU0nuZNNPgilLlLX2n2r+sSE7+N6U4DukIj3rOLvzek=:`";
        Problem::new(MALFORMED, format!("the digest has no SHA-256 that can be read\nhint: {hint}"))
    };
    let mut found = None;
    for line in DIGESTS.iter().flat_map(|name| head.headers.get_all(name)) {
        let text = line.to_str().map_err(|_| refuse())?;
        let value = text.split(',').find_map(|one| one.trim().strip_prefix("sha-256=:")?.strip_suffix(':'));
        let digest = STANDARD.decode(value.ok_or_else(refuse)?).ok().and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let digest = digest.ok_or_else(refuse)?;
        if found.replace(digest).is_some_and(|other| other != digest) {
            return Err(Problem::new(MALFORMED, "two digests of the artifact differ"));
        }
    }
    Ok(found)
}

/// The whole body, within the limits of the gate, and the room that it takes.
async fn body_bytes(
    later: &Later,
    gate: &ArtifactGate,
    head: &Head,
    body: Body,
) -> Result<(Bytes, OwnedSemaphorePermit), Problem> {
    let most = gate.artifacts().config().publish_bytes_max;
    let too_large = || {
        let hint = "put it into the bucket with its own tools, or raise `publish` of the gate";
        Problem::new(TOO_LARGE, format!("the artifact is larger than {most} bytes\nhint: {hint}"))
    };
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let declared = declared.map_or(most, |declared| usize::try_from(declared).unwrap_or(usize::MAX));
    if declared > most {
        return Err(too_large());
    }
    let room = gate.artifacts().room_to_publish(declared).map_err(|away| {
        let text = "too much is being published here at the moment\nhint: try again";
        Problem::new(STORE_UNAVAILABLE, text).because(away.why).after(away.retry_ms)
    })?;
    let limit_ms = later.live.limits.request_ms_max;
    let until = later.api.host.now().mono.plus(limit_ms);
    let read = Box::pin(Limited::new(body, most).collect());
    match select(read, later.api.host.sleep_until(until)).await {
        Either::Left((Ok(body), _)) => Ok((body.to_bytes(), room)),
        Either::Left((Err(error), _)) if error.is::<LengthLimitError>() => Err(too_large()),
        Either::Left((Err(_), _)) => Err(Problem::new(MALFORMED, "the body ended before it was complete")),
        Either::Right(_) => {
            let text = format!("the body was not complete after {}", Span(limit_ms));
            Err(Problem::new(BODY_TIMEOUT, text))
        }
    }
}
