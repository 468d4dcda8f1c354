//! `POST /v1/revocations` and `GET /v1/revocations/{id}`: what is refused from now on, and which node refuses it since when.

use axum::body::Body;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use http::StatusCode;
use http::request::Parts as Head;
use keyreeve_core::policy::Source;
use keyreeve_core::time::{Span, Timestamp};
use keyreeve_core::token::{Presented, TokenId};
use serde_json::{Value, json};

use super::credentials::json_answer;
use super::input::{self, rfc3339, wrong_type};
use super::problem::{
    Answer, CONFLICT, MALFORMED, NOT_FOUND, Problem, RECORD_REFUSED, STALE_REVOCATIONS, STORE_UNAVAILABLE,
    UNPROCESSABLE,
};
use super::route::Later;
use crate::access::Access;
use crate::error::{Error, ErrorKind};
use crate::jwt::VerifyError;
use crate::revocation::{JwtId, Lifetime, Mark, Receipt, Receipts, Refusing, Revocation, Revocations, Stale, What};

/// The longest name of a subject, a key or a token, in bytes.
const NAME_BYTES_MAX: usize = 1024;
/// The longest that anybody waits for receipts, in milliseconds.
const WAIT_MS_MAX: u64 = 10_000;
/// No token of an issuer of this fleet lives longer, in milliseconds: the configuration refuses it.
const OWN_LIFE_MS_MAX: u64 = 86_400_000;
/// The most a verifier allows a clock to be wrong by, in milliseconds.
const LEEWAY_MS_MAX: u64 = 600_000;
/// When it is worth to ask again whether anything is heard of revocations, in milliseconds.
const STALE_RETRY_MS: u64 = 1000;

/// What strangers hear where nobody can tell what is revoked: a matter of ours, not of who sent the token.
pub(super) fn stale(stale: &Stale) -> Problem {
    let text = "tokens cannot be checked at the moment\nhint: try again; the log tells why under this request's id";
    Problem::new(STALE_REVOCATIONS, text).because(stale.to_string()).after(STALE_RETRY_MS)
}

/// What is revoked, with names of its own, so that a task can go on with it.
enum Asked {
    Opaque { access: Access, id: TokenId },
    Jwt { issuer: String, id: Option<String>, signed: String, expires_at: Timestamp },
    Jti { issuer: String, jti: String },
    Subject { issuer: String, subject: String },
    Key { issuer: String, kid: String },
    Issuer { issuer: String },
}

/// `POST /v1/revocations`
pub(super) async fn revoke(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let object = input::object(later, head, body, false).await?;
    let [token, jti, subject, kid, issued_before, issuer, answer_loss] =
        object.take(["token", "jti", "subject", "kid", "issued_before", "issuer", "answer_loss"])?;
    let revocations = following(later)?;
    if let Some(answer_loss) = answer_loss {
        let is_alone = [&token, &jti, &subject, &kid, &issued_before, &issuer].iter().all(|other| other.is_none());
        if answer_loss != Value::Bool(true) || !is_alone {
            return Err(Problem::new(MALFORMED, "`answer_loss` is `true`, and stands alone"));
        }
        return answer_to_loss(later, revocations).await;
    }
    let token = token.map(|token| text(token, "token", usize::MAX)).transpose()?;
    let jti = jti.map(|jti| text(jti, "jti", NAME_BYTES_MAX)).transpose()?;
    let subject = subject.map(|subject| text(subject, "subject", NAME_BYTES_MAX)).transpose()?;
    let kid = kid.map(|kid| text(kid, "kid", NAME_BYTES_MAX)).transpose()?;
    let before = issued_before.map(|before| moment(later, before)).transpose()?;
    let issuer = issuer.map(|issuer| text(issuer, "issuer", NAME_BYTES_MAX)).transpose()?;
    let asked = match (token, jti, subject, kid, before) {
        (Some(token), None, None, None, None) if issuer.is_none() && !token.contains('.') => {
            opaque(later, &token).await?
        }
        (Some(token), None, None, None, None) if issuer.is_none() => jwt(later, &token).await?,
        (None, Some(jti), None, None, None) => Asked::Jti { issuer: issuer_of(later, issuer)?, jti },
        (None, None, Some(subject), None, _) => Asked::Subject { issuer: issuer_of(later, issuer)?, subject },
        (None, None, None, Some(kid), None) => Asked::Key { issuer: issuer_of(later, issuer)?, kid },
        (None, None, None, None, Some(_)) => Asked::Issuer { issuer: issuer_of(later, issuer)? },
        _ => {
            let hint = "one of `token`, `jti`, `subject`, `kid` and `issued_before`; `issued_before` goes with `subject` too, and `issuer` with all but `token`";
            return Err(Problem::new(MALFORMED, format!("this does not say what is to be revoked\nhint: {hint}")));
        }
    };
    let is_own = later.live.issuing.as_ref().is_some_and(|issuing| {
        issuing
            .issuers
            .names()
            .any(|name| issuing.issuers.config(name.as_str()).is_some_and(|c| c.url == asked.issuer()))
    });
    let who = later.who().to_owned();
    tracing::info!(request_id = %later.request_id(), caller = who, kind = asked.kind(), "revocation asked for");
    let receipt = detached(later, revocations.clone(), move |revocations| {
        Box::pin(async move { asked.revoke(&revocations, before, is_own, &who).await })
    });
    let receipt = receipt.await?;
    let mut answer = json_answer(&json!({
        "id": receipt.id.to_string(),
        "kind": receipt.kind.as_str(),
        "epoch": receipt.epoch,
        "at": rfc3339(receipt.at),
        "bound_ms": revocations.config().max_staleness_ms,
    }));
    *answer.status_mut() = StatusCode::ACCEPTED;
    Ok(answer)
}

