//! keyreeve's own way to refuse.

use super::super::problem::{FORBIDDEN, NOT_FOUND, Problem, UNAUTHENTICATED};
use super::Refusal;
use crate::access::Denied;

/// A path that is none.
pub(super) fn nothing() -> Problem {
    Problem::new(NOT_FOUND, "there is nothing at this path\nhint: artifacts are at `/artifacts/v1/TARGET/PATH`")
}

pub(super) fn refused(refusal: Refusal) -> Problem {
    const AGAIN: &str = "\nhint: get a new token, and send the request again";
    let unknown = |text: &str, why: &str| {
        let challenge = "Bearer error=\"invalid_token\"".to_owned();
        Problem::new(UNAUTHENTICATED, format!("{text}{AGAIN}")).challenging(challenge).because(why.to_owned())
    };
    match refusal {
        Refusal::NoToken => {
            let text = "this needs a token\nhint: send `Authorization: Bearer <token>`, or `X-Hive-CDN-Key: <token>`";
            Problem::new(UNAUTHENTICATED, text).challenging("Bearer".into())
        }
        Refusal::TwoTokens => Problem::new(UNAUTHENTICATED, "there is more than one token\nhint: send one, once")
            .challenging("Bearer error=\"invalid_request\"".into()),
        Refusal::Denied(Denied::OutOfScope(why)) => {
            let text = "the token does not allow this\nhint: who runs this service finds the reason in the log, under this request's id";
            Problem::new(FORBIDDEN, text).challenging("Bearer error=\"insufficient_scope\"".into()).because(why)
        }
        // Which of these it is, is nobody's business who has no token that is good.
        Refusal::Denied(denied) => unknown(denied.public(), &denied.to_string()),
        Refusal::Absent => Problem::new(NOT_FOUND, "there is no such artifact"),
    }
}
