//! Starting, steering and stopping the issuer.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use http::{HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::config::{Config, Fault, Faults, Score, check};
use super::keys::Keys;
use crate::clock::PickyClock;
use crate::faults::Chooser;
use crate::serve::{self, Listening, Reply, hang, lock, refusal};

const CONNECTIONS_MAX: usize = 1024;
const BODY_BYTES_MAX: usize = 64 * 1024;
/// How many times of fetches are kept.
const TIMES_MAX: usize = 1000;
/// The longest life of a token, in seconds.
const TTL_S_MAX: u64 = 366 * 86_400;

struct Shared {
    clock: PickyClock,
    max_age_s: Option<u64>,
    started: Instant,
    state: Mutex<State>,
}

struct State {
    keys: Keys,
    score: Score,
    in_flight: u64,
    faults: Chooser<Fault>,
}

/// A running issuer; dropping it ends it.
pub struct Oidc {
    listening: Listening,
    shared: Arc<Shared>,
}

/// Starts an issuer.
///
/// # Errors
/// When the address cannot be bound or is not loopback, or the faults make no sense.
pub async fn start(config: Config) -> io::Result<Oidc> {
    check(&config.faults).map_err(io::Error::other)?;
    if !config.bind.ip().is_loopback() {
        let error = format!("the address must be loopback: `{}`", config.bind);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, error));
    }
    let state = State { keys: Keys::new(), score: Score::default(), in_flight: 0, faults: Chooser::new(config.faults) };
    let shared = Arc::new(Shared {
        clock: config.clock,
        max_age_s: config.max_age_s,
        started: Instant::now(),
        state: Mutex::new(state),
    });
    let for_connections = Arc::clone(&shared);
    let listening = Listening::start(config.bind, CONNECTIONS_MAX, move |stream, _| {
        let shared = Arc::clone(&for_connections);
        async move {
            let Ok(own) = stream.local_addr() else { return };
            serve::http1(stream, |request| handle(Arc::clone(&shared), own, request)).await;
        }
    })
    .await?;
    Ok(Oidc { listening, shared })
}

impl Oidc {
    /// The issuer: `http://127.0.0.1:PORT`, without a slash at its end.
    #[must_use]
    pub fn issuer(&self) -> String {
        issuer(self.listening.addr())
    }

    /// Where its keys are.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("{}/jwks", self.issuer())
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

    /// Publishes a new key, and says its id.
    ///
    /// # Errors
    /// A sentence, where there are too many.
    pub fn publish(&self) -> Result<String, String> {
        lock(&self.shared.state).keys.publish().map_err(str::to_owned)
    }

    /// From now on the newest key signs.
    pub fn switch(&self) {
        lock(&self.shared.state).keys.switch();
    }

    /// Publishes a key no more. Whether it was published.
    pub fn withdraw(&self, id: &str) -> bool {
        lock(&self.shared.state).keys.withdraw(id)
    }

    /// A token for `aud` with these claims besides `iss`, `iat` and `exp`, in whose header stands `kid`.
    #[must_use]
    pub fn token(&self, aud: &str, kid: Option<&str>, claims: &Map<String, Value>) -> String {
        let wanted = Wanted {
            aud: aud.into(),
            sub: Some("ann".into()),
            ttl_s: 600,
            claims: claims.clone(),
            kid: kid.map(str::to_owned),
        };
        self.shared.token(&self.issuer(), wanted).map_or_else(String::new, |(token, _)| token)
    }

    /// Stops listening and cuts every connection.
    pub async fn shutdown(self) {
        self.listening.shutdown().await;
    }
}

fn issuer(own: SocketAddr) -> String {
    format!("http://{own}")
}

/// What a token is asked to say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    aud: Value,
    sub: Option<String>,
    #[serde(default = "ten_minutes_s")]
    ttl_s: u64,
    #[serde(default)]
    claims: Map<String, Value>,
    kid: Option<String>,
}

const fn ten_minutes_s() -> u64 {
    600
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "kebab-case", deny_unknown_fields)]
enum Order {
    Publish,
    Switch,
    Withdraw { kid: String },
}

impl Shared {
    fn score(&self) -> Score {
        let state = lock(&self.state);
        let (published, signs_with) = (state.keys.published(), state.keys.signs_with().to_owned());
        Score { published, signs_with, ..state.score.clone() }
    }

