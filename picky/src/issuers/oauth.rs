//! An authorization server whose refresh tokens are good for one use.
//!
//! | request | answer |
//! |---|---|
//! | `POST /token` | client credentials, refresh, token exchange, JWT bearer; errors as in RFC 6749 5.2 |
//! | `POST /{tenant}/oauth2/v2.0/token` | client credentials with an assertion of a trusted issuer, as Entra has it |
//! | `POST /consent` | 200 `{"refresh_token":"r-1"}`: a user has agreed, a family begins |
//! | `POST /use` with `authorization: bearer t-1` | 204 while the token is valid |
//! | `GET /score`, `PUT /faults`, `GET /livez` | as everywhere |
//!
//! With [`Rotation::Strict`] each refresh uses its token up and gives a new one. A token that is used a second time ends its
//! whole family (RFC 9700 4.14.2): nobody gets in again without the user.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::desk::{self, BODY_BYTES_MAX, Desk, End, Issued, Refused, bump, decoded};
use super::jwt::{self, Key};
use super::{Faults, Score, WrongExpiry};
use crate::clock::{PickyClock, millis};
use crate::serve::{self, Listening, Reply, lock, refusal};
use crate::tls;

/// How many refresh tokens are remembered.
const TOKENS_MAX: usize = 100_000;
/// The end of Entra's path of a token endpoint.
const ENTRA_PATH: &str = "/oauth2/v2.0/token";
/// The audience of assertions that are shown to Entra.
const ENTRA_AUDIENCE: &str = "api://AzureADTokenExchange";
/// The longest life of an assertion, in seconds.
const ASSERTION_S_MAX: i64 = 600;

/// The rules and the place of an authorization server.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; the default is a free port of 127.0.0.1, and only loopback is taken.
    pub bind: SocketAddr,
    /// What ends are measured by.
    pub clock: PickyClock,
    /// How long an access token lives; one hour.
    pub life: Duration,
    /// The clients.
    pub clients: Vec<Client>,
    /// What becomes of a refresh token that was used.
    pub rotation: Rotation,
    /// Refresh tokens that exist from the start; each begins a family.
    pub refresh_tokens: Vec<String>,
    /// Keys that assertions of users and workloads are signed with.
    pub trusted: Vec<Key>,
    /// Whether clients have to show a certificate of its authority (RFC 8705 2.1), over TLS.
    pub is_mutual: bool,
    /// What goes wrong from the start.
    pub faults: Faults,
}

/// A client.
#[derive(Clone, Debug)]
pub struct Client {
    /// `client_id`.
    pub id: String,
    /// Its secret, if it has one.
    pub secret: Option<String>,
    /// The keys its assertions are signed with.
    pub keys: Vec<Key>,
}

/// What becomes of a refresh token that was used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Rotation {
    /// It is used up; another use ends the family.
    #[default]
    Strict,
    /// Nothing.
    None,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: PickyClock::real(),
            life: Duration::from_secs(3600),
            clients: vec![Client { id: "keyreeve".into(), secret: Some("client-secret".into()), keys: Vec::new() }],
            rotation: Rotation::Strict,
            refresh_tokens: Vec::new(),
            trusted: Vec::new(),
            is_mutual: false,
            faults: Faults::default(),
        }
    }
}

/// A running authorization server; dropping it ends it.
pub struct Server {
    listening: Listening,
    shared: Arc<Shared>,
    authority: Option<tls::Authority>,
}

struct Shared {
    desk: Desk,
    life_ms: i64,
    clients: Vec<Client>,
    rotation: Rotation,
    trusted: Vec<Key>,
    families: Arc<Mutex<Families>>,
}

#[derive(Default)]
struct Families {
    /// The family of each refresh token, and whether it was used.
    tokens: HashMap<String, (u64, bool)>,
    revoked: HashSet<u64>,
    count: u64,
    /// `jti`s that were used.
    assertions: HashSet<String>,
    /// Certificates that clients have shown.
    certificates: HashSet<Vec<u8>>,
}

