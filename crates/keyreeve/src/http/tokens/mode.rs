//! Whose verdict counts in a family of tokens that somebody else judges as well: for callers whose tokens all of the family are.

use axum::body::Body;
use http::request::Parts as Head;
use keyreeve_core::token::{Compared, Mode, ModeRecord};
use serde_json::{Value, json};

use super::super::credentials::json_answer;
use super::super::input::{self, required, rfc3339, wrong_type};
use super::super::problem::{Answer, Problem, UNPROCESSABLE};
use super::super::route::Later;
use super::{access_if, detached, of_tokens, text};
use crate::access::Access;

/// `GET /v1/tokens/mode`
pub(super) async fn show(later: &Later, head: &Head) -> Result<Answer, Problem> {
    let [family] = input::query(head, ["family"])?;
    let access = whole(later, family.as_deref())?;
    let record = access.mode().await.map_err(|error| of_tokens(later, error))?;
    Ok(json_answer(&mode_json(access.family(), record.as_ref())))
}

/// `POST /v1/tokens/mode`
pub(super) async fn set(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    input::query(head, [])?;
    let [family, mode, force] = input::object(later, head, body, false).await?.take(["family", "mode", "force"])?;
    let family = family.map(|family| text(family, "family")).transpose()?;
    let mode = Mode::parse(&text(required(mode, "mode")?, "mode")?)
        .ok_or_else(|| Problem::new(UNPROCESSABLE, "`mode` must be `off`, `shadow` or `enforce`"))?;
    let is_forced = match force {
        None => false,
        Some(Value::Bool(is_forced)) => is_forced,
        Some(other) => return Err(wrong_type("force", "true or false", &other)),
    };
    let access = whole(later, family.as_deref())?;
    let (who, name) = (later.who().to_owned(), access.family().to_owned());
    let set = detached(later, Box::pin(async move { access.set_mode(mode, is_forced, &who).await })).await?;
    Ok(json_answer(&mode_json(&name, Some(&set))))
}

fn whole(later: &Later, family: Option<&str>) -> Result<Access, Problem> {
    access_if(later, family, |name| later.reaches_family(name))
}

fn mode_json(family: &str, record: Option<&ModeRecord>) -> Value {
    let count = |what| record.map_or(0, |record| record.count(what));
    let differences = record.into_iter().flat_map(ModeRecord::differences);
    let causes: Vec<Value> = differences
        .map(|tally| {
            json!({
                "cause": tally.cause, "count": tally.count, "examples": tally.examples,
                "advice": Compared::advice(&tally.cause),
            })
        })
        .collect();
    let disagree = record.into_iter().flat_map(ModeRecord::differences).map(|tally| tally.count).sum::<u64>();
    json!({
        "family": family,
        "mode": record.map_or(Mode::Off, |record| record.mode).as_str(),
        "since": record.map(|record| rfc3339(record.since)),
        "by": record.map(|record| record.by.as_str()),
        "accepted_by_both": count(Compared::BothAccept),
        "refused_by_both": count(Compared::BothRefuse),
        "not_compared": count(Compared::Unavailable),
        "disagree": disagree,
        "causes": causes,
        "can_enforce": record.is_some_and(|record| record.may_enforce().is_ok()),
    })
}