    fn set_faults(&self, faults: Faults) -> Result<(), String> {
        check(&faults)?;
        lock(&self.state).faults = Chooser::new(faults);
        Ok(())
    }

    fn token(&self, issuer: &str, wanted: Wanted) -> Option<(String, String)> {
        let now_s = self.clock.now_ms().div_euclid(1000);
        let ttl_s = i64::try_from(wanted.ttl_s.min(TTL_S_MAX)).unwrap_or(i64::MAX);
        let mut claims = Map::new();
        claims.insert("iss".into(), issuer.into());
        claims.insert("aud".into(), wanted.aud);
        claims.extend(wanted.sub.map(|sub| ("sub".to_owned(), Value::from(sub))));
        claims.insert("iat".into(), now_s.into());
        claims.insert("exp".into(), now_s.saturating_add(ttl_s).into());
        claims.extend(wanted.claims);
        let mut state = lock(&self.state);
        state.score.tokens = state.score.tokens.saturating_add(1);
        state.keys.sign(wanted.kid.as_deref(), &Value::Object(claims))
    }
}

async fn handle(shared: Arc<Shared>, own: SocketAddr, request: Request<Incoming>) -> Reply {
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/.well-known/openid-configuration") => discovery(&shared, own).await,
        (&Method::GET, "/jwks") => jwks(&shared).await,
        (&Method::POST, "/token") => token(&shared, own, request).await,
        (&Method::POST, "/keys") => change_keys(&shared, request).await,
        (&Method::GET, "/score") => Reply::Answer(serve::json(StatusCode::OK, &shared.score())),
        (&Method::GET, "/livez") => Reply::Answer(serve::answer(StatusCode::OK, "text/plain", "ok\n")),
        (&Method::PUT, "/faults") => put_faults(&shared, request).await,
        (_, "/.well-known/openid-configuration" | "/jwks" | "/token" | "/keys" | "/score" | "/livez" | "/faults") => {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "this path has another method")
        }
        _ => refusal(
            StatusCode::NOT_FOUND,
            "no such path: try `/.well-known/openid-configuration`, `/jwks`, `/token`, `/keys`, `/score` or `/faults`",
        ),
    }
}

/// Counts a request for keys as in progress until it is answered or its caller is gone.
struct InFlight<'a>(&'a Shared);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let mut state = lock(&self.0.state);
        state.in_flight = state.in_flight.saturating_sub(1);
    }
}