/// Starts an authorization server.
///
/// # Errors
/// When the address cannot be bound or is not loopback, or the faults make no sense.
pub async fn start(config: Config) -> io::Result<Server> {
    let mut families = Families::default();
    config.refresh_tokens.into_iter().for_each(|token| families.begin(token));
    let shared = Arc::new(Shared {
        desk: Desk::new(config.clock, config.faults, error)?,
        life_ms: millis(config.life),
        clients: config.clients,
        rotation: config.rotation,
        trusted: config.trusted,
        families: Arc::new(Mutex::new(families)),
    });
    let for_requests = Arc::clone(&shared);
    let handle = move |request| handle(Arc::clone(&for_requests), request);
    if !config.is_mutual {
        let listening = desk::listen(config.bind, handle).await?;
        return Ok(Server { listening, shared, authority: None });
    }
    let mutual = tls::mutual()?;
    let for_certificates = Arc::clone(&shared);
    let seen = move |certificate: &[u8]| {
        lock(&for_certificates.families).certificates.insert(certificate.to_vec());
    };
    let listening = desk::listen_mutually(config.bind, mutual.acceptor, seen, handle).await?;
    Ok(Server { listening, shared, authority: Some(mutual.authority) })
}

impl Server {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listening.addr()
    }

    /// `http://127.0.0.1:PORT/token`; `https` where clients have to show a certificate.
    #[must_use]
    pub fn token_url(&self) -> String {
        let scheme = if self.authority.is_some() { "https" } else { "http" };
        format!("{scheme}://{}/token", self.addr())
    }

    /// The authority of its own certificate and of its clients', in PEM; where clients have to show one.
    #[must_use]
    pub fn authority_pem(&self) -> Option<&str> {
        self.authority.as_ref().map(|authority| authority.ca_pem.as_str())
    }

    /// A new certificate for a client, with its private key, in PEM; where clients have to show one.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn client_certificate(&self) -> io::Result<String> {
        let authority = self.authority.as_ref().ok_or_else(|| io::Error::other("clients show no certificates"))?;
        authority.client("keyreeve")
    }

    /// How many different certificates clients have shown.
    #[must_use]
    pub fn certificates(&self) -> usize {
        lock(&self.shared.families).certificates.len()
    }

    /// The score so far.
    #[must_use]
    pub fn score(&self) -> Score {
        self.shared.desk.score()
    }

    /// A user agrees: a refresh token that begins a family.
    #[must_use]
    pub fn consent(&self) -> String {
        lock(&self.shared.families).consent()
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
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/token") => shared.token(request).await,
        (&Method::POST, path) if path.ends_with(ENTRA_PATH) => shared.entra_token(request).await,
        (&Method::POST, "/consent") => {
            let token = lock(&shared.families).consent();
            Reply::Answer(serve::json(StatusCode::OK, &json!({ "refresh_token": token })))
        }
        (&Method::POST, "/use") => shared.desk.use_token(request.headers(), 0),
        _ => shared.desk.common(request).await,
    }
}

impl Shared {
    async fn token(&self, request: Request<Incoming>) -> Reply {
        let (head, body) = request.into_parts();
        let is_form = head
            .headers
            .get(header::CONTENT_TYPE)
            .and_then(|kind| kind.to_str().ok())
            .is_some_and(|kind| kind.starts_with("application/x-www-form-urlencoded"));
        let Ok(body) = serve::body(body, BODY_BYTES_MAX).await else {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 64 KiB");
        };
        let form = if is_form { desk::fields(&body) } else { HashMap::new() };
        let host = head.headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
        let url = format!("http://{host}/token");
        self.desk.issue(|| self.decide(&head.headers, &form, &url), |issued, end| self.written(issued, end)).await
    }

    /// Workload identity federation: the assertion is somebody else's, and is for one audience only.
    async fn entra_token(&self, request: Request<Incoming>) -> Reply {
        let Ok(body) = serve::body(request.into_body(), BODY_BYTES_MAX).await else {
            return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 64 KiB");
        };
        let form = desk::fields(&body);
        self.desk.issue(|| self.decide_federated(&form), |issued, end| self.written(issued, end)).await
    }