/// An operator has revoked again what a store had forgotten.
async fn answer_to_loss(later: &Later, revocations: &Revocations) -> Result<Answer, Problem> {
    let is_answered = revocations.answer_loss(later.who()).await.map_err(unavailable)?;
    let mut answer = json_answer(&json!({ "answered": is_answered }));
    *answer.status_mut() = StatusCode::ACCEPTED;
    Ok(answer)
}

/// `GET /v1/revocations/{id}`
pub(super) async fn receipts(later: &Later, head: &Head) -> Result<Answer, Problem> {
    let [wait] = input::query(head, ["wait"])?;
    let revocations = following(later)?;
    let wait_ms = input::duration_ms("wait", wait.as_deref(), WAIT_MS_MAX)?.min(later.live.limits.request_ms_max);
    let id = Mark::parse(&later.name);
    let receipts = match id {
        Some(id) => revocations.receipts(id, wait_ms).await.map_err(unavailable)?,
        None => None,
    };
    let Some(receipts) = receipts else {
        let text = "there is no such revocation, or no longer\nhint: the answer to `POST /v1/revocations` has its `id`; it is forgotten when its tokens have expired";
        return Err(Problem::new(NOT_FOUND, text));
    };
    Ok(json_answer(&receipts_json(&receipts)))
}

/// Receipts as they are answered.
fn receipts_json(receipts: &Receipts) -> Value {
    let nodes = receipts.nodes.iter().map(|node| {
        let mut said = json!({ "node": node.node.as_str(), "state": node.refusing.as_str() });
        if let (Refusing::Since { at, after_ms }, Some(said)) = (node.refusing, said.as_object_mut()) {
            said.insert("at".into(), rfc3339(at).into());
            said.insert("after_ms".into(), after_ms.into());
        }
        said
    });
    json!({
        "id": receipts.id.to_string(),
        "kind": receipts.kind.as_str(),
        "epoch": receipts.epoch,
        "at": rfc3339(receipts.at),
        "complete": receipts.is_complete(),
        "nodes": nodes.collect::<Vec<_>>(),
    })
}

fn following(later: &Later) -> Result<&Revocations, Problem> {
    later.live.inbound.revocations().ok_or_else(|| {
        Problem::new(
            NOT_FOUND,
            "nothing is revoked here\nhint: write `[revocation]` in the configuration of every node",
        )
    })
}

fn text(value: Value, name: &str, bytes_max: usize) -> Result<String, Problem> {
    match value {
        Value::String(text) if text.is_empty() || text.len() > bytes_max => {
            let text = format!("`{name}` must have 1 to {bytes_max} bytes, not {}", text.len());
            Err(Problem::new(UNPROCESSABLE, text))
        }
        Value::String(text) => Ok(text),
        other => Err(wrong_type(name, "a string", &other)),
    }
}

