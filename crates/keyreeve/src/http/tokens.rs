//! Opaque access tokens: made, listed, looked at, taken back, checked.
//!
//! Who may do what goes by the family and the target of a token. A token of others is answered as one that is not there.
//!
//! - `mode`: whose verdict counts in a family that comes from elsewhere

mod mode;

use axum::body::Body;
use futures::channel::oneshot;
use futures::future::{BoxFuture, Either, select};
use http::StatusCode;
use http::request::Parts as Head;
use keyreeve_core::time::{Span, Timestamp};
use keyreeve_core::token::{Format, Record, Scope, TokenId};
use serde_json::{Value, json};

use super::credentials::json_answer;
use super::input::{self, required, rfc3339, wrong_type};
use super::problem::{Answer, MALFORMED, NOT_FOUND, Problem, STALE_REVOCATIONS, STORE_UNAVAILABLE, UNPROCESSABLE};
use super::route::Later;
use crate::access::{Access, Ask, Denied, Made, New, Tokens};
use crate::config;
use crate::error::{Error, ErrorKind};

/// How many tokens are listed where nobody says how many.
const TOKENS_USUAL: usize = 20;

/// What is asked about access tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::http) enum Asked {
    Create,
    List,
    Show,
    Roll,
    Duplicate,
    Revoke,
    Verify,
    DropTarget,
    Mode,
    SetMode,
}

/// Answers whatever is about access tokens.
pub(super) async fn answer(later: &Later, head: &Head, body: Body, asked: Asked) -> Result<Answer, Problem> {
    match asked {
        Asked::Create => create(later, head, body).await,
        Asked::List => list(later, head).await,
        Asked::Show => show(later, head).await,
        Asked::Roll => roll(later, head, body).await,
        Asked::Duplicate => duplicate(later, head, body).await,
        Asked::Revoke => revoke(later, head, body).await,
        Asked::Verify => verify(later, head, body).await,
        Asked::DropTarget => drop_target(later, head, body).await,
        Asked::Mode => mode::show(later, head).await,
        Asked::SetMode => mode::set(later, head, body).await,
    }
}

/// `POST /v1/tokens`
async fn create(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let object = input::object(later, head, body, false).await?;
    let [family, target, alias, scope, life, format] =
        object.take(["family", "target", "alias", "scope", "life", "format"])?;
    let target = text(required(target, "target")?, "target")?;
    let family = family.map(|family| text(family, "family")).transpose()?;
    let access = access(later, family.as_deref(), &target)?;
    let new = New {
        target,
        alias: text(required(alias, "alias")?, "alias")?,
        scope: scope.map(scope_of).transpose()?.unwrap_or_default(),
        life_ms: life.map(|life| duration(life, "life")).transpose()?,
        format: format.map(format_of).transpose()?,
    };
    let who = later.who().to_owned();
    let made = detached(later, Box::pin(async move { access.create(new, &who).await })).await?;
    Ok(made_answer(later, &made))
}

/// `GET /v1/tokens`
async fn list(later: &Later, head: &Head) -> Result<Answer, Problem> {
    let [family, target, cursor, limit] = input::query(head, ["family", "target", "cursor", "limit"])?;
    let target = target.ok_or_else(|| Problem::new(MALFORMED, "the query parameter `target` is missing"))?;
    let access = access(later, family.as_deref(), &target)?;
    let limit = limit.map_or(Some(TOKENS_USUAL), |limit| limit.parse().ok());
    let limit = limit.ok_or_else(|| Problem::new(MALFORMED, "`limit` must be a whole number"))?;
    let page = access.list(&target, cursor.as_deref(), limit).await.map_err(|error| of_tokens(later, error))?;
    let now = now(later);
    let tokens: Vec<Value> = page.records.iter().map(|record| record_json(record, now)).collect();
    let mut body = json!({ "tokens": tokens });
    if let (Some(cursor), Some(members)) = (page.cursor, body.as_object_mut()) {
        members.insert("next_cursor".into(), cursor.into());
    }
    Ok(json_answer(&body))
}

/// `POST /v1/tokens/{name}/roll`
async fn roll(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let [grace] = input::object(later, head, body, true).await?.take(["grace"])?;
    let grace_ms = grace.map(|grace| duration(grace, "grace")).transpose()?;
    let (access, record) = found(later).await?;
    let who = later.who().to_owned();
    let made = detached(later, Box::pin(async move { access.roll(record.id, grace_ms, &who).await })).await?;
    Ok(made_answer(later, &made))
}

/// `POST /v1/tokens/{name}/duplicate`
async fn duplicate(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let [alias] = input::object(later, head, body, true).await?.take(["alias"])?;
    let alias = alias.map(|alias| text(alias, "alias")).transpose()?;
    let (access, record) = found(later).await?;
    let who = later.who().to_owned();
    let made = detached(later, Box::pin(async move { access.duplicate(record.id, alias, &who).await })).await?;
    Ok(made_answer(later, &made))
}

