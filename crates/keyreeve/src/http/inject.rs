//! A gate that adds a credential to requests on their way to an upstream, so that whoever makes them never holds it.
//!
//! ```text
//! program -> listener on this machine -> is it one of our upstreams? -> header added -> upstream -> answer, as it comes
//! ```
//! A program either takes the gate for its upstream (a base URL), or for its HTTP proxy and asks for `http://HOST/..`; to the
//! upstream it is `https` in both cases. What is not on the list is refused: this is nobody's open proxy.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use axum::BoxError;
use axum::body::{Body, HttpBody as _};
use futures::future::{Either, select};
use futures::stream;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, EXPECT, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts as Head;
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri, Version};
use http_body_util::{BodyExt as _, Limited, StreamBody};
use keyreeve_core::time::Span;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::hand_out::{is_local, made_elsewhere};
use super::problem::{
    Answer, CONFLICT, FORBIDDEN, MALFORMED, METHOD, Problem, RATE_LIMITED, TOO_LARGE, UPSTREAM_FAILED, UPSTREAM_TIMEOUT,
};
use super::route::Later;
use crate::config::InjectConfig;
use crate::outbound::Served;
use crate::port::{Host, HttpError};
use crate::source::Fields;

/// HTTP to the outside with bodies that stream, in HTTP/1.1 or HTTP/2 as the upstream likes. No redirects, no retries.
#[async_trait]
pub trait Passage: Send + Sync {
    /// Sends a request on; the body of its answer is still to come. Whoever calls sets the deadline by dropping the future, and
    /// that of the body by dropping it.
    ///
    /// # Errors
    /// [`HttpError`] says whether the request may have been acted on.
    async fn send(&self, request: Request<Body>) -> Result<Answer, HttpError>;
}

/// One gate that adds a credential.
#[derive(Clone)]
pub struct Inject {
    config: InjectConfig,
    header: HeaderName,
    passage: Arc<dyn Passage>,
    room: Arc<Semaphore>,
    /// When a refusal was reported last, in milliseconds of the monotonic clock.
    reported_ms: Arc<AtomicU64>,
}

/// Between two pieces of an answer this long may pass, in milliseconds.
const IDLE_MS: u64 = 60_000;
/// Refusals are reported no more often than this, in milliseconds, however many there are.
const REPORT_EVERY_MS: u64 = 1000;

impl Inject {
    /// A gate with these settings, whose requests leave by `passage`.
    #[must_use]
    pub fn new(config: InjectConfig, passage: Arc<dyn Passage>) -> Self {
        let room = Arc::new(Semaphore::new(config.requests_max));
        let header = HeaderName::try_from(config.header.as_str()).unwrap_or(AUTHORIZATION);
        Self { config, header, passage, room, reported_ms: Arc::new(AtomicU64::new(0)) }
    }

    /// Where a request goes.
    fn upstream(&self, head: &Head) -> Result<&Uri, Problem> {
        let refuse = |host: &str| {
            let known: Vec<String> = self.config.upstreams.iter().map(|uri| shown(uri).to_owned()).collect();
            let text = format!("`{}` is not an upstream of this gate", super::input::clipped(host));
            Problem::new(FORBIDDEN, format!("{text}\nhint: it goes to {} and nowhere else", known.join(", ")))
        };
        let mut lines = head.headers.get_all(HOST).iter().map(|line| line.to_str().unwrap_or("?"));
        // RFC 9112 3.2.2: what stands in the request line wins over `Host`.
        let named = match (head.uri.authority(), lines.next(), lines.next()) {
            (Some(authority), ..) => authority.as_str(),
            (None, Some(line), None) => line,
            (None, None, _) => return self.config.upstreams.first().ok_or_else(|| refuse("")),
            (None, Some(_), Some(_)) => return Err(Problem::new(MALFORMED, "`Host` is there twice")),
        };
        let is_meant = |uri: &&Uri| uri.authority().is_some_and(|known| is_same(known, uri, named));
        if let Some(uri) = self.config.upstreams.iter().find(is_meant) {
            return Ok(uri);
        }
        let host = named.parse::<Authority>().ok();
        match (host, self.config.upstreams.first()) {
            // Only where the gate itself is asked. Who takes it for a proxy and names this machine means something else here.
            (Some(host), Some(first)) if !is_proxied(head) && is_local(host.host()) => Ok(first),
            _ => Err(refuse(named)),
        }
    }
}

