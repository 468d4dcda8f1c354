//! One request: checked in Apple's order, judged, and answered in Apple's words.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::Notify;

use super::Fault;
use super::ledger::Presentation;
use super::rules::Verdict;
use super::server::Shared;
use super::token::{TOKEN_BYTES_MAX, TokenId, verify};
use crate::serve::{self, BodyError, hang, lock};

/// The largest notification (Apple: 4 KB, for all but VoIP).
const BODY_BYTES_MAX: usize = 4096;
const DEVICE_TOKEN_DIGITS: std::ops::RangeInclusive<usize> = 64..=200;

/// Why a notification was not taken.
struct Refusal {
    status: StatusCode,
    reason: &'static str,
    /// Simulated milliseconds since 1970, for an expired token.
    timestamp_ms: Option<i64>,
}

impl Refusal {
    const fn new(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason, timestamp_ms: None }
    }
}

/// Answers one request, or spoils it. Notifying `close` cuts the whole connection.
pub(crate) async fn handle(
    shared: Arc<Shared>,
    connection: u64,
    close: Arc<Notify>,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let chosen = lock(&shared.ledger).arrived();
    let id = apns_id(request.headers());
    let checked = check(&shared, connection, id.is_some(), request).await;
    let id = id.unwrap_or_default();
    if !chosen.delay.is_zero() {
        tokio::time::sleep(chosen.delay).await;
    }
    if let Some(fault) = &chosen.fault {
        lock(&shared.ledger).spoiled(fault.kind());
    }
    let (status, reason, body) = match (chosen.fault, checked) {
        (Some(Fault::Hang), _) => {
            hang().await;
            return cut(&close).await;
        }
        (Some(Fault::Drop), _) => return cut(&close).await,
        (Some(Fault::Status { status }), _) => {
            let (status, reason) = injected(status);
            (status, Some(reason), Bytes::from(json!({ "reason": reason }).to_string()))
        }
        (Some(Fault::Garbage { status }), _) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
            (status, Some("garbage"), Bytes::from_static(b"<html>\xff not what you hoped for"))
        }
        (None, Ok(())) => (StatusCode::OK, None, Bytes::new()),
        (None, Err(refusal)) => (refusal.status, Some(refusal.reason), refusal.body()),
    };
    lock(&shared.ledger).answered(reason);
    let mut response = serve::answer(status, "application/json", body);
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert("apns-id", id);
    }
    Ok(response)
}

impl Refusal {
    fn body(&self) -> Bytes {
        let body = match self.timestamp_ms {
            None => json!({ "reason": self.reason }),
            Some(timestamp) => json!({ "reason": self.reason, "timestamp": timestamp }),
        };
        Bytes::from(body.to_string())
    }
}

/// Cuts the connection and waits to be ended with it.
async fn cut(close: &Notify) -> Result<Response<Full<Bytes>>, Infallible> {
    close.notify_one();
    std::future::pending().await
}

fn injected(status: u16) -> (StatusCode, &'static str) {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let reason = match status {
        StatusCode::SERVICE_UNAVAILABLE => "ServiceUnavailable",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        _ => "InternalServerError",
    };
    (status, reason)
}

async fn check(shared: &Shared, connection: u64, id_is_good: bool, request: Request<Incoming>) -> Result<(), Refusal> {
    if request.method() != Method::POST {
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed"));
    }
    let Some(device) = request.uri().path().strip_prefix("/3/device/").filter(|rest| !rest.contains('/')) else {
        return Err(Refusal::new(StatusCode::NOT_FOUND, "BadPath"));
    };
    authenticate(shared, connection, request.headers())?;
    if !id_is_good {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "BadMessageId"));
    }
    if !DEVICE_TOKEN_DIGITS.contains(&device.len()) || !device.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "BadDeviceToken"));
    }
    if request.headers().get("apns-topic").is_none_or(|topic| topic.is_empty()) {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "MissingTopic"));
    }
    match serve::body(request.into_body(), BODY_BYTES_MAX).await {
        Ok(body) if body.is_empty() => Err(Refusal::new(StatusCode::BAD_REQUEST, "PayloadEmpty")),
        Ok(_) => Ok(()),
        Err(BodyError::TooLarge) => Err(Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge")),
        Err(BodyError::Broken) => Err(Refusal::new(StatusCode::BAD_REQUEST, "IdleTimeout")),
    }
}

/// Judges the provider token.
fn authenticate(shared: &Shared, connection: u64, headers: &HeaderMap) -> Result<(), Refusal> {
    const MISSING: Refusal = Refusal::new(StatusCode::FORBIDDEN, "MissingProviderToken");
    const INVALID: Refusal = Refusal::new(StatusCode::FORBIDDEN, "InvalidProviderToken");
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let value = values.next().ok_or(MISSING)?;
    // Two tokens in one request would leave open which one was judged.
    if values.next().is_some() {
        return Err(INVALID);
    }
    let (scheme, token) = value.to_str().map_err(|_| INVALID)?.split_once(' ').ok_or(MISSING)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(MISSING);
    }
    if token.is_empty() || token.len() > TOKEN_BYTES_MAX {
        return Err(INVALID);
    }
    let id = TokenId::of(token);
    let known = lock(&shared.ledger).known(id);
    let claims = known.or_else(|| verify(token, &shared.keys)).ok_or(INVALID)?;
    let now_ms;
    let verdict = {
        let mut ledger = lock(&shared.ledger);
        // Read under the lock, so that presentations are judged in the order of their times.
        now_ms = shared.clock.now_ms();
        ledger.present(Presentation { id, claims: &claims, connection, now_ms })
    };
    match verdict {
        Some(Verdict::Accepted { .. }) => Ok(()),
        Some(Verdict::Invalid) => Err(INVALID),
        Some(Verdict::Expired) => {
            let refusal = Refusal::new(StatusCode::FORBIDDEN, "ExpiredProviderToken");
            Err(Refusal { timestamp_ms: Some(now_ms), ..refusal })
        }
        Some(Verdict::TooManyUpdates) => {
            Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, "TooManyProviderTokenUpdates"))
        }
        None => Err(Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable")),
    }
}

/// The request's own `apns-id`, or a new one; `None` when the request's is not a UUID.
fn apns_id(headers: &HeaderMap) -> Option<String> {
    let Some(id) = headers.get("apns-id") else { return Some(new_id()) };
    let id = id.to_str().ok()?;
    let groups: Vec<&str> = id.split('-').collect();
    let lengths: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let is_hex = groups.iter().all(|group| group.bytes().all(|byte| byte.is_ascii_hexdigit()));
    (is_hex && lengths == [8, 4, 4, 4, 12]).then(|| id.to_owned())
}

/// An id in the shape of a UUID (RFC 9562, version 8: our own content), counted rather than random.
fn new_id() -> String {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{:08X}-0000-8000-8000-{:012X}", std::process::id(), number & 0xFFFF_FFFF_FFFF)
}
