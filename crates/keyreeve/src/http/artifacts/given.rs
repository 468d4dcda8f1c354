//! An artifact as an answer.

use std::ops::Range;

use axum::body::Body;
use bytes::Bytes;
use http::header::{
    ACCEPT_RANGES, AGE, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, IF_MODIFIED_SINCE,
    IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED, RANGE, WARNING,
};
use http::request::Parts as Head;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use keyreeve_core::time::Timestamp;
use object_store::GetRange;

use super::super::problem::Answer;
use crate::artifact::Found;
use crate::artifact::kept::{About, Kept};
use crate::artifact::name::Asked;
use crate::artifact::read::{Stream, Wanted};
use crate::artifact::shape::{Shape, Shaping};

/// The kind of artifact that Hive has put into brackets.
const METADATA: &str = "metadata";
const VERSION_ID: HeaderName = HeaderName::from_static("x-hive-schema-version-id");
/// RFC 7234 5.5.2: a stale answer, since asking again has failed.
const REVALIDATION_FAILED: HeaderValue = HeaderValue::from_static("111 - \"Revalidation Failed\"");
/// A version is the same for ever. Who may have it is for the token to say, so no cache between us may hand it out; Hive's does.
const FOR_EVER: HeaderValue = HeaderValue::from_static("private, max-age=31536000, immutable");
const FOR_EVER_FOR_ALL: HeaderValue = HeaderValue::from_static("public, max-age=31536000, immutable");
const ASK_AGAIN: HeaderValue = HeaderValue::from_static("private, no-cache");

/// An artifact that is kept.
pub(super) fn kept(is_hive: bool, asked: &Asked<'_>, head: &Head, found: &Found) -> Answer {
    let (kept, age_ms) = match found {
        Found::Fresh(kept) => (kept, None),
        Found::Stale(kept, age_ms) => (kept, Some(*age_ms)),
        Found::Large(_) | Found::Absent => return Answer::default(),
    };
    let (body, etag) = shaped(is_hive, asked, kept);
    let about = match etag {
        None => &kept.about,
        Some(etag) => &About { etag: Some(etag), ..kept.about.clone() },
    };
    let mut answer = if is_same(head, about) {
        not_modified(is_hive, asked, about)
    } else {
        let size = u64::try_from(body.len()).unwrap_or(u64::MAX);
        match part(is_hive, head, about, size) {
            Part::Whole => given(is_hive, asked, about, body.into()),
            Part::Some(range) => {
                let at = |at: u64| usize::try_from(at).unwrap_or(usize::MAX);
                let body = body.slice(at(range.start)..at(range.end));
                partial(given(is_hive, asked, about, body.into()), &range, size)
            }
            Part::None => unsatisfiable(size),
        }
    };
    if let Some(age_ms) = age_ms {
        answer.headers_mut().insert(AGE, HeaderValue::from(age_ms / 1000));
        answer.headers_mut().insert(WARNING, REVALIDATION_FAILED);
    }
    answer
}

/// Whether an artifact is handed out in another shape than it is stored in.
pub(super) fn is_shaped(is_hive: bool, asked: &Asked<'_>) -> bool {
    is_hive && (asked.is_v0 || asked.kind == METADATA)
}

/// The bytes as they are handed out, and their entity tag where it is not the store's.
fn shaped(is_hive: bool, asked: &Asked<'_>, kept: &Kept) -> (Bytes, Option<HeaderValue>) {
    let body = kept.body.clone().unwrap_or_default();
    if !is_shaped(is_hive, asked) {
        return (body, None);
    }
    let shape = kept.shape.get().cloned().unwrap_or_else(|| {
        let mut shaping = Shaping::new(asked.target, asked.kind);
        shaping.take(&body);
        let shape = shaping.done();
        drop(kept.shape.set(shape.clone()));
        shape
    });
    let body = if shape.is_wrapped { body.slice(1..body.len().saturating_sub(1)) } else { body };
    (body, shape.etag.filter(|_| asked.is_v0))
}