/// Whether the gate is asked as a proxy (RFC 9112 3.2.2). In HTTP/2 every request names an authority.
fn is_proxied(head: &Head) -> bool {
    head.uri.authority().is_some() && head.version < Version::HTTP_2
}

/// Whether `named` is the host of an upstream, with its port or, where that is the usual one, without.
fn is_same(known: &Authority, uri: &Uri, named: &str) -> bool {
    let Ok(named) = named.parse::<Authority>() else { return false };
    let usual = if uri.scheme() == Some(&Scheme::HTTP) { 80 } else { 443 };
    let port = known.port_u16().unwrap_or(usual);
    // A proxy's client says `http://HOST/`, whose usual port is 80, and means the upstream.
    let is_port = named.port_u16().is_none_or(|named| named == port || (named == 80 && port == usual));
    let has_port = named.port_u16().is_some() || port == usual;
    !named.as_str().contains('@') && known.host().eq_ignore_ascii_case(named.host()) && is_port && has_port
}

fn shown(uri: &Uri) -> &str {
    uri.authority().map_or("", Authority::as_str)
}

/// Refuses what is no request of a program on this machine for one of the upstreams.
///
/// # Errors
/// The refusal.
pub(super) fn check(inject: &Inject, head: &Head) -> Result<(), Problem> {
    if matches!(head.method, Method::CONNECT | Method::TRACE) {
        let hint = "ask for `http://HOST/..` by way of this gate: to the upstream it is `https` all the same";
        let text = format!("`{}` is not let through: the credential could not be added\nhint: {hint}", head.method);
        return Err(Problem::new(METHOD, text));
    }
    made_elsewhere(head)?;
    // It is put after the host as text: nothing in it may name another host, or be read as another path (RFC 9110 7.7).
    let path = head.uri.path();
    let is_dots = |part: &str| matches!(part.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..");
    if !path.starts_with('/') || path.contains('\\') || path.split('/').any(is_dots) {
        return Err(Problem::new(MALFORMED, "the path of the request is none that can be sent on as it is"));
    }
    inject.upstream(head).map(drop)
}

/// Sends a request on, with the credential, and its answer back.
///
/// # Errors
/// The refusal; nothing that the upstream answers is one.
pub(super) async fn answer(later: &Later, inject: &Inject, head: &Head, body: Body) -> Result<Answer, Problem> {
    let Ok(room) = Arc::clone(&inject.room).try_acquire_owned() else {
        let text = format!("more than {} requests are under way at this gate", inject.config.requests_max);
        return Err(Problem::new(RATE_LIMITED, text).after(1000));
    };
    let upstream = inject.upstream(head)?;
    let served = served(later, inject).await?;
    let request = outgoing(inject, head, body, upstream, &served)?;
    let host = &later.api.host;
    let limit_ms = inject.config.timeout_ms;
    let sent = inject.passage.send(request);
    let answer = match select(sent, host.sleep_until(host.now().mono.plus(limit_ms))).await {
        Either::Left((Ok(answer), _)) => answer,
        Either::Left((Err(error), _)) => return Err(failed(upstream, &error)),
        Either::Right(_) => {
            let text = format!("`{}` did not begin its answer within {}", shown(upstream), Span(limit_ms));
            return Err(Problem::new(UPSTREAM_TIMEOUT, text));
        }
    };
    if answer.status() == StatusCode::UNAUTHORIZED {
        report(later, inject, served.generation);
    }
    Ok(returned(answer, Pace { upstream: shown(upstream).to_owned(), host: Arc::clone(host), _room: room }))
}

async fn served(later: &Later, inject: &Inject) -> Result<Served, Problem> {
    let name = &inject.config.credential;
    let (api, live) = (&later.api, &later.live);
    if let Some(served) = live.outbound.held(name.as_str(), api.host.now(), 0) {
        return Ok(served);
    }
    let deadline = api.host.now().mono.plus(live.limits.request_ms_max.min(inject.config.timeout_ms));
    live.outbound.token(name.as_str(), 0, deadline).await.map_err(|error| Problem::of_token(name.as_str(), error))
}

/// The request as the upstream is to see it.
fn outgoing(
    inject: &Inject,
    head: &Head,
    body: Body,
    upstream: &Uri,
    served: &Served,
) -> Result<Request<Body>, Problem> {
    let name = &inject.config.credential;
    let token = match &served.material.secret {
        Fields::Token(token) => token.expose(),
        Fields::Named(_) => {
            let hint = "a gate adds credentials that are a single token";
            return Err(Problem::new(CONFLICT, format!("`{name}` has named fields and is no token\nhint: {hint}")));
        }
    };
    let value = inject.config.value.replace("{token}", token);
    let mut value = HeaderValue::try_from(value)
        .map_err(|_| Problem::new(CONFLICT, format!("`{name}` has characters that no header may carry")))?;
    value.set_sensitive(true);
    let mut parts = upstream.clone().into_parts();
    parts.path_and_query = Some(head.uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/")));
    let unusable = || Problem::new(MALFORMED, "the path of the request cannot be sent on");
    let uri = Uri::from_parts(parts).map_err(|_| unusable())?;
    let mut headers = head.headers.clone();
    strip(&mut headers);
    // What programs put there because their library insists on something.
    for name in [&AUTHORIZATION, &HOST, &EXPECT, &inject.header] {
        headers.remove(name);
    }
    headers.insert(inject.header.clone(), value);
    let most = inject.config.body_bytes_max;
    let declared = head.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|declared| usize::try_from(declared).unwrap_or(usize::MAX) > most) {
        return Err(Problem::new(TOO_LARGE, format!("the body is larger than {most} bytes")));
    }
    let mut request = Request::new(Body::new(Limited::new(body, most)));
    *request.method_mut() = head.method.clone();
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Takes out what belongs to one connection only (RFC 9110 7.6.1), and what is between the program and this gate.
fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    // gRPC asks for trailers, which both sides can do.
    let wants_trailers = headers.get(TE).is_some_and(|te| te.as_bytes().eq_ignore_ascii_case(b"trailers"));
    const OWN: [HeaderName; 9] = [
        CONNECTION,
        PROXY_AUTHENTICATE,
        PROXY_AUTHORIZATION,
        TE,
        TRAILER,
        TRANSFER_ENCODING,
        UPGRADE,
        HeaderName::from_static("keep-alive"),
        HeaderName::from_static("proxy-connection"),
    ];
    for name in OWN.iter().chain(&listed) {
        headers.remove(name);
    }
    if wants_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// The answer as the program is to see it. Its place at the gate is free again when its body has ended.
fn returned(answer: Answer, pace: Pace) -> Answer {
    let (mut head, body) = answer.into_parts();
    strip(&mut head.headers);
    head.version = Version::default();
    head.extensions.clear();
    if body.is_end_stream() {
        return Answer::from_parts(head, body);
    }
    // Frames, not chunks: gRPC has its status in trailers.
    let frames = stream::unfold(Some((body, pace)), |rest| async move {
        let (mut body, pace) = rest?;
        let over = pace.host.sleep_until(pace.host.now().mono.plus(IDLE_MS));
        let next = match select(pin!(body.frame()), over).await {
            Either::Left((next, _)) => next?.map_err(BoxError::from),
            Either::Right(_) => {
                let text = format!("`{}` has sent nothing for {}", pace.upstream, Span(IDLE_MS));
                tracing::warn!("an answer was broken off: {text}");
                Err(BoxError::from(text))
            }
        };
        let rest = next.is_ok().then_some((body, pace));
        Some((next, rest))
    });
    Answer::from_parts(head, Body::new(StreamBody::new(frames)))
}

/// What watches over the body of an answer.
struct Pace {
    upstream: String,
    host: Arc<dyn Host>,
    _room: OwnedSemaphorePermit,
}

/// The upstream does not accept the credential: the fleet renews it, once.
fn report(later: &Later, inject: &Inject, generation: u64) {
    // 0 is never: the first is always reported.
    let now_ms = later.api.host.now().mono.0.max(1);
    let last_ms = inject.reported_ms.load(Ordering::Relaxed);
    let is_due = last_ms == 0 || now_ms.saturating_sub(last_ms) >= REPORT_EVERY_MS;
    if !is_due || inject.reported_ms.swap(now_ms, Ordering::Relaxed) != last_ms {
        return;
    }
    let outbound = later.live.outbound.clone();
    let name = inject.config.credential.clone();
    later.api.host.spawn(Box::pin(async move {
        match outbound.report(name.as_str(), generation).await {
            Ok(_) => tracing::info!(credential = %name, generation, "the upstream of a gate answered 401"),
            Err(error) => tracing::warn!(credential = %name, generation, "a 401 could not be reported: {error}"),
        }
    }));
}

fn failed(upstream: &Uri, error: &HttpError) -> Problem {
    let host = shown(upstream);
    match error {
        HttpError::NotSent(cause) => {
            let text = format!("`{host}` cannot be reached\nhint: nothing was sent; the log tells why");
            Problem::new(UPSTREAM_FAILED, text).because(format!("`{host}` cannot be reached: {cause}"))
        }
        error => {
            let text = format!("`{host}` did not answer\nhint: it may have acted on the request; the log tells more");
            Problem::new(UPSTREAM_FAILED, text).because(format!("`{host}`: {error}"))
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    struct Nowhere;

    #[async_trait]
    impl Passage for Nowhere {
        async fn send(&self, _: Request<Body>) -> Result<Answer, HttpError> {
            Err(HttpError::NotSent("nowhere".into()))
        }
    }

    fn gate() -> Inject {
        let config = InjectConfig {
            bind: crate::config::Bind::Tcp("127.0.0.1:0".parse().unwrap()),
            credential: keyreeve_core::id::CredentialName::parse("push").unwrap(),
            upstreams: vec!["https://api.example.org".parse().unwrap(), "https://up.example.org:8443".parse().unwrap()],
            header: "authorization".into(),
            value: "Bearer {token}".into(),
            via: None,
            timeout_ms: 1000,
            body_bytes_max: 1000,
            requests_max: 1,
        };
        Inject::new(config, Arc::new(Nowhere))
    }

    fn goes_to(uri: &str, host: Option<&str>) -> Option<String> {
        let mut request = Request::get(uri);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let head = request.body(()).unwrap().into_parts().0;
        gate().upstream(&head).ok().map(|uri| shown(uri).to_owned())
    }

    #[test]
    fn only_what_is_on_the_list_is_an_upstream() {
        let api = Some("api.example.org".to_owned());
        for (uri, host) in [
            ("/repos", Some("127.0.0.1:7075")),
            ("/repos", Some("localhost")),
            ("/repos", None),
            ("/repos", Some("API.example.org")),
            ("/repos", Some("api.example.org:443")),
            ("http://api.example.org/repos", Some("elsewhere.example")),
            ("http://api.example.org:80/repos", None),
            ("https://api.example.org:443/repos", None),
        ] {
            assert_eq!(goes_to(uri, host), api, "{uri} {host:?}");
        }
        assert_eq!(goes_to("http://up.example.org:8443/", None).unwrap(), "up.example.org:8443");
        let head =
            Request::get("http://localhost:7075/repos").version(Version::HTTP_2).body(()).unwrap().into_parts().0;
        assert_eq!(gate().upstream(&head).ok().map(shown), Some("api.example.org"), "HTTP/2 has no other form");
        for (uri, host) in [
            ("/", Some("elsewhere.example")),
            ("/", Some("api.example.org.elsewhere.example")),
            ("/", Some("api.example.org:8443")),
            ("/", Some("")),
            ("http://elsewhere.example/", Some("api.example.org")),
            ("http://127.0.0.1:22/", None),
            ("http://localhost/", None),
            ("http://169.254.169.254/latest/meta-data/", None),
            ("http://up.example.org/", None),
            ("http://up.example.org:80/", None),
            ("http://api.example.org@elsewhere.example/", None),
            ("http://api.example.org:8443/", None),
        ] {
            assert_eq!(goes_to(uri, host), None, "{uri} {host:?}");
        }
    }

    #[test]
    fn what_belongs_to_one_connection_stays_there() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-own"),
            ("x-own", "1"),
            ("proxy-authorization", "Basic eA=="),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("accept", "*/*"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["accept", "te"]);
    }
}
