//! Routes that misbehave on purpose, so that `tests/worker` can see what one bad request does to the others.
//! Only in builds with the feature `testing`.

mod leaves;

use std::time::Duration;

use http::{Method, StatusCode};
use worker::{Context, Delay, Env, HttpRequest, Response};

/// How long `/testing/wait` takes: long enough to be in flight while another request panics.
const WAIT: Duration = Duration::from_millis(500);

/// Answers the routes below `/testing/`, and no others.
///
/// # Panics
/// On `/testing/panic` before, on `/testing/panic-later` after the first await. That is what these routes are for.
pub(crate) async fn misbehave(request: &HttpRequest, env: &Env, context: &Context) -> Option<worker::Result<Response>> {
    if let Some(answer) = leaves::answer(request, env, context).await {
        return Some(answer);
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/testing/panic") => fall_over(),
        (&Method::GET, "/testing/panic-later") => {
            Delay::from(Duration::from_millis(1)).await;
            fall_over()
        }
        (&Method::GET, "/testing/wait") => {
            Delay::from(WAIT).await;
            Some(super::answer(StatusCode::OK, r#"{"status":"waited"}"#))
        }
        _ => None,
    }
}

#[expect(clippy::panic, reason = "the test of what a panic does needs one")]
fn fall_over() -> ! {
    panic!("a deliberate panic")
}
