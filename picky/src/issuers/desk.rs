//! What all issuers have in common: a clock, a score, faults, and the paths to look at them.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use super::fault::{Fault, Faults, check};
use super::score::{Call, ROWS_MAX, Score};
use crate::clock::PickyClock;
use crate::faults::Chooser;
use crate::serve::{self, Listening, Reply, hang, lock, refusal};

const CONNECTIONS_MAX: usize = 1024;
pub(super) const BODY_BYTES_MAX: usize = 64 * 1024;

/// The form of a protocol's errors.
pub(super) type WriteError = fn(StatusCode, &str) -> Response<Full<Bytes>>;

pub(super) struct Desk {
    pub(super) clock: PickyClock,
    started: Instant,
    write_error: WriteError,
    state: Arc<Mutex<State>>,
}

struct State {
    faults: Chooser<Fault>,
    score: Score,
    in_flight: u64,
    numbers: u64,
    /// By token: from when and until when it is good, in simulated milliseconds.
    tokens: HashMap<String, (i64, i64)>,
    last: Option<Issued>,
}

/// What a protocol makes of a request.
#[derive(Clone, Debug)]
pub(super) struct Issued {
    /// Fields for the answer's writer, in its order.
    pub(super) token: String,
    pub(super) expires_at_ms: i64,
    /// A new refresh token.
    pub(super) refresh: Option<String>,
}

/// A refusal in the protocol's words.
#[derive(Clone, Copy, Debug)]
pub(super) struct Refused(pub(super) StatusCode, pub(super) &'static str);

/// How to write the end of what is issued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Right,
    Wrong(super::WrongExpiry),
}

impl Desk {
    pub(super) fn new(clock: PickyClock, faults: Faults, write_error: WriteError) -> io::Result<Self> {
        check(&faults).map_err(io::Error::other)?;
        let state = State {
            faults: Chooser::new(faults),
            score: Score::default(),
            in_flight: 0,
            numbers: 0,
            tokens: HashMap::new(),
            last: None,
        };
        Ok(Self { clock, started: Instant::now(), write_error, state: Arc::new(Mutex::new(state)) })
    }

    pub(super) fn score(&self) -> Score {
        lock(&self.state).score.clone()
    }

    pub(super) fn set_faults(&self, faults: Faults) -> Result<(), String> {
        check(&faults)?;
        lock(&self.state).faults = Chooser::new(faults);
        Ok(())
    }

    pub(super) fn count(&self, what: impl FnOnce(&mut Score)) {
        what(&mut lock(&self.state).score);
    }

    /// A number that no other thing issued has.
    pub(super) fn next_number(&self) -> u64 {
        let mut state = lock(&self.state);
        bump(&mut state.numbers);
        state.numbers
    }

    /// Answers one request for something to be issued: `issue` decides, a fault may spoil it.
    pub(super) async fn issue(
        &self,
        issue: impl FnOnce() -> Result<Issued, Refused>,
        write: impl Fn(&Issued, End) -> Response<Full<Bytes>>,
    ) -> Reply {
        match self.answer(issue, write).await {
            Reply::Answer(response) => Reply::Answer(dated(response, self.clock.now_ms())),
            other => other,
        }
    }

