//! AWS STS with one action, `AssumeRoleWithWebIdentity` of version 2011-06-15, which verifies the web identity.
//!
//! | request | answer |
//! |---|---|
//! | `POST /` | 200 `text/xml`; errors as XML with the codes of STS |
//! | `POST /use` with `authorization: bearer ACCESSKEYID` | 204 while the keys are valid |
//! | `GET /score`, `PUT /faults`, `GET /livez` | as everywhere |
//!
//! | what is wrong | code |
//! |---|---|
//! | a field is missing or out of its limits | 400 `ValidationError` |
//! | signed by nobody we trust, or no token | 400 `InvalidIdentityToken` |
//! | over | 400 `ExpiredTokenException` |
//! | another issuer or audience | 400 `InvalidIdentityToken` |
//! | another subject, or a role that nobody may assume | 403 `AccessDenied` |
//! | a policy that is no JSON | 400 `MalformedPolicyDocument` |
//! | a policy of more than 2048 characters | 400 `PackedPolicyTooLarge` |
//!
//! Every other code comes by a fault: `{"kind":"fail","status":400,"code":"Throttling"}`, and a proxy's plain 503 by
//! `{"kind":"plain","status":503}`.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::Value;

use super::desk::{self, BODY_BYTES_MAX, Desk, End, Issued, Refused};
use super::jwt::{self, Key};
use super::{Faults, Score, WrongExpiry};
use crate::clock::PickyClock;
use crate::serve::{self, Listening, Reply, refusal};

const NAMESPACE: &str = "https://sts.amazonaws.com/doc/2011-06-15/";
const POLICY_BYTES_MAX: usize = 2048;

/// The rules and the place of an STS.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; the default is a free port of 127.0.0.1, and only loopback is taken.
    pub bind: SocketAddr,
    /// What ends are measured by.
    pub clock: PickyClock,
    /// The keys of the identity provider.
    pub trusted: Vec<Key>,
    /// The `iss` that web identities must have.
    pub issuer: String,
    /// The `aud` that web identities must have.
    pub audience: String,
    /// The `sub` that web identities must have; any, where it is none.
    pub subject: Option<String>,
    /// The roles that may be assumed.
    pub roles: Vec<String>,
    /// What goes wrong from the start.
    pub faults: Faults,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: PickyClock::real(),
            trusted: Vec::new(),
            issuer: "https://issuer.example.org".into(),
            audience: "sts.amazonaws.com".into(),
            subject: None,
            roles: vec!["arn:aws:iam::123456789012:role/lake".into()],
            faults: Faults::default(),
        }
    }
}

/// A running STS; dropping it ends it.
pub struct Sts {
    listening: Listening,
    shared: Arc<Shared>,
}

struct Shared {
    desk: Desk,
    config: Config,
}

/// Starts an STS.
///
/// # Errors
/// When the address cannot be bound or is not loopback, or the faults make no sense.
pub async fn start(config: Config) -> io::Result<Sts> {
    let bind = config.bind;
    let desk = Desk::new(config.clock.clone(), config.faults.clone(), error)?;
    let shared = Arc::new(Shared { desk, config });
    let for_requests = Arc::clone(&shared);
    let listening = desk::listen(bind, move |request| handle(Arc::clone(&for_requests), request)).await?;
    Ok(Sts { listening, shared })
}

impl Sts {
    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.listening.addr()
    }

    /// `http://127.0.0.1:PORT/`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/", self.addr())
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
    match (request.method(), request.uri().path()) {
        (&Method::POST, "/") => {
            let Ok(body) = serve::body(request.into_body(), BODY_BYTES_MAX).await else {
                return refusal(StatusCode::PAYLOAD_TOO_LARGE, "the body did not arrive, or is larger than 64 KiB");
            };
            let form = desk::fields(&body);
            let role = form.get("RoleArn").cloned().unwrap_or_default();
            let session = form.get("RoleSessionName").cloned().unwrap_or_default();
            shared.desk.issue(|| shared.decide(&form), |issued, end| written(issued, end, &role, &session)).await
        }
        (&Method::POST, "/use") => shared.desk.use_token(request.headers(), 0),
        _ => shared.desk.common(request).await,
    }
}