/// `POST /v1/tokens/drop-target`
async fn drop_target(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let [family, target] = input::object(later, head, body, false).await?.take(["family", "target"])?;
    let target = text(required(target, "target")?, "target")?;
    let family = family.map(|family| text(family, "family")).transpose()?;
    let access = access(later, family.as_deref(), &target)?;
    let (who, name) = (later.who().to_owned(), target.clone());
    let dropped = detached(later, Box::pin(async move { access.drop_target(&name, &who).await })).await?;
    Ok(json_answer(&json!({ "target": target, "revoked": dropped.revoked, "epoch": dropped.epoch })))
}

/// `GET /v1/tokens/{name}`
async fn show(later: &Later, head: &Head) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let (_, record) = found(later).await?;
    Ok(json_answer(&record_json(&record, now(later))))
}

/// `POST /v1/tokens/{name}/revoke`
async fn revoke(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let [family, target] = input::object(later, head, body, true).await?.take(["family", "target"])?;
    let family = family.map(|family| text(family, "family")).transpose()?;
    let who = later.who().to_owned();
    let record = if let Some(target) = target {
        let target = text(target, "target")?;
        let access = access(later, family.as_deref(), &target)?;
        let id = TokenId::parse(&later.name).ok_or_else(|| no_such(&later.name))?;
        detached(later, Box::pin(async move { access.revoke_of(&target, id, &who).await })).await?
    } else if family.is_some() {
        return Err(Problem::new(MALFORMED, "`family` goes with `target`"));
    } else {
        let (access, record) = found(later).await?;
        detached(later, Box::pin(async move { access.revoke(record.id, &who).await })).await?
    };
    Ok(json_answer(&record_json(&record, now(later))))
}

/// `POST /v1/tokens/verify`
async fn verify(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let object = input::object(later, head, body, false).await?;
    let [family, token, target, path, kind, peer] =
        object.take(["family", "token", "target", "path", "type", "address"])?;
    let token = text(required(token, "token")?, "token")?;
    let target = text(required(target, "target")?, "target")?;
    let family = family.map(|family| text(family, "family")).transpose()?;
    let access = access(later, family.as_deref(), &target)?;
    let path = path.map_or_else(|| Ok("/".to_owned()), |path| text(path, "path"))?;
    let kind = kind.map_or_else(|| Ok(String::new()), |kind| text(kind, "type"))?;
    let peer = peer.map(|peer| text(peer, "address")).transpose()?;
    let peer =
        peer.map(|peer| peer.parse().map_err(|_| Problem::new(UNPROCESSABLE, "`address` must be an IP address")));
    let ask = Ask { token: &token, target: &target, path: &path, kind: &kind, peer: peer.transpose()? };
    Ok(match access.check(&ask, later.api.host.now()).await {
        Ok(granted) => json_answer(&json!({
            "valid": true,
            "id": granted.id.to_string(),
            "target": granted.target,
            "alias": granted.alias,
            "format": granted.format.as_str(),
            "expires_at": granted.ends_at.map(rfc3339),
        })),
        Err(denied @ Denied::Stale) => {
            return Err(
                Problem::new(STALE_REVOCATIONS, format!("{denied}\nhint: try again; `/readyz` says more")).after(1000)
            );
        }
        Err(denied @ Denied::Unavailable { retry_ms }) => {
            let text = format!("{denied}\nhint: try again; the log tells why");
            return Err(Problem::new(STORE_UNAVAILABLE, text).after(retry_ms));
        }
        Err(denied) => json_answer(&json!({ "valid": false, "code": denied.code(), "reason": denied.to_string() })),
    })
}

/// The family that a request means, for a target that the caller may have to do with.
fn access(later: &Later, family: Option<&str>, target: &str) -> Result<Access, Problem> {
    access_if(later, family, |name| later.reaches_tokens(name, target))
}

/// The family that a request means, if the caller may.
fn access_if(later: &Later, family: Option<&str>, may: impl Fn(&str) -> bool) -> Result<Access, Problem> {
    let tokens = tokens(later)?;
    let found = match family {
        Some(name) => tokens.family(name),
        None => Some(tokens.only().ok_or_else(|| {
            let names: Vec<_> = tokens.names().map(|name| format!("`{name}`")).collect();
            Problem::new(MALFORMED, format!("`family` is missing: there are {}", names.join(", ")))
        })?),
    };
    let mine = found.filter(|access| may(access.family()));
    mine.ok_or_else(|| {
        let hint = "`tokens` of a caller in the configuration says which families and targets are its own";
        Problem::new(NOT_FOUND, format!("there are no access tokens of this family and target for you\nhint: {hint}"))
    })
}

fn tokens(later: &Later) -> Result<&Tokens, Problem> {
    later.live.tokens.as_ref().ok_or_else(|| no_such(&later.name))
}

/// The token that a request names, if it is one of the caller's.
async fn found(later: &Later) -> Result<(Access, Record), Problem> {
    let id = TokenId::parse(&later.name).ok_or_else(|| no_such(&later.name))?;
    let found = tokens(later)?.find(id).await.map_err(|error| of_tokens(later, error))?;
    let (access, record) = found;
    let is_mine = later.reaches_tokens(&record.family, &record.target);
    if is_mine { Ok((access, record)) } else { Err(no_such(&later.name)) }
}