    fn decide_federated(&self, form: &HashMap<String, String>) -> Result<Issued, Refused> {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        const WRONG: Refused = Refused(StatusCode::UNAUTHORIZED, "invalid_client");
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if field("grant_type") != "client_credentials" {
            return Err(Refused(BAD, "unsupported_grant_type"));
        }
        let scope = field("scope");
        if !scope.ends_with("/.default") || scope.contains(' ') {
            return Err(Refused(BAD, "invalid_scope"));
        }
        if field("client_assertion_type") != "urn:ietf:params:oauth:client-assertion-type:jwt-bearer" {
            return Err(Refused(BAD, "invalid_request"));
        }
        if !self.clients.iter().any(|client| client.id == field("client_id")) {
            return Err(Refused(BAD, "unauthorized_client"));
        }
        self.trusted_claims(field("client_assertion"), Some(ENTRA_AUDIENCE)).map_err(|_| WRONG)?;
        Ok(self.issued(None))
    }

    fn issued(&self, refresh: Option<String>) -> Issued {
        let number = self.desk.next_number();
        let expires_at_ms = self.desk.clock.now_ms().saturating_add(self.life_ms);
        Issued { token: format!("t-{number}"), expires_at_ms, refresh }
    }

    fn decide(&self, headers: &HeaderMap, form: &HashMap<String, String>, url: &str) -> Result<Issued, Refused> {
        const BAD: StatusCode = StatusCode::BAD_REQUEST;
        let field = |name: &str| form.get(name).map(String::as_str).filter(|text| !text.is_empty());
        let grant = field("grant_type").ok_or(Refused(BAD, "invalid_request"))?;
        let is_own = grant == "urn:ietf:params:oauth:grant-type:jwt-bearer";
        if !is_own {
            self.authenticate(headers, form, url)?;
        }
        if field("scope") == Some("forbidden") {
            return Err(Refused(BAD, "invalid_scope"));
        }
        let mut refresh = None;
        match grant {
            "client_credentials" => {}
            "refresh_token" => {
                let token = field("refresh_token").ok_or(Refused(BAD, "invalid_request"))?;
                refresh = self.refresh(token)?;
            }
            "urn:ietf:params:oauth:grant-type:token-exchange" => {
                let subject = field("subject_token").ok_or(Refused(BAD, "invalid_request"))?;
                field("subject_token_type").ok_or(Refused(BAD, "invalid_request"))?;
                self.trusted_claims(subject, None)?;
            }
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => {
                let assertion = field("assertion").ok_or(Refused(BAD, "invalid_request"))?;
                self.trusted_claims(assertion, Some(url))?;
            }
            _ => return Err(Refused(BAD, "unsupported_grant_type")),
        }
        Ok(self.issued(refresh))
    }

    fn authenticate(&self, headers: &HeaderMap, form: &HashMap<String, String>, url: &str) -> Result<(), Refused> {
        const WRONG: Refused = Refused(StatusCode::UNAUTHORIZED, "invalid_client");
        let basic = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let basic = basic.and_then(|value| value.strip_prefix("Basic ")).and_then(|pair| STANDARD.decode(pair).ok());
        let basic = basic.and_then(|pair| String::from_utf8(pair).ok());
        let (id, secret) = match basic.as_deref().and_then(|pair| pair.split_once(':')) {
            Some((id, secret)) => (decoded(id), Some(decoded(secret))),
            None => (form.get("client_id").cloned().ok_or(WRONG)?, form.get("client_secret").cloned()),
        };
        let client = self.clients.iter().find(|client| client.id == id).ok_or(WRONG)?;
        if let Some(assertion) = form.get("client_assertion") {
            let claims = jwt::claims(&client.keys, assertion).ok_or(WRONG)?;
            let is_its = ["iss", "sub"].iter().all(|name| claims.get(*name).is_some_and(|value| *value == *id));
            let jti = claims.get("jti").and_then(Value::as_str).ok_or(WRONG)?;
            let is_new = lock(&self.families).assertions.insert(jti.to_owned());
            return if is_its && is_new && jwt::is_for(&claims, url) && self.is_timely(&claims) {
                Ok(())
            } else {
                Err(WRONG)
            };
        }
        // A client without any proof of its own says its name, which is all it can.
        let is_right = client.secret == secret && (secret.is_some() || client.keys.is_empty());
        if is_right { Ok(()) } else { Err(WRONG) }
    }