    async fn answer(
        &self,
        issue: impl FnOnce() -> Result<Issued, Refused>,
        write: impl Fn(&Issued, End) -> Response<Full<Bytes>>,
    ) -> Reply {
        let chosen = {
            let mut state = lock(&self.state);
            state.score.calls = state.score.calls.saturating_add(1);
            state.in_flight = state.in_flight.saturating_add(1);
            state.score.in_flight_max = state.score.in_flight_max.max(state.in_flight);
            state.faults.choose()
        };
        let _in_flight = InFlight(&self.state);
        let fault = chosen.fault;
        let result = match &fault {
            Some(fault) if fault.is_before() => None,
            Some(Fault::Same) => {
                let last = lock(&self.state).last.clone();
                Some(last.map_or_else(issue, Ok))
            }
            _ => Some(issue()),
        };
        self.note(result.as_ref(), fault.as_ref());
        if !chosen.delay.is_zero() {
            tokio::time::sleep(chosen.delay).await;
        }
        match (fault, result) {
            (Some(Fault::Fail { status, code, retry_after_s }), _) => self.failed(status, &code, retry_after_s),
            (Some(Fault::Plain { status }), _) => {
                Reply::Answer(serve::answer(status_of(status), "text/plain", "upstream connect error\n"))
            }
            (Some(Fault::Hang { .. }), _) => {
                hang().await;
                Reply::Close
            }
            (Some(Fault::DropAfterIssue | Fault::DropBefore), _) => Reply::Close,
            (_, Some(Err(Refused(status, code)))) => Reply::Answer((self.write_error)(status, code)),
            (Some(Fault::Garbage), _) => Reply::Answer(serve::answer(StatusCode::OK, "text/html", "<html>hello")),
            (Some(Fault::Empty), _) => Reply::Answer(serve::answer(StatusCode::OK, "application/json", "")),
            (Some(Fault::BadToken), Some(Ok(issued))) => {
                let token = format!("{} \u{7}", issued.token);
                Reply::Answer(write(&Issued { token, ..issued }, End::Right))
            }
            (Some(Fault::Expiry { wrong }), Some(Ok(issued))) => Reply::Answer(write(&issued, End::Wrong(wrong))),
            (_, Some(Ok(issued))) => Reply::Answer(write(&issued, End::Right)),
            (_, None) => refusal(StatusCode::INTERNAL_SERVER_ERROR, "nothing was issued"),
        }
    }

    fn note(&self, result: Option<&Result<Issued, Refused>>, fault: Option<&Fault>) {
        let real_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        let at_ms = self.clock.now_ms();
        let mut state = lock(&self.state);
        let outcome = match result {
            None => "nothing",
            Some(Err(Refused(_, code))) => {
                bump(state.score.refused.entry((*code).to_owned()).or_default());
                code
            }
            Some(Ok(issued)) => {
                let is_new = !state.tokens.contains_key(&issued.token);
                if is_new && state.tokens.len() < ROWS_MAX {
                    state.tokens.insert(issued.token.clone(), (at_ms, issued.expires_at_ms));
                }
                if is_new {
                    bump(&mut state.score.issued);
                }
                state.last = Some(issued.clone());
                "issued"
            }
        };
        if let Some(fault) = fault {
            bump(state.score.faults.entry(fault.kind().to_owned()).or_default());
        }
        if state.score.call_list.len() < ROWS_MAX {
            let (outcome, fault) = (outcome.to_owned(), fault.map(|fault| fault.kind().to_owned()));
            state.score.call_list.push(Call { at_ms, real_ms, outcome, fault });
        }
    }

    fn failed(&self, status: u16, code: &str, retry_after_s: Option<u64>) -> Reply {
        let mut response = (self.write_error)(status_of(status), code);
        if let Some(seconds) = retry_after_s {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        Reply::Answer(response)
    }

    /// Uses a token: it is known after `known_after_ms`.
    pub(super) fn use_token(&self, headers: &HeaderMap, known_after_ms: i64) -> Reply {
        let token = bearer(headers).unwrap_or_default();
        let now_ms = self.clock.now_ms();
        let mut state = lock(&self.state);
        let result = match state.tokens.get(token) {
            None => "unknown",
            Some((issued_ms, _)) if now_ms < issued_ms.saturating_add(known_after_ms) => "not-yet",
            Some((_, end_ms)) if now_ms >= *end_ms => "expired",
            Some(_) => "ok",
        };
        bump(state.score.uses.entry(result.to_owned()).or_default());
        drop(state);
        match result {
            "ok" => Reply::Answer(serve::answer(StatusCode::NO_CONTENT, "application/json", "")),
            why => refusal(StatusCode::UNAUTHORIZED, why),
        }
    }

    /// Whether a token was issued here and is not over.
    pub(super) fn is_good(&self, token: &str) -> bool {
        let now_ms = self.clock.now_ms();
        lock(&self.state).tokens.get(token).is_some_and(|(_, end_ms)| now_ms < *end_ms)
    }

    /// The paths that every issuer has.
    pub(super) async fn common(&self, request: Request<Incoming>) -> Reply {
        match (request.method(), request.uri().path()) {
            (&Method::GET, "/score") => Reply::Answer(serve::json(StatusCode::OK, &self.score())),
            (&Method::GET, "/livez") => Reply::Answer(serve::answer(StatusCode::OK, "text/plain", "ok\n")),
            (&Method::PUT, "/faults") => {
                let Ok(body) = serve::body(request.into_body(), BODY_BYTES_MAX).await else {
                    return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 64 KiB");
                };
                match serve::object::<Faults>(&body).and_then(|faults| self.set_faults(faults)) {
                    Ok(()) => Reply::Answer(serve::answer(StatusCode::NO_CONTENT, "application/json", "")),
                    Err(error) => refusal(StatusCode::BAD_REQUEST, &error),
                }
            }
            _ => refusal(StatusCode::NOT_FOUND, "no such path and method"),
        }
    }
}

struct InFlight<'a>(&'a Arc<Mutex<State>>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = lock(self.0);
        state.in_flight = state.in_flight.saturating_sub(1);
    }
}

