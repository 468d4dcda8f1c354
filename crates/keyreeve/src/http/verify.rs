//! `POST /v1/verify`: what a token says, and whether it allows something. For callers who may hear why not.

use axum::body::Body;
use http::HeaderValue;
use http::header::CONTENT_TYPE;
use http::request::Parts as Head;
use keyreeve_core::policy::{Decision, Request, RequestPath};
use serde_json::{Value, json};

use super::gate::unavailable;
use super::input::{self, rfc3339};
use super::problem::{Answer, MALFORMED, Problem};
use super::route::Later;
use crate::inbound::Accepted;
use crate::jwt::VerifyError;

/// Answers what became of the token in the body: 200 also where it is refused, with the reason.
///
/// # Errors
/// A body that is not as it should be; keys that are away.
pub(super) async fn verify(later: &Later, head: &Head, body: Body) -> Result<Answer, Problem> {
    let [token, on, method, path] =
        input::object(later, head, body, false).await?.take(["token", "on", "method", "path"])?;
    let token = text(input::required(token, "token")?, "token")?;
    let request = match (on, method, path) {
        (None, None, None) => None,
        (Some(on), Some(method), Some(path)) => Some([text(on, "on")?, text(method, "method")?, text(path, "path")?]),
        _ => {
            let hint = "`{\"token\":\"..\",\"on\":\"gate:orders\",\"method\":\"POST\",\"path\":\"/orders/7\"}`";
            let text = format!("`on`, `method` and `path` belong together\nhint: {hint}");
            return Err(Problem::new(MALFORMED, text));
        }
    };
    let inbound = &later.live.inbound;
    let accepted = match inbound.accept(&token, later.api.host.now()).await {
        Ok(accepted) => accepted,
        Err(VerifyError::Unavailable(why)) => return Err(unavailable(&why.to_string())),
        Err(VerifyError::Stale(stale)) => return Err(super::revocations::stale(&stale)),
        Err(VerifyError::Refused(refusal)) => {
            return Ok(answer(&json!({ "valid": false, "code": refusal.code(), "reason": refusal.to_string() })));
        }
    };
    let mut said = json!({
        "valid": true,
        "source": accepted.source().to_string(),
        "key_id": accepted.verified().key_id(),
        "expires_at": rfc3339(accepted.verified().expires_at()),
        "claims": claims(&accepted),
    });
    if let (Some([on, method, path]), Some(said)) = (request, said.as_object_mut()) {
        let path = RequestPath::parse(&path).map_err(|error| Problem::new(MALFORMED, error.to_string()))?;
        let request = Request { on: &on, method: &method, path: &path };
        let decision = match inbound.decide(&accepted, request) {
            Decision::Allow(rule) => json!({ "allowed": true, "rule": rule + 1 }),
            Decision::Deny(denial) => json!({ "allowed": false, "reason": denial.to_string() }),
        };
        said.insert("decision".into(), decision);
    }
    Ok(answer(&said))
}

/// The claims as they were signed.
fn claims(accepted: &Accepted) -> Value {
    // What the core has read as JSON, serde reads too.
    serde_json::from_str(accepted.verified().claims().json().text()).unwrap_or_default()
}

fn text(value: Value, name: &str) -> Result<String, Problem> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(input::wrong_type(name, "a string", &other)),
    }
}

fn answer(body: &Value) -> Answer {
    let mut answer = Answer::new(body.to_string().into());
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    answer
}
