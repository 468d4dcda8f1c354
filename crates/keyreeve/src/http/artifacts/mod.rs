//! Gates that hand artifacts to holders of tokens: everything on a listener of their own.
//!
//! - `own`: keyreeve's way to refuse and to answer
//! - `hive`: that of the CDN of GraphQL Hive, bodies and all
//! - `publish`: what operators do to artifacts, by the API
//! - `given`: an artifact as an answer: conditions (RFC 9110 13), ranges (14), marks of age
//!
//! A token is judged before anything is read. That a token is not known, or an object not there, is said only where somebody has
//! said so: whatever fails on our side is a 503 with `Retry-After`, and none of it is kept.

mod given;
mod hive;
mod own;
mod publish;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_REQUEST_HEADERS, ACCESS_CONTROL_REQUEST_METHOD, AUTHORIZATION,
    CACHE_CONTROL, CONTENT_TYPE, LOCATION, ORIGIN, VARY,
};
use http::request::Parts as Head;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use keyreeve_core::time::{Moment, Mono};

pub(super) use self::publish::answer as publish;
use super::api::{Api, RequestId};
use super::problem::{Answer, KEYS_UNAVAILABLE, Kind, METHOD, Problem, STALE_REVOCATIONS, STORE_UNAVAILABLE};
use super::route::{Waiting, bare, finish};
use super::routes::{ARTIFACT_PATH, ROUTES};
use super::sizes::check_sizes;
use crate::access::{Ask, Denied};
use crate::artifact::checks::Checks;
use crate::artifact::kept::Kept;
use crate::artifact::name::{self, Asked, Hive};
use crate::artifact::origins::{Away, Told};
use crate::artifact::read::Wanted;
use crate::artifact::{Artifacts, Found};
use crate::config::{Compat, Deliver};

/// The header that Hive's clients send their key in.
const HIVE_KEY: HeaderName = HeaderName::from_static("x-hive-cdn-key");
/// A token that is longer is none, in bytes; nothing is looked up for it.
const TOKEN_BYTES_MAX: usize = 512;
/// So many versions of one object are met at the most while a part of it is read.
const VERSIONS_MAX: usize = 3;

/// One gate, as a listener serves it.
pub struct ArtifactGate {
    artifacts: Arc<Artifacts>,
    checks: Arc<dyn Checks>,
    /// Where its requests are counted.
    row: usize,
}

/// What became of a request so far.
pub(super) enum Begun {
    Answered(Answer),
    Waiting(Waiting),
}

/// A request that is for an artifact, told from all others by its path.
enum Way<'h> {
    Asked(Asked<'h>),
    /// Answered without a token.
    Done(Answer),
}

impl ArtifactGate {
    /// A gate over these artifacts, whose tokens `checks` knows.
    #[must_use]
    pub fn new(artifacts: Arc<Artifacts>, checks: Arc<dyn Checks>) -> Self {
        let row = ROUTES.iter().position(|route| route.path == ARTIFACT_PATH).unwrap_or(ROUTES.len());
        Self { artifacts, checks, row }
    }

    /// Its artifacts.
    #[must_use]
    pub const fn artifacts(&self) -> &Arc<Artifacts> {
        &self.artifacts
    }

    fn is_hive(&self) -> bool {
        self.artifacts.config().compat == Compat::Hive
    }

    /// Refuses in the way of this gate.
    fn refused(&self, problem: Refusal, target: &str, kind: &str, is_v0: bool) -> Result<Answer, Problem> {
        if self.is_hive() { hive::refused(problem, target, kind, is_v0) } else { Err(own::refused(problem)) }
    }
}

/// Why nothing is handed out.
pub(super) enum Refusal {
    /// There was no token.
    NoToken,
    /// There were two.
    TwoTokens,
    /// It is not good for this.
    Denied(Denied),
    /// There is no such artifact.
    Absent,
}