impl Shared {
    fn decide(&self, form: &HashMap<String, String>) -> Result<Issued, Refused> {
        let invalid = Refused(StatusCode::BAD_REQUEST, "ValidationError");
        let denied = Refused(StatusCode::FORBIDDEN, "AccessDenied");
        let field = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        if field("Action") != "AssumeRoleWithWebIdentity" || field("Version") != "2011-06-15" {
            return Err(Refused(StatusCode::BAD_REQUEST, "InvalidAction"));
        }
        let duration = form.get("DurationSeconds").map_or(Ok(3600), |text| text.parse::<i64>());
        let life_s = duration.ok().filter(|life_s| (900..=43_200).contains(life_s)).ok_or(invalid)?;
        if !(2..=64).contains(&field("RoleSessionName").len()) || field("WebIdentityToken").len() < 4 {
            return Err(invalid);
        }
        if let Some(policy) = form.get("Policy") {
            if serde_json::from_str::<Value>(policy).is_err() {
                return Err(Refused(StatusCode::BAD_REQUEST, "MalformedPolicyDocument"));
            }
            if policy.len() > POLICY_BYTES_MAX {
                return Err(Refused(StatusCode::BAD_REQUEST, "PackedPolicyTooLarge"));
            }
        }
        self.identify(field("WebIdentityToken"), denied)?;
        if !self.config.roles.iter().any(|role| role == field("RoleArn")) {
            return Err(denied);
        }
        let expires_at_ms = self.desk.clock.now_ms().saturating_add(life_s.saturating_mul(1000));
        Ok(Issued { token: format!("ASIA{:016}", self.desk.next_number()), expires_at_ms, refresh: None })
    }

    fn identify(&self, token: &str, denied: Refused) -> Result<(), Refused> {
        let invalid = Refused(StatusCode::BAD_REQUEST, "InvalidIdentityToken");
        let claims = jwt::claims(&self.config.trusted, token).ok_or(invalid)?;
        let now_s = self.desk.clock.now_ms().div_euclid(1000);
        let ends_s = jwt::number(&claims, "exp").ok_or(invalid)?;
        if ends_s <= now_s {
            return Err(Refused(StatusCode::BAD_REQUEST, "ExpiredTokenException"));
        }
        let is_early = jwt::number(&claims, "iat").is_none_or(|issued_s| issued_s > now_s.saturating_add(5));
        let is_its = claims.get("iss").is_some_and(|issuer| *issuer == *self.config.issuer);
        if is_early || !is_its || !jwt::is_for(&claims, &self.config.audience) {
            return Err(invalid);
        }
        let is_subject = |subject: &String| claims.get("sub").is_some_and(|found| found == subject);
        if self.config.subject.as_ref().is_none_or(is_subject) { Ok(()) } else { Err(denied) }
    }
}

fn written(issued: &Issued, end: End, role: &str, session: &str) -> Response<Full<Bytes>> {
    let time = |ms: i64| jiff::Timestamp::from_millisecond(ms).unwrap_or(jiff::Timestamp::MAX).to_string();
    let end = match end {
        End::Right => format!("<Expiration>{}</Expiration>", time(issued.expires_at_ms)),
        End::Wrong(WrongExpiry::Zero) => format!("<Expiration>{}</Expiration>", time(0)),
        End::Wrong(WrongExpiry::Absurd) => {
            format!("<Expiration>{}</Expiration>", time(issued.expires_at_ms.saturating_add(3_153_600_000_000)))
        }
        End::Wrong(WrongExpiry::Nonsense) => "<Expiration>the day after tomorrow</Expiration>".to_owned(),
        End::Wrong(WrongExpiry::Absent) => String::new(),
    };
    let key = &issued.token;
    let account = role.split(':').nth(4).unwrap_or_default();
    let name = role.rsplit('/').next().unwrap_or_default();
    let xml = format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"{NAMESPACE}\"><AssumeRoleWithWebIdentityResult>\
         <Audience>sts.amazonaws.com</Audience><AssumedRoleUser><AssumedRoleId>AROA:{session}</AssumedRoleId>\
         <Arn>arn:aws:sts::{account}:assumed-role/{name}/{session}</Arn></AssumedRoleUser>\
         <Credentials><AccessKeyId>{key}</AccessKeyId><SecretAccessKey>secret/of+{key}</SecretAccessKey>\
         <SessionToken>session//of+{key}==</SessionToken>{end}</Credentials>\
         </AssumeRoleWithWebIdentityResult><ResponseMetadata><RequestId>picky</RequestId></ResponseMetadata>\
         </AssumeRoleWithWebIdentityResponse>"
    );
    serve::answer(StatusCode::OK, "text/xml", xml)
}

fn error(status: StatusCode, code: &str) -> Response<Full<Bytes>> {
    let kind = if status.is_server_error() { "Receiver" } else { "Sender" };
    let xml = format!(
        "<ErrorResponse xmlns=\"{NAMESPACE}\"><Error><Type>{kind}</Type><Code>{code}</Code>\
         <Message>picky says no</Message></Error><RequestId>picky</RequestId></ErrorResponse>"
    );
    serve::answer(status, "text/xml", xml)
}