/// What is known of an artifact that is too large to be kept, as who asks is told it.
pub(super) fn about(asked: &Asked<'_>, kept: &Kept, shape: Option<&Shape>) -> About {
    let etag = shape.and_then(|shape| shape.etag.clone()).filter(|_| asked.is_v0);
    About { etag: etag.or_else(|| kept.about.etag.clone()), ..kept.about.clone() }
}

/// An artifact that is too large to be kept, as it comes; with an entity tag that is not the store's where it has one.
pub(super) fn streamed(is_hive: bool, asked: &Asked<'_>, stream: Stream, etag: Option<HeaderValue>) -> Answer {
    let Stream { mut about, range, body } = stream;
    let size = about.size;
    about.etag = etag.or(about.etag);
    let mut answer = given(is_hive, asked, &about, Body::from_stream(body));
    answer.headers_mut().insert(CONTENT_LENGTH, range.end.saturating_sub(range.start).into());
    // Hive hands out no parts: what is left out there, is no part of the artifact.
    if is_hive || (range.start == 0 && range.end == size) { answer } else { partial(answer, &range, size) }
}

/// All that is known of an artifact but its bytes.
pub(super) fn described(is_hive: bool, asked: &Asked<'_>, about: &About) -> Answer {
    let mut answer = given(is_hive, asked, about, Body::empty());
    answer.headers_mut().insert(CONTENT_LENGTH, about.size.into());
    answer
}

fn given(is_hive: bool, asked: &Asked<'_>, about: &About, body: Body) -> Answer {
    let mut answer = Answer::new(body);
    dress(&mut answer, is_hive, asked, about);
    let kind = match (&about.content_type, is_hive) {
        (Some(kind), false) => kind.clone(),
        _ => HeaderValue::from_static(media_type(is_hive, asked)),
    };
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, kind);
    if let Some(version_id) = &about.version_id {
        headers.insert(VERSION_ID, version_id.clone());
    }
    if !is_hive {
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    }
    answer
}

/// 304: the one that is there is still the one (RFC 9110 15.4.5).
pub(super) fn not_modified(is_hive: bool, asked: &Asked<'_>, about: &About) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::NOT_MODIFIED;
    dress(&mut answer, is_hive, asked, about);
    answer
}

/// What 200 and 304 have in common.
fn dress(answer: &mut Answer, is_hive: bool, asked: &Asked<'_>, about: &About) {
    let headers = answer.headers_mut();
    if let Some(etag) = &about.etag {
        headers.insert(ETAG, etag.clone());
    }
    if !is_hive && let Some(date) = http_date(about.modified) {
        headers.insert(LAST_MODIFIED, date);
    }
    headers.insert(
        CACHE_CONTROL,
        match (asked.is_fixed, is_hive) {
            (true, true) => FOR_EVER_FOR_ALL,
            (true, false) => FOR_EVER,
            (false, _) => ASK_AGAIN,
        },
    );
}

fn media_type(is_hive: bool, asked: &Asked<'_>) -> &'static str {
    let name = asked.kind;
    match name {
        "services" | "metadata" => "application/json",
        "sdl" | "supergraph" => "text/plain",
        _ if is_hive => "text/plain",
        _ => match name.rsplit_once('.').map(|(_, end)| end) {
            Some("json") => "application/json",
            Some("graphql" | "graphqls" | "txt" | "md") => "text/plain; charset=utf-8",
            Some("wasm") => "application/wasm",
            Some("js" | "mjs") => "text/javascript",
            _ => "application/octet-stream",
        },
    }
}

/// Whether who asks has just this already (RFC 9110 13.1.2 and 13.1.3).
pub(super) fn is_same(head: &Head, about: &About) -> bool {
    let mut sent = head.headers.get_all(IF_NONE_MATCH).iter().peekable();
    if sent.peek().is_some() {
        // Weak comparison: the `W/` of either side does not count.
        let Some(etag) = about.etag.as_ref().and_then(|etag| etag.to_str().ok()).map(strong) else { return false };
        return sent
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|tag| tag.trim() == "*" || strong(tag) == etag);
    }
    let since = head.headers.get(IF_MODIFIED_SINCE).and_then(|value| crate::clock::http_date(value.to_str().ok()?));
    since.is_some_and(|since| about.modified.0 / 1000 <= since.0 / 1000)
}