/// Begins a request that came from an address. What needs no waiting is answered on the spot.
pub(super) fn begin(api: &Arc<Api>, gate: &Arc<ArtifactGate>, head: Head, from: Option<IpAddr>) -> Begun {
    let id = api.next_request_id();
    let begun = api.host.now();
    match answer_now(gate, &head, from, begun) {
        Ok(Now::Answered(answer)) => Begun::Answered(done(api, gate, id, &head, Ok(answer))),
        Ok(Now::Waits { is_judged }) => {
            let (api, gate) = (Arc::clone(api), Arc::clone(gate));
            let deadline = begun.mono.plus(gate.artifacts.config().deadline_ms);
            Begun::Waiting(Box::pin(async move {
                let answer = wait(&api, &gate, (&head, from), deadline, is_judged).await;
                let answer = done(&api, &gate, id, &head, answer);
                if head.method == Method::HEAD { bare(answer) } else { answer }
            }))
        }
        Err(problem) => Begun::Answered(done(api, gate, id, &head, Err(problem))),
    }
}

/// What is known without waiting.
enum Now {
    Answered(Answer),
    /// Something has to be asked for. Whether the token has been let through, and counted, already.
    Waits {
        is_judged: bool,
    },
}

/// The answer where no waiting is needed.
fn answer_now(gate: &ArtifactGate, head: &Head, from: Option<IpAddr>, now: Moment) -> Result<Now, Problem> {
    check_sizes(head, false)?;
    let asked = match way(gate, head)? {
        Way::Asked(asked) => asked,
        Way::Done(answer) => return Ok(Now::Answered(answer)),
    };
    let token = match token(gate, head) {
        Ok(token) => token,
        Err(refusal) => return refused(gate, refusal, &asked).map(Now::Answered),
    };
    match gate.checks.seen(&ask(token, &asked, from), now) {
        None => return Ok(Now::Waits { is_judged: false }),
        Some(Err(denied)) => return refused(gate, Refusal::Denied(denied), &asked).map(Now::Answered),
        Some(Ok(())) => {}
    }
    // What has to be asked for elsewhere first, or is handed out elsewhere.
    if asked.needs.is_some() || is_elsewhere(gate, &asked) {
        return Ok(Now::Waits { is_judged: true });
    }
    match gate.artifacts.held(&asked, now) {
        Some(found @ (Found::Fresh(_) | Found::Stale(..))) => {
            Ok(Now::Answered(given::kept(gate.is_hive(), &asked, head, &found)))
        }
        _ => Ok(Now::Waits { is_judged: true }),
    }
}

/// The answer, with whatever has to be asked for it.
async fn wait(
    api: &Api,
    gate: &ArtifactGate,
    (head, from): (&Head, Option<IpAddr>),
    deadline: Mono,
    is_judged: bool,
) -> Result<Answer, Problem> {
    let Way::Asked(asked) = way(gate, head)? else { return Err(own::nothing()) };
    let token = match token(gate, head) {
        Ok(token) => token,
        Err(refusal) => return refused(gate, refusal, &asked),
    };
    let ask = ask(token, &asked, from);
    let now = api.host.now();
    let checked = if is_judged { gate.checks.check_again(&ask, now) } else { gate.checks.check(&ask, now) };
    let sleep = api.host.sleep_until(deadline);
    let checked = match futures::future::select(checked, sleep).await {
        futures::future::Either::Left((checked, _)) => checked,
        futures::future::Either::Right(_) => Err(Denied::Unavailable { retry_ms: 1000 }),
    };
    if let Err(denied) = checked {
        return refused(gate, Refusal::Denied(denied), &asked);
    }
    if let Some(needs) = &asked.needs {
        let needs = Asked { object: needs.clone(), or: None, needs: None, ..asked.clone() };
        if matches!(gate.artifacts.look(&needs, deadline).await.map_err(away)?, Found::Absent) {
            return refused(gate, Refusal::Absent, &asked);
        }
    }
    match either(gate, head, &asked, deadline).await? {
        Some(answer) => Ok(answer),
        None => refused(gate, Refusal::Absent, &asked),
    }
}

