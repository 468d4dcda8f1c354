//! GitHub's installation tokens.
//!
//! | request | answer |
//! |---|---|
//! | `POST /app/installations/{id}/access_tokens` | 201 `{"token","expires_at"}`; 401 for a bad assertion, 404 for another installation |
//! | `GET /installation/repositories` with `authorization: bearer ghs_..` | 204; 401 `not-yet` while the replicas do not know the token |
//! | `GET /score`, `PUT /faults`, `GET /livez` | as everywhere |
//!
//! An assertion must be signed with RS256 by the app's key, must not be from the future, and must live no longer than ten
//! minutes.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::desk::{self, BODY_BYTES_MAX, Desk, End, Issued, Refused, bearer};
use super::jwt::{self, Key};
use super::{Faults, Score, WrongExpiry};
use crate::clock::{PickyClock, millis};
use crate::serve::{self, Listening, Reply, refusal};

/// The longest life of an assertion, in seconds.
const ASSERTION_S_MAX: i64 = 600;
const LIFE_MS: i64 = 3_600_000;

/// The rules and the place of a GitHub.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; the default is a free port of 127.0.0.1, and only loopback is taken.
    pub bind: SocketAddr,
    /// What ends are measured by.
    pub clock: PickyClock,
    /// The app's id.
    pub app_id: String,
    /// The app's keys.
    pub keys: Vec<Key>,
    /// The installation.
    pub installation_id: String,
    /// How long a new token is refused.
    pub replication: Duration,
    /// What goes wrong from the start.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: PickyClock::real(),
            app_id: "Iv23liPICKY".into(),
            keys: Vec::new(),
            installation_id: "1".into(),
            replication: Duration::ZERO,
            faults: Faults::default(),
        }
    }
}

/// A running GitHub; dropping it ends it.
pub struct Github {
    listening: Listening,
    shared: Arc<Shared>,
}

struct Shared {
    desk: Desk,
    config: Config,
}

/// Starts a GitHub.
///
/// # Errors
/// When the address cannot be bound or is not loopback, or the faults make no sense.
pub async fn start(config: Config) -> io::Result<Github> {
    let bind = config.bind;
    let desk = Desk::new(config.clock.clone(), config.faults.clone(), error)?;
    let shared = Arc::new(Shared { desk, config });
    let for_requests = Arc::clone(&shared);
    let listening = desk::listen(bind, move |request| handle(Arc::clone(&for_requests), request)).await?;
    Ok(Github { listening, shared })
}

impl Github {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listening.addr()
    }

    /// `http://127.0.0.1:PORT`, the `api_url` of its clients.
    #[must_use]
    pub fn api_url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The score so far.
    #[must_use]
    pub fn score(&self) -> Score {
        self.shared.desk.score()
    }

    /// Replaces the faults.
    ///
    /// # Errors
    /// A sentence about numbers that make no sense.
    pub fn set_faults(&self, faults: Faults) -> Result<(), String> {
        self.shared.desk.set_faults(faults)
    }

    /// Stops listening and cuts every connection.
    pub async fn shutdown(self) {
        self.listening.shutdown().await;
    }
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    let installation = path.strip_prefix("/app/installations/").and_then(|rest| rest.strip_suffix("/access_tokens"));
    match (request.method(), installation) {
        (&Method::POST, Some(installation)) => {
            let installation = installation.to_owned();
            let (head, body) = request.into_parts();
            let Ok(body) = serve::body(body, BODY_BYTES_MAX).await else {
                return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 64 KiB");
            };
            let decide = || shared.decide(&head.headers, &installation, &body);
            shared.desk.issue(decide, written).await
        }
        (&Method::GET, None) if path == "/installation/repositories" => {
            shared.desk.use_token(request.headers(), millis(shared.config.replication))
        }
        _ => shared.desk.common(request).await,
    }
}

impl Shared {
    fn decide(&self, headers: &HeaderMap, installation: &str, body: &[u8]) -> Result<Issued, Refused> {
        // GitHub answers 403 to whoever does not say what it is.
        if !headers.contains_key(header::USER_AGENT) {
            return Err(Refused(StatusCode::FORBIDDEN, "Request forbidden by administrative rules"));
        }
        let wrong = Refused(StatusCode::UNAUTHORIZED, "A JSON web token could not be decoded");
        let claims = bearer(headers).and_then(|token| jwt::claims(&self.config.keys, token)).ok_or(wrong)?;
        let now_s = self.desk.clock.now_ms().div_euclid(1000);
        let (iat, exp) = (jwt::number(&claims, "iat").ok_or(wrong)?, jwt::number(&claims, "exp").ok_or(wrong)?);
        if iat > now_s {
            return Err(Refused(StatusCode::UNAUTHORIZED, "'Issued at' claim ('iat') is in the future"));
        }
        if exp > now_s.saturating_add(ASSERTION_S_MAX) {
            return Err(Refused(StatusCode::UNAUTHORIZED, "'Expiration time' claim ('exp') is too far in the future"));
        }
        if exp <= now_s {
            return Err(Refused(StatusCode::UNAUTHORIZED, "'Expiration time' claim ('exp') is in the past"));
        }
        if claims.get("iss").is_none_or(|app| *app != *self.config.app_id) {
            return Err(Refused(StatusCode::UNAUTHORIZED, "Integration must generate a public key"));
        }
        if installation != self.config.installation_id {
            return Err(Refused(StatusCode::NOT_FOUND, "Not Found"));
        }
        let asked: Map<String, Value> = serde_json::from_slice(body).unwrap_or_default();
        let is_hidden = |name: &Value| name == "forbidden";
        if asked.get("repositories").and_then(Value::as_array).is_some_and(|names| names.iter().any(is_hidden)) {
            return Err(Refused(
                StatusCode::UNPROCESSABLE_ENTITY,
                "There is at least one repository that does not exist",
            ));
        }
        let token = format!("ghs_picky{}", self.desk.next_number());
        Ok(Issued { token, expires_at_ms: self.desk.clock.now_ms().saturating_add(LIFE_MS), refresh: None })
    }
}

fn written(issued: &Issued, end: End) -> Response<Full<Bytes>> {
    let time = |ms: i64| {
        let at = jiff::Timestamp::from_millisecond(ms.div_euclid(1000).saturating_mul(1000));
        Value::from(at.unwrap_or(jiff::Timestamp::MAX).to_string())
    };
    let mut body = Map::new();
    body.insert("token".to_owned(), Value::from(issued.token.as_str()));
    let end = match end {
        End::Right => Some(time(issued.expires_at_ms)),
        End::Wrong(WrongExpiry::Zero) => Some(Value::from(0)),
        End::Wrong(WrongExpiry::Absurd) => Some(time(issued.expires_at_ms.saturating_add(3_153_600_000_000))),
        End::Wrong(WrongExpiry::Nonsense) => Some(Value::from("the day after tomorrow")),
        End::Wrong(WrongExpiry::Absent) => None,
    };
    body.extend(end.map(|end| ("expires_at".to_owned(), end)));
    body.insert("permissions".to_owned(), json!({ "contents": "read" }));
    serve::json(StatusCode::CREATED, &Value::Object(body))
}

fn error(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    serve::json(status, &json!({ "message": message, "documentation_url": "https://docs.github.com/rest" }))
}
