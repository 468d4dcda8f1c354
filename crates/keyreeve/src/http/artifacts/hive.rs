//! The statuses and bodies of the CDN of GraphQL Hive.

use http::header::LOCATION;
use http::request::Parts as Head;
use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::super::problem::{Answer, NOT_IMPLEMENTED, Problem};
use super::{Refusal, plain};

/// What every error says at its end, its space included.
const DESCRIPTION: &str =
    "Please refer to the documentation for more details: https://docs.graphql-hive.com/features/registry-usage ";

fn error(status: StatusCode, code: &str, error: &str) -> Answer {
    let body = json!({ "code": code, "error": error, "description": DESCRIPTION });
    plain(status, "application/json", body.to_string().into())
}

pub(super) fn text(status: StatusCode, text: &'static str) -> Answer {
    plain(status, "text/plain", text.into())
}

/// A path that is none, an artifact that is not there, or a method that is not `GET`.
pub(super) fn nothing() -> Answer {
    text(StatusCode::NOT_FOUND, "Not found.")
}

pub(super) fn no_target() -> Answer {
    error(StatusCode::BAD_REQUEST, "MISSING_TARGET_ID", "Missing Hive target ID in request params.")
}

pub(super) fn bad_type(kind: &str) -> Answer {
    error(StatusCode::BAD_REQUEST, "INVALID_ARTIFACT_TYPE", &format!("Invalid artifact type: \"{kind}\""))
}

pub(super) fn not_made() -> Problem {
    let hint = "ask for `sdl`, and make the introspection result from it";
    Problem::new(NOT_IMPLEMENTED, format!("introspection results are not made here\nhint: {hint}"))
}

/// Old clients ask for `schema`.
pub(super) fn moved(head: &Head) -> Answer {
    let whole = head.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    // A path of these characters is a header too.
    let location = HeaderValue::try_from(whole.replacen("/schema", "/services", 1));
    let mut answer = text(StatusCode::MOVED_PERMANENTLY, "Found.");
    if let Ok(location) = location {
        answer.headers_mut().insert(LOCATION, location);
    }
    answer
}

pub(super) fn refused(refusal: Refusal, target: &str, kind: &str, is_v0: bool) -> Result<Answer, Problem> {
    Ok(match refusal {
        Refusal::NoToken => {
            error(StatusCode::BAD_REQUEST, "MISSING_AUTH_KEY", "Hive CDN authentication key is missing")
        }
        Refusal::TwoTokens | Refusal::Denied(_) => {
            let text = "Hive CDN authentication key is invalid, or it does not match the requested target ID.";
            error(StatusCode::FORBIDDEN, "INVALID_AUTH_KEY", text)
        }
        Refusal::Absent if is_v0 => {
            // The type as it was asked for.
            let kind = if kind == "services" { "schema" } else { kind };
            let text = format!("Hive CDN was unable to find an artifact of type \"{kind}\" for target \"{target}\"");
            error(StatusCode::NOT_FOUND, "NOT_FOUND", &text)
        }
        Refusal::Absent => nothing(),
    })
}