/// The artifact, from where it is or where else it may be. `None` where there is none.
async fn either(
    gate: &ArtifactGate,
    head: &Head,
    asked: &Asked<'_>,
    deadline: Mono,
) -> Result<Option<Answer>, Problem> {
    let Some(or) = &asked.or else { return handed(gate, head, asked, deadline).await };
    let other = Asked { object: or.clone(), or: None, ..asked.clone() };
    // Where it was found before it is looked for first.
    let (first, second) = if gate.artifacts.knows(or) { (&other, asked) } else { (asked, &other) };
    match handed(gate, head, first, deadline).await? {
        Some(answer) => Ok(Some(answer)),
        None => handed(gate, head, second, deadline).await,
    }
}

/// One object as an answer. `None` where there is none.
async fn handed(
    gate: &ArtifactGate,
    head: &Head,
    asked: &Asked<'_>,
    deadline: Mono,
) -> Result<Option<Answer>, Problem> {
    if is_elsewhere(gate, asked) {
        return elsewhere(gate, head, asked, deadline).await;
    }
    match gate.artifacts.look(asked, deadline).await.map_err(away)? {
        Found::Absent => Ok(None),
        Found::Large(kept) => large(gate, head, asked, kept, deadline).await,
        found => Ok(Some(given::kept(gate.is_hive(), asked, head, &found))),
    }
}

/// An artifact that is too large to be kept, as it comes from an origin; whatever is answered is of one version.
async fn large(
    gate: &ArtifactGate,
    head: &Head,
    asked: &Asked<'_>,
    mut kept: Arc<Kept>,
    deadline: Mono,
) -> Result<Option<Answer>, Problem> {
    for _ in 0..VERSIONS_MAX {
        match version(gate, head, asked, &kept, deadline).await? {
            Told::Is(answer, _) => return Ok(Some(answer)),
            Told::Absent => return Ok(None),
            Told::Changed => gate.artifacts.forget(&asked.object),
        }
        match gate.artifacts.look(asked, deadline).await.map_err(away)? {
            Found::Absent => return Ok(None),
            Found::Large(next) => kept = next,
            found => return Ok(Some(given::kept(gate.is_hive(), asked, head, &found))),
        }
    }
    Err(away(Away { why: "the object changes while it is read".into(), retry_ms: 1000 }))
}

/// One version of it: the one that is known, where that matters.
async fn version(
    gate: &ArtifactGate,
    head: &Head,
    asked: &Asked<'_>,
    kept: &Kept,
    deadline: Mono,
) -> Result<Told<Answer>, Problem> {
    let (artifacts, is_hive) = (&gate.artifacts, gate.is_hive());
    let mut shape = None;
    if given::is_shaped(is_hive, asked) {
        shape = match artifacts.shape(asked, kept, deadline).await.map_err(away)? {
            None => return Ok(Told::Changed),
            shape => shape,
        };
    }
    let about = given::about(asked, kept, shape.as_ref());
    if given::is_same(head, &about) {
        return Ok(Told::Is(given::not_modified(is_hive, asked, &about), 0));
    }
    if head.method == Method::HEAD {
        return Ok(Told::Is(given::described(is_hive, asked, &about), 0));
    }
    let wanted = match given::wanted(is_hive, head, &about, shape.as_ref()) {
        Ok(wanted) => wanted,
        Err(answer) => return Ok(Told::Is(*answer, 0)),
    };
    Ok(match artifacts.stream(&asked.object, wanted, deadline).await.map_err(away)? {
        Told::Is(stream, at) => {
            if stream.about.store_etag != kept.about.store_etag {
                artifacts.forget(&asked.object);
            }
            let etag = about.etag.filter(|_| shape.is_some());
            Told::Is(given::streamed(is_hive, asked, stream, etag), at)
        }
        Told::Absent => Told::Absent,
        Told::Changed => Told::Changed,
    })
}

