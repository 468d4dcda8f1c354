//! What callers send, read strictly: an unknown or repeated word is an error, not a guess.

use std::borrow::Cow;

use axum::body::Body;
use bytes::Bytes;
use futures::future::{Either, select};
use http::HeaderMap;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_NONE_MATCH};
use http::request::Parts as Head;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use keyreeve_core::time::{Span, Timestamp};
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::problem::{BODY_TIMEOUT, MALFORMED, MEDIA_TYPE, Problem, TOO_LARGE};
use super::route::Later;

/// The longest life that `min_ttl` may ask for: a day, in milliseconds.
pub(super) const MIN_TTL_MS_MAX: u64 = 86_400_000;

/// Text with its percent-encoding undone (RFC 3986 2.1); `None` where that is broken or does not give UTF-8.
pub(super) fn unescaped(raw: &str) -> Option<Cow<'_, str>> {
    if !raw.contains('%') {
        return Some(Cow::Borrowed(raw));
    }
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let (digits, after) = rest.split_at_checked(2)?;
        let [high, low] = digits else { return None };
        let (high, low) = (char::from(*high).to_digit(16)?, char::from(*low).to_digit(16)?);
        bytes.push(u8::try_from(high * 16 + low).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

/// The query, of which only `known` names may occur, each once.
pub(super) fn query<'a, const N: usize>(
    head: &'a Head,
    known: [&str; N],
) -> Result<[Option<Cow<'a, str>>; N], Problem> {
    let mut values = [const { None }; N];
    let Some(query) = head.uri.query() else { return Ok(values) };
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let broken = || Problem::new(MALFORMED, "the query is not percent-encoded as RFC 3986 has it");
        let name = unescaped(name).ok_or_else(broken)?;
        let slot = known.iter().position(|known| *known == name).and_then(|at| values.get_mut(at));
        let Some(slot) = slot else { return Err(unknown_word("query parameter", &name, &known)) };
        if slot.replace(unescaped(value).ok_or_else(broken)?).is_some() {
            return Err(Problem::new(MALFORMED, format!("the query parameter `{name}` is there twice")));
        }
    }
    Ok(values)
}

fn unknown_word(what: &str, word: &str, known: &[&str]) -> Problem {
    let known: Vec<_> = known.iter().map(|known| format!("`{known}`")).collect();
    let known = if known.is_empty() { "there is none".into() } else { format!("known: {}", known.join(", ")) };
    Problem::new(MALFORMED, format!("unknown {what} `{}`\nhint: {known}", clipped(word)))
}

/// The beginning of what somebody sent, short enough to be sent back.
pub(super) fn clipped(text: &str) -> String {
    let mut clipped: String = text.chars().take(40).collect();
    if clipped.len() < text.len() {
        clipped.push('…');
    }
    clipped
}

/// The `min_ttl` of a query in milliseconds.
pub(super) fn min_ttl_ms(text: Option<&str>) -> Result<u64, Problem> {
    duration_ms("min_ttl", text, MIN_TTL_MS_MAX)
}

/// A duration of a query in milliseconds: a whole number with `ms`, `s`, `m` or `h`; 0 where it is not there.
pub(super) fn duration_ms(name: &str, text: Option<&str>, most_ms: u64) -> Result<u64, Problem> {
    let Some(text) = text else { return Ok(0) };
    let refuse = |what: &str| {
        let text = format!(
            "`{name}` {what}: `{}`\nhint: a duration such as `{}`, at most {}",
            clipped(text),
            if most_ms >= MIN_TTL_MS_MAX { "60s`, `5m` or `1h" } else { "2s" },
            Span(most_ms)
        );
        Problem::new(MALFORMED, text)
    };
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at_checked(digits_end).unwrap_or_default();
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(refuse("is not a duration")),
    };
    if digits.is_empty() {
        return Err(refuse("is not a duration"));
    }
    let ms = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_ms));
    ms.filter(|ms| *ms <= most_ms).ok_or_else(|| refuse("is too long"))
}

/// Whether `If-None-Match` names `etag` (RFC 9110 13.1.2: weak comparison, a list, or `*`).
pub(super) fn is_not_modified(headers: &HeaderMap, etag: &[u8]) -> bool {
    headers.get_all(IF_NONE_MATCH).iter().any(|line| {
        let tags = line.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        let mut tags = tags.map(|tag| tag.strip_prefix(b"W/").unwrap_or(tag));
        tags.any(|tag| tag == etag || tag == b"*")
    })
}