    /// RFC 7523 3: not over, not from the future, and not for long.
    fn is_timely(&self, claims: &Map<String, Value>) -> bool {
        let now_s = self.desk.clock.now_ms().div_euclid(1000);
        let (iat, exp) = (jwt::number(claims, "iat"), jwt::number(claims, "exp"));
        let (Some(iat), Some(exp)) = (iat, exp) else { return false };
        iat <= now_s.saturating_add(5) && exp > now_s && exp.saturating_sub(iat) <= ASSERTION_S_MAX
    }

    fn trusted_claims(&self, token: &str, audience: Option<&str>) -> Result<(), Refused> {
        let wrong = Refused(StatusCode::BAD_REQUEST, "invalid_grant");
        let claims = jwt::claims(&self.trusted, token).ok_or(wrong)?;
        let is_meant = audience.is_none_or(|audience| jwt::is_for(&claims, audience));
        if is_meant && self.is_timely(&claims) { Ok(()) } else { Err(wrong) }
    }

    fn refresh(&self, token: &str) -> Result<Option<String>, Refused> {
        let wrong = Refused(StatusCode::BAD_REQUEST, "invalid_grant");
        let mut families = lock(&self.families);
        let (family, is_used) = families.tokens.get(token).copied().ok_or(wrong)?;
        if is_used && self.rotation == Rotation::Strict {
            let is_first = families.revoked.insert(family);
            self.desk.count(|score| {
                bump(&mut score.reuses);
                score.families_revoked = score.families_revoked.saturating_add(u64::from(is_first));
            });
        }
        if families.revoked.contains(&family) {
            return Err(wrong);
        }
        self.desk.count(|score| bump(&mut score.refreshes));
        if self.rotation == Rotation::None {
            return Ok(None);
        }
        families.tokens.insert(token.to_owned(), (family, true));
        let next = families.named();
        families.tokens.insert(next.clone(), (family, false));
        Ok(Some(next))
    }

    fn written(&self, issued: &Issued, end: End) -> Response<Full<Bytes>> {
        let left_s = issued.expires_at_ms.saturating_sub(self.desk.clock.now_ms()).div_euclid(1000);
        let mut body = Map::new();
        body.insert("access_token".to_owned(), Value::from(issued.token.as_str()));
        body.insert("token_type".to_owned(), Value::from("Bearer"));
        let end = match end {
            End::Right => Some(Value::from(left_s)),
            End::Wrong(WrongExpiry::Zero) => Some(Value::from(0)),
            End::Wrong(WrongExpiry::Absurd) => Some(Value::from(3_153_600_000_i64)),
            End::Wrong(WrongExpiry::Nonsense) => Some(Value::from("the day after tomorrow")),
            End::Wrong(WrongExpiry::Absent) => None,
        };
        body.extend(end.map(|end| ("expires_in".to_owned(), end)));
        body.extend(issued.refresh.clone().map(|token| ("refresh_token".to_owned(), Value::from(token))));
        serve::json(StatusCode::OK, &Value::Object(body))
    }
}

impl Families {
    fn begin(&mut self, token: String) {
        self.count = self.count.saturating_add(1);
        if self.tokens.len() < TOKENS_MAX {
            self.tokens.insert(token, (self.count, false));
        }
    }

    fn consent(&mut self) -> String {
        let token = self.named();
        self.begin(token.clone());
        token
    }

    /// A name that no token has.
    fn named(&self) -> String {
        format!("refresh-{}-{}", self.count, self.tokens.len().saturating_add(1))
    }
}

fn error(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let description = format!("picky says {code}");
    let mut response = serve::json(status, &json!({ "error": code, "error_description": description }));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"picky\""));
    }
    response
}