/// Whether an artifact is handed out by its bucket, which knows no other shape than that it is stored in.
fn is_elsewhere(gate: &ArtifactGate, asked: &Asked<'_>) -> bool {
    gate.artifacts.config().deliver == Deliver::Redirect && !given::is_shaped(gate.is_hive(), asked)
}

/// 302 to the bucket, by a URL that is good for a minute.
async fn elsewhere(
    gate: &ArtifactGate,
    head: &Head,
    asked: &Asked<'_>,
    deadline: Mono,
) -> Result<Option<Answer>, Problem> {
    // A URL is signed for one method, and what `HEAD` wants is known here.
    if head.method == Method::HEAD {
        let wanted = Wanted { is_head: true, ..Wanted::default() };
        return match gate.artifacts.stream(&asked.object, wanted, deadline).await.map_err(away)? {
            Told::Is(stream, _) if given::is_same(head, &stream.about) => {
                Ok(Some(given::not_modified(gate.is_hive(), asked, &stream.about)))
            }
            Told::Is(stream, _) => Ok(Some(given::described(gate.is_hive(), asked, &stream.about))),
            Told::Absent | Told::Changed => Ok(None),
        };
    }
    let (url, about) = match gate.artifacts.link(&asked.object, deadline).await.map_err(away)? {
        Told::Is(found, _) => found,
        Told::Absent | Told::Changed => return Ok(None),
    };
    if given::is_same(head, &about) {
        return Ok(Some(given::not_modified(gate.is_hive(), asked, &about)));
    }
    let mut url = HeaderValue::try_from(url.expose().as_str())
        .map_err(|_| away(Away { why: "the signed URL is no header".into(), retry_ms: 1000 }))?;
    url.set_sensitive(true);
    let mut answer = Answer::default();
    *answer.status_mut() = StatusCode::FOUND;
    answer.headers_mut().insert(LOCATION, url);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    Ok(Some(answer))
}

/// What a path and a method ask for.
fn way<'h>(gate: &ArtifactGate, head: &'h Head) -> Result<Way<'h>, Problem> {
    if head.method == Method::OPTIONS
        && let Some(answer) = preflight(gate, head)
    {
        return Ok(Way::Done(answer));
    }
    let path = head.uri.path();
    if !gate.is_hive() {
        if path == "/livez" {
            return Ok(Way::Done(super::health::live()));
        }
        let asked = name::own(path).ok_or_else(own::nothing)?;
        if !matches!(head.method, Method::GET | Method::HEAD) {
            let text = "an artifact is read here\nhint: it is written by `PUT /v1/artifacts/..` on a listener that serves `api`";
            return Err(Problem::new(METHOD, text).allowing("GET, HEAD, OPTIONS".into()));
        }
        return Ok(Way::Asked(asked));
    }
    if head.method != Method::GET {
        return Ok(Way::Done(hive::nothing()));
    }
    Ok(match name::hive(path) {
        Hive::Health => Way::Done(hive::text(StatusCode::OK, "OK")),
        Hive::Artifact(asked) => Way::Asked(asked),
        Hive::Moved => Way::Done(hive::moved(head)),
        Hive::Nothing => Way::Done(hive::nothing()),
        Hive::NoTarget => Way::Done(hive::no_target()),
        Hive::BadType(kind) => Way::Done(hive::bad_type(kind)),
        Hive::NotMade(_) => return Err(hive::not_made()),
    })
}

const fn ask<'a>(token: &'a str, asked: &'a Asked<'a>, peer: Option<IpAddr>) -> Ask<'a> {
    Ask { token, target: asked.target, path: asked.path.as_str(), kind: asked.kind, peer }
}