/// The same whether there is none or none for this caller.
fn no_such(name: &str) -> Problem {
    let named = TokenId::parse(name).map_or_else(|| "of that id".to_owned(), |id| format!("`{id}`"));
    Problem::new(
        NOT_FOUND,
        format!("there is no access token {named} for you\nhint: `GET /v1/tokens` lists those of a target"),
    )
}

fn of_tokens(later: &Later, error: Error) -> Problem {
    match error.kind {
        ErrorKind::NotFound => no_such(&later.name),
        ErrorKind::Unacceptable => Problem::new(UNPROCESSABLE, error.message),
        ErrorKind::StoreUnavailable => {
            let retry_ms = error.retry_after_ms.unwrap_or(1000);
            let text = "the store does not answer, and nothing is known to be changed\nhint: look at the tokens of the target before you try again; the log tells why under this request's id";
            Problem::new(STORE_UNAVAILABLE, text).after(retry_ms).because(error.message)
        }
        _ => Problem::of_token("access tokens", error),
    }
}

fn now(later: &Later) -> Timestamp {
    later.api.host.now().latest()
}

/// Runs a change as a task of its own, and waits for it as long as a request may take.
async fn detached<T: Send + 'static>(
    later: &Later,
    change: BoxFuture<'static, Result<T, Error>>,
) -> Result<T, Problem> {
    let (done, outcome) = oneshot::channel();
    let host = &later.api.host;
    host.spawn(Box::pin(async move {
        // Nobody may be waiting any more.
        let _ = done.send(change.await);
    }));
    let limit_ms = later.live.limits.request_ms_max;
    match select(outcome, host.sleep_until(host.now().mono.plus(limit_ms))).await {
        Either::Left((Ok(result), _)) => result.map_err(|error| of_tokens(later, error)),
        Either::Left((Err(_), _)) | Either::Right(_) => {
            let text = format!(
                "the change was not done after {}; it goes on\nhint: look at the tokens of the target, or send the request again",
                Span(limit_ms)
            );
            Err(Problem::new(STORE_UNAVAILABLE, text).after(1000))
        }
    }
}

fn text(value: Value, name: &str) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong_type(name, "a string", &other)),
    }
}

fn format_of(value: Value) -> Result<Format, Problem> {
    let name = text(value, "format")?;
    let formats = [Format::Native, Format::Hv2, Format::Legacy];
    formats
        .into_iter()
        .find(|format| format.as_str() == name)
        .ok_or_else(|| Problem::new(UNPROCESSABLE, "`format` must be `native`, `hv2` or `legacy`"))
}

fn duration(value: Value, name: &str) -> Result<u64, Problem> {
    let text = text(value, name)?;
    config::duration(&text).ok_or_else(|| {
        Problem::new(UNPROCESSABLE, format!("`{name}` must be a duration with its unit, such as `90d`, `12h` or `30m`"))
    })
}

fn scope_of(value: Value) -> Result<Scope, Problem> {
    let Value::Object(members) = value else { return Err(wrong_type("scope", "an object", &value)) };
    let mut scope = Scope::default();
    for (name, value) in members {
        let list = match name.as_str() {
            "paths" => &mut scope.paths,
            "types" => &mut scope.kinds,
            "networks" => &mut scope.networks,
            _ => return Err(Problem::new(MALFORMED, "`scope` has `paths`, `types` and `networks`, and nothing else")),
        };
        let name = format!("scope.{name}");
        let Value::Array(values) = value else { return Err(wrong_type(&name, "an array", &value)) };
        *list = values.into_iter().map(|value| text(value, &name)).collect::<Result<_, _>>()?;
    }
    Ok(scope)
}

fn made_answer(later: &Later, made: &Made) -> Answer {
    let mut body = record_json(&made.record, now(later));
    if let Some(members) = body.as_object_mut() {
        members.insert("token".into(), made.text.expose().as_str().into());
    }
    let mut answer = json_answer(&body);
    *answer.status_mut() = StatusCode::CREATED;
    answer
}

fn record_json(record: &Record, now: Timestamp) -> Value {
    json!({
        "id": record.id.to_string(),
        "family": record.family,
        "target": record.target,
        "alias": record.alias,
        "format": record.format.as_str(),
        "state": record.state(now).as_str(),
        "scope": { "paths": record.scope.paths, "types": record.scope.kinds, "networks": record.scope.networks },
        "created_at": rfc3339(record.created_at),
        "created_by": record.created_by,
        "copied_from": record.copied_from.map(|id| id.to_string()),
        "expires_at": record.ends_at().map(rfc3339),
        "rolled_to": record.rolled.map(|rolled| rolled.to.to_string()),
        "revoked_at": record.revoked.as_ref().map(|revoked| rfc3339(revoked.at)),
        "revoked_by": record.revoked.as_ref().map(|revoked| revoked.by.as_str()),
        "used_at": record.used.as_ref().map(|used| rfc3339(used.at)),
        "used_on": record.used.as_ref().map(|used| used.node.as_str()),
        "shown": record.import.as_ref().map(|import| format!("{}..{}", import.first, import.last)),
    })
}