async fn discovery(shared: &Shared, own: SocketAddr) -> Reply {
    let chosen = {
        let mut state = lock(&shared.state);
        state.score.discoveries = state.score.discoveries.saturating_add(1);
        state.faults.choose()
    };
    tokio::time::sleep(chosen.delay).await;
    let issuer = issuer(own);
    let named =
        if chosen.fault == Some(Fault::OtherIssuer) { "https://somebody.example".into() } else { issuer.clone() };
    let document = json!({
        "issuer": named,
        "jwks_uri": format!("{issuer}/jwks"),
        "authorization_endpoint": format!("{issuer}/authorize"),
        "token_endpoint": format!("{issuer}/token"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
    });
    spoiled(shared, chosen.fault, document, None).await
}

async fn jwks(shared: &Shared) -> Reply {
    let (chosen, mut keys) = {
        let mut state = lock(&shared.state);
        let at_ms = u64::try_from(shared.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        state.in_flight = state.in_flight.saturating_add(1);
        let in_flight = state.in_flight;
        let score = &mut state.score;
        score.jwks_fetches = score.jwks_fetches.saturating_add(1);
        score.in_flight_max = score.in_flight_max.max(in_flight);
        if score.jwks_fetched_at_ms.len() < TIMES_MAX {
            score.jwks_fetched_at_ms.push(at_ms);
        }
        (state.faults.choose(), state.keys.jwks())
    };
    let _in_flight = InFlight(shared);
    tokio::time::sleep(chosen.delay).await;
    match &chosen.fault {
        Some(Fault::NoKeys) => keys.clear(),
        Some(Fault::BadKeys) => {
            let broken = [
                json!({ "kty": "EC", "crv": "P-256", "kid": "off-curve", "x": "AQ", "y": "AQ" }),
                json!({ "kty": "RSA", "kid": "short", "n": "AQAB", "e": "AQAB" }),
                json!({ "kid": "nothing" }),
                json!(5),
            ];
            keys.splice(0..0, broken);
        }
        _ => {}
    }
    spoiled(shared, chosen.fault, json!({ "keys": keys }), shared.max_age_s).await
}

/// The answer, or what a fault makes of it.
async fn spoiled(shared: &Shared, fault: Option<Fault>, mut body: Value, max_age_s: Option<u64>) -> Reply {
    if let Some(fault) = &fault {
        let mut state = lock(&shared.state);
        let count = state.score.faults.entry(fault.kind().to_owned()).or_default();
        *count = count.saturating_add(1);
    }
    match fault {
        Some(Fault::Status { status }) => {
            let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            return Reply::Answer(serve::json(status, &json!({ "error": "injected" })));
        }
        Some(Fault::Redirect) => {
            let mut answer = serve::answer(StatusCode::FOUND, "text/plain", "");
            answer.headers_mut().insert(header::LOCATION, HeaderValue::from_static("/jwks"));
            return Reply::Answer(answer);
        }
        Some(Fault::Hang) => {
            hang().await;
            return Reply::Close;
        }
        Some(Fault::HangBody) => {
            return Reply::Stall(serve::answer(StatusCode::OK, "application/json", "{\"keys\":["));
        }
        Some(Fault::Drop) => return Reply::Close,
        Some(Fault::Garbage) => {
            return Reply::Answer(serve::answer(
                StatusCode::OK,
                "application/json",
                "<html>\u{fffd} not what you hoped for",
            ));
        }
        Some(Fault::TooBig { bytes }) => {
            if let Some(body) = body.as_object_mut() {
                body.insert("padding".into(), "x".repeat(bytes).into());
            }
        }
        Some(Fault::NoKeys | Fault::BadKeys | Fault::OtherIssuer) | None => {}
    }
    let mut answer = serve::json(StatusCode::OK, &body);
    if let Some(value) = max_age_s.and_then(|age| HeaderValue::try_from(format!("public, max-age={age}")).ok()) {
        answer.headers_mut().insert(header::CACHE_CONTROL, value);
    }
    Reply::Answer(answer)
}

async fn token(shared: &Shared, own: SocketAddr, request: Request<Incoming>) -> Reply {
    let wanted = match body::<Wanted>(request).await {
        Ok(wanted) => wanted,
        Err(reply) => return reply,
    };
    match shared.token(&issuer(own), wanted) {
        Some((token, kid)) => Reply::Answer(serve::json(StatusCode::OK, &json!({ "token": token, "kid": kid }))),
        None => refusal(StatusCode::INTERNAL_SERVER_ERROR, "there is no key"),
    }
}

async fn change_keys(shared: &Shared, request: Request<Incoming>) -> Reply {
    let order = match body::<Order>(request).await {
        Ok(order) => order,
        Err(reply) => return reply,
    };
    let mut state = lock(&shared.state);
    let done = match order {
        Order::Publish => state.keys.publish().map(drop),
        Order::Switch => {
            state.keys.switch();
            Ok(())
        }
        Order::Withdraw { kid } if state.keys.withdraw(&kid) => Ok(()),
        Order::Withdraw { .. } => Err("no such key is published"),
    };
    match done {
        Ok(()) => {
            let body = json!({ "published": state.keys.published(), "signs_with": state.keys.signs_with() });
            Reply::Answer(serve::json(StatusCode::OK, &body))
        }
        Err(error) => refusal(StatusCode::CONFLICT, error),
    }
}

async fn put_faults(shared: &Shared, request: Request<Incoming>) -> Reply {
    match body::<Faults>(request).await.map(|faults| shared.set_faults(faults)) {
        Ok(Ok(())) => Reply::Answer(serve::answer(StatusCode::NO_CONTENT, "application/json", "")),
        Ok(Err(error)) => refusal(StatusCode::BAD_REQUEST, &error),
        Err(reply) => reply,
    }
}

async fn body<T: serde::de::DeserializeOwned>(request: Request<Incoming>) -> Result<T, Reply> {
    let Ok(body) = serve::body(request.into_body(), BODY_BYTES_MAX).await else {
        return Err(refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 64 KiB"));
    };
    serve::object::<T>(&body).map_err(|error| refusal(StatusCode::BAD_REQUEST, &error))
}
