//! Starting, steering and stopping the issuer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::config::{Config, ExpiryForm, Fault, Faults, WrongExpiry, check};
use super::ledger::{Ledger, Minted, Moment};
use super::score::{Mint, Outcome, Score};
use crate::clock::PickyClock;
use crate::faults::{Chooser, Chosen};
use crate::serve::{self, Listening, Reply, hang, lock, refusal};

const CONNECTIONS_MAX: usize = 1024;
const BODY_BYTES_MAX: usize = 64 * 1024;
const IDEMPOTENCY_KEY_BYTES_MAX: usize = 256;

struct Shared {
    clock: PickyClock,
    expiry: ExpiryForm,
    started: Instant,
    ledger: Arc<Mutex<Ledger>>,
}

/// A running issuer; dropping it ends it.
pub struct Upstream {
    listening: Listening,
    shared: Arc<Shared>,
}

/// Starts an issuer.
///
/// ```
/// # tokio::runtime::Runtime::new().unwrap().block_on(async {
/// use keyreeve_picky::upstream;
///
/// let issuer = upstream::start(upstream::Config::default()).await?;
/// assert!(issuer.mint_url().ends_with("/mint"));
/// assert_eq!(issuer.score().mints, 0);
/// # std::io::Result::Ok(()) }).unwrap();
/// ```
///
/// # Errors
/// When the address cannot be bound or is not loopback, or the faults make no sense.
pub async fn start(config: Config) -> io::Result<Upstream> {
    check(&config.faults).map_err(io::Error::other)?;
    if !config.bind.ip().is_loopback() {
        let error = format!("the address must be loopback: `{}`", config.bind);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let ledger = Arc::new(Mutex::new(Ledger::new(&config)));
    let Config { bind, clock, expiry, .. } = config;
    let shared = Arc::new(Shared { clock, expiry, started: Instant::now(), ledger });
    let for_connections = Arc::clone(&shared);
    let listening = Listening::start(bind, CONNECTIONS_MAX, move |stream, _| {
        let shared = Arc::clone(&for_connections);
        async move { serve::http1(stream, |request| handle(Arc::clone(&shared), request)).await }
    })
    .await?;
    Ok(Upstream { listening, shared })
}

impl Upstream {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listening.addr()
    }

    /// `http://127.0.0.1:PORT/mint`.
    #[must_use]
    pub fn mint_url(&self) -> String {
        format!("http://{}/mint", self.addr())
    }

    /// The score so far.
    #[must_use]
    pub fn score(&self) -> Score {
        self.shared.score()
    }

    /// Replaces the faults, with a new budget and a new random sequence.
    ///
    /// # Errors
    /// A sentence about numbers that make no sense; the faults then stay as they were.
    pub fn set_faults(&self, faults: Faults) -> Result<(), String> {
        self.shared.set_faults(faults)
    }

    /// Stops listening and cuts every connection.
    pub async fn shutdown(self) {
        self.listening.shutdown().await;
    }
}

impl Shared {
    fn score(&self) -> Score {
        lock(&self.ledger).score(self.clock.now_ms())
    }

    fn set_faults(&self, faults: Faults) -> Result<(), String> {
        check(&faults)?;
        lock(&self.ledger).faults = Chooser::new(faults);
        Ok(())
    }

    fn now(&self) -> Moment {
        let real_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        Moment { at_ms: self.clock.now_ms(), real_ms }
    }
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Reply {
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/mint") => mint(&shared, request).await,
        (&Method::POST, "/use") => use_token(&shared, request.headers()),
        (&Method::GET, "/score") => Reply::Answer(serve::json(StatusCode::OK, &shared.score())),
        (&Method::GET, "/livez") => Reply::Answer(serve::answer(StatusCode::OK, "text/plain", "ok\n")),
        (&Method::PUT, "/faults") => put_faults(&shared, request).await,
        (_, "/mint" | "/use" | "/score" | "/livez" | "/faults") => {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
        }
        _ => refusal(StatusCode::NOT_FOUND, "no such path: try `/mint`, `/use`, `/score`, `/faults` or `/livez`"),
    }
}

/// Counts a call as in progress until it is answered or its caller is gone.
struct InFlight<'a>(&'a Arc<Mutex<Ledger>>);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        lock(self.0).ended();
    }
}

async fn mint(shared: &Shared, request: Request<Incoming>) -> Reply {
    let key = match idempotency_key(request.headers()) {
        Ok(key) => key,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error),
    };
    if serve::body(request.into_body(), BODY_BYTES_MAX).await.is_err() {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 64 KiB");
    }
    let (chosen, minted) = count(shared, key.as_deref());
    let _in_flight = InFlight(&shared.ledger);
    if !chosen.delay.is_zero() {
        tokio::time::sleep(chosen.delay).await;
    }
    match chosen.fault {
        Some(Fault::Fail { status, retry_after_s }) => failed(status, retry_after_s),
        Some(Fault::Hang { .. }) => {
            hang().await;
            Reply::Close
        }
        Some(Fault::DropAfterCount | Fault::DropBefore) => Reply::Close,
        Some(Fault::Garbage) => spoiled("<html>\u{fffd} not what you hoped for"),
        Some(Fault::Empty) => spoiled(""),
        fault => match minted {
            Some(Minted::Token(mint)) => shared.token(&mint, fault.as_ref()),
            Some(Minted::TooSoon { wait_ms }) => too_soon(wait_ms),
            None => refusal(StatusCode::INTERNAL_SERVER_ERROR, "nothing was minted"),
        },
    }
}

