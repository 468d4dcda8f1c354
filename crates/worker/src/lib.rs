//! keyreeve on Cloudflare Workers: the shared core behind the platform's events and bindings.

use http::{Method, StatusCode, header};
use worker::{Context, Env, HttpRequest, Response, ResponseBuilder, event};

pub mod engine;
pub mod fetch;
pub mod host;
mod js;
pub mod secrets;
#[cfg(feature = "testing")]
mod testing;
pub mod webcrypto;

/// Answers one HTTP request of an outside caller or of a service binding.
#[event(fetch)]
async fn fetch(request: HttpRequest, env: Env, context: Context) -> worker::Result<Response> {
    #[cfg(not(feature = "testing"))]
    let _ = (env, context);
    #[cfg(feature = "testing")]
    if let Some(answer) = testing::misbehave(&request, &env, &context).await {
        return answer;
    }
    match (request.method(), request.uri().path()) {
        (&Method::GET, "/livez") => answer(StatusCode::OK, r#"{"status":"alive"}"#),
        _ => answer(StatusCode::NOT_FOUND, r#"{"code":"no_such_route"}"#),
    }
}

/// One buffer, so that the platform sends its length.
fn answer(status: StatusCode, json: &str) -> worker::Result<Response> {
    let builder = ResponseBuilder::new().with_status(status.as_u16());
    Ok(builder.with_header(header::CONTENT_TYPE.as_str(), "application/json")?.fixed(json.as_bytes().to_vec()))
}