/// A moment as RFC 3339 has it, in UTC.
pub(super) fn rfc3339(at: Timestamp) -> String {
    let ms = i64::try_from(at.0).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string()
}

/// A JSON object with the order and the repetitions it came with.
pub(super) struct Object(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

impl Object {
    /// The values of `known` members. Any other member, or one that is there twice, is refused.
    pub(super) fn take<const N: usize>(self, known: [&str; N]) -> Result<[Option<Value>; N], Problem> {
        let mut values = [const { None }; N];
        for (name, value) in self.0 {
            let slot = known.iter().position(|known| *known == name).and_then(|at| values.get_mut(at));
            let Some(slot) = slot else { return Err(unknown_word("field", &name, &known)) };
            if slot.replace(value).is_some() {
                return Err(Problem::new(MALFORMED, format!("the field `{name}` is there twice")));
            }
        }
        Ok(values)
    }
}

/// A member that has to be there.
pub(super) fn required(value: Option<Value>, name: &str) -> Result<Value, Problem> {
    value.ok_or_else(|| Problem::new(MALFORMED, format!("the field `{name}` is missing")))
}

/// A member of the wrong type, which is named but not repeated: it may be anything.
pub(super) fn wrong_type(name: &str, wanted: &str, found: &Value) -> Problem {
    let found = match found {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) if wanted.ends_with("number") => "another number",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    };
    Problem::new(MALFORMED, format!("`{name}` must be {wanted}, not {found}"))
}

/// Reads the whole body, within the limits of size and time.
pub(super) async fn body_bytes(later: &Later, head: &Head, body: Body) -> Result<Bytes, Problem> {
    let limits = &later.live.limits;
    let most = limits.body_bytes_max;
    let too_large = || Problem::new(TOO_LARGE, format!("the body is larger than {most} bytes"));
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| usize::try_from(declared).unwrap_or(usize::MAX) > most) {
        return Err(too_large());
    }
    let until = later.api.host.now().mono.plus(limits.request_ms_max);
    let read = Box::pin(Limited::new(body, most).collect());
    match select(read, later.api.host.sleep_until(until)).await {
        Either::Left((Ok(body), _)) => Ok(body.to_bytes()),
        Either::Left((Err(error), _)) if error.is::<LengthLimitError>() => Err(too_large()),
        Either::Left((Err(_), _)) => Err(Problem::new(MALFORMED, "the body ended before it was complete")),
        Either::Right(_) => {
            let text = format!("the body was not complete after {}", Span(limits.request_ms_max));
            Err(Problem::new(BODY_TIMEOUT, text))
        }
    }
}

/// Reads a JSON object. An empty body is an empty object where `may_be_empty`.
pub(super) async fn object(later: &Later, head: &Head, body: Body, may_be_empty: bool) -> Result<Object, Problem> {
    let kind = head.headers.get(CONTENT_TYPE).map(|value| value.to_str().unwrap_or_default());
    if kind.map_or(!may_be_empty, |kind| !is_json(kind)) {
        let text = "the body must be JSON\nhint: send `Content-Type: application/json`";
        return Err(Problem::new(MEDIA_TYPE, text));
    }
    let bytes = body_bytes(later, head, body).await?;
    if bytes.is_empty() && may_be_empty {
        return Ok(Object(Vec::new()));
    }
    if kind.is_none() {
        let text = "the body must be JSON\nhint: send `Content-Type: application/json`";
        return Err(Problem::new(MEDIA_TYPE, text));
    }
    serde_json::from_slice(&bytes).map_err(|error| {
        let what = if error.is_data() { "the body is not a JSON object" } else { "the body is not JSON" };
        let text = format!("{what}: line {}, column {}", error.line(), error.column());
        Problem::new(MALFORMED, text)
    })
}

fn is_json(kind: &str) -> bool {
    let (kind, parameters) = kind.split_once(';').unwrap_or((kind, ""));
    let parameters = parameters.trim();
    kind.trim().eq_ignore_ascii_case("application/json")
        && (parameters.is_empty() || parameters.replace('"', "").eq_ignore_ascii_case("charset=utf-8"))
}
