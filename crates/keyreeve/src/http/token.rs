//! `GET /v1/credentials/{name}/token`: the hot path.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, HeaderName};
use http::request::Parts as Head;
use http::{HeaderValue, StatusCode};
use keyreeve_core::time::{Moment, Timestamp};
use serde::Serialize;
use zeroize::Zeroizing;

use super::api::{Answering, Api};
use super::hand_out::STALE_LIFE_MS;
use super::input::{self, is_not_modified, rfc3339};
use super::problem::{Answer, Problem};
use super::route::Later;
use crate::outbound::{Rendered, Served};
use crate::source::Fields;

const KEYREEVE_STALE: HeaderName = HeaderName::from_static("keyreeve-stale");

/// The answer, if this node holds one: no waiting, no lock.
pub(super) fn now(api: &Arc<Api>, live: &Answering, name: &str, head: &Head) -> Result<Option<Answer>, Problem> {
    let min_ttl_ms = min_ttl_ms(head)?;
    let now = api.host.now();
    let served = live.outbound.held(name, now, min_ttl_ms);
    Ok(served.map(|served| answer(name, &served, now, head)))
}

/// The answer, when there is one: waits as long as the credential's callers are to wait.
pub(super) async fn wait(later: &Later, head: &Head) -> Result<Answer, Problem> {
    let name = later.name.as_str();
    let min_ttl_ms = min_ttl_ms(head)?;
    let deadline = later.api.host.now().mono.plus(later.live.wait_ms(name));
    let served = later.live.outbound.token(name, min_ttl_ms, deadline).await;
    let served = served.map_err(|error| Problem::of_token(name, error))?;
    Ok(answer(name, &served, later.api.host.now(), head))
}

fn min_ttl_ms(head: &Head) -> Result<u64, Problem> {
    let [min_ttl] = input::query(head, ["min_ttl"])?;
    input::min_ttl_ms(min_ttl.as_deref())
}

fn answer(name: &str, served: &Served, now: Moment, head: &Head) -> Answer {
    if served.is_stale {
        return stale_answer(name, served, now);
    }
    let rendered = served.rendered.get_or_init(|| render(name, served));
    // A reload may have changed the mode of a generation that was rendered before it.
    let anew = (rendered.mode != served.mode).then(|| render(name, served));
    let rendered = anew.as_ref().unwrap_or(rendered);
    let mut answer = if is_not_modified(&head.headers, rendered.etag.as_bytes()) {
        let mut answer = Answer::default();
        *answer.status_mut() = StatusCode::NOT_MODIFIED;
        answer
    } else {
        let mut answer = Answer::new(rendered.body.clone().into());
        answer.headers_mut().reserve(6);
        answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        answer
    };
    let headers = answer.headers_mut();
    headers.insert(ETAG, rendered.etag.clone());
    headers.insert(CACHE_CONTROL, keep_for(served.keep_ms(now) / 1000));
    answer
}

/// `private, max-age=SECONDS`, at most a year of them.
fn keep_for(seconds: u64) -> HeaderValue {
    let mut text = *b"private, max-age=\0\0\0\0\0\0\0\0";
    let mut rest = seconds.min(31_536_000);
    let length = 18 + rest.checked_ilog10().unwrap_or(0) as usize;
    for place in text.iter_mut().take(length).skip(17).rev() {
        *place = b'0' + (rest % 10) as u8;
        rest /= 10;
    }
    let text = text.get(..length).unwrap_or(b"private");
    HeaderValue::from_bytes(text).unwrap_or(HeaderValue::from_static("private"))
}

/// No `ETag`: the answer says something else each time.
fn stale_answer(name: &str, served: &Served, now: Moment) -> Answer {
    metrics::counter!("keyreeve_stale_served_total", "credential" => name.to_owned()).increment(1);
    let expires_at = now.latest().plus(STALE_LIFE_MS);
    let mut answer = Answer::new(body(name, served, expires_at, true).into());
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, max-age=0"));
    headers.insert(KEYREEVE_STALE, HeaderValue::from_static("1"));
    answer
}

fn render(name: &str, served: &Served) -> Rendered {
    Rendered { mode: served.mode, body: body(name, served, served.expires_at, false), etag: etag(served) }
}

/// `"g7-19f1a2b3c4d"`: the generation, and when it was issued, in hexadecimal milliseconds since 1970.
///
/// Two records count each by itself: those of before and after a change of what the credential is for, and those of two stores. The
/// same number of both is not the same credential, and whoever holds the one must not be told that nothing has changed.
fn etag(served: &Served) -> HeaderValue {
    let text = format!("\"g{}-{:x}\"", served.generation, served.issued_at.0);
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static("\"\""))
}

#[derive(Serialize)]
struct TokenBody<'a> {
    name: &'a str,
    generation: u64,
    #[serde(rename = "type")]
    kind: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fields: Option<BTreeMap<&'a str, &'a str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    header: Option<BTreeMap<&'static str, &'a str>>,
    issued_at: String,
    expires_at: String,
    refresh_at: String,
    mode: &'static str,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    stale: bool,
}

fn body(name: &str, served: &Served, expires_at: Timestamp, stale: bool) -> Bytes {
    let material = &served.material;
    let (token, fields) = match &material.secret {
        Fields::Token(token) => (Some(token.expose().as_str()), None),
        Fields::Named(named) => {
            (None, Some(named.iter().map(|(name, value)| (name.as_str(), value.expose().as_str())).collect()))
        }
    };
    let header = material.header();
    let body = TokenBody {
        name,
        generation: served.generation,
        kind: &material.kind,
        token,
        fields,
        header: header.as_ref().map(|(name, value)| BTreeMap::from([(*name, value.expose().as_str())])),
        issued_at: rfc3339(served.issued_at),
        expires_at: rfc3339(expires_at),
        refresh_at: rfc3339(served.refresh_at),
        mode: served.mode,
        stale,
    };
    // Large enough not to grow, which would leave copies of the secret behind.
    let secret_bytes = match &material.secret {
        Fields::Token(token) => token.expose().len().saturating_mul(2),
        Fields::Named(named) => named.iter().map(|(name, value)| name.len() + value.expose().len() + 6).sum(),
    };
    let room = secret_bytes.saturating_add(512);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room));
    // Strings and maps of strings always serialize, and a Vec takes them all.
    let _ = serde_json::to_writer(&mut *bytes, &body);
    Bytes::from_owner(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_written_in_full_and_bounded() {
        for (seconds, text) in [
            (0, "private, max-age=0"),
            (9, "private, max-age=9"),
            (10, "private, max-age=10"),
            (1800, "private, max-age=1800"),
            (31_535_999, "private, max-age=31535999"),
            (31_536_000, "private, max-age=31536000"),
            (u64::MAX, "private, max-age=31536000"),
        ] {
            assert_eq!(keep_for(seconds), text);
        }
    }
}
