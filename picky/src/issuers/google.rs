//! Google's workload identity federation: the STS, and the IAM credentials API behind it.
//!
//! | request | answer |
//! |---|---|
//! | `POST /v1/token` | token exchange (RFC 8693) without a client; errors as in RFC 6749 5.2 |
//! | `POST /v1/projects/-/serviceAccounts/{account}:generateAccessToken` with `authorization: bearer FEDERATED` | `{"accessToken","expireTime"}`; errors `{"error":{"code","status","message"}}` |
//! | `POST /use` with `authorization: bearer ya29.1` | 204 while the token is valid |
//! | `GET /score`, `PUT /faults`, `GET /livez` | as everywhere; of the IAM credentials API |
//!
//! | what is wrong | code |
//! |---|---|
//! | a field is missing, or another kind of token is asked for | 400 `invalid_request` |
//! | another provider | 400 `invalid_target` |
//! | a subject token that nobody we trust has signed, for somebody else, over, or from the future | 400 `invalid_grant` |
//! | a federated token that is not known, or over | 401 `UNAUTHENTICATED` |
//! | an account that the identity may not act as | 403 `PERMISSION_DENIED` |
//! | no scope, or a lifetime that is no number of seconds or more than an hour | 400 `INVALID_ARGUMENT` |

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::desk::{self, BODY_BYTES_MAX, Desk, End, Issued, Refused, bearer};
use super::jwt::{self, Key};
use super::{Faults, Score, WrongExpiry};
use crate::clock::PickyClock;
use crate::serve::{self, Listening, Reply, refusal};

const EXCHANGE: &str = "urn:ietf:params:oauth:grant-type:token-exchange";
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
const JWT: &str = "urn:ietf:params:oauth:token-type:jwt";
const ACCOUNTS: &str = "/v1/projects/-/serviceAccounts/";
/// How long a federated token lives, and an account's at the most, in seconds.
const LIFE_S: i64 = 3600;
/// How far in the future a subject token may have been issued, in seconds.
const EARLY_S: i64 = 5;

/// The rules and the place of Google's two services.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; the default is a free port of 127.0.0.1, and only loopback is taken.
    pub bind: SocketAddr,
    /// What ends are measured by.
    pub clock: PickyClock,
    /// The keys of the identity provider.
    pub trusted: Vec<Key>,
    /// `projects/NUMBER/locations/global/workloadIdentityPools/POOL/providers/NAME`.
    pub provider: String,
    /// The `aud` that subject tokens must have.
    pub audience: String,
    /// The service accounts that may be acted as.
    pub accounts: Vec<String>,
    /// What goes wrong at the IAM credentials API from the start.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        let provider = "projects/1/locations/global/workloadIdentityPools/pool/providers/provider";
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: PickyClock::real(),
            trusted: Vec::new(),
            provider: provider.into(),
            audience: format!("https://iam.googleapis.com/{provider}"),
            accounts: vec!["lake@project.iam.gserviceaccount.com".into()],
            faults: Faults::default(),
        }
    }
}

/// Running services; dropping them ends them.
pub struct Google {
    listening: Listening,
    shared: Arc<Shared>,
}

struct Shared {
    sts: Desk,
    iam: Desk,
    config: Config,
}

/// Starts both services.
///
/// # Errors
/// When the address cannot be bound or is not loopback, or the faults make no sense.
pub async fn start(config: Config) -> io::Result<Google> {
    let bind = config.bind;
    let sts = Desk::new(config.clock.clone(), Faults::default(), sts_error)?;
    let iam = Desk::new(config.clock.clone(), config.faults.clone(), iam_error)?;
    let shared = Arc::new(Shared { sts, iam, config });
    let for_requests = Arc::clone(&shared);
    let listening = desk::listen(bind, move |request| handle(Arc::clone(&for_requests), request)).await?;
    Ok(Google { listening, shared })
}

impl Google {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listening.addr()
    }

    /// `http://127.0.0.1:PORT/v1/token`.
    #[must_use]
    pub fn sts_url(&self) -> String {
        format!("http://{}/v1/token", self.addr())
    }

    /// `http://127.0.0.1:PORT`, the IAM credentials API.
    #[must_use]
    pub fn iam_url(&self) -> String {
        format!("http://{}", self.addr())
    }

    /// The score of the STS so far.
    #[must_use]
    pub fn sts_score(&self) -> Score {
        self.shared.sts.score()
    }

    /// The score of the IAM credentials API so far.
    #[must_use]
    pub fn score(&self) -> Score {
        self.shared.iam.score()
    }

    /// Replaces the faults of the STS.
    ///
    /// # Errors
    /// A sentence about numbers that make no sense.
    pub fn set_sts_faults(&self, faults: Faults) -> Result<(), String> {
        self.shared.sts.set_faults(faults)
    }

    /// Replaces the faults of the IAM credentials API.
    ///
    /// # Errors
    /// A sentence about numbers that make no sense.
    pub fn set_faults(&self, faults: Faults) -> Result<(), String> {
        self.shared.iam.set_faults(faults)
    }

    /// Stops listening and cuts every connection.
    pub async fn shutdown(self) {
        self.listening.shutdown().await;
    }
}

async fn handle(shared: Arc<Shared>, request: Request<Incoming>) -> Reply {
    let path = request.uri().path();
    let account = path.strip_prefix(ACCOUNTS).and_then(|rest| rest.strip_suffix(":generateAccessToken"));
    let account = account.map(str::to_owned);
    let is_sts = path == "/v1/token";
    if request.method() != Method::POST || (account.is_none() && !is_sts) {
        return match (request.method(), request.uri().path()) {
            (&Method::POST, "/use") => shared.iam.use_token(request.headers(), 0),
            _ => shared.iam.common(request).await,
        };
    }
    let (head, body) = request.into_parts();
    let Ok(body) = serve::body(body, BODY_BYTES_MAX).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 64 KiB");
    };
    match account {
        Some(account) => shared.iam.issue(|| shared.act(&head.headers, &account, &body), acted).await,
        None => {
            let form = desk::fields(&body);
            shared.sts.issue(|| shared.exchange(&form), |issued, end| exchanged(&shared.sts, issued, end)).await
        }
    }
}