/// An entity tag without the mark of a weak one.
fn strong(tag: &str) -> &str {
    let tag = tag.trim();
    tag.strip_prefix("W/").unwrap_or(tag)
}

enum Part {
    Whole,
    Some(Range<u64>),
    None,
}

/// What to read of an object that is not kept. A range is one of the version that `about` describes: put behind what somebody has
/// of another one, it would make an object that never was.
///
/// # Errors
/// 416, where there is no such range.
pub(super) fn wanted(is_hive: bool, head: &Head, about: &About, shape: Option<&Shape>) -> Result<Wanted, Box<Answer>> {
    if let Some(shape) = shape {
        let range = shape.is_wrapped.then(|| GetRange::Bounded(1..about.size.saturating_sub(1)));
        return Ok(Wanted { range, version: about.version(), is_head: false });
    }
    match part(is_hive, head, about, about.size) {
        Part::Whole => Ok(Wanted::default()),
        Part::Some(range) => {
            Ok(Wanted { range: Some(GetRange::Bounded(range)), version: about.version(), is_head: false })
        }
        Part::None => Err(Box::new(unsatisfiable(about.size))),
    }
}

/// The range that is asked for, where it is a single one; several are answered with the whole (RFC 9110 14.2).
fn parse_range(value: &HeaderValue) -> Option<GetRange> {
    let (first, last) = value.to_str().ok()?.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        (!text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
    };
    match (first.is_empty(), last.is_empty()) {
        (true, false) => number(last).map(GetRange::Suffix),
        (false, true) => number(first).map(GetRange::Offset),
        (false, false) => {
            let (first, last): (u64, u64) = (number(first)?, number(last)?);
            (first <= last).then(|| GetRange::Bounded(first..last.saturating_add(1)))
        }
        (true, true) => None,
    }
}

fn part(is_hive: bool, head: &Head, about: &About, size: u64) -> Part {
    if is_hive || head.method != Method::GET {
        return Part::Whole;
    }
    let Some(range) = head.headers.get(RANGE).and_then(parse_range) else { return Part::Whole };
    // RFC 9110 13.1.5: a range of what who asks has a part of already, or else the whole.
    if let Some(condition) = head.headers.get(IF_RANGE) {
        let is_strong = !condition.as_bytes().starts_with(b"W/");
        if !is_strong || about.etag.as_ref() != Some(condition) {
            return Part::Whole;
        }
    }
    let range = match range {
        GetRange::Bounded(range) => range.start..range.end.min(size),
        GetRange::Offset(first) => first..size,
        GetRange::Suffix(0) => return Part::None,
        GetRange::Suffix(count) => size.saturating_sub(count)..size,
    };
    if range.start >= size { Part::None } else { Part::Some(range) }
}

fn partial(mut answer: Answer, range: &Range<u64>, size: u64) -> Answer {
    *answer.status_mut() = StatusCode::PARTIAL_CONTENT;
    let text = format!("bytes {}-{}/{size}", range.start, range.end.saturating_sub(1));
    if let Ok(value) = HeaderValue::try_from(text) {
        answer.headers_mut().insert(CONTENT_RANGE, value);
    }
    answer
}

fn unsatisfiable(size: u64) -> Answer {
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::RANGE_NOT_SATISFIABLE;
    if let Ok(value) = HeaderValue::try_from(format!("bytes */{size}")) {
        answer.headers_mut().insert(CONTENT_RANGE, value);
    }
    answer
}

/// A moment as HTTP writes it (RFC 9110 5.6.7).
fn http_date(at: Timestamp) -> Option<HeaderValue> {
    let at = jiff::Timestamp::from_millisecond(i64::try_from(at.0).ok()?).ok()?;
    HeaderValue::try_from(at.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}