fn refused(gate: &ArtifactGate, refusal: Refusal, asked: &Asked<'_>) -> Result<Answer, Problem> {
    match refusal {
        Refusal::Denied(denied @ Denied::Unavailable { retry_ms }) => {
            Err(unavailable(KEYS_UNAVAILABLE, &denied, retry_ms))
        }
        Refusal::Denied(denied @ Denied::Stale) => Err(unavailable(STALE_REVOCATIONS, &denied, 1000)),
        refusal => gate.refused(refusal, asked.target, asked.kind, asked.is_v0),
    }
}

/// A matter of ours, not of whoever shows the token.
fn unavailable(kind: Kind, denied: &Denied, retry_ms: u64) -> Problem {
    let text = format!("{}\nhint: try again; the log tells why under this request's id", denied.public());
    Problem::new(kind, text).because(denied.to_string()).after(retry_ms)
}

/// No origin answers.
fn away(away: Away) -> Problem {
    let text = "the artifact cannot be read at the moment\nhint: try again; the log tells why under this request's id";
    Problem::new(STORE_UNAVAILABLE, text).because(away.why).after(away.retry_ms)
}

/// The token of a request. Two of them are none: which one is meant is not guessed.
fn token<'h>(gate: &ArtifactGate, head: &'h Head) -> Result<&'h str, Refusal> {
    let malformed = || Refusal::Denied(Denied::Malformed);
    let mut keys = head.headers.get_all(HIVE_KEY).iter();
    let mut bearers = head.headers.get_all(AUTHORIZATION).iter();
    let (key, bearer) = (keys.next(), if gate.is_hive() { None } else { bearers.next() });
    let two = || if gate.is_hive() { malformed() } else { Refusal::TwoTokens };
    if keys.next().is_some() || (!gate.is_hive() && bearers.next().is_some()) {
        return Err(two());
    }
    let token = match (key, bearer) {
        (None, None) => return Err(Refusal::NoToken),
        (Some(_), Some(_)) => return Err(two()),
        (Some(key), None) => key.to_str().map_err(|_| malformed())?,
        (None, Some(bearer)) => {
            let (scheme, token) =
                bearer.to_str().ok().and_then(|text| text.split_at_checked(7)).ok_or(Refusal::NoToken)?;
            if !scheme.eq_ignore_ascii_case("bearer ") {
                return Err(Refusal::NoToken);
            }
            token
        }
    };
    if token.len() > TOKEN_BYTES_MAX || token.is_empty() { Err(malformed()) } else { Ok(token) }
}

/// The answer to a browser that asks what a script of another page may send.
fn preflight(gate: &ArtifactGate, head: &Head) -> Option<Answer> {
    head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    head.headers.get(ORIGIN)?;
    let mut answer = Answer::default();
    let headers = answer.headers_mut();
    let methods = if gate.is_hive() { "OPTIONS, GET" } else { "OPTIONS, GET, HEAD" };
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static(methods));
    if let Some(wanted) = head.headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone());
    }
    Some(answer)
}

/// What every answer of a gate has.
fn done(api: &Api, gate: &ArtifactGate, id: RequestId, head: &Head, answer: Result<Answer, Problem>) -> Answer {
    let mut answer = answer.unwrap_or_else(|problem| problem.answer(id, None, ARTIFACT_PATH));
    if let Some(origin) = head.headers.get(ORIGIN)
        && (gate.is_hive() || is_allowed(gate, origin))
    {
        let headers = answer.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("etag, x-hive-schema-version-id"));
        headers.insert(VARY, HeaderValue::from_static("origin"));
    }
    finish(api, id, gate.row, answer)
}

fn is_allowed(gate: &ArtifactGate, origin: &HeaderValue) -> bool {
    gate.artifacts.config().cors.iter().any(|allowed| allowed.as_bytes() == origin.as_bytes())
}

/// A plain answer.
fn plain(status: StatusCode, kind: &'static str, body: Cow<'static, str>) -> Answer {
    let mut answer = Answer::new(bytes::Bytes::from(body.into_owned()).into());
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    answer
}