impl Shared {
    fn exchange(&self, form: &HashMap<String, String>) -> Result<Issued, Refused> {
        let refused = |code| Refused(StatusCode::BAD_REQUEST, code);
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if field("grant_type") != EXCHANGE {
            return Err(refused("unsupported_grant_type"));
        }
        let is_asked = field("requested_token_type") == ACCESS_TOKEN && field("subject_token_type") == JWT;
        if !is_asked || field("scope").is_empty() {
            return Err(refused("invalid_request"));
        }
        if field("audience") != format!("//iam.googleapis.com/{}", self.config.provider) {
            return Err(refused("invalid_target"));
        }
        let claims = jwt::claims(&self.config.trusted, field("subject_token")).ok_or(refused("invalid_grant"))?;
        let now_s = self.sts.clock.now_ms().div_euclid(1000);
        let (iat, exp) = (jwt::number(&claims, "iat"), jwt::number(&claims, "exp"));
        let is_timely =
            iat.is_some_and(|iat| iat <= now_s.saturating_add(EARLY_S)) && exp.is_some_and(|exp| exp > now_s);
        if !is_timely || !jwt::is_for(&claims, &self.config.audience) {
            return Err(refused("invalid_grant"));
        }
        let expires_at_ms = self.sts.clock.now_ms().saturating_add(LIFE_S.saturating_mul(1000));
        Ok(Issued { token: format!("federated.{}", self.sts.next_number()), expires_at_ms, refresh: None })
    }

    fn act(&self, headers: &HeaderMap, account: &str, body: &[u8]) -> Result<Issued, Refused> {
        let invalid = Refused(StatusCode::BAD_REQUEST, "INVALID_ARGUMENT");
        if !bearer(headers).is_some_and(|token| self.sts.is_good(token)) {
            return Err(Refused(StatusCode::UNAUTHORIZED, "UNAUTHENTICATED"));
        }
        if !self.config.accounts.iter().any(|known| known == account) {
            return Err(Refused(StatusCode::FORBIDDEN, "PERMISSION_DENIED"));
        }
        let asked: Map<String, Value> = serde_json::from_slice(body).map_err(|_| invalid)?;
        let is_scoped = asked.get("scope").and_then(Value::as_array).is_some_and(|scopes| !scopes.is_empty());
        let lifetime = asked.get("lifetime").map_or(Some("3600s"), Value::as_str);
        let life_s = lifetime.and_then(|text| text.strip_suffix('s')?.parse::<i64>().ok());
        let life_s = life_s.filter(|life_s| is_scoped && (1..=LIFE_S).contains(life_s)).ok_or(invalid)?;
        let expires_at_ms = self.iam.clock.now_ms().saturating_add(life_s.saturating_mul(1000));
        Ok(Issued { token: format!("ya29.{}", self.iam.next_number()), expires_at_ms, refresh: None })
    }
}

fn exchanged(sts: &Desk, issued: &Issued, end: End) -> Response<Full<Bytes>> {
    let left_s = issued.expires_at_ms.saturating_sub(sts.clock.now_ms()).div_euclid(1000);
    let mut body = Map::new();
    body.insert("access_token".to_owned(), Value::from(issued.token.as_str()));
    body.insert("issued_token_type".to_owned(), Value::from(ACCESS_TOKEN));
    body.insert("token_type".to_owned(), Value::from("Bearer"));
    let end = match end {
        End::Right => Some(Value::from(left_s)),
        End::Wrong(WrongExpiry::Zero) => Some(Value::from(0)),
        End::Wrong(WrongExpiry::Absurd) => Some(Value::from(3_153_600_000_i64)),
        End::Wrong(WrongExpiry::Nonsense) => Some(Value::from("the day after tomorrow")),
        End::Wrong(WrongExpiry::Absent) => None,
    };
    body.extend(end.map(|end| ("expires_in".to_owned(), end)));
    serve::json(StatusCode::OK, &Value::Object(body))
}

fn acted(issued: &Issued, end: End) -> Response<Full<Bytes>> {
    let time = |ms: i64| {
        let at = jiff::Timestamp::from_millisecond(ms.div_euclid(1000).saturating_mul(1000));
        Value::from(at.unwrap_or(jiff::Timestamp::MAX).to_string())
    };
    let mut body = Map::new();
    body.insert("accessToken".to_owned(), Value::from(issued.token.as_str()));
    let end = match end {
        End::Right => Some(time(issued.expires_at_ms)),
        End::Wrong(WrongExpiry::Zero) => Some(time(0)),
        End::Wrong(WrongExpiry::Absurd) => Some(time(issued.expires_at_ms.saturating_add(3_153_600_000_000))),
        End::Wrong(WrongExpiry::Nonsense) => Some(Value::from("the day after tomorrow")),
        End::Wrong(WrongExpiry::Absent) => None,
    };
    body.extend(end.map(|end| ("expireTime".to_owned(), end)));
    serve::json(StatusCode::OK, &Value::Object(body))
}

fn sts_error(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    serve::json(status, &json!({ "error": code, "error_description": format!("picky says {code}") }))
}

fn iam_error(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let error = json!({ "code": status.as_u16(), "status": code, "message": format!("picky says {code}") });
    serve::json(status, &json!({ "error": error }))
}