/// The moment before which tokens were issued that are meant. A moment to come would refuse tokens that nobody has yet.
fn moment(later: &Later, value: Value) -> Result<Timestamp, Problem> {
    let text = text(value, "issued_before", NAME_BYTES_MAX)?;
    let at = text.parse::<jiff::Timestamp>().ok().and_then(|at| u64::try_from(at.as_millisecond()).ok());
    let at = at.map(Timestamp).ok_or_else(|| {
        let text = format!(
            "`issued_before` is no moment: `{}`\nhint: RFC 3339, as `2026-11-22T12:00:00Z`",
            input::clipped(&text)
        );
        Problem::new(UNPROCESSABLE, text)
    })?;
    let skew_ms = following(later)?.config().skew_ms;
    if at > later.api.host.now().latest().plus(skew_ms) {
        let text = "`issued_before` lies ahead\nhint: tokens that are issued from now on can be revoked when they are there; to stop them all, retire the key";
        return Err(Problem::new(UNPROCESSABLE, text));
    }
    Ok(at)
}

/// The `iss` of whoever is named: as rules name them, or by the `iss` itself; or the only one.
fn issuer_of(later: &Later, named: Option<String>) -> Result<String, Problem> {
    let known: Vec<(&Source, &[String])> = later.live.inbound.issuers().collect();
    let fits = |(source, urls): &&(&Source, &[String])| match &named {
        None => true,
        Some(named) => source.to_string() == *named || urls.contains(named),
    };
    let mut found: Vec<&str> =
        known.iter().filter(fits).flat_map(|(_, urls)| urls.iter().map(String::as_str)).collect();
    if let Some(named) = &named
        && let Some(url) = found.iter().find(|url| *url == named)
    {
        return Ok((*url).to_owned());
    }
    found.sort_unstable();
    found.dedup();
    if let [one] = found.as_slice() {
        return Ok((*one).to_owned());
    }
    let names: Vec<String> = known.iter().take(8).map(|(source, _)| format!("`{source}`")).collect();
    let hint = match names.is_empty() {
        true => "there is none whose tokens are accepted here".to_owned(),
        false => format!("one of {}, or its `iss`", names.join(", ")),
    };
    let what = if named.is_some() {
        "`issuer` is nobody whose tokens are accepted here, or several"
    } else {
        "`issuer` is missing"
    };
    Err(Problem::new(UNPROCESSABLE, format!("{what}\nhint: {hint}")))
}

/// An access token of this fleet, or the id of one.
async fn opaque(later: &Later, token: &str) -> Result<Asked, Problem> {
    let no_such = || {
        let text = "`token` is no token that you may revoke here\nhint: a JWT, or an access token or its id; `GET /v1/tokens` lists those of a target";
        Problem::new(UNPROCESSABLE, text)
    };
    let tokens = later.live.tokens.as_ref().ok_or_else(no_such)?;
    let id = TokenId::parse(token).or_else(|| Presented::parse(token)?.id).ok_or_else(no_such)?;
    match tokens.find(id).await {
        Ok((access, record)) if later.reaches_tokens(&record.family, &record.target) => {
            Ok(Asked::Opaque { access, id })
        }
        Err(error) if error.kind != ErrorKind::NotFound => Err(unavailable(error)),
        _ => Err(no_such()),
    }
}

/// A JWT, which has to be a good one: who could have any text revoked could fill the log.
async fn jwt(later: &Later, token: &str) -> Result<Asked, Problem> {
    let verified = later.live.inbound.verify(token, later.api.host.now()).await;
    let verified = verified.map_err(|error| match error {
        VerifyError::Refused(refusal) => {
            let text =
                format!("`token` is no token that is accepted here: {refusal}\nhint: then it need not be revoked");
            Problem::new(UNPROCESSABLE, text)
        }
        VerifyError::Unavailable(why) => super::gate::unavailable(&why.to_string()),
        VerifyError::Stale(why) => stale(&why),
    })?;
    let claims = verified.claims();
    Ok(Asked::Jwt {
        issuer: claims.issuer().unwrap_or_default().to_owned(),
        id: claims.token_id().map(str::to_owned),
        signed: token.rsplit_once('.').map_or(token, |(message, _)| message).to_owned(),
        expires_at: verified.expires_at(),
    })
}