/// Counts a call and carries it out, all at one moment; the answer may come later, or never.
fn count(shared: &Shared, key: Option<&str>) -> (Chosen<Fault>, Option<Minted>) {
    let mut ledger = lock(&shared.ledger);
    let now = shared.now();
    ledger.begun(now);
    let chosen = ledger.faults.choose();
    let (minted, outcome) = match &chosen.fault {
        Some(fault) if fault.is_before_mint() => (None, Outcome::Nothing),
        Some(Fault::SameToken) => some(ledger.same_again(now, key)),
        _ => some(ledger.mint(now, key)),
    };
    ledger.called(now, outcome, chosen.fault.as_ref().map(Fault::kind), key);
    (chosen, minted)
}

fn some((minted, outcome): (Minted, Outcome)) -> (Option<Minted>, Outcome) {
    (Some(minted), outcome)
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, &'static str> {
    const NAME: HeaderName = HeaderName::from_static("idempotency-key");
    let Some(value) = headers.get(NAME) else { return Ok(None) };
    match value.to_str() {
        Ok(key) if !key.is_empty() && key.len() <= IDEMPOTENCY_KEY_BYTES_MAX => Ok(Some(key.to_owned())),
        _ => Err("`idempotency-key` must be 1 to 256 visible characters"),
    }
}

fn failed(status: u16, retry_after_s: Option<u64>) -> Reply {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = serve::json(status, &json!({ "error": "injected" }));
    if let Some(seconds) = retry_after_s {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    Reply::Answer(response)
}

fn too_soon(wait_ms: i64) -> Reply {
    let seconds = u64::try_from(wait_ms).unwrap_or(0).div_ceil(1000);
    let mut response = serve::json(StatusCode::TOO_MANY_REQUESTS, &json!({ "error": "too soon" }));
    response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    Reply::Answer(response)
}

fn spoiled(body: &'static str) -> Reply {
    Reply::Answer(serve::answer(StatusCode::OK, "application/json", body))
}

impl Shared {
    fn token(&self, mint: &Mint, fault: Option<&Fault>) -> Reply {
        let mut body = Map::new();
        body.insert("token".to_owned(), Value::from(mint.token.as_str()));
        let now_ms = self.clock.now_ms();
        let (name, right) = self.end(mint.expires_at_ms, now_ms);
        let end = match fault {
            Some(Fault::Expiry { wrong }) => match wrong {
                WrongExpiry::Zero => Some(Value::from(0)),
                WrongExpiry::Absent => None,
                WrongExpiry::Past => Some(self.end(now_ms.saturating_sub(3_600_000), now_ms).1),
                WrongExpiry::Nonsense => Some(Value::from("the day after tomorrow")),
            },
            _ => Some(right),
        };
        if let Some(end) = end {
            body.insert(name.to_owned(), end);
        }
        if let Some(Fault::TooBig { bytes }) = fault {
            body.insert("padding".to_owned(), Value::from("x".repeat(*bytes)));
        }
        Reply::Answer(serve::json(StatusCode::OK, &Value::Object(body)))
    }

    /// The field and the value that say when a token ends.
    fn end(&self, expires_at_ms: i64, now_ms: i64) -> (&'static str, Value) {
        match self.expiry {
            ExpiryForm::Rfc3339 => {
                let end = jiff::Timestamp::from_millisecond(expires_at_ms).unwrap_or(jiff::Timestamp::MAX);
                ("expires_at", Value::from(end.to_string()))
            }
            ExpiryForm::UnixSeconds => ("expires_at", Value::from(expires_at_ms.div_euclid(1000))),
            ExpiryForm::ExpiresIn => {
                let left_ms = expires_at_ms.saturating_sub(now_ms);
                ("expires_in", Value::from(left_ms.div_euclid(1000)))
            }
        }
    }
}

fn use_token(shared: &Shared, headers: &HeaderMap) -> Reply {
    let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let token =
        value.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let token = token.map_or("", |(_, token)| token);
    match lock(&shared.ledger).used(token, shared.clock.now_ms()) {
        "ok" => Reply::Answer(serve::answer(StatusCode::NO_CONTENT, "application/json", "")),
        why => refusal(StatusCode::UNAUTHORIZED, why),
    }
}

async fn put_faults(shared: &Shared, request: Request<Incoming>) -> Reply {
    let Ok(body) = serve::body(request.into_body(), BODY_BYTES_MAX).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 64 KiB");
    };
    match serve::object::<Faults>(&body).and_then(|faults| shared.set_faults(faults)) {
        Ok(()) => Reply::Answer(serve::answer(StatusCode::NO_CONTENT, "application/json", "")),
        Err(error) => refusal(StatusCode::BAD_REQUEST, &error),
    }
}