pub(super) fn bump(count: &mut u64) {
    *count = count.saturating_add(1);
}

fn status_of(status: u16) -> StatusCode {
    StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}

pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}

fn check_loopback(bind: SocketAddr) -> io::Result<()> {
    if bind.ip().is_loopback() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::InvalidInput, format!("the address must be loopback: `{bind}`")))
}

/// Listens on loopback.
pub(super) async fn listen<F, R>(bind: SocketAddr, handle: F) -> io::Result<Listening>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    check_loopback(bind)?;
    Listening::start(bind, CONNECTIONS_MAX, move |stream, _| {
        let handle = handle.clone();
        async move { serve::http1(stream, handle).await }
    })
    .await
}

/// As [`listen`], over TLS, for clients only that show a certificate; `seen` is told each one.
pub(super) async fn listen_mutually<F, R>(
    bind: SocketAddr,
    acceptor: tokio_rustls::TlsAcceptor,
    seen: impl Fn(&[u8]) + Clone + Send + Sync + 'static,
    handle: F,
) -> io::Result<Listening>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Reply> + Send + 'static,
{
    check_loopback(bind)?;
    Listening::start(bind, CONNECTIONS_MAX, move |stream, _| {
        let (acceptor, handle, seen) = (acceptor.clone(), handle.clone(), seen.clone());
        async move {
            let accepted = tokio::time::timeout(serve::READ_TIMEOUT, acceptor.accept(stream)).await;
            let Ok(Ok(stream)) = accepted else { return };
            let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
            shown.into_iter().for_each(|certificate| seen(certificate));
            serve::http1(stream, handle).await;
        }
    })
    .await
}

/// An answer that says what time it is here.
fn dated(mut response: Response<Full<Bytes>>, now_ms: i64) -> Response<Full<Bytes>> {
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let now = jiff::Timestamp::from_millisecond(now_ms).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let date = now.to_zoned(jiff::tz::TimeZone::UTC).strftime("%a, %d %b %Y %H:%M:%S GMT").to_string();
    if let Ok(date) = HeaderValue::from_str(&date) {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// The fields of a form; of a field that is there twice the last one.
pub(super) fn fields(body: &[u8]) -> HashMap<String, String> {
    let text = String::from_utf8_lossy(body);
    text.split('&')
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (decoded(name), decoded(value)))
        .collect()
}

/// Percent-decodes one part of a form.
pub(super) fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let pair = after.get(..2).and_then(|pair| std::str::from_utf8(pair).ok());
        let code = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        rest = match (first, code) {
            (b'%', Some(code)) => {
                bytes.push(code);
                after.get(2..).unwrap_or_default()
            }
            (b'+', _) => {
                bytes.push(b' ');
                after
            }
            (byte, _) => {
                bytes.push(*byte);
                after
            }
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