impl Asked {
    const fn kind(&self) -> &'static str {
        match self {
            Self::Opaque { .. } => "token",
            Self::Jwt { .. } | Self::Jti { .. } => "jwt",
            Self::Subject { .. } => "subject",
            Self::Key { .. } => "kid",
            Self::Issuer { .. } => "issued-before",
        }
    }

    fn issuer(&self) -> &str {
        match self {
            Self::Opaque { .. } => "",
            Self::Jwt { issuer, .. }
            | Self::Jti { issuer, .. }
            | Self::Subject { issuer, .. }
            | Self::Key { issuer, .. }
            | Self::Issuer { issuer } => issuer,
        }
    }

    /// What it is; `name` is the id of an opaque token, in words.
    fn what<'a>(&'a self, name: &'a str) -> What<'a> {
        match self {
            Self::Opaque { access, .. } => What::Token { tenant: access.family(), id: name },
            Self::Jwt { issuer, id, signed, .. } => {
                let token = id.as_deref().map_or(JwtId::Signed(signed), JwtId::Id);
                What::Jwt { issuer, token }
            }
            Self::Jti { issuer, jti } => What::Jwt { issuer, token: JwtId::Id(jti) },
            Self::Subject { issuer, subject } => What::Subject { issuer, subject },
            Self::Key { issuer, kid } => What::Key { issuer, kid },
            Self::Issuer { issuer } => What::Issuer { issuer },
        }
    }

    async fn revoke(
        &self,
        revocations: &Revocations,
        before: Option<Timestamp>,
        is_own: bool,
        who: &str,
    ) -> Result<Receipt, Error> {
        let skew_ms = revocations.config().skew_ms;
        let name = if let Self::Opaque { access, id } = self {
            // Its record first: that says it for good.
            access.revoke(*id, who).await?;
            id.to_string()
        } else {
            String::new()
        };
        let what = self.what(&name);
        if let (Self::Opaque { .. }, Some(receipt)) = (self, revocations.receipt(&what)) {
            return Ok(receipt);
        }
        let lifetime = match self {
            Self::Opaque { .. } => Lifetime::Told,
            Self::Jwt { expires_at, .. } => Lifetime::Until(expires_at.plus(LEEWAY_MS_MAX)),
            Self::Jti { .. } | Self::Subject { .. } if is_own => {
                Lifetime::Until(revocations.now().latest().plus(OWN_LIFE_MS_MAX + LEEWAY_MS_MAX + skew_ms))
            }
            Self::Jti { .. } | Self::Subject { .. } => Lifetime::Kept,
            Self::Key { .. } | Self::Issuer { .. } => Lifetime::Forever,
        };
        // Before, and not at.
        let issued_by = before.map(|before| before.minus(1));
        revocations.revoke(Revocation { what, issued_by, lifetime, label: None }, who).await
    }
}

/// Runs a revocation as a task of its own, and waits for it as long as a request may take.
async fn detached(
    later: &Later,
    revocations: Revocations,
    revoke: impl FnOnce(Revocations) -> BoxFuture<'static, Result<Receipt, Error>>,
) -> Result<Receipt, Problem> {
    let (done, outcome) = oneshot::channel();
    let revoked = revoke(revocations);
    let host = &later.api.host;
    host.spawn(Box::pin(async move {
        // Nobody may be waiting any more.
        let _ = done.send(revoked.await);
    }));
    let limit_ms = later.live.limits.request_ms_max;
    let until = host.now().mono.plus(limit_ms);
    match select(outcome, host.sleep_until(until)).await {
        Either::Left((Ok(result), _)) => result.map_err(unavailable),
        Either::Left((Err(_), _)) | Either::Right(_) => {
            let text = format!(
                "the revocation was not done after {}; it goes on\nhint: send the request again: the same again is no second one",
                Span(limit_ms)
            );
            Err(Problem::new(STORE_UNAVAILABLE, text).after(1000))
        }
    }
}

/// What came of asking the store.
fn unavailable(error: Error) -> Problem {
    let kind = match error.kind {
        ErrorKind::Conflict => CONFLICT,
        ErrorKind::RecordRefused => RECORD_REFUSED,
        _ => {
            let text = "the store does not answer, and nothing is known to be revoked\nhint: send the request again: the same again is no second one";
            let problem = Problem::new(STORE_UNAVAILABLE, text).because(error.message);
            return problem.after(error.retry_after_ms.unwrap_or(1000));
        }
    };
    Problem::new(kind, error.message)
}
